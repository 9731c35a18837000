"""health_aware: who is picked, and what calls tell of a member."""

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
    Drain,
    EndpointsChanged,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
)

Stage = Callable[..., Any]

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"
WELL = Health(serving=True, raft_term=2, applied_index=10)
DEAF = Health(serving=False, reason="Deadline Exceeded", answered=False)
LEADERLESS = Health(serving=True, has_leader=False)
LEARNER = Health(serving=True, learner=True)
CORRUPT = Health(serving=True, corrupt=True)


# Who is picked, when all are well


def test_it_connects_to_all_and_asks_each_some_time(make_stage: Stage) -> None:
    stage = make_stage(A, B, connect=False)
    assert stage.did == [Connect(A), Connect(B)]
    stage.tell(Connected(A))
    assert stage.call() == A, "a first connection is used before the member was ever asked"
    stage.tell(Connected(B))
    assert not stage.probes(), "ten thousand clients that start together do not all ask at once"
    stage.live(5.0)
    assert {A, B} == set(stage.asked)


def test_endpoints_come_and_go(stage: Any) -> None:
    stage.did.clear()
    stage.tell(EndpointsChanged((B, "http://d:2379")))
    connected = [Connect(B), Connect("http://d:2379")]
    assert stage.did[:4] == [*connected, Disconnect(A, graceful=True), Disconnect(C, graceful=True)]
    assert set(stage.shares(50)) == {B}
    assert set(stage.balancer.standings(stage.now)) == {B, "http://d:2379"}


@pytest.mark.parametrize("endpoints", [(A, B), (A, B, C)])
def test_members_that_differ_little_share_evenly(
    make_stage: Stage, endpoints: tuple[str, ...]
) -> None:
    stage = make_stage(*endpoints)
    usual = {A: 0.004, B: 0.006, C: 0.005}
    shares: Counter[str] = Counter()
    for _ in range(1500):
        picked = stage.balancer.pick(Need.QUORUM, stage.now)
        assert picked is not None
        stage.now += 0.01
        stage.balancer.done(picked, None, usual[picked], stage.now)
        shares[picked] += 1
    even = 1500 / len(endpoints)
    assert all(0.85 * even < shares[each] < 1.15 * even for each in endpoints)


def test_a_member_that_is_much_slower_gets_less_and_is_tried_again(stage: Any) -> None:
    def shares(slow: float) -> Counter[str]:
        counted: Counter[str] = Counter()
        for _ in range(300):
            picked = stage.balancer.pick(Need.QUORUM, stage.now)
            assert picked is not None
            stage.now += 0.01
            stage.balancer.done(picked, None, slow if picked == A else 0.002, stage.now)
            counted[picked] += 1
        return counted

    shares(0.05)
    assert shares(0.05)[A] < 10
    stage.now += 10.0  # the memory of its latency fades
    assert shares(0.002)[A] > 60


def test_calls_under_way_keep_others_away(stage: Any) -> None:
    for endpoint in (A, A, A, B, B, B):
        others = [each for each in (A, B, C) if each != endpoint]
        assert stage.balancer.pick(Need.QUORUM, stage.now, others) == endpoint
    picks = [stage.balancer.pick(Need.QUORUM, stage.now) for _ in range(3)]
    assert Counter(picks)[C] >= 1
    for endpoint in (A, A, A, B, B, B, *picks):
        assert endpoint is not None
        stage.balancer.done(endpoint, None, 0.002, stage.now)
    assert all(each.in_flight == 0 for each in stage.balancer._records.values())


def test_a_repeated_call_goes_where_it_has_not_been(make_stage: Stage, stage: Any) -> None:
    assert {stage.call(tried=[A]) for _ in range(30)} == {B, C}
    assert {stage.call(tried=[A, B]) for _ in range(30)} == {C}
    assert {stage.call(tried=[A, B, C]) for _ in range(30)} == {A, B}, "not where it failed last"
    assert make_stage(A).call(tried=[A]) == A


# Failures


@pytest.mark.parametrize("failure", [Failure.TIMED_OUT, Failure.UNAVAILABLE, Failure.BROKEN])
def test_two_failures_in_a_row_eject(stage: Any, failure: Failure) -> None:
    stage.fail_at(A, failure)
    assert stage.reason(A) == ""
    stage.health[A] = DEAF
    stage.did.clear()
    stage.fail_at(A, failure)
    assert stage.reason(A) == f"2 calls in a row failed: {failure.name.lower()}"
    assert Drain(A) in stage.did
    assert A not in stage.shares(100)


def test_failures_count_in_a_row_only(stage: Any) -> None:
    for _ in range(20):
        stage.fail_at(A, Failure.TIMED_OUT)
        assert stage.call(tried=[B, C]) == A
    assert stage.reason(A) == ""


@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.CANCELLED])
def test_what_says_nothing_about_the_member_changes_nothing(stage: Any, failure: Failure) -> None:
    for _ in range(20):
        stage.fail_at(A, failure)
    assert stage.reason(A) == ""


def test_a_callers_own_hurry_is_no_failure(stage: Any) -> None:
    """1.7 took a member out for a caller's deadline, however short."""
    for _ in range(50):
        stage.fail_at(A, Failure.TIMED_OUT, seconds=0.02)
    assert stage.reason(A) == ""


def test_answers_that_any_member_could_give_do_not_clear_a_member(stage: Any) -> None:
    """A member that is cut off answers serializable reads, and nothing else."""
    stage.fail_at(A, Failure.TIMED_OUT)
    assert stage.call(need=Need.ANY_MEMBER, tried=[B, C]) == A
    stage.fail_at(A, Failure.TIMED_OUT)
    assert stage.reason(A).startswith("2 calls")


def test_failures_never_take_out_more_than_a_part(make_stage: Stage, stage: Any) -> None:
    for endpoint in (A, A, B, B, C, C):
        stage.fail_at(endpoint, Failure.TIMED_OUT)
    assert [bool(stage.reason(each)) for each in (A, B, C)] == [True, False, False]
    alone = make_stage(A)
    for _ in range(10):
        alone.fail_at(A, Failure.TIMED_OUT)
    assert alone.reason(A) == ""


def test_a_failover_keeps_calls_away_until_a_probe(stage: Any) -> None:
    stage.tell(FailedOver(A, Failure.UNAVAILABLE))
    assert A not in stage.shares(50)
    assert stage.probes() == [Probe(A, 1.0, linearizable=True)]
    stage.answer(A)
    assert A in stage.shares(50)


# Silence: a hung peer, a black hole


def test_who_says_nothing_while_others_answer_is_left_out_and_asked(stage: Any) -> None:
    stage.hang(A, 2)
    for _ in range(40):
        stage.call(seconds=0.01)
    assert stage.reason(A).startswith("silent for 0.")
    assert Drain(A) not in stage.did, "streams stay until a probe says more"
    assert stage.probes()[-1] == Probe(A, 1.0, linearizable=True)
    stage.health[A] = DEAF
    stage.answer(A)
    assert Drain(A) in stage.did
    assert stage.reason(A) == "Deadline Exceeded"


def test_few_calls_are_lost_on_a_member_that_hangs(make_stage: Stage) -> None:
    """The bound of the design page: 1 % of 1500, and the reads beside them, are 30 calls."""
    for seed in range(20):
        stage = make_stage(A, B, C, seed=seed)
        stage.health[A] = DEAF
        lost = 0
        for _ in range(200):  # a call every 5 ms, answered 4 ms later
            picked = stage.balancer.pick(Need.QUORUM, stage.now)
            stage.now += 0.005
            if picked == A:
                lost += 1
            elif picked is not None:
                stage.obey(stage.balancer.done(picked, None, 0.004, stage.now))
            for probe in stage.probes():
                stage.answer(probe.endpoint)
        assert lost <= 15, f"seed {seed}"


def test_nobody_is_silent_when_nobody_answers(stage: Any) -> None:
    """An election, a stalled event loop, a sleeping laptop: it is not the member."""
    for endpoint in (A, B, C):
        stage.hang(endpoint, 2)
    stage.now += 5.0
    for endpoint in (A, B, C):
        stage.obey(stage.balancer.done(endpoint, None, 5.0, stage.now))
    assert [stage.reason(each) for each in (A, B, C)].count("") >= 2


def test_silence_that_was_nothing_makes_patient(stage: Any) -> None:
    """One long call among short ones."""
    stage.hang(A)
    times = []
    for _ in range(800):
        stage.call(seconds=0.01)
        if stage.probes():
            times.append(stage.now)
            stage.answer(A)
            assert stage.reason(A) == ""
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[0] > 0.4
    assert min(gaps[1:]) > 0.9, "a second, four times the patience"


def test_silence_is_found_without_other_calls_too(stage: Any) -> None:
    """With only a stream open, or one call, the next probe tells."""
    stage.health[A] = DEAF
    stage.live(7.0)
    assert stage.reason(A) == "Deadline Exceeded"
    assert Drain(A) in stage.did
