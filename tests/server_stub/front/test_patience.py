"""Floods and pings, judged without a connection."""

from __future__ import annotations

from etcd_pinwheel.server_stub.front.patience import Patience, PingPolicy


def test_patience_ends_with_the_burst() -> None:
    patience = Patience(0.0, burst=3, per_second=1.0)
    assert [patience.spend(0.0, 0) for _ in range(4)] == [True, True, True, False]


def test_patience_comes_back_with_time() -> None:
    patience = Patience(0.0, burst=3, per_second=1.0)
    assert all(patience.spend(float(second), 0) for second in range(100))
    assert [patience.spend(1000.0, 0) for _ in range(4)] == [True, True, True, False]


def test_patience_comes_back_with_calls_that_end_well() -> None:
    patience = Patience(0.0, burst=3, per_second=1.0)
    assert all(patience.spend(0.0, completed) for completed in range(100))
    assert not all(patience.spend(0.0, 100) for _ in range(5))


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
