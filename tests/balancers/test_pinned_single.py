"""pinned_single: what clientv3 on grpc 1.7 does, row by row, on a clock that is a number.

The pin cycle, the live list, the unhealthy list, mayPin and SetEndpoints are sections below, a test
for each row of them. What calls do about errors, which of them switch (reads, writes, and a
caller's own short deadline), what is sent again and what becomes of tokens and streams: a row each
in tests/client/test_generation_tables.py; that a call waits for a pin: test_generation_calls.py.
The health check: test_probe.py (a service that is unknown counts as healthy). Keepalive is
grpc's; a ping that is lost is a connection that goes down. That a switch blocks until the old pin
is down holds by itself, for there is no pin meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from etcd_pinwheel.balancers.api import (
    Action,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    EndpointsChanged,
    Event,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    WakeAt,
    Woken,
)
from etcd_pinwheel.balancers.pinned_single import CHECK_SECONDS, PinnedSingle

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"
HOLD = 3.0
WELL, ILL = Health(serving=True), Health(serving=False)


def close(endpoint: str) -> Disconnect:
    return Disconnect(endpoint, graceful=True)


class Stage:
    """A policy and its clock; wishes about the alarm are kept apart from the others."""

    def __init__(self, *endpoints: str, dial_timeout_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.alarm: float | None = None
        self.balancer = PinnedSingle(dial_timeout_seconds=dial_timeout_seconds)
        self.dialled = self.tell(EndpointsChanged(endpoints))

    def tell(self, event: Event) -> list[Action]:
        actions: Sequence[Action] = self.balancer.update(event, self.now)
        for action in actions:
            if isinstance(action, WakeAt):
                assert action.time > self.now
                assert self.alarm is None, "asked for once is enough: a timer is a thread"
                self.alarm = action.time
        return [action for action in actions if not isinstance(action, WakeAt)]

    def up(self, *endpoints: str) -> list[Action]:
        return [action for endpoint in endpoints for action in self.tell(Connected(endpoint))]

    def tick(self) -> list[Action]:
        """Let time pass until the alarm."""
        assert self.alarm is not None
        self.now, self.alarm = self.alarm, None
        return self.tell(Woken())

    @property
    def pin(self) -> str | None:
        return self.balancer.pick(Need.QUORUM, self.now)

    @property
    def unhealthy(self) -> set[str]:
        standings = self.balancer.standings(self.now)
        return {each for each, standing in standings.items() if standing.ejected_until is not None}


def pinned(*endpoints: str, **options: float) -> Stage:
    """A policy whose pin is the first of the endpoints."""
    stage = Stage(*endpoints, **options)
    stage.up(endpoints[0])
    assert stage.pin == endpoints[0]
    return stage


# The pin cycle


def test_without_a_pin_all_live_endpoints_are_dialled() -> None:
    stage = Stage(A, B, C)
    assert stage.dialled == [Connect(A), Connect(B), Connect(C)]
    assert stage.pin is None


def test_the_first_to_come_up_is_pinned_and_the_others_are_closed() -> None:
    stage = Stage(A, B, C)
    assert stage.up(B) == [close(A), close(C)]
    assert stage.pin == B
    standing = stage.balancer.standings(stage.now)[B]
    assert standing.pinned
    assert standing.connected
    assert standing.eligible


def test_who_comes_up_while_there_is_a_pin_is_ignored() -> None:
    stage = pinned(A, B, C)
    assert stage.up(C) == []
    assert stage.pin == A
    assert not stage.balancer.standings(stage.now)[C].connected


def test_every_call_goes_to_the_pin_whatever_it_needs_and_has_tried() -> None:
    stage = pinned(A, B, C)
    for need in Need:
        assert stage.balancer.pick(need, stage.now, [A, A]) == A


def test_a_pin_whose_connection_goes_down_is_unhealthy_and_the_live_ones_are_dialled() -> None:
    stage = pinned(A, B, C)
    assert stage.tell(Disconnected(A, "ping timeout")) == [Connect(B), Connect(C), close(A)]
    assert stage.pin is None
    assert stage.unhealthy == {A}
    assert stage.up(C) == [close(B)]
    assert stage.pin == C


def test_another_that_cannot_be_reached_changes_nothing() -> None:
    stage = Stage(A, B)
    assert stage.tell(Disconnected(A, "refused")) == []
    assert stage.unhealthy == set()
    stage.up(B)
    assert stage.tell(Disconnected(A, "closed as wished")) == []
    assert stage.pin == B


def test_next_takes_everything_down_and_dials_the_live_ones() -> None:
    stage = pinned(A, B, C)
    actions = stage.tell(FailedOver(A, Failure.TIMED_OUT))
    assert actions == [Connect(B), Connect(C), close(A)]
    assert stage.pin is None
    assert stage.unhealthy == {A}


@pytest.mark.parametrize("reason", ["reset", "GOAWAY", "keepalive ping timeout"])
def test_however_the_pins_connection_ends_it_is_unhealthy(reason: str) -> None:
    stage = pinned(A, B)
    stage.tell(Disconnected(A, reason))
    assert stage.unhealthy == {A}
    assert stage.pin is None


def test_nothing_is_issued_on_the_old_pin_while_it_is_being_left() -> None:
    stage = pinned(A, B)
    stage.tell(FailedOver(A, Failure.TIMED_OUT))
    assert stage.pin is None
    stage.tell(Disconnected(A, "closed as wished"))
    assert stage.pin is None
    stage.up(B)
    assert stage.pin == B


def test_the_old_pin_going_down_as_wished_is_no_news() -> None:
    stage = pinned(A, B)
    stage.tell(FailedOver(A, Failure.TIMED_OUT))
    stage.up(B)
    stage.now += 1
    assert stage.tell(Disconnected(A, "closed as wished")) == []
    assert stage.balancer.standings(stage.now)[A].ejected_until == 100.0 + HOLD


def test_of_many_calls_that_fail_with_the_pin_the_first_switches() -> None:
    stage = pinned(A, B, C)
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(B)
    for _ in range(20):
        assert stage.tell(FailedOver(A, Failure.BROKEN)) == []
    assert stage.pin == B


def test_a_call_that_only_failed_does_not_move_the_pin() -> None:
    """It is the error handler that switches, not the outcome of a call."""
    stage = pinned(A, B)
    for failure in Failure:
        assert stage.balancer.done(A, failure, 1.0, stage.now) == ()
    assert stage.pin == A
    assert stage.unhealthy == set()


# The live list


def test_a_single_endpoint_is_live_even_if_unhealthy() -> None:
    stage = pinned(A)
    assert stage.tell(FailedOver(A, Failure.TIMED_OUT)) == [close(A), Connect(A)]
    assert stage.up(A) == []
    assert stage.pin == A
    assert stage.unhealthy == {A}


def test_a_single_endpoint_that_went_down_is_dialled_on() -> None:
    stage = pinned(A)
    assert stage.tell(Disconnected(A, "reset")) == [Connect(A)]
    stage.up(A)
    assert stage.pin == A


def test_if_all_are_unhealthy_all_are_live() -> None:
    stage = pinned(A, B)
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(B)
    assert stage.tell(FailedOver(B, Failure.BROKEN)) == [close(B), Connect(A), Connect(B)]
    stage.up(A)
    assert stage.pin == A
    assert stage.unhealthy == {A, B}


# The unhealthy list


@pytest.mark.parametrize(("dial_timeout", "hold"), [(0.0, 3.0), (2.0, 3.0), (5.0, 5.0), (30, 30.0)])
def test_the_hold_time_is_the_dial_timeout_or_3_seconds(dial_timeout: float, hold: float) -> None:
    stage = pinned(A, B, dial_timeout_seconds=dial_timeout)
    stage.tell(Disconnected(A, "reset"))
    assert stage.balancer.hold_seconds == hold
    assert stage.balancer.standings(stage.now)[A].ejected_until == stage.now + hold
    assert stage.alarm == stage.now + hold


def test_entries_are_dropped_by_the_tick_once_they_are_old_enough() -> None:
    """So an entry lives for one to two hold times."""
    stage = pinned(A, B, C)
    stage.now += 1.0
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(B)
    assert stage.tick() == []
    assert stage.now == 100.0 + HOLD
    assert stage.unhealthy == {A}
    assert stage.tick() == []
    assert stage.now == 100.0 + 2 * HOLD
    assert stage.unhealthy == set()
    assert stage.pin == B


@pytest.mark.parametrize("hold", [3.1, 3.3, 4.7, 5.1])
def test_ticks_keep_their_distance_although_their_times_are_rounded(hold: float) -> None:
    """A tick at the time it was asked for is not asked for once more: that would be a busy loop."""
    stage = Stage(A, B, dial_timeout_seconds=hold)
    times = [stage.now]
    for _ in range(40):
        stage.tick()  # nobody comes up, so ticks go on
        times.append(stage.now)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == pytest.approx([hold] * 40)


def test_no_tick_is_asked_for_when_nothing_would_come_of_it() -> None:
    stage = pinned(A, B)
    assert stage.tick() == []
    assert stage.alarm is None


def test_a_tick_without_a_pin_dials_anew() -> None:
    stage = Stage(A, B)
    assert stage.tick() == [close(A), close(B), Connect(A), Connect(B)]
    assert stage.now == 100.0 + HOLD


def test_a_tick_brings_an_endpoint_back_among_those_that_are_dialled() -> None:
    stage = pinned(A, B)
    stage.tell(Disconnected(A, "reset"))
    assert stage.tick() == [close(B), Connect(A), Connect(B)]


def test_a_tick_leaves_a_pin_that_is_itself_unhealthy() -> None:
    """Which a pin is that was taken for want of a healthy one."""
    stage = pinned(A, B)
    stage.now += 1.0
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(B)
    stage.tell(FailedOver(B, Failure.BROKEN))
    stage.up(A)
    assert stage.pin == A
    assert stage.tick() == [close(A), Connect(A), Connect(B)]
    assert stage.pin is None
    stage.up(A)
    assert stage.tick() == []  # their time is up
    assert stage.unhealthy == set()
    assert stage.pin == A


def test_a_false_positive_a_member_that_is_back_at_once_is_refused_for_the_hold_time() -> None:
    """Its known weakness."""
    stage = pinned(A, B, C)
    stage.tell(Disconnected(A, "restarted"))
    stage.up(B)
    assert stage.tell(Disconnected(B, "restarted")) == [Connect(C), close(B)]
    for _ in range(3):
        assert stage.tell(Disconnected(C, "refused")) == []  # A and B are well, and not asked
    assert stage.pin is None
    assert Connect(A) in stage.tick()


def test_an_error_of_an_endpoint_that_is_gone_is_ignored() -> None:
    stage = pinned(A, B)
    assert stage.tell(FailedOver(C, Failure.BROKEN)) == []
    assert stage.unhealthy == set()
    assert stage.pin == A


def test_an_endpoint_that_is_gone_does_not_count_among_the_unhealthy() -> None:
    stage = Stage(A, B)
    stage.tell(FailedOver(C, Failure.BROKEN))
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(A)
    assert stage.pin is None  # for B is well


# mayPin


def test_may_pin_not_one_that_is_no_endpoint() -> None:
    stage = Stage(A, B)
    assert stage.up(C) == []
    assert stage.pin is None
    stage.tell(EndpointsChanged((A,)))
    assert stage.up(B) == []
    assert stage.pin is None


@pytest.mark.parametrize("endpoints", [(A,), (A, B, C)])
def test_may_pin_without_a_question_if_it_is_the_only_one_or_nobody_is_unhealthy(
    endpoints: tuple[str, ...],
) -> None:
    stage = Stage(*endpoints)
    if len(endpoints) == 1:
        stage.tell(FailedOver(A, Failure.BROKEN))
        assert stage.unhealthy == {A}
    assert stage.up(A) == [close(each) for each in endpoints if each != A]
    assert stage.pin == A


def test_may_pin_without_a_question_who_is_not_unhealthy_while_others_are() -> None:
    stage = pinned(A, B, C)
    stage.tell(FailedOver(A, Failure.BROKEN))
    assert stage.up(B) == [close(C)]
    assert stage.pin == B


def test_the_health_check_is_a_dial_of_its_own_and_takes_a_second_at_most() -> None:
    stage = refused(age=HOLD)
    assert stage.up(C) == [Probe(C, 1.0, fresh_connection=True, linearizable=False)]


def refused(*, age: float) -> Stage:
    """C comes up while all are dialled, having failed ``age`` seconds ago; A has not failed."""
    stage = pinned(A, B, C)
    stage.tell(FailedOver(A, Failure.BROKEN))  # B and C are dialled
    stage.tell(FailedOver(C, Failure.BROKEN))
    stage.now += age
    return stage


def test_may_pin_not_so_soon_after_it_failed() -> None:
    stage = refused(age=HOLD - 0.01)
    assert stage.up(C) == []
    assert stage.pin is None
    assert stage.up(B) == [close(C)]
    assert stage.pin == B


def test_may_pin_later_only_if_it_is_well() -> None:
    stage = refused(age=HOLD)
    assert stage.up(C) == [Probe(C, CHECK_SECONDS, fresh_connection=True)]
    assert stage.pin is None
    assert stage.tell(Probed(C, WELL)) == [close(B)]
    assert stage.pin == C
    assert stage.unhealthy == {A}


def test_may_pin_one_that_is_not_well_begins_its_time_anew() -> None:
    stage = refused(age=HOLD)
    stage.up(C)
    assert stage.tell(Probed(C, ILL)) == []
    assert stage.pin is None
    assert stage.balancer.standings(stage.now)[C].ejected_until == stage.now + HOLD


def test_may_pin_asks_for_no_leader() -> None:
    """Its known weakness: a member that is cut off from its peers says that it serves."""
    stage = refused(age=HOLD)
    stage.up(C)
    stage.tell(Probed(C, Health(serving=True, has_leader=False, reason="no leader")))
    assert stage.pin == C


def test_may_pin_an_answer_that_comes_after_another_was_pinned() -> None:
    stage = refused(age=HOLD)
    stage.up(C)
    stage.up(B)
    assert stage.tell(Probed(C, WELL)) == []
    assert stage.pin == B
    assert stage.unhealthy == {A}


def test_may_pin_an_answer_about_one_that_went_down() -> None:
    stage = refused(age=HOLD)
    stage.up(C)
    stage.tell(Disconnected(C, "reset"))
    assert stage.tell(Probed(C, WELL)) == []
    assert stage.pin is None


def test_may_pin_anyone_if_everyone_is_unhealthy() -> None:
    stage = refused(age=0.0)
    stage.tell(FailedOver(B, Failure.BROKEN))
    assert stage.up(C) == [close(B)]
    assert stage.pin == C


def test_who_is_to_be_closed_counts_as_closed() -> None:
    """Until the driver says so, too."""

    def connected() -> set[str]:
        standings = stage.balancer.standings(stage.now)
        return {each for each, standing in standings.items() if standing.connected}

    stage = refused(age=0.0)
    stage.up(C)
    assert connected() == {C}
    stage.up(B)
    assert connected() == {B}
    stage.tell(FailedOver(B, Failure.BROKEN))
    assert connected() == set()


# Other endpoints


def test_the_same_endpoints_again_change_nothing() -> None:
    stage = pinned(A, B)
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(B)
    assert stage.tell(EndpointsChanged((B, A))) == []
    assert stage.unhealthy == {A}


def test_other_endpoints_clear_the_list_and_keep_a_pin_that_is_among_them() -> None:
    stage = pinned(A, B)
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.up(B)
    assert stage.tell(EndpointsChanged((A, B, C))) == []
    assert stage.unhealthy == set()
    assert stage.pin == B


def test_a_pin_that_is_not_among_them_is_left() -> None:
    stage = pinned(A, B)
    assert stage.tell(EndpointsChanged((B, C))) == [Connect(B), Connect(C), close(A)]
    assert stage.pin is None


def test_a_health_check_of_before_does_not_count() -> None:
    stage = refused(age=HOLD)
    stage.up(C)
    stage.tell(EndpointsChanged((B, C)))
    assert stage.tell(Probed(C, ILL)) == []
    assert stage.unhealthy == set()


@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, ValueError), (float("inf"), ValueError), ("5", TypeError), (True, TypeError)],
)
def test_an_option_that_is_none(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="dial_timeout_seconds"):
        PinnedSingle(dial_timeout_seconds=value)
