"""health_aware: what probes say of a member, how it comes back, options and bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

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
    Probe,
    Probed,
    Woken,
)
from etcd_pinwheel.balancers.health_record import HealthAwareOptions

Stage = Callable[..., Any]

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"
WELL = Health(serving=True, raft_term=2, applied_index=10)
DEAF = Health(serving=False, reason="Deadline Exceeded", answered=False)
LEADERLESS = Health(serving=True, has_leader=False)
LEARNER = Health(serving=True, learner=True)
CORRUPT = Health(serving=True, corrupt=True)


# What probes say


@pytest.mark.parametrize(
    ("health", "reason", "serves_any"),
    [
        (DEAF, "Deadline Exceeded", False),
        (LEADERLESS, "no leader", True),
        (LEARNER, "a learner", True),
        (CORRUPT, "corrupt", False),
    ],
)
def test_unfit_members_leave_and_come_back_as_soon_as_they_say(
    stage: Any, health: Health, reason: str, serves_any: bool
) -> None:
    stage.health[A] = health
    stage.live(8.0)
    assert stage.reason(A) == reason
    assert A not in stage.shares(60)
    assert (A in stage.shares(60, Need.ANY_MEMBER)) is serves_any
    stage.health[A] = WELL
    stage.live(8.5)
    assert A in stage.shares(60)


def test_a_member_that_is_out_is_asked_soon_then_less_often(stage: Any) -> None:
    stage.health[A] = DEAF
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.live(1.0)
    assert 3 <= stage.asked.count(A) <= 6, "after 0, 0.1, 0.3, 0.7 s"
    stage.asked.clear()
    stage.live(60.0)
    assert 10 <= stage.asked.count(A) <= 20, "every 5 s"


def test_calls_that_would_have_gone_to_a_member_that_is_out_have_it_asked(
    make_stage: Stage,
) -> None:
    """Who calls much learns soon that it is back; who does not has no need to, and asks less."""
    options = HealthAwareOptions(probe_interval=20.0)
    for seconds_between_calls, least, most in ((0.02, 25, 55), (2.0, 4, 15), (None, 2, 7)):
        stage = make_stage(A, B, C, options=options)
        stage.health[A] = DEAF
        stage.tell(FailedOver(A, Failure.BROKEN))
        stage.live(10.0)
        stage.asked.clear()
        ends = stage.now + 60.0
        while stage.now < ends:
            if seconds_between_calls:
                stage.call(tried=[A])
            stage.live(seconds_between_calls or 60.0)
        assert least <= stage.asked.count(A) <= most, seconds_between_calls


def test_who_calls_seldom_asks_less_often_than_it_would_call(make_stage: Stage) -> None:
    """So that a fleet's probes of a member that is back are no more than the calls it can serve."""
    asked = 0
    for seed in range(20):
        stage = make_stage(A, B, C, options=HealthAwareOptions(probe_interval=1000.0), seed=seed)
        stage.health[A] = DEAF
        stage.tell(FailedOver(A, Failure.BROKEN))
        stage.live(200.0)
        stage.asked.clear()
        for _ in range(30):
            stage.now += 3.0
            stage.call(tried=[A])
            stage._answer_all()
        asked += stage.asked.count(A)
    assert asked < 1.3 * 20 * 30 / 3


@pytest.mark.parametrize(
    ("health", "brief"),
    [
        (DEAF, True),
        (LEADERLESS, True),
        (Health(serving=False, reason="says that it is not serving"), False),
        (LEARNER, False),
        (CORRUPT, False),
    ],
)
def test_one_question_is_enough_where_a_read_tells(stage: Any, health: Health, brief: bool) -> None:
    stage.tell(FailedOver(A, Failure.UNAVAILABLE))
    assert stage.probes() == [Probe(A, 1.0, linearizable=True)], "the first asks for everything"
    stage.health[A] = health
    stage.answer(A)
    stage.now += 2.0
    stage.tell(Woken())
    again = next(probe for probe in stage.probes() if probe.endpoint == A)
    assert (again.linearizable, again.brief) == (True, brief)


def test_a_disk_that_hangs_for_writes_is_found_though_probes_go_well(stage: Any) -> None:
    stage.fail_at(A, Failure.TIMED_OUT)
    stage.live(0.0)
    assert stage.reason(A) == ""
    stage.fail_at(A, Failure.TIMED_OUT)
    assert stage.reason(A).startswith("2 calls in a row")


def test_a_member_that_lags_leaves(stage: Any) -> None:
    def all_have(indexes: dict[str, int]) -> None:
        for endpoint, index in indexes.items():
            stage.health[endpoint] = Health(serving=True, raft_term=2, applied_index=index)

    all_have({A: 100, B: 100, C: 100})
    stage.live(8.0)
    all_have({A: 100, B: 900, C: 900})
    stage.live(8.5)
    all_have({A: 100, B: 5000, C: 5000})
    stage.live(13.0)
    assert stage.reason(A) == "lagging"
    all_have({A: 5000, B: 5000, C: 5000})
    stage.live(7.0)
    assert stage.reason(A) == ""


def test_a_cluster_that_was_restored_is_no_laggard(stage: Any) -> None:
    for index in (5000, 5100, 10, 20, 30):
        for endpoint in (A, B, C):
            stage.health[endpoint] = Health(serving=True, raft_term=2, applied_index=index)
        stage.live(12.0)
    assert [stage.reason(each) for each in (A, B, C)] == ["", "", ""]


def test_busy_members_are_not_asked(stage: Any) -> None:
    stage.probes()
    for _ in range(600):
        stage.call(seconds=0.01)
        stage.call(seconds=0.01)
        stage.call(seconds=0.01)
        if stage.alarm is not None and stage.alarm <= stage.now:
            stage.alarm = None
            stage.tell(Woken())
    assert not stage.probes()


def test_with_all_unfit_all_serve_but_learners(stage: Any) -> None:
    stage.health |= {A: LEADERLESS, B: LEADERLESS, C: LEARNER}
    stage.live(8.0)
    assert set(stage.shares(60)) == {A, B}
    stage.tell(Disconnected(A, "gone"))
    stage.tell(Disconnected(B, "gone"))
    assert set(stage.shares(5)) == {C}, "the opinion may be old"


def test_a_lost_probe_is_asked_again(stage: Any) -> None:
    stage.tell(FailedOver(A, Failure.UNAVAILABLE))
    assert len(stage.probes()) == 1
    stage.now += 10.0
    stage.tell(Woken())
    assert A in {probe.endpoint for probe in stage.probes()}


# Coming back


def test_a_connection_that_is_back_is_tried_with_one_patient_question(stage: Any) -> None:
    """All clients of a member that was restarted ask at once, and it has their connections to
    make besides: a question that is given up too early is answered for nothing, and asked again."""
    stage.tell(Disconnected(A, "reset"))
    stage.probes()
    stage.tell(Connected(A))
    while not (wished := [each for each in stage.probes() if each.endpoint == A]):
        assert stage.now < 103.0
        stage.now += 0.1
        stage.tell(Woken())
    assert wished == [Probe(A, 4.0, linearizable=True, brief=True)]


@pytest.mark.parametrize(("seconds_between_calls", "within"), [(0.01, 1.2), (0.1, 1.5), (5.0, 2.0)])
def test_a_member_that_is_back_and_well_serves_again_soon(
    make_stage: Stage, seconds_between_calls: float, within: float
) -> None:
    """However a fleet spreads its questions, one client does not wait for long."""
    for seed in range(10):
        stage = make_stage(A, B, C, seed=seed, options=HealthAwareOptions())
        stage.tell(Disconnected(A, "reset"))
        stage.live(30.0)
        stage.tell(Connected(A))
        back = stage.now
        next_call = back + seconds_between_calls
        while stage.reason(A):
            stage.live(min(0.01, next_call - stage.now))
            if stage.now >= next_call:
                stage.call()
                next_call = stage.now + seconds_between_calls
        assert stage.now - back <= within, f"seed {seed}"


def test_a_member_that_was_cut_off_for_long_is_missed_by_who_calls(make_stage: Stage) -> None:
    for seed in range(10):
        stage = make_stage(A, B, C, seed=seed, options=HealthAwareOptions())
        stage.health[A] = LEADERLESS
        stage.tell(FailedOver(A, Failure.UNAVAILABLE))
        for _ in range(6000):
            stage.live(0.01)
            stage.call()
        assert stage.reason(A) == "no leader"
        stage.health[A] = WELL
        well = stage.now
        while stage.reason(A):
            stage.live(0.01)
            stage.call()
        assert stage.now - well < 3.5, f"seed {seed}"


def test_a_connection_that_broke_is_on_trial(stage: Any) -> None:
    """etcd#10816: a hung member came into the rotation each time that TCP connected."""
    stage.tell(Disconnected(A, "reset"))
    assert A not in stage.shares(30)
    stage.tell(Connected(A))
    stage.health[A] = DEAF
    stage.live(2.0)
    assert A not in stage.shares(30)
    stage.health[A] = WELL
    stage.live(8.0)
    assert A in stage.shares(30)


def test_a_probe_of_an_earlier_connection_is_waited_for_without_spinning(stage: Any) -> None:
    stage.tell(FailedOver(A, Failure.BROKEN))
    stage.tell(Disconnected(A, "reset"))
    stage.tell(Connected(A))
    stage.now += 2.5
    stage.alarm = None
    stage.tell(Woken())
    assert stage.alarm > stage.now


def test_with_nobody_well_one_is_asked_at_a_time(stage: Any) -> None:
    """Probes of all members that time out can be what keeps an overloaded cluster down."""
    for endpoint in (A, B, C):
        stage.health[endpoint] = DEAF
    stage.live(30.0)
    stage.asked.clear()
    stage.live(100.0)
    assert 15 <= len(stage.asked) <= 70, "60 if each were asked every 5 s, and fresh ones beside"


def test_with_nobody_else_a_trial_is_no_obstacle(make_stage: Stage) -> None:
    stage = make_stage(A)
    stage.tell(Disconnected(A, "reset"))
    assert stage.balancer.pick(Need.QUORUM, stage.now) is None
    stage.tell(Connected(A))
    assert stage.call() == A


def test_a_member_that_came_back_grows_into_its_share(make_stage: Stage) -> None:
    stage = make_stage(A, B, C, options=HealthAwareOptions(slow_start=10.0))
    stage.now += 20.0
    stage.tell(Disconnected(A, "reset"))
    stage.tell(Connected(A))
    stage.live(2.0)
    seen = []
    for _ in range(4):
        counted: Counter[str] = Counter()
        for _ in range(500):
            stage.now += 0.006
            picked = stage.balancer.pick(Need.QUORUM, stage.now)
            assert picked is not None
            stage.balancer.done(picked, None, 0.002, stage.now)
            counted[picked] += 1
        seen.append(counted[A])
    assert seen[0] < seen[1] < seen[2]
    assert 0 < seen[0] < 90
    assert seen[3] > 120


def test_the_first_ejection_is_not_held_and_further_ones_longer_and_longer(stage: Any) -> None:
    """No fixed penalty: 1.7 refused a member for 5 s that was well again at once."""
    held = []
    for _ in range(6):
        stage.fail_at(A, Failure.TIMED_OUT)
        stage.fail_at(A, Failure.TIMED_OUT)
        ejected = stage.now
        while stage.reason(A):
            stage.live(0.05)
        held.append(stage.now - ejected)
    assert held[0] < 0.1
    assert held[1] > 0.7
    assert all(after > 1.2 * before for before, after in pairwise(held))
    stage.live(200.0)
    stage.fail_at(A, Failure.TIMED_OUT)
    stage.fail_at(A, Failure.TIMED_OUT)
    stage.live(0.1)
    assert stage.reason(A) == "", "forgiven"


def test_a_connection_that_is_dead_is_made_anew_when_the_member_is_not(stage: Any) -> None:
    stage.tell(FailedOver(A, Failure.TIMED_OUT))
    asked = []
    while Disconnect(A) not in stage.did:
        assert stage.now < 110.0
        stage.now += 0.1
        if stage.alarm is not None and stage.alarm <= stage.now:
            stage.tell(Woken())
        for probe in stage.probes():
            own = probe.endpoint == A and not probe.fresh_connection
            asked += [probe.fresh_connection] if probe.endpoint == A else []
            stage.tell(Probed(probe.endpoint, DEAF if own else WELL))
    assert asked == [False, True, False], "its own, a fresh one, and its own once more"
    assert stage.did[stage.did.index(Disconnect(A)) + 1] == Connect(A)


# Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"probe_intervall": 1}, "no option 'probe_intervall'"),
        ({"probe_interval": 0}, "probe_interval"),
        ({"probe_interval": "5s"}, "probe_interval"),
        ({"silence": True}, "silence"),
        ({"silence": float("nan")}, "silence"),
        ({"eject_after": 0}, "eject_after"),
        ({"eject_after": 1.5}, "eject_after"),
        ({"max_ejected_share": 1.1}, "max_ejected_share"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        HealthAwareOptions.of(options)


def test_options_count(make_stage: Stage) -> None:
    stage = make_stage(
        A, B, options=HealthAwareOptions.of({"eject_after": 1, "probe_timeout": 0.2})
    )
    stage.fail_at(A, Failure.TIMED_OUT)
    assert stage.reason(A) == "1 calls in a row failed: timed_out"
    assert Probe(A, 0.2, linearizable=True) in stage.did


# Bounds


def test_nothing_is_kept_of_endpoints_that_are_gone(make_stage: Stage) -> None:
    stage = make_stage(A, B)
    for number in range(1000):
        endpoint = f"http://10.0.{number // 250}.{number % 250}:2379"
        stage.health[endpoint] = WELL
        stage.tell(EndpointsChanged((A, endpoint)))
        stage.tell(Connected(endpoint))
        stage.balancer.pick(Need.QUORUM, stage.now)
    assert len(stage.balancer._records) == 2
    lists = stage.balancer._rotation, stage.balancer._any, stage.balancer._able
    assert all(len(each) <= 2 for each in lists)


def test_a_pick_of_an_endpoint_that_is_gone_may_be_paid_back(stage: Any) -> None:
    stage.hang(A)
    stage.tell(EndpointsChanged((B,)))
    assert stage.balancer.done(A, None, 0.1, stage.now) == ()
    stage.tell(EndpointsChanged((A, B)))
    stage.tell(Connected(A))
    stage.balancer.done(A, None, 0.1, stage.now)
    assert stage.balancer._records[A].in_flight == 0
