"""The same port, with TLS: what is spoken is agreed on by ALPN."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import sign

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    signed = sign(tmp_path_factory.mktemp("tls"), "localhost", dns="localhost")
    return signed.certificate_file, signed.key_file


@pytest.fixture
async def served(serve: Any, certificate: tuple[Path, Path]) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return await serve(ssl=context)


@pytest.fixture
def client_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[0])


async def test_grpcio(served: Any, certificate: tuple[Path, Path]) -> None:
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    target = f"localhost:{served.port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        put = channel.unary_unary(
            rpcs.KV_PUT.path, rpcs.KV_PUT.request.SerializeToString, rpcs.KV_PUT.reply.FromString
        )
        for size in (1, 100_000, 2_000_000):
            reply = await put(pb.PutRequest(key=b"k", value=bytes(size)), timeout=20)
            assert len(reply.prev_kv.value) == size


@pytest.mark.parametrize("alpn", [["http/1.1"], ["http/1.1", "http/1.0"], []])
async def test_http1(served: Any, client_context: ssl.SSLContext, alpn: list[str]) -> None:
    if alpn:
        client_context.set_alpn_protocols(alpn)
    reader, writer = await asyncio.open_connection(
        served.host, served.port, ssl=client_context, server_hostname="localhost"
    )
    writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"GET /hello {} 0")
    writer.close()


@pytest.mark.parametrize("alpn", [["h2"], ["http/1.1", "h2"], []])
async def test_http2_by_alpn_or_by_its_first_bytes(
    served: Any, client_context: ssl.SSLContext, alpn: list[str]
) -> None:
    if alpn:
        client_context.set_alpn_protocols(alpn)
    reader, writer = await asyncio.open_connection(
        served.host, served.port, ssl=client_context, server_hostname="localhost"
    )
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    head = await asyncio.wait_for(reader.readexactly(9), 20)
    assert head[3] == 4
    writer.close()


async def test_h2_agreed_on_and_not_spoken(served: Any, client_context: ssl.SSLContext) -> None:
    client_context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        served.host, served.port, ssl=client_context, server_hostname="localhost"
    )
    writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert b"no HTTP/2 preface" in answer
    writer.close()


async def test_plain_text_on_a_tls_port(served: Any) -> None:
    reader, writer = await asyncio.open_connection(served.host, served.port)
    writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    with_answer = await asyncio.wait_for(reader.read(), 20)
    assert b"200" not in with_answer
    writer.close()


async def test_shutdown_ends_tls_connections(served: Any, certificate: tuple[Path, Path]) -> None:
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    target = f"localhost:{served.port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        put = channel.unary_unary(rpcs.KV_PUT.path, rpcs.KV_PUT.request.SerializeToString)
        call = put(pb.PutRequest(key=b"!wait"))
        await served.services.until(lambda: len(served.services.requests) == 1)
        closing = asyncio.create_task(served.front.close(60))
        served.services.go_on.set()
        await call
        await asyncio.wait_for(closing, 20)
    assert not served.front._serving.connections
