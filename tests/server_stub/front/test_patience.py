"""Floods and pings, judged without a connection."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from etcd_pinwheel.server_stub.front import frames
from etcd_pinwheel.server_stub.front.frames import ErrorCode, Setting
from etcd_pinwheel.server_stub.front.http2 import ConnectionFailed, Http2
from etcd_pinwheel.server_stub.front.limits import Limits
from etcd_pinwheel.server_stub.front.patience import Patience, PingPolicy
from etcd_pinwheel.server_stub.front.request_head import RequestHead
from etcd_pinwheel.server_stub.front.stream import Stream


def test_patience_ends_with_the_burst() -> None:
    patience = Patience(0.0, burst=3, per_second=1.0)
    assert [patience.spend(0.0, 0) for _ in range(4)] == [True, True, True, False]


def test_what_takes_more_time_costs_more() -> None:
    patience = Patience(0.0, burst=10, per_second=1.0)
    assert [patience.spend(0.0, 0, tokens) for tokens in (4, 0, 6, 0, 1)] == [True] * 4 + [False]
    assert patience.spend(7.0, 0, 6)


def test_patience_comes_back_with_time() -> None:
    patience = Patience(0.0, burst=3, per_second=1.0)
    assert all(patience.spend(float(second), 0) for second in range(100))
    assert [patience.spend(1000.0, 0) for _ in range(4)] == [True, True, True, False]


def test_patience_comes_back_with_calls_that_end_well() -> None:
    patience = Patience(0.0, burst=3, per_second=1.0)
    assert all(patience.spend(0.0, completed) for completed in range(100))
    assert not all(patience.spend(0.0, 100) for _ in range(5))


class Unanswered:
    """Opens streams, and leaves it at that."""

    running: Collection[object] = ()

    def new_stream(self, stream_id: int, head: RequestHead) -> Stream:
        return Stream(stream_id)

    def on_ping_ack(self, data: bytes) -> None:
        raise AssertionError("no ping was sent")


def with_streams(count: int) -> Http2:
    """A connection with so many open streams, on a clock that stands still."""
    http2 = Http2(Unanswered(), Limits(), lambda: 0.0)
    http2.receive(frames.PREFACE + frames.settings({}))
    post = b"\x83\x86\x84"
    for stream_id in range(1, 2 * count, 2):
        head = frames.header(len(post), frames.HEADERS, frames.END_HEADERS, stream_id)
        http2.receive(head + post)
    return http2


def window(size: int) -> bytes:
    return frames.settings({Setting.INITIAL_WINDOW_SIZE: size})


def test_a_change_of_all_windows_is_paid_for_by_the_stream() -> None:
    """A burst of 10,000 pays for 99 changes of 6,400 windows, and for the connection's head."""
    http2 = with_streams(6_400)
    for size in range(99):
        http2.receive(window(size))
    assert {stream.send_window for stream in http2.streams.values()} == {98}
    with pytest.raises(ConnectionFailed, match="too many SETTINGS") as failed:
        http2.receive(window(99))
    assert failed.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_settings_that_change_no_window_cost_the_same_with_and_without_streams() -> None:
    http2 = with_streams(6_400)
    for _ in range(9_999):
        http2.receive(window(frames.DEFAULT_WINDOW))


def judge(policy: PingPolicy, *pings: tuple[float, int, bool]) -> list[bool]:
    return [policy.allows(now, streams, wrote) for now, streams, wrote in pings]


def test_pings_at_the_agreed_rate_are_fine() -> None:
    policy = PingPolicy(5.0, False)
    assert all(policy.allows(now * 5.0, 1, False) for now in range(100))


def test_the_third_strike_is_one_too_many() -> None:
    policy = PingPolicy(5.0, False)
    assert judge(policy, (0, 1, False), (1, 1, False), (2, 1, False)) == [True, True, True]
    assert not policy.allows(3, 1, False)


def test_without_streams_two_hours_are_the_rate() -> None:
    policy = PingPolicy(5.0, False)
    assert judge(policy, (0, 0, False), (60, 0, False), (120, 0, False)) == [True, True, True]
    assert not policy.allows(180, 0, False)
    permitted = PingPolicy(5.0, True)
    assert all(permitted.allows(now * 60.0, 0, False) for now in range(10))


def test_writing_forgives() -> None:
    policy = PingPolicy(5.0, False)
    assert judge(policy, *[(n * 0.1, 1, n % 2 == 0) for n in range(50)]) == [True] * 50
