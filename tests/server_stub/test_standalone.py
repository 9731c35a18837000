"""Going on alone: what is kept, what is given up, and who is left."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.cluster import (
    ClusterMember,
    adding,
    demoting,
    promoting,
    removing,
    save_members,
)
from etcd_pinwheel.server_stub.standalone import NotAMember, Standalone, standalone
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

OWN, VOTER, LEARNER = 1, 2, 3
CONF_STATE = raftpb.ConfState(voters=[OWN, VOTER], learners=[LEARNER])


def normal(*indexes: int) -> list[raftpb.Entry]:
    return [raftpb.Entry(Index=index, Term=2, Data=b"put") for index in indexes]


def change(index: int, what: raftpb.ConfChange) -> raftpb.Entry:
    data = what.SerializeToString()
    return raftpb.Entry(Index=index, Term=2, Type=raftpb.EntryConfChange, Data=data)


def member(own_id: int, *, is_learner: bool = False) -> ClusterMember:
    return ClusterMember(own_id, (f"http://m:{own_id}",), f"m{own_id}", is_learner=is_learner)


def alone(
    entries: Iterable[raftpb.Entry],
    commit: int,
    applied: int = 0,
    conf_state: raftpb.ConfState = CONF_STATE,
    own_id: int = OWN,
) -> Standalone:
    hard_state = raftpb.HardState(term=5, vote=9, commit=commit)
    return standalone(own_id, conf_state, applied, list(entries), hard_state)


def changes(log: Standalone) -> list[raftpb.ConfChange]:
    return [raftpb.ConfChange.FromString(entry.Data) for entry in log.added]


def test_what_is_not_committed_is_given_up() -> None:
    log = alone(normal(1, 2, 3, 4, 5), commit=3)
    assert log.kept == normal(1, 2, 3)
    assert [(each.Index, each.Term, each.Type) for each in log.added] == [
        (4, 5, raftpb.EntryConfChange),
        (5, 5, raftpb.EntryConfChange),
    ]
    assert changes(log) == [removing(VOTER), removing(LEARNER)]
    assert log.hard_state == raftpb.HardState(term=5, vote=9, commit=5)


def test_what_is_applied_is_committed() -> None:
    """A commit index need not be on disk yet when what it covers is in the store."""
    log = alone(normal(1, 2, 3, 4, 5), commit=2, applied=4)
    assert log.kept == normal(1, 2, 3, 4)
    assert log.hard_state.commit == 6


def test_changes_on_the_way_are_followed() -> None:
    entries = [
        change(4, removing(VOTER)),
        change(5, adding(member(8))),
        change(6, adding(member(9, is_learner=True))),
        change(7, promoting(LEARNER)),
        change(8, demoting(member(OWN))),
        change(9, adding(member(10))),  # not committed
    ]
    log = alone([*normal(3), *entries], commit=8, applied=3)
    assert changes(log) == [promoting(OWN), removing(LEARNER), removing(8), removing(9)]


def test_changes_that_are_applied_are_not_followed_again() -> None:
    entries = [change(2, adding(member(8))), change(3, removing(8))]
    assert changes(alone(entries, commit=3, applied=2)) == [removing(VOTER), removing(LEARNER)]
    assert changes(alone(entries, commit=3, applied=3)) == [removing(VOTER), removing(LEARNER)]


def test_the_founders_are_in_the_log_alone() -> None:
    entries = [change(1, adding(member(OWN))), change(2, adding(member(VOTER)))]
    assert changes(alone(entries, commit=2, conf_state=raftpb.ConfState())) == [removing(VOTER)]


def test_the_last_voter_stays() -> None:
    """A change that would leave no voter may be in the log; it is refused when it is applied."""
    for last in (removing(OWN), demoting(member(OWN))):
        entries = [change(2, removing(VOTER)), change(3, last), *normal(4)]
        log = alone(entries, commit=2)
        assert log.kept == entries
        assert changes(log) == [removing(LEARNER)]


def test_who_is_alone_already_gives_up_nothing() -> None:
    """What the only voter has saved was acknowledged, be it known as committed or not."""
    log = alone(normal(1, 2), commit=1, conf_state=raftpb.ConfState(voters=[OWN]))
    assert (log.kept, log.added, log.hard_state.commit) == (normal(1, 2), [], 2)
    entries = [*normal(1), change(2, adding(member(VOTER))), *normal(3)]
    log = alone(entries, commit=1, conf_state=raftpb.ConfState(voters=[OWN], learners=[LEARNER]))
    assert (log.kept, log.hard_state.commit) == (entries[:2], 4), "3 needed two voters"
    assert changes(log) == [removing(VOTER), removing(LEARNER)]


def test_a_learner_becomes_a_voter_first() -> None:
    log = alone(normal(1), commit=1, own_id=LEARNER)
    assert changes(log) == [promoting(LEARNER), removing(OWN), removing(VOTER)]


def test_a_removed_member_cannot_go_on() -> None:
    with pytest.raises(NotAMember):
        alone([change(1, removing(OWN))], commit=1)


def test_every_change_is_admitted_when_applied() -> None:
    backend = MemoryBackend()
    save_members(backend, [member(OWN), member(VOTER), member(LEARNER, is_learner=True)])
    membership = Membership(backend, 7)
    for each in changes(alone(normal(1), commit=1, own_id=LEARNER)):
        membership.validate(each)
        membership.change(each)
    assert membership.cluster.members == (member(LEARNER),)
    assert membership.removed == {OWN, VOTER}
