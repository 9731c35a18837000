"""Snapshots: when one is sent, what ends the wait for it, and how it is taken."""

from __future__ import annotations

import pytest
from group import (
    ack,
    append,
    core,
    elected,
    heartbeat_answer,
    log_terms,
    run,
    snapshot_of,
)

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import Raft
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.raft.progress import State


def compacted_leader(available: list[raftpb.Snapshot | None]) -> Raft:
    """Return a leader whose entries up to 4 are compacted, while member 3 has nothing."""
    raft = core(snapshot=lambda: available[-1])
    elected(raft)
    for _ in range(4):
        raft.propose(b"x")
    run(raft)
    ack(raft, 2, 5)
    run(raft)
    raft.log.compact(4)
    raft.progress[3].paused = False
    return raft


def reject_all(raft: Raft, member: int) -> list[Message]:
    index = raft.progress[member].next - 1
    raft.step(Message(raftpb.MsgAppResp, 1, member, raft.term, index=index, reject=True))
    return [m for m in run(raft) if m.to == member]


def test_what_is_compacted_goes_as_a_snapshot_and_then_nothing_until_it_arrived() -> None:
    raft = compacted_leader([snapshot_of(4)])
    raft.progress[3].next = 3
    (sent,) = reject_all(raft, 3)
    assert sent.type == raftpb.MsgSnap
    assert sent.snapshot is not None
    assert sent.snapshot.metadata.index == 4
    raft.propose(b"y")
    assert not [m for m in run(raft) if m.to == 3]
    assert not [m for m in heartbeat_answer(raft, 3) if m.to == 3]


@pytest.mark.parametrize(("arrived", "resumes"), [(3, False), (4, True), (5, True)])
def test_any_snapshot_that_reaches_the_log_will_do(arrived: int, resumes: bool) -> None:
    """Also an older or a newer one than was sent."""
    raft = compacted_leader([snapshot_of(5)])
    raft.progress[3].next = 3
    reject_all(raft, 3)
    assert raft.progress[3].pending_snapshot == 5
    ack(raft, 3, arrived)
    assert bool([m for m in run(raft) if m.to == 3]) is (arrived == 4)
    assert (raft.progress[3].state is State.REPLICATE) is resumes


@pytest.mark.parametrize(("ok", "next_index"), [(True, 5), (False, 1)])
def test_a_report_of_the_transfer_ends_the_wait(ok: bool, next_index: int) -> None:
    raft = compacted_leader([snapshot_of(4)])
    raft.progress[3].next = 3
    reject_all(raft, 3)
    raft.report_snapshot(3, ok)
    assert (raft.progress[3].state, raft.progress[3].next) == (State.PROBE, next_index)
    assert not [m for m in run(raft) if m.to == 3], "not before a sign of life"
    (sent,) = [m for m in heartbeat_answer(raft, 3) if m.to == 3]
    assert sent.type == (raftpb.MsgApp if ok else raftpb.MsgSnap)


def test_no_snapshot_for_a_member_that_is_not_there() -> None:
    raft = compacted_leader([snapshot_of(4)])
    raft.progress[3].next = 3
    raft.progress[3].recent_active = False
    raft.propose(b"y")
    assert not [m for m in run(raft) if m.to == 3]
    assert raft.progress[3].state is State.PROBE


def test_a_snapshot_that_is_not_available_is_asked_for_again() -> None:
    available: list[raftpb.Snapshot | None] = [None]
    raft = compacted_leader(available)
    raft.progress[3].next = 3
    assert not reject_all(raft, 3)
    available.append(snapshot_of(4))
    (sent,) = [m for m in heartbeat_answer(raft, 3) if m.to == 3]
    assert sent.type == raftpb.MsgSnap


def test_a_snapshot_of_before_the_compacted_entries_is_of_no_use() -> None:
    raft = compacted_leader([snapshot_of(3)])
    raft.progress[3].next = 3
    assert not reject_all(raft, 3)
    assert raft.progress[3].state is State.PROBE


def test_a_snapshot_from_before_what_is_compacted_is_ignored() -> None:
    follower = core(terms=[1] * 5, committed=5)
    run(follower)
    follower.log.compact(5)
    follower.step(Message(raftpb.MsgSnap, 1, 2, 1, snapshot=snapshot_of(3)))
    assert follower.log.snapshot is None
    assert [m.index for m in run(follower)] == [5]


def test_a_snapshot_replaces_the_log_and_is_answered_when_installed() -> None:
    follower = core(terms=[1, 1, 1], committed=1)
    snapshot = snapshot_of(7, 2, (1, 2, 4))
    follower.step(Message(raftpb.MsgSnap, 1, 2, 3, snapshot=snapshot))
    follower.check()
    assert not follower.messages()
    ready = follower.ready()
    assert ready is not None
    assert ready.snapshot is snapshot
    assert not ready.entries
    assert ready.hard_state is not None
    assert ready.hard_state.commit == 7, "the snapshot in the same save vouches for it"
    assert follower.committed(10) == []
    follower.saved(ready)
    follower.check()
    assert [(m.type, m.index) for m in follower.messages()] == [(raftpb.MsgAppResp, 7)]
    assert (follower.applied_index, follower.commit_index, follower.log.last_term) == (7, 7, 2)
    assert list(follower.config_state().voters) == [1, 2, 4]


def test_a_snapshot_while_entries_are_being_saved() -> None:
    follower = core()
    append(follower, 0, 0, [5, 5, 5])
    first = follower.ready()
    follower.step(Message(raftpb.MsgSnap, 1, 2, 6, snapshot=snapshot_of(2, 6)))
    assert first is not None
    follower.saved(first)
    follower.check()
    assert follower.log.saved == 0, "what was saved is not the log any more"
    append(follower, 2, 6, [6], term=6)
    second = follower.ready()
    assert second is not None
    assert second.snapshot is not None
    assert [entry.Index for entry in second.entries] == [3]
    follower.saved(second)
    assert follower.log.saved == 3
    follower.check()


def test_a_second_snapshot_while_the_first_is_being_installed() -> None:
    """etcd#18055."""
    follower = core()
    for index in (5, 9):
        follower.step(Message(raftpb.MsgSnap, 1, 2, 1, snapshot=snapshot_of(index)))
        if index == 5:
            first = follower.ready()
    assert first is not None
    follower.saved(first)
    follower.check()
    assert (follower.applied_index, follower.commit_index) == (5, 9)
    second = follower.ready()
    assert second is not None
    follower.saved(second)
    follower.check()
    assert (follower.applied_index, follower.log.last_index) == (9, 9)


@pytest.mark.parametrize(
    ("terms", "index", "voters"),
    [([1, 1, 1], 2, (1, 2, 3)), ([1, 1, 1, 1], 4, (1, 2, 3)), ([1, 1], 9, (2, 3, 4))],
    ids=["old", "already in the log", "not for this member"],
)
def test_a_snapshot_that_is_of_no_use_leaves_the_log_alone(
    terms: list[int], index: int, voters: tuple[int, ...]
) -> None:
    follower = core(terms=terms, committed=2)
    follower.step(Message(raftpb.MsgSnap, 1, 2, 1, snapshot=snapshot_of(index, 1, voters)))
    assert log_terms(follower) == terms
    (answer,) = run(follower)
    assert answer.index == follower.commit_index == (4 if index == 4 else 2)
