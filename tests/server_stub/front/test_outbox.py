"""What leaves when: frames, windows and turns, without a connection."""

from __future__ import annotations

from hyperframe.frame import DataFrame, Frame

from etcd_pinwheel.server_stub.front.frames import DEFAULT_WINDOW
from etcd_pinwheel.server_stub.front.outbox import Outbox
from etcd_pinwheel.server_stub.front.stream import Stream


def opened(outbox: Outbox, streams: dict[int, Stream], *ids: int) -> list[Stream]:
    for stream_id in ids:
        streams[stream_id] = Stream(stream_id)
        outbox.open(streams[stream_id])
    return [streams[stream_id] for stream_id in ids]


def sent(outbox: Outbox) -> list[tuple[int, int]]:
    """(stream, size) of the data frames that leave now."""
    wire = memoryview(outbox.take())
    frames = []
    while wire:
        frame, length = Frame.parse_frame_header(wire[:9])
        frame.parse_body(wire[9 : 9 + length])
        wire = wire[9 + length :]
        if isinstance(frame, DataFrame):
            frames.append((frame.stream_id, len(frame.data)))
    return frames


def test_nobody_passes_those_who_wait() -> None:
    """What fits into a window that has just grown still queues behind what waits for it."""
    streams: dict[int, Stream] = {}
    outbox = Outbox(streams)
    first, second = opened(outbox, streams, 1, 3)
    first.send_window = DEFAULT_WINDOW + 100
    outbox.send_data(first, bytes(DEFAULT_WINDOW + 10))
    while sent(outbox):
        pass
    outbox.widen(10)
    outbox.send_data(second, b"0123456789")
    assert sent(outbox) == [(1, 10)]
    outbox.widen(10)
    assert sent(outbox) == [(3, 10)]


def test_streams_take_turns_frame_by_frame() -> None:
    streams: dict[int, Stream] = {}
    outbox = Outbox(streams)
    outbox.writable = False
    for stream in opened(outbox, streams, 1, 3, 5):
        outbox.send_data(stream, bytes(20_000))
    assert sent(outbox) == []
    outbox.writable = True
    assert sent(outbox) == [
        (1, 16_384),
        (3, 16_384),
        (5, 16_384),
        (1, 3_616),
        (3, 3_616),
        (5, 3_616),
    ]


def test_one_write_carries_only_so_much() -> None:
    streams: dict[int, Stream] = {}
    outbox = Outbox(streams)
    outbox.widen(10_000_000)
    [stream] = opened(outbox, streams, 1)
    stream.send_window = 10_000_000
    outbox.send_data(stream, bytes(1_000_000))
    sizes = []
    while outbox.has_more:
        sizes.append(sum(size for _, size in sent(outbox)))
    assert sum(sizes) == 1_000_000
    assert max(sizes) < 100_000


def test_a_shrunken_window_holds_back_what_was_queued() -> None:
    streams: dict[int, Stream] = {}
    outbox = Outbox(streams)
    outbox.writable = False
    [stream] = opened(outbox, streams, 1)
    outbox.send_data(stream, bytes(1000))
    outbox.set_initial_window(0)
    outbox.writable = True
    assert sent(outbox) == []
    outbox.widen_stream(stream, 300)
    assert sent(outbox) == [(1, 300)]


def test_what_was_reset_leaves_nothing() -> None:
    streams: dict[int, Stream] = {}
    outbox = Outbox(streams)
    outbox.writable = False
    [stream] = opened(outbox, streams, 1)
    outbox.send_data(stream, b"data")
    outbox.send_trailers(stream, b"\x88")
    outbox.forget(stream)
    outbox.writable = True
    outbox.send_data(stream, b"more")
    assert outbox.take() == b""
    assert not streams
