"""A load generator that leaves the machine to the server: gRPC's frames, written by hand.

A Python client spends as much on a call as a server does, so a server measured by one is measured
together with it. This one knows one unary RPC at a time: requests are made beforehand, an answer
is recognised by its frames, and a call costs it a few microseconds. It is a yardstick and no
client: it sends no deadline, honours flow control by staying far below it, and gives up (loudly)
on whatever it does not expect.

Speaks the turns of :mod:`benchmarks.throughput.worker`: ``python -m benchmarks.throughput.wire
HOST:PORT``.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from hpack import Decoder, Encoder

from benchmarks.throughput.worker import KEYS, VALUE, Tally, finished, keys_from, say, turns
from etcd_pinwheel.protos.etcdserverpb import PutRequest, RangeRequest
from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE

CONNECTIONS = 4
"""The callers are spread over so many, as a few client processes would spread them."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
WINDOW = 2**31 - 1
"""What we let the server send unasked; a turn never gets near it."""
HEAD = struct.Struct(">HBBBI")
"""A frame's head: length (16 + 8 bits), type, flags, stream."""
SERIALIZABLE_GET = "serializable get"
PATHS = {
    "put": KV_PUT.path,
    "get": KV_RANGE.path,
    SERIALIZABLE_GET: KV_RANGE.path,
    "echo": "/benchmarks.Echo/Empty",
}
LEAST_REPLY_BYTES = {"put": 5, "get": len(VALUE), SERIALIZABLE_GET: len(VALUE), "echo": 5}
"""The shortest message that can be an answer to the operation."""


class Unexpected(Exception):
    """The server did something that a turn cannot be measured with."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def requests(operation: str) -> Iterator[bytes]:
    """Make the messages of an operation, length-prefixed, one for each key."""
    for key in KEYS:
        message = b""
        if operation == "put":
            message = PutRequest(key=key, value=VALUE).SerializeToString()
        elif operation == "get":
            message = RangeRequest(key=key).SerializeToString()
        elif operation == SERIALIZABLE_GET:
            message = RangeRequest(key=key, serializable=True).SerializeToString()
        yield b"\0" + struct.pack(">I", len(message)) + message


@dataclass(slots=True)
class Trailers:
    """Reads header blocks; remembers what a block meant for as long as HPACK's table is still."""

    decoder: Decoder = field(default_factory=Decoder)
    known: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)

    def read(self, block: bytes) -> dict[bytes, bytes]:
        if (headers := self.known.get(block)) is not None:
            return headers
        before = list(self.decoder.header_table.dynamic_entries)
        headers = dict(self.decoder.decode(block, raw=True))
        if list(self.decoder.header_table.dynamic_entries) != before:
            self.known.clear()
        else:
            self.known[block] = headers
        return headers


class Connection:
    """One connection with so many calls in flight, until its turn is over."""

    def __init__(self, target: str, operation: str, callers: range, callers_in_all: int) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=5.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.calls = 0
        self.in_flight = 0
        self.reply_bytes = 0
        self.stopping = False
        self.latencies_seconds: list[float] = []
        self._sent_at: dict[int, float] = {}
        self._least_reply_bytes = LEAST_REPLY_BYTES[operation]
        messages = dict(zip(KEYS, requests(operation), strict=True))
        self._messages = (messages[key] for key in keys_from(callers.start, callers_in_all))
        self._trailers = Trailers()
        self._next_stream = 1
        self._unread = b""
        # Sent first, with incremental indexing; later requests repeat the indexed form.
        encoder = Encoder()
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", PATHS[operation]),
            (":authority", target),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self._head = encoder.encode(head, huffman=False)
        hello = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WINDOW))
        hello += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535))
        first = self._request()
        self._head = encoder.encode(head, huffman=False)
        self.socket.sendall(hello + first + b"".join(self._request() for _ in callers[1:]))

    def _request(self) -> bytes:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self.in_flight += 1
        self._sent_at[stream] = time.perf_counter()
        return frame(HEADERS, END_HEADERS, stream, self._head) + frame(
            DATA, END_STREAM, stream, next(self._messages)
        )

    def ready(self) -> None:
        """Read what has come, and send a request for every answer in it."""
        came = self.socket.recv(1 << 18)
        if not came:
            raise Unexpected("the server closed the connection")
        answers, control = self._read(self._unread + came)
        self.in_flight -= answers
        self.calls += answers
        requests = () if self.stopping else (self._request() for _ in range(answers))
        if sending := b"".join((*control, *requests)):
            self.socket.sendall(sending)

    def _read(self, data: bytes) -> tuple[int, list[bytes]]:
        """Count the answers among the frames; return also what must be said back."""
        at, end, answers, now = 0, len(data), 0, time.perf_counter()
        control: list[bytes] = []
        while at + 9 <= end:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            after = at + 9 + (high << 8 | low)
            if after > end:
                break
            if kind == DATA:
                self.reply_bytes += after - at - 9
            elif kind == HEADERS:
                if self._headers(data[at + 9 : after], flags):
                    answers += 1
                    self.latencies_seconds.append(now - self._sent_at.pop(stream))
            elif kind in (PING, SETTINGS) and not flags & ACK:
                control.append(frame(kind, ACK, 0, data[at + 9 : after] if kind == PING else b""))
            elif kind in (RST_STREAM, GOAWAY):
                raise Unexpected(f"frame of type {kind}: {data[at + 9 : after]!r}")
            at = after
        self._unread = data[at:]
        return answers, control

    def _headers(self, block: bytes, flags: int) -> bool:
        headers = self._trailers.read(block)
        if not flags & END_HEADERS:
            raise Unexpected("headers that go on in another frame")
        if not flags & END_STREAM:
            return False
        if headers.get(b"grpc-status") != b"0":
            raise Unexpected(f"the call failed: {headers}")
        return True

    def check(self) -> None:
        """Raise Unexpected if the answers were too short to be answers."""
        if self.reply_bytes < self.calls * self._least_reply_bytes:
            raise Unexpected(f"{self.calls} answers in {self.reply_bytes} bytes")


def take_turn(target: str, operation: str, callers: int, seconds: float) -> Tally:
    """Keep so many calls in flight for so long; each caller makes one call at least."""
    tally = Tally()
    share = max(1, callers // CONNECTIONS)
    connections: list[Connection] = []
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        with selectors.DefaultSelector() as selector:
            for first in range(0, callers, share):
                mine = range(first, min(first + share, callers))
                connection = Connection(target, operation, mine, callers)
                connections.append(connection)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            pump(selector, connections, began + seconds)
        for connection in connections:
            connection.check()
    except (Unexpected, OSError) as error:
        tally.fail(error)
    finally:
        for connection in connections:
            connection.socket.close()
    latencies = sorted(each for one in connections for each in one.latencies_seconds)
    if latencies:
        tally.p50_ms = latencies[len(latencies) // 2] * 1e3
        tally.p99_ms = latencies[len(latencies) * 99 // 100] * 1e3
    return finished(tally, sum(each.calls for each in connections), began, cpu_began)


def pump(selector: selectors.BaseSelector, connections: list[Connection], until: float) -> None:
    """Serve the connections until the time has come and their last calls are answered."""
    while any(connection.in_flight for connection in connections):
        ready = selector.select(timeout=5.0)
        if not ready:
            raise Unexpected("no answer for 5 seconds")
        stopping = time.perf_counter() >= until
        for key, _events in ready:
            key.data.stopping = stopping
            key.data.ready()


def main() -> None:
    target = sys.argv[1]
    say(ready=True, releases={})
    for turn in turns():
        say(**asdict(take_turn(target, turn["operation"], turn["callers"], turn["seconds"])))


if __name__ == "__main__":
    main()
