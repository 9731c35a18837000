"""What a proxy does to connections: everything, except to lose bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from etcd_pinwheel.server_stub.local import FaultProxy

PATIENCE_SECONDS = 20.0
SILENCE_SECONDS = 0.1
"""How long nothing must come for it to count as held."""


@pytest.fixture
def proxy(echo: Any) -> Iterator[FaultProxy]:
    threads = threading.active_count()
    with FaultProxy(f"127.0.0.1:{echo.port}") as proxy:
        yield proxy
    assert threading.active_count() <= threads + 2  # the server's own


def connected(proxy: FaultProxy) -> socket.socket:
    host, _, port = proxy.endpoint.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)


def read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (block := connection.recv(count - len(data))):
        data += block
    return data


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_SECONDS)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE_SECONDS)
    return False


def test_bytes_go_both_ways(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"hello")
        assert read(client, 5) == b"hello"
    assert proxy.accepted == 1
    assert proxy.client_bytes == 5


@pytest.mark.slow
def test_much_more_than_buffers_hold(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * (1 << 16)
    with connected(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        assert read(client, len(data)) == data
        sender.join()


def test_the_end_of_a_stream_is_told(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 100) == b"last words"


def test_what_is_stalled_comes_later(proxy: FaultProxy, echo: Any) -> None:
    with connected(proxy) as old:
        old.sendall(b"1")
        assert read(old, 1) == b"1"
        proxy.stall()
        old.sendall(b"2")
        with connected(proxy) as new:
            new.sendall(b"3")
            assert is_silent(old)
            assert is_silent(new)
            assert echo.received == b"1"
            proxy.heal()
            assert read(old, 1) == b"2"
            assert read(new, 1) == b"3"


def test_the_end_of_a_stalled_stream_is_told_later(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"1")
        assert read(client, 1) == b"1"
        proxy.stall()
        client.sendall(b"2")
        client.shutdown(socket.SHUT_WR)
        assert is_silent(client)
        proxy.heal()
        assert read(client, 100) == b"2"


def test_a_cut_resets_what_there_is(proxy: FaultProxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"1")
        assert read(client, 1) == b"1"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(proxy) as client:
        client.sendall(b"2")
        assert read(client, 1) == b"2"


def test_nobody_is_accepted_until_it_heals(proxy: FaultProxy) -> None:
    before = proxy.endpoint
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.heal()
    assert proxy.endpoint == before
    with connected(proxy) as client:
        client.sendall(b"1")
        assert read(client, 1) == b"1"


def test_a_target_that_is_not_there_resets(proxy: FaultProxy, echo: Any) -> None:
    echo.close()
    with pytest.raises(ConnectionResetError), connected(proxy) as client:  # even while it connects
        client.recv(1)


def test_nothing_stays_open(echo: Any) -> None:
    with FaultProxy(f"127.0.0.1:{echo.port}") as proxy, connected(proxy) as client:
        client.sendall(b"1")
        assert read(client, 1) == b"1"
        proxy.stall()
        client.sendall(b"2")
        endpoint = proxy.endpoint
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        host, _, port = endpoint.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
