"""pinned_multi: what clientv3 on grpc 1.0 does, row by row, and does not.

- Every endpoint is handed to gRPC once, and stays: connects_to_every_endpoint
- The first up while the set is empty is the pin: the_first_to_come_up_is_the_pin
- Later ones are only recorded: the_first_to_come_up_is_the_pin
- Every RPC goes to the pin: every_call_goes_to_the_pin
- No RPC's error moves it; a black hole stays the pin: no_error_moves_the_pin
- The pin's connection down: another up one, at random: when_the_pin_goes_down
- The last connection down: callers wait: with_the_last_connection_gone
- Another connection down: only removed: another_connection_going_down
- No endpoint up: no address: nobody_up_means_no_address
- SetEndpoints, the same ones in any order: nothing: the_same_endpoints_again
- SetEndpoints, others: connected, dropped: other_endpoints_are_connected_and_dropped
- An error moves it (etcd's design notes only): switch_

Errors, retries and tokens: tests/client/test_generation_tables.py. Reconnecting and its backoff are
grpc's. Of 3.2.0 to 3.2.9, which drop all connections but the pin's, nothing is modelled.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

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
    Woken,
)
from etcd_pinwheel.balancers.pinned_multi import PinnedMulti

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"


def over(*endpoints: str, seed: int = 0, on_error: str = "stay") -> PinnedMulti:
    """A policy whose endpoints came up in that order."""
    balancer = PinnedMulti(Random(seed), on_error=on_error)
    balancer.update(EndpointsChanged(tuple(sorted(endpoints))), 0.0)
    for endpoint in endpoints:
        balancer.update(Connected(endpoint), 0.0)
    return balancer


def pick(balancer: PinnedMulti, *tried: str) -> str | None:
    return balancer.pick(Need.QUORUM, 0.0, tried)


def test_it_connects_to_every_endpoint_and_keeps_the_connections() -> None:
    balancer = PinnedMulti(Random(0))
    assert balancer.update(EndpointsChanged((A, B, C)), 0.0) == [Connect(A), Connect(B), Connect(C)]
    for endpoint in (B, A, C):
        assert balancer.update(Connected(endpoint), 0.0) == ()


def test_nobody_up_means_no_address() -> None:
    balancer = PinnedMulti(Random(0))
    balancer.update(EndpointsChanged((A, B)), 0.0)
    for need in Need:
        assert balancer.pick(need, 0.0) is None
    balancer.update(Disconnected(A, "refused"), 0.0)
    assert pick(balancer) is None
    assert not any(standing.eligible for standing in balancer.standings(0.0).values())


def test_the_first_to_come_up_is_the_pin_and_the_later_ones_are_only_noted() -> None:
    balancer = over(B, A, C)
    assert {pick(balancer) for _ in range(20)} == {B}
    standings = balancer.standings(0.0)
    assert [each for each, standing in standings.items() if standing.pinned] == [B]
    assert [each for each, standing in standings.items() if standing.eligible] == [B]
    assert all(standing.connected for standing in standings.values())


def test_every_call_goes_to_the_pin_whatever_it_needs_and_has_tried() -> None:
    balancer = over(A, B, C)
    for need in Need:
        assert balancer.pick(need, 0.0, [A, A]) == A


@pytest.mark.parametrize("failure", Failure)
def test_no_error_moves_the_pin(failure: Failure) -> None:
    """Its known weakness: a partitioned or black-holed pin stays the pin."""
    balancer = over(A, B, C)
    for _ in range(50):
        assert balancer.done(A, failure, 5.0, 0.0) == ()
        assert balancer.update(FailedOver(A, failure), 0.0) == ()
        assert balancer.update(Probed(A, Health(serving=False, has_leader=False)), 0.0) == ()
        assert balancer.update(Woken(), 0.0) == ()
    assert pick(balancer) == A


def test_when_the_pin_goes_down_another_that_is_up_takes_over_at_once_at_random() -> None:
    heirs: Counter[str | None] = Counter()
    for seed in range(100):
        balancer = over(A, B, C, seed=seed)
        assert balancer.update(Disconnected(A, "reset"), 0.0) == ()
        heirs[pick(balancer)] += 1
        assert {pick(balancer) for _ in range(5)} == {pick(balancer)}
    assert set(heirs) == {B, C}
    assert min(heirs.values()) > 25


def test_a_pin_that_comes_back_is_one_of_many() -> None:
    balancer = over(A, B)
    balancer.update(Disconnected(A, "reset"), 0.0)
    balancer.update(Connected(A), 0.0)
    assert pick(balancer) == B
    balancer.update(Disconnected(B, "reset"), 0.0)
    assert pick(balancer) == A


def test_another_connection_going_down_changes_nothing() -> None:
    balancer = over(A, B, C)
    balancer.update(Disconnected(B, "reset"), 0.0)
    assert pick(balancer) == A
    balancer.update(Disconnected(A, "reset"), 0.0)
    assert pick(balancer) == C


def test_with_the_last_connection_gone_callers_wait_for_the_next_to_come_up() -> None:
    balancer = over(A, B)
    for endpoint in (A, B):
        balancer.update(Disconnected(endpoint, "reset"), 0.0)
    assert pick(balancer) is None
    balancer.update(Connected(B), 0.0)
    assert pick(balancer) == B


def test_the_same_endpoints_again_change_nothing() -> None:
    balancer = over(A, B)
    assert balancer.update(EndpointsChanged((A, B)), 0.0) == [Connect(A), Connect(B)]  # no new ones
    assert pick(balancer) == A
    assert balancer.update(EndpointsChanged((B, A)), 0.0) == [Connect(B), Connect(A)]
    assert pick(balancer) == A
    assert all(standing.connected for standing in balancer.standings(0.0).values())


def test_the_pin_is_left_for_nobody_when_nobody_else_is_up() -> None:
    balancer = over(A)
    balancer.update(EndpointsChanged((B, C)), 0.0)
    assert pick(balancer) is None
    balancer.update(Connected(C), 0.0)
    assert pick(balancer) == C


def test_other_endpoints_are_connected_and_dropped_and_the_pin_stays_if_it_may() -> None:
    balancer = over(A, B)
    actions = balancer.update(EndpointsChanged((A, C)), 0.0)
    assert actions == [Connect(A), Connect(C), Disconnect(B, graceful=True)]
    assert pick(balancer) == A


def test_a_pin_that_is_no_longer_an_endpoint_is_left_at_once() -> None:
    balancer = over(A, B)
    actions = balancer.update(EndpointsChanged((B, C)), 0.0)
    assert actions == [Connect(B), Connect(C), Disconnect(A, graceful=True)]
    assert pick(balancer) == B
    balancer.update(Disconnected(A, "closed as wished"), 0.0)
    balancer.update(Connected(A), 0.0)  # late news
    assert set(balancer.standings(0.0)) == {B, C}
    balancer.update(Disconnected(B, "reset"), 0.0)
    assert pick(balancer) is None


# on_error="switch": as etcd's design notes have it, and the code does not

MOVING = (Failure.NOT_SENT, Failure.BROKEN, Failure.TIMED_OUT, Failure.UNAVAILABLE)


@pytest.mark.parametrize("failure", MOVING)
def test_switch_an_error_pins_another_at_random(failure: Failure) -> None:
    heirs: Counter[str | None] = Counter()
    for seed in range(50):
        balancer = over(A, B, C, seed=seed, on_error="switch")
        assert balancer.done(A, failure, 1.0, 0.0) == ()
        heirs[pick(balancer)] += 1
    assert set(heirs) == {B, C}


@pytest.mark.parametrize("failure", [None, *sorted(set(Failure) - set(MOVING), key=str)])
def test_switch_a_refusal_is_no_error_of_the_endpoints(failure: Failure | None) -> None:
    balancer = over(A, B, C, on_error="switch")
    balancer.done(A, failure, 1.0, 0.0)
    assert pick(balancer) == A


def test_switch_many_errors_of_one_pin_move_it_once() -> None:
    balancer = over(A, B, C, on_error="switch")
    balancer.done(A, Failure.BROKEN, 1.0, 0.0)
    heir = pick(balancer)
    for _ in range(20):
        balancer.done(A, Failure.BROKEN, 1.0, 0.0)
        assert pick(balancer) == heir


def test_switch_the_only_one_that_is_up_stays_the_pin() -> None:
    balancer = over(A, on_error="switch")
    balancer.done(A, Failure.TIMED_OUT, 1.0, 0.0)
    assert pick(balancer) == A


def test_an_option_that_is_none() -> None:
    with pytest.raises(ValueError, match="on_error is one of stay, switch, not 'move'"):
        PinnedMulti(Random(0), on_error="move")
