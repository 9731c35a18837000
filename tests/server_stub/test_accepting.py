"""Connections that come at the very moment in which accepting ends: none is lost or left open."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import sys
from pathlib import Path

import pytest
from certificates import sign
from inprocess.served import PATIENCE_SECONDS, until
from inprocess.sockets import caller, is_over, nothing_left_open

from etcd_pinwheel.server_stub.accepting import (
    Acceptor,
    ProtocolServer,
    bind,
    descriptors_for_clients,
)


class Noted(asyncio.Protocol):
    """A protocol that is counted while it is connected."""

    def __init__(self, connected: set[Noted]) -> None:
        self._connected = connected
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._connected.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connected.discard(self)


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> ssl.SSLContext | None:
    if request.param == "plain":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signed = sign(tmp_path, "server")
    context.load_cert_chain(signed.certificate_file, signed.key_file)
    return context


@pytest.mark.parametrize("turns", range(7))
async def test_closed_while_a_connection_arrives(turns: int, tls: ssl.SSLContext | None) -> None:
    """Whatever turn of the loop it is: it is dropped, or it is its protocol's."""
    connected: set[Noted] = set()
    with nothing_left_open():
        server = ProtocolServer(lambda: Noted(connected))
        listener = await bind("127.0.0.1", 0)
        server.serve(listener, tls)
        connection = caller(listener.getsockname())
        for _ in range(turns):
            await asyncio.sleep(0)
        begun = set(connected)
        await asyncio.wait_for(server.close(), PATIENCE_SECONDS)
        assert connected <= begun
        for each in begun:
            assert each.transport is not None
            each.transport.close()
        assert await is_over(connection)
        connection.close()
        assert not connected
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_every_connection_gets_its_protocol() -> None:
    """A hundred that come at once, and one that has gone before it is looked at."""
    connected: set[Noted] = set()
    server = ProtocolServer(lambda: Noted(connected))
    listener = await bind("127.0.0.1", 0)
    server.serve(listener)
    caller(listener.getsockname()).close()
    callers = [caller(listener.getsockname()) for _ in range(100)]
    await until(lambda: len(connected) >= 100)
    await server.close()
    for each in callers:
        each.close()
    await until(lambda: not connected)


async def test_out_of_sockets(caplog: pytest.LogCaptureFixture) -> None:
    """It says so once, and accepts again when there are some."""
    received: list[socket.socket] = []
    acceptor = Acceptor(lambda accepted, _, __: received.append(accepted))
    listener = await bind("127.0.0.1", 0)
    acceptor.add(listener)
    waiting = caller(listener.getsockname())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await until(lambda: bool(caplog.messages))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: bool(received))
    host, port = listener.getsockname()
    assert caplog.messages == [
        f"cannot accept connections at {host}:{port}: [Errno 24] Too many open files"
    ]
    acceptor.close()
    for each in (waiting, *received):
        each.close()


async def test_the_last_descriptors_are_not_for_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who comes too late is turned away; who comes when somebody has gone is not."""
    connected: set[Noted] = set()
    limits = iter([sys.maxsize] * 3 + [0] * 97 + [sys.maxsize])
    server = ProtocolServer(lambda: Noted(connected), lambda: next(limits))
    listener = await bind("127.0.0.1", 0)
    host, port = listener.getsockname()
    with nothing_left_open():
        callers = [caller((host, port)) for _ in range(100)]  # more than one turn accepts
        server.serve(listener)
        for each in callers[3:]:
            assert await is_over(each)
        await until(lambda: len(connected) == 3)
        assert caplog.messages == [
            f"closed a connection at {host}:{port} at once: there are too many"
        ]
        callers.pop(0).close()
        await until(lambda: len(connected) == 2)
        callers.append(caller((host, port)))
        await until(lambda: len(connected) == 3)
        await server.close()
        for each in callers:
            each.close()
        await until(lambda: not connected)


@pytest.mark.parametrize(
    ("limit", "for_clients"),
    [(65536, 65386), (1024, 874), (600, 450), (256, 192), (80, 60), (resource.RLIM_INFINITY, None)],
)
def test_how_many_descriptors_are_for_clients(
    limit: int, for_clients: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert descriptors_for_clients() == (sys.maxsize if for_clients is None else for_clients)
