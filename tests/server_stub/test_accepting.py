"""Connections that come at the very moment in which accepting ends: none is lost or left open."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from pathlib import Path

import pytest
from certificates import sign
from inprocess.served import PATIENCE_SECONDS, until
from inprocess.sockets import caller, is_over, nothing_left_open

from etcd_pinwheel.server_stub.accepting import Acceptor, ProtocolServer, bind


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
