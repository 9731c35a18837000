"""round_robin: what clientv3 on grpc 1.23 and later does, row by row, and does not.

- One sub-connection each, all connected eagerly: connects_to_every_endpoint
- The picker rotates over those that are READY: goes_round_in_order, spreads_calls_evenly
- It begins at random, whenever who is READY changes: clients_start, a_change_begins_anew
- For each RPC and each new stream: whatever_a_call_needs_and_has_tried
- No weights: latency, health, leader, errors: nothing_but_the_connection_counts
- Only connectivity changes it: a_disconnected_endpoint_drops_out
- Nothing READY: calls wait: with_nobody_ready_calls_wait
- SetEndpoints: removed ones are closed gracefully: connects_to_every_endpoint
- The same endpoints again: the_same_endpoints_again_change_nothing

The retry interceptor, its pace and its classes, learners and tokens are rows in
tests/client/test_generation_tables.py. Reconnecting, keepalive and message sizes are grpc's.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from etcd_pinwheel.balancers.api import (
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    EndpointsChanged,
    FailedOver,
    Failure,
    Health,
    Need,
    Probed,
)
from etcd_pinwheel.balancers.round_robin import RoundRobin

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"


def over(*endpoints: str, seed: int = 0) -> RoundRobin:
    balancer = RoundRobin(Random(seed))
    balancer.update(EndpointsChanged(endpoints), 0.0)
    for endpoint in endpoints:
        balancer.update(Connected(endpoint), 0.0)
    return balancer


def picks(balancer: RoundRobin, count: int) -> list[str | None]:
    return [balancer.pick(Need.QUORUM, 0.0) for _ in range(count)]


def test_it_connects_to_every_endpoint() -> None:
    balancer = RoundRobin(Random(0))
    actions = balancer.update(EndpointsChanged((A, B)), 0.0)
    assert actions == [Connect(A), Connect(B)]
    actions = balancer.update(EndpointsChanged((B, C)), 0.0)
    assert actions == [Connect(B), Connect(C), Disconnect(A, graceful=True)]


def test_it_spreads_calls_evenly() -> None:
    assert set(Counter(picks(over(A, B, C), 300)).values()) == {100}


def test_it_goes_round_in_order() -> None:
    first, second, third, fourth = picks(over(A, B, C), 4)
    assert first == fourth
    assert {first, second, third} == {A, B, C}


def test_clients_start_at_different_endpoints() -> None:
    starts = Counter(picks(over(A, B, C, seed=seed), 1)[0] for seed in range(100))
    assert len(starts) == 3


def test_a_disconnected_endpoint_drops_out_and_comes_back() -> None:
    balancer = over(A, B, C)
    balancer.update(Disconnected(B, "reset"), 0.0)
    assert set(picks(balancer, 6)) == {A, C}
    balancer.update(Connected(B), 0.0)
    assert set(picks(balancer, 6)) == {A, B, C}


def test_nothing_but_the_connection_counts() -> None:
    """Its known weakness: a member that only fails keeps getting its share."""
    balancer = over(A, B)
    for _ in range(50):
        assert balancer.done(A, Failure.TIMED_OUT, 5.0, 0.0) == ()
        assert balancer.update(FailedOver(A, Failure.TIMED_OUT), 0.0) == ()
        assert balancer.update(Probed(A, Health(serving=False, has_leader=False)), 0.0) == ()
    assert Counter(picks(balancer, 10)) == {A: 5, B: 5}


def test_whatever_a_call_needs_and_has_tried_it_is_the_next_ones_turn() -> None:
    balancer = over(A, B, C)
    turns = [balancer.pick(need, 0.0, [A, B, C][:tried]) for need in Need for tried in range(3)]
    assert turns[:3] == turns[3:]
    assert set(turns) == {A, B, C}


def test_with_nobody_ready_calls_wait() -> None:
    balancer = RoundRobin(Random(0))
    balancer.update(EndpointsChanged((A, B)), 0.0)
    assert picks(balancer, 2) == [None, None]
    balancer.update(Connected(B), 0.0)
    assert picks(balancer, 2) == [B, B]
    balancer.update(Disconnected(B, "reset"), 0.0)
    assert picks(balancer, 2) == [None, None]


def test_a_change_of_who_is_ready_begins_anew_at_random() -> None:
    """Or all clients that lost a member would go on in step."""
    nexts: Counter[str | None] = Counter()
    for seed in range(100):
        balancer = over(A, B, C, seed=seed)
        while balancer.pick(Need.QUORUM, 0.0) != A:
            pass
        balancer.update(Disconnected(C, "reset"), 0.0)
        nexts[balancer.pick(Need.QUORUM, 0.0)] += 1
    assert set(nexts) == {A, B}


def test_the_same_endpoints_again_change_nothing() -> None:
    balancer, twin = over(A, B, C), over(A, B, C)
    picks(balancer, 1), picks(twin, 1)
    assert balancer.update(EndpointsChanged((A, B, C)), 0.0) == [*map(Connect, (A, B, C))]
    assert balancer.update(Connected(A), 0.0) == ()
    assert picks(balancer, 5) == picks(twin, 5)
