"""Who reaches whom between members, and how a caller is recognised."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from etcd_pinwheel.server_stub.local.callers import UNKNOWN, caller_id, owner_of_port
from etcd_pinwheel.server_stub.local.loop_thread import LoopThread
from etcd_pinwheel.server_stub.local.network import Network
from etcd_pinwheel.server_stub.peers.greeting import Channel, Hello

A, B, C = 0xA, 0xB, 0xC
PATIENCE_SECONDS = 20.0
SILENCE_SECONDS = 0.1


def hello(sender: int) -> bytes:
    return Hello(Channel.CONTROL, 1, sender, B).encode()


def stream(sender: int) -> bytes:
    return (
        b"GET /raft/stream/msgapp/b HTTP/1.1\r\nHost: h\r\nX-Raft-To: b\r\n"
        b"X-Server-From: %x\r\nX-Server-Version: 3.5.1\r\n\r\n" % sender
    )


PROBE = b"GET /raft/probing HTTP/1.1\r\nHost: somewhere.example:2380\r\n\r\n"


class TestCallers:
    @pytest.mark.parametrize("first", [hello(A), stream(A)])
    def test_say_who_they_are(self, first: bytes) -> None:
        for end in range(len(first)):
            assert caller_id(first[:end]) is None
        assert caller_id(first) == A
        assert caller_id(first + b"and more") == A

    @pytest.mark.parametrize(
        "first",
        [
            PROBE,
            b"\x16\x03\x01" + bytes(100),
            b"GET /" + b"x" * 20_000,
            hello(A)[:-1] + b"\0",
        ],
    )
    def test_may_not_say_it(self, first: bytes) -> None:
        assert caller_id(first) == UNKNOWN

    def test_are_known_by_their_process_too(self) -> None:
        if not os.path.exists("/proc/net/tcp"):
            pytest.skip("only Linux tells")
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            port = client.getsockname()[1]
            assert owner_of_port(port, [1 << 30, os.getpid()]) == os.getpid()
            assert owner_of_port(port, [1 << 30]) is None


class Between:
    """A network before the echoing member b, which a, c and strangers call."""

    def __init__(self, network: Network, port: int) -> None:
        self.network = network
        self._port = port
        self._open: list[socket.socket] = []

    def call(self, first: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS)
        self._open.append(connection)
        connection.sendall(first)
        return connection

    def close(self) -> None:
        for each in self._open:
            each.close()


@pytest.fixture
def between(echo: Any) -> Iterator[Between]:
    loop = LoopThread("network")
    network = Network(loop, lambda: {A: "a", B: "b", C: "c"}, dict)
    between = Between(network, network.add("b", echo.port))
    for name in ("a", "c"):
        network.add(name, 1)
    yield between
    between.close()
    network.close()
    loop.close()


def assert_answers(connection: socket.socket, said: bytes) -> None:
    data = b""
    while len(data) < len(said):
        block = connection.recv(len(said) - len(data))
        assert block
        data += block
    assert data == said


def assert_silent(connection: socket.socket) -> None:
    connection.settimeout(SILENCE_SECONDS)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(PATIENCE_SECONDS)


@pytest.mark.parametrize("greet", [hello, stream])
class TestNetwork:
    def test_lets_through(self, between: Between, greet: Any) -> None:
        assert_answers(between.call(greet(A)), greet(A))
        assert between.network.bytes_sent("a", "b") == len(greet(A))
        assert between.network.bytes_sent("b", "a") == len(greet(A))

    def test_cuts_one_way_there(self, between: Between, echo: Any, greet: Any) -> None:
        old = between.call(greet(A))
        assert_answers(old, greet(A))
        between.network.cut([("a", "b")])
        received = echo.received
        old.sendall(b"old")
        new = between.call(greet(A))
        assert_silent(old)
        assert_silent(new)
        assert echo.received == received
        assert_answers(between.call(greet(C)), greet(C))
        between.network.heal()
        assert_answers(old, b"old")
        assert_answers(new, greet(A))

    def test_cuts_one_way_back(self, between: Between, echo: Any, greet: Any) -> None:
        old = between.call(greet(A))
        assert_answers(old, greet(A))
        between.network.cut([("b", "a")])
        old.sendall(b"old")
        new = between.call(greet(A))
        assert_silent(old)
        assert_silent(new)
        assert echo.received.count(greet(A)) == 2
        assert b"old" in echo.received
        between.network.heal()
        assert_answers(old, b"old")
        assert_answers(new, greet(A))

    def test_resets(self, between: Between, greet: Any) -> None:
        old = between.call(greet(A))
        assert_answers(old, greet(A))
        between.network.cut([("a", "b"), ("b", "a")], resets=True)
        new = between.call(greet(A))
        for each in (old, new):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
        assert_answers(between.call(greet(C)), greet(C))
        between.network.heal()
        assert_answers(between.call(greet(A)), greet(A))

    def test_adds_one_cut_to_another(self, between: Between, greet: Any) -> None:
        between.network.cut([("a", "b")])
        between.network.cut([("c", "b")])
        from_a, from_c = between.call(greet(A)), between.call(greet(C))
        assert_silent(from_a)
        assert_silent(from_c)
        between.network.heal()
        assert_answers(from_a, greet(A))
        assert_answers(from_c, greet(C))

    def test_counts_what_was_sent_before(self, between: Between, greet: Any) -> None:
        for _ in range(2):
            connection = between.call(greet(A))
            assert_answers(connection, greet(A))
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        assert between.network.bytes_sent("a", "b") == 2 * len(greet(A))


def test_a_stranger_is_cut_off_from_whom_all_are_cut_off(between: Between) -> None:
    between.network.cut([("a", "b"), ("b", "a")])
    known = between.call(PROBE)
    assert_answers(known, PROBE)
    between.network.cut([("c", "b")])
    known.sendall(b"more")
    assert_silent(known)
    between.network.heal()
    assert_answers(known, b"more")


def test_a_stranger_is_known_by_its_process(echo: Any) -> None:
    if not os.path.exists("/proc/net/tcp"):
        pytest.skip("only Linux tells")
    loop = LoopThread("network")
    network = Network(loop, dict, lambda: {os.getpid(): "a"})
    between = Between(network, network.add("b", echo.port))
    network.add("c", 1)
    network.cut([("a", "b")])
    connection = between.call(PROBE)
    assert_silent(connection)
    network.heal()
    assert_answers(connection, PROBE)
    between.close()
    network.close()
    loop.close()
