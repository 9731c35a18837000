"""Anything at all as input: the state machine answers or fails as it says, and stays bounded."""

from __future__ import annotations

import itertools
from typing import Any

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.front import Limits
from etcd_pinwheel.server_stub.front.http2 import ConnectionFailed, Http2
from etcd_pinwheel.server_stub.front.request_head import RequestHead
from etcd_pinwheel.server_stub.front.stream import Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Recorder:
    """Streams that note their events, and answer as they end."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.running: list[object] = []
        self.http2 = Http2(self, Limits(max_concurrent_streams=50), lambda: 0.0)

    def new_stream(self, stream_id: int, head: RequestHead) -> Stream:
        self.events.append(("head", stream_id, head.path))
        return _Noted(stream_id, self)

    def on_ping_ack(self, data: bytes) -> None:
        self.events.append(("ping ack", data))

    def receive(self, *parts: bytes) -> str | None:
        """Feed parts; return what was wrong with them."""
        try:
            for part in parts:
                self.http2.receive(part)
        except ConnectionFailed as failure:
            return f"{failure.code.name}: {failure}"
        return None


class _Noted(Stream):
    __slots__ = ("_recorder", "data")

    def __init__(self, stream_id: int, recorder: Recorder) -> None:
        super().__init__(stream_id)
        self._recorder = recorder
        self.data = b""

    def on_data(self, data: bytes, ended: bool) -> None:
        self.data += data
        self._recorder.http2.credit(self)
        if ended:
            self._recorder.events.append(("whole", self.id, self.data))
            outbox = self._recorder.http2.outbox
            outbox.send_headers(self, b"\x88")
            outbox.send_data(self, self.data)
            outbox.send_trailers(self, b"\x88")

    def on_reset(self) -> None:
        self._recorder.events.append(("reset", self.id))


def conversation() -> list[bytes]:
    """What a client sends that uses a bit of everything."""
    encoder = hpack.Encoder()
    head = [(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), ("token", "x" * 30)]
    frames: list[Any] = [SettingsFrame(0, {4: 100, 5: 20_000})]
    for stream_id in range(1, 21, 2):
        block = encoder.encode([*head, ("n", str(stream_id % 4))])
        frames += [
            HeadersFrame(stream_id, block[:5]),
            ContinuationFrame(stream_id, block[5:], flags=["END_HEADERS"]),
            DataFrame(stream_id, b"some data " * stream_id),
            WindowUpdateFrame(stream_id, 50),
            PingFrame(0, b"12345678", flags=["ACK"]),
            DataFrame(stream_id, b"the end", flags=["END_STREAM"]),
        ]
        if stream_id % 3 == 0:
            frames.append(RstStreamFrame(stream_id, 8))
    frames.append(WindowUpdateFrame(0, 100_000))
    return [PREFACE, *(frame.serialize() for frame in frames)]


WHOLE = b"".join(conversation())


def hear(*parts: bytes) -> tuple[list[Any], bytes]:
    recorder = Recorder()
    assert recorder.receive(*parts) is None
    return recorder.events, recorder.http2.outbox.take()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=30))
def test_where_the_bytes_are_cut_makes_no_difference(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(WHOLE)]
    parts = [WHOLE[a:b] for a, b in itertools.pairwise(bounds)]
    assert hear(*parts) == hear(WHOLE)


def test_byte_by_byte() -> None:
    assert hear(*(WHOLE[at : at + 1] for at in range(len(WHOLE)))) == hear(WHOLE)


def check(recorder: Recorder) -> None:
    http2 = recorder.http2
    http2.outbox.take()
    assert len(http2.streams) <= 50
    assert len(http2._unread) <= 16_384 + 9
    for stream_id, stream in http2.streams.items():
        assert stream.id == stream_id
        assert not stream.local_closed


@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(-3, 3)),
        min_size=1,
        max_size=6,
    )
)
def test_damaged_conversations(damages: list[tuple[int, int, int]]) -> None:
    """Bytes changed, lost or put in: it is understood, or it fails in the one way it may."""
    data = bytearray(WHOLE)
    for at, byte, extent in damages:
        at = min(at, len(data) - 1)
        if extent > 0:
            data[at:at] = bytes((byte,)) * extent
        elif extent < 0:
            del data[at : at - extent]
        else:
            data[at] = byte
    recorder = Recorder()
    recorder.receive(bytes(data))
    check(recorder)


frames = st.builds(
    lambda kind, flags, stream_id, payload: (
        len(payload).to_bytes(3, "big")
        + bytes((kind, flags))
        + stream_id.to_bytes(4, "big")
        + payload
    ),
    st.integers(0, 11),
    st.integers(0, 255),
    st.integers(0, 9),
    st.one_of(
        st.binary(max_size=60),
        st.just(b"\x83\x86\x84"),
        st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big")),
    ),
)


@given(st.lists(st.one_of(frames, st.sampled_from(conversation()[1:])), max_size=40))
def test_random_frames(parts: list[bytes]) -> None:
    recorder = Recorder()
    recorder.receive(PREFACE, SettingsFrame(0, {}).serialize(), *parts)
    check(recorder)


@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    for begin in (b"", PREFACE, PREFACE + SettingsFrame(0, {}).serialize()):
        recorder = Recorder()
        recorder.receive(begin + data)
        check(recorder)
