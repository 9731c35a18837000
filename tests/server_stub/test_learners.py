"""What becomes of learners by itself: decisions over looks at a cluster, on a clock of our own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.admission import quorum
from etcd_pinwheel.server_stub.learners import (
    LOOK_SECONDS,
    SILENCE_ELECTIONS,
    Care,
    Demotion,
    Policy,
    Promotion,
    Standing,
)

LAST_INDEX = 5000
ELECTION_SECONDS = 1.0
SILENCE_SECONDS = SILENCE_ELECTIONS * ELECTION_SECONDS
AUTO = Policy(auto_promote=True, max_lag=100, healthy_seconds=10)
STANDBY = Policy(max_lag=100, healthy_seconds=10, standby_seconds=30)


class Watched:
    """A cluster whose leader is member 1; what it decides takes effect at once, or never.

    It takes the leader a while to notice that somebody is dead. What it decides meanwhile without
    a quorum comes to nothing: nobody agrees.
    """

    def __init__(self, policy: Policy, voters: int, learners: int = 1) -> None:
        self.care = Care(policy, ELECTION_SECONDS)
        self.now = 1000.0
        self.voters = set(range(1, voters + 1))
        self.learners = set(range(voters + 1, voters + learners + 1))
        self.dead: set[int] = set()
        self.lag: dict[int, int] = {}
        self.done: list[Promotion | Demotion] = []
        self.alive_at = dict.fromkeys(self.voters | self.learners, self.now)

    def run(self, seconds: float) -> list[Promotion | Demotion]:
        """Let time pass; return what was done meanwhile."""
        before = len(self.done)
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.now += LOOK_SECONDS
            self.look()
        return self.done[before:]

    def look(self) -> None:
        members = [
            Standing(
                each, each in self.learners, LAST_INDEX - self.lag.get(each, 0), self.hears(each)
            )
            for each in sorted(self.voters | self.learners)
        ]
        self.alive_at |= {each.id: self.now for each in members if each.is_heard}
        step = self.care.look(1, members, LAST_INDEX, self.now)
        if self.spare < 0 and step is not None:
            lately = [v for v in self.voters if self.now - self.alive_at[v] <= SILENCE_SECONDS]
            assert len(lately) >= quorum(len(self.voters)), "decided without a quorum, knowingly"
            return
        if isinstance(step, Promotion):
            self.learners.remove(step.id)
            self.voters.add(step.id)
        elif isinstance(step, Demotion):
            self.voters.remove(step.id)
            self.learners.add(step.id)
        if step is not None:
            self.done.append(step)

    def hears(self, member: int) -> bool:
        return member == 1 or member not in self.dead

    @property
    def spare(self) -> int:
        """How many voters more may fail."""
        return len(self.voters - self.dead) - quorum(len(self.voters))


def ids(steps: Iterable[Promotion | Demotion]) -> list[tuple[type, int]]:
    return [(type(step), step.id) for step in steps]


# Promotion by itself


def test_a_learner_that_keeps_up_is_promoted_when_its_time_has_come() -> None:
    watched = Watched(AUTO, voters=3)
    assert watched.run(10.0) == []
    assert ids(watched.run(1.0)) == [(Promotion, 4)]
    assert watched.run(60.0) == []


@pytest.mark.parametrize(("lag", "is_promoted"), [(100, True), (101, False)])
def test_the_lag_decides(lag: int, is_promoted: bool) -> None:
    watched = Watched(AUTO, voters=3)
    watched.lag[4] = lag
    assert bool(watched.run(60)) is is_promoted


def test_falling_behind_once_begins_the_time_anew() -> None:
    watched = Watched(AUTO, voters=3)
    watched.run(9)
    watched.lag[4] = 101
    watched.run(LOOK_SECONDS)
    watched.lag[4] = 0
    assert watched.run(10) == []
    assert watched.run(1)


def test_a_learner_that_is_not_heard_of_is_not_promoted() -> None:
    watched = Watched(AUTO, voters=3)
    watched.dead.add(4)
    assert watched.run(60) == []
    watched.dead.clear()
    assert watched.run(10) == []
    assert watched.run(1)


def test_a_learner_that_was_never_heard_of_does_not_keep_up() -> None:
    """Of a short log it lacks no more than is allowed, without being there at all."""
    watched = Watched(Policy(auto_promote=True, max_lag=LAST_INDEX, healthy_seconds=1), voters=3)
    watched.dead.add(4)
    assert watched.run(60) == []
    watched.dead.clear()
    assert watched.run(2)


def test_the_learner_that_kept_up_longest_goes_first() -> None:
    watched = Watched(AUTO, voters=3, learners=2)
    watched.lag[4] = 101
    watched.run(5)
    watched.lag[4] = 0
    assert ids(watched.run(20)) == [(Promotion, 5), (Promotion, 4)]


def test_after_a_refusal_a_learner_proves_itself_again() -> None:
    watched = Watched(AUTO, voters=3)
    watched.run(9)
    watched.care.refused(4, watched.now)
    watched.care.refused(404, watched.now)
    assert watched.run(9.5) == []
    assert watched.run(1)


def test_a_new_leader_begins_anew() -> None:
    watched = Watched(AUTO, voters=3)
    watched.run(9)
    watched.care.forget()
    assert watched.run(10) == []
    assert watched.run(1)


def test_a_leader_that_was_stopped_begins_anew() -> None:
    """SIGSTOP for a minute: nobody was unreachable meanwhile, this member was."""
    watched = Watched(STANDBY, voters=3)
    watched.run(20)
    watched.dead.add(2)
    watched.now += 60
    assert watched.run(29) == []


def test_no_promotion_without_a_quorum() -> None:
    watched = Watched(AUTO, voters=3)
    watched.dead |= {2, 3}
    assert watched.run(60) == []


def test_a_promotion_keeps_the_quorum() -> None:
    """2 of 3 are alive; with the learner they are 3 of 4."""
    watched = Watched(AUTO, voters=3)
    watched.dead.add(2)
    assert ids(watched.run(60)) == [(Promotion, 4)]
    assert watched.spare == 0


# Standby


def test_a_dead_voter_is_replaced() -> None:
    watched = Watched(STANDBY, voters=3)
    watched.run(20)
    watched.dead.add(2)
    assert watched.spare == 0
    assert watched.run(29.5) == []
    assert ids(watched.run(2)) == [(Promotion, 4), (Demotion, 2)]
    assert (watched.voters, watched.learners, watched.spare) == ({1, 3, 4}, {2}, 1)
    assert watched.run(120) == []


def test_a_standby_is_not_promoted_while_all_are_well() -> None:
    watched = Watched(STANDBY, voters=3)
    assert watched.run(300) == []


def test_the_dead_voter_is_the_next_standby_if_it_comes_back() -> None:
    watched = Watched(STANDBY, voters=3)
    watched.run(20)
    watched.dead.add(2)
    watched.run(40)
    watched.dead = {3}
    assert ids(watched.run(60)) == [(Promotion, 2), (Demotion, 3)]
    assert watched.spare == 1


def test_a_voter_that_comes_back_in_time_is_left_alone() -> None:
    watched = Watched(STANDBY, voters=3)
    watched.run(20)
    for _ in range(3):
        watched.dead.add(2)
        assert watched.run(29) == []
        watched.dead.clear()
        assert watched.run(5) == []


def test_no_replacement_without_a_quorum() -> None:
    watched = Watched(STANDBY, voters=3)
    watched.run(20)
    watched.dead |= {2, 3}
    assert watched.run(120) == []
    watched.dead.remove(2)
    assert ids(watched.run(LOOK_SECONDS)) == [(Promotion, 4)], "3 has been dead for long enough"


def test_whoever_is_dead_is_not_counted_on() -> None:
    """Of two voters one is dead: what is proposed would wait for it."""
    for standby_seconds in (2, 3):
        policy = Policy(max_lag=100, healthy_seconds=1, standby_seconds=standby_seconds)
        watched = Watched(policy, voters=2)
        watched.run(5)
        watched.dead.add(2)
        assert watched.run(20) == []


def test_no_replacement_by_a_learner_that_is_not_ready() -> None:
    watched = Watched(STANDBY, voters=3)
    watched.lag[4] = 101
    watched.run(20)
    watched.dead.add(2)
    assert watched.run(120) == []
    watched.lag[4] = 0
    assert ids(watched.run(12)) == [(Promotion, 4), (Demotion, 2)]


def test_what_a_leader_began_the_next_one_finishes() -> None:
    """It finds four voters, one of them dead, and no learner."""
    watched = Watched(STANDBY, voters=4, learners=0)
    watched.dead.add(2)
    watched.run(20)
    assert watched.spare == 0
    watched.care.forget()
    assert ids(watched.run(40)) == [(Demotion, 2)]
    assert watched.spare == 1


def test_of_four_voters_a_dead_one_needs_no_replacement() -> None:
    watched = Watched(STANDBY, voters=4)
    watched.run(20)
    watched.dead.add(2)
    assert ids(watched.run(120)) == [(Demotion, 2)]
    assert (watched.voters, watched.spare) == ({1, 3, 4}, 1)


def test_the_voter_that_is_dead_longest_is_replaced() -> None:
    watched = Watched(STANDBY, voters=5)
    watched.run(20)
    watched.dead.add(3)
    watched.run(10)
    watched.dead.add(2)
    assert ids(watched.run(120)) == [(Promotion, 6), (Demotion, 3)]
    assert watched.spare == 1


def test_the_leader_alone_has_nobody_to_replace() -> None:
    watched = Watched(STANDBY, voters=1)
    assert watched.run(120) == []


@settings(max_examples=60)
@example(voters=5, learners=1, events=[(3, 1), (4, 28), (2, 2)])  # the third, unnoticed yet
@example(voters=5, learners=1, events=[(3, 3), (2, 26), (6, 2)])  # the learner
@example(voters=4, learners=0, events=[(3, 26), (2, 30), (4, 1), (2, 30)])  # one of many deaths
@given(
    voters=st.integers(1, 5),
    learners=st.integers(0, 2),
    events=st.lists(st.tuples(st.integers(2, 7), st.integers(1, 45)), max_size=12),
)
def test_whatever_happens_nobody_is_worse_off(
    voters: int, learners: int, events: list[tuple[int, int]]
) -> None:
    """Members die and come back at random: no step lets fewer voters fail than before it did."""
    watched = Watched(STANDBY, voters, learners)
    for member, seconds in events:
        watched.dead ^= {member}
        spare = watched.spare
        watched.run(seconds)
        assert watched.spare >= spare
        assert 1 in watched.voters
    watched.dead &= watched.voters | watched.learners
    watched.run(60)
    assert watched.run(60) == [], "it comes to rest"


def test_nothing_to_do() -> None:
    assert Policy(max_lag=1, healthy_seconds=1).is_idle
    assert not AUTO.is_idle
    assert not STANDBY.is_idle
