"""An HTTP/2 server that follows a script, frame by frame, and counts the requests it received.

What a gRPC server would never do, and what it does only in a moment that nobody can hit, this one
does to every connection and every request: a :class:`Script` says what.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from hpack import Decoder, Encoder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE_BYTES: Final = 24
MAX_STREAM_ID: Final = 2**31 - 1
REFUSED_STREAM: Final = 7

Frames = Callable[[int], bytes]
"""What to say to the request of a stream."""
End = Callable[[socket.socket], None]


def frame(kind: int, stream_id: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
    return head + struct.pack(">I", stream_id) + payload


def goaway(last_stream_id: int | None, code: int = 0, text: bytes = b"") -> Frames:
    """Streams after the last are not looked at; None: after the one that asks."""

    def make(stream_id: int) -> bytes:
        last = stream_id if last_stream_id is None else last_stream_id
        return frame(GOAWAY, 0, struct.pack(">II", last, code) + text)

    return make


def reset(code: int) -> Frames:
    return lambda stream_id: frame(RST_STREAM, stream_id, struct.pack(">I", code))


def headers(*fields: tuple[str, str], ended: bool = False) -> Frames:
    """A block of headers; never indexed, so that it means the same on every connection."""
    flags = END_HEADERS | (END_STREAM if ended else 0)
    return lambda stream_id: frame(HEADERS, stream_id, Encoder().encode(list(fields)), flags)


OK = (":status", "200"), ("content-type", "application/grpc")


def refusal(code: int, text: str) -> Frames:
    """An answer of a gRPC server that is nothing but a status."""
    return headers(*OK, ("grpc-status", str(code)), ("grpc-message", text), ended=True)


def an_empty_message(stream_id: int) -> bytes:
    return frame(DATA, stream_id, bytes(5))


def answer(stream_id: int) -> bytes:
    """An empty message and the status OK."""
    parts = (headers(*OK), an_empty_message, headers(("grpc-status", "0"), ended=True))
    return b"".join(part(stream_id) for part in parts)


def hang_up(connection: socket.socket) -> None:
    """End the connection in good order."""
    connection.shutdown(socket.SHUT_RDWR)


def cut(connection: socket.socket) -> None:
    """End the connection by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stay(connection: socket.socket) -> None:
    """Leave the connection as it is."""


@dataclass(frozen=True)
class Script:
    """What the server does, to every connection and every request."""

    says: tuple[Frames, ...] = ()
    """In answer to a request that has come in whole."""
    then: End = stay
    greets: bool = True
    """Whether it says first what every server of HTTP/2 says, its settings."""
    at_first: End = stay
    """What it does to a connection before it has read any request; the end, unless ``stay``."""
    except_first: tuple[Frames, ...] | None = None
    """What it says to the first request instead; None: no exception."""


class ScriptedServer:
    """The server; made by :func:`scripted`."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._closed = False
        self.received: Counter[str] = Counter()
        """How many requests came in, by the path of the RPC."""
        self.arrived = threading.Event()
        """Set when a request has come in."""
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        with self._lock:
            self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError, EOFError):
            if self._script.greets:
                connection.sendall(frame(SETTINGS))
            if self._script.at_first is not stay:
                self._script.at_first(connection)
                return
            _read(connection, PREFACE_BYTES)
            self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        decoder, paths = Decoder(), {}
        while True:
            head = _read(connection, 9)
            kind, flags = head[3], head[4]
            stream_id = int.from_bytes(head[5:], "big")
            payload = _read(connection, int.from_bytes(head[:3], "big"))
            if kind == SETTINGS and not flags & ACK and self._script.greets:
                connection.sendall(frame(SETTINGS, flags=ACK))
            elif kind == PING and not flags & ACK and self._script.greets:
                connection.sendall(frame(PING, payload=payload, flags=ACK))
            elif kind == HEADERS:
                paths[stream_id] = dict(decoder.decode(payload))[":path"]
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self._take(connection, stream_id, paths[stream_id])

    def _take(self, connection: socket.socket, stream_id: int, path: str) -> None:
        with self._lock:
            first = not self.received
            self.received[path] += 1
        self.arrived.set()
        exception = self._script.except_first
        says = exception if first and exception is not None else self._script.says
        connection.sendall(b"".join(each(stream_id) for each in says))
        if says is self._script.says:
            self._script.then(connection)


def _read(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            raise EOFError
        received += more
    return received


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedServer]:
    """A server that follows the script, within a ``with``."""
    server = ScriptedServer(script)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def black_hole() -> Iterator[str]:
    """An endpoint whose connections are never made: its queue is full, so that SYNs are dropped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for caller in callers:
                caller.close()
