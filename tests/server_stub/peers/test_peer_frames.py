"""Frames and the queue before the socket: plain objects, no socket."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.peers.frames import BadFrame, FrameReader, Kind, framed
from etcd_pinwheel.server_stub.peers.send_queue import SendQueue

frames = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=40)), max_size=8)


@given(frames, st.lists(st.integers(1, 30), min_size=1))
def test_frames_arrive_however_they_are_cut(
    sent: list[tuple[Kind, bytes]], steps: list[int]
) -> None:
    data = b"".join(part for kind, payload in sent for part in framed(kind, payload))
    reader = FrameReader(40)
    arrived: list[tuple[int, bytes]] = []
    start = 0
    for turn in range(len(data) + 1):
        step = steps[turn % len(steps)]
        arrived += reader.feed(data[start : start + step])
        start += step
    assert arrived == sent


def test_parts_of_a_frame_count_together() -> None:
    assert b"".join(framed(Kind.CHUNK, b"ab", b"", b"c")) == b"\0\0\0\3\x09abc"


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_are_refused(data: bytes) -> None:
    reader = FrameReader(64)
    with suppress(BadFrame):
        assert all(len(payload) <= 64 for _, payload in reader.feed(data))
    assert len(reader._rest) < 64 + 5


def test_a_frame_too_large_is_refused_by_its_head() -> None:
    assert FrameReader(10).feed(b"\0\0\0\x0a\1" + bytes(10)) == [(1, bytes(10))]
    with pytest.raises(BadFrame, match="a frame of 11 bytes, above 10"):
        FrameReader(10).feed(b"\0\0\0\x0b\1")


@given(
    st.lists(st.integers(0, 12) | st.none()),
    st.integers(1, 5),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_the_queue_keeps_its_bounds_and_its_order(
    steps: list[int | None], max_frames: int, max_bytes: int, at_once: int
) -> None:
    """A number offers a frame of that size, None takes."""
    queue = SendQueue(max_frames, max_bytes)
    waiting: list[bytes] = []
    for number, step in enumerate(steps):
        if step is None:
            taken = queue.take(at_once)
            assert taken == waiting[: len(taken)]
            assert bool(taken) == bool(waiting)
            assert len(taken) == 1 or sum(map(len, taken)) <= at_once
            del waiting[: len(taken)]
        else:
            frame = bytes([number % 256]) * step
            fits = len(waiting) < max_frames and sum(map(len, waiting)) + step <= max_bytes
            accepted = queue.offer([frame])
            assert accepted == (fits or not waiting)
            waiting += [frame] * accepted
        assert queue.bytes == sum(map(len, waiting))
        assert len(queue) == len(waiting)
    assert queue.clear() == len(waiting)
    assert not queue
    assert queue.bytes == 0
