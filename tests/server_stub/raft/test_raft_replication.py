"""Replication at the leader: committing, probing, the window, and what to ignore."""

from __future__ import annotations

import pytest
from group import (
    Group,
    ack,
    append,
    core,
    elected,
    heartbeat_answer,
    log_terms,
    only,
    run,
    save,
)

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import Role
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.raft.progress import State

# The leader: committing.


def test_an_entry_is_committed_when_a_quorum_has_saved_it() -> None:
    raft = elected(core(voters=[1, 2, 3, 4, 5]))
    raft.propose(b"a")
    ack(raft, 2, 2)
    ack(raft, 3, 2)
    assert raft.commit_index == 1, "two of five: the leader's own is not saved"
    save(raft)
    assert raft.commit_index == 2


def test_the_leader_may_commit_before_it_has_saved_but_applies_after() -> None:
    raft = elected(core())
    raft.propose(b"a")
    run(raft)
    raft.propose(b"b")
    ack(raft, 2, 3)
    ack(raft, 3, 3)
    assert raft.commit_index == 3
    assert [entry.Index for entry in raft.committed(10)] == [1, 2]
    save(raft)
    assert [entry.Index for entry in raft.committed(10)] == [3]


def test_learners_do_not_count() -> None:
    raft = elected(core(learners=[4, 5]))
    raft.propose(b"a")
    run(raft)
    ack(raft, 4, 2)
    ack(raft, 5, 2)
    assert raft.commit_index == 0
    ack(raft, 2, 2)
    assert raft.commit_index == 2


def test_entries_of_older_terms_are_committed_only_along_with_one_of_the_own() -> None:
    """Paper 5.4.2 and figure 8."""
    raft = elected(core(terms=[1, 2], term=2))
    assert raft.term == 3
    ack(raft, 2, 2)
    ack(raft, 3, 2)
    assert raft.commit_index == 0
    ack(raft, 2, 3)
    assert raft.commit_index == 3


def test_an_own_acknowledgement_counts_for_what_is_in_the_log_now() -> None:
    """The save of entries that were replaced meanwhile ends when their member leads again."""
    raft = elected(core(terms=[1]))
    raft.propose(b"a")
    raft.propose(b"b")
    old = raft.ready()
    assert old is not None
    append(raft, 1, 1, [5], term=5)
    assert log_terms(raft) == [1, 5]
    raft.saved(old)
    assert raft.log.saved == 1
    raft.check()
    save(raft)
    assert raft.log.saved == 2


def test_a_save_ends_in_a_later_term_of_the_same_leader() -> None:
    raft = elected(core())
    raft.propose(b"a")
    old = raft.ready()
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 7))
    raft.campaign()
    raft.step(Message(raftpb.MsgPreVoteResp, 1, 2, 8))
    assert old is not None
    raft.saved(old)
    assert raft.role is Role.CANDIDATE, "its vote in term 8 is not saved"
    run(raft)
    raft.step(Message(raftpb.MsgVoteResp, 1, 2, 8))
    assert raft.role is Role.LEADER
    assert raft.progress[1].match == 2
    raft.check()


# The leader: sending.


def test_many_proposals_make_one_append() -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    ack(raft, 3, 1)
    run(raft)
    for place in range(10):
        raft.propose(b"%d" % place)
    appends = only(raft.messages(), raftpb.MsgApp)
    assert [(m.to, m.index, len(m.entries)) for m in appends] == [(2, 2 - 1, 10), (3, 2 - 1, 10)]


def test_an_append_holds_no_more_than_the_bound_but_at_least_one_entry() -> None:
    raft = elected(core(max_message_bytes=10))
    ack(raft, 2, 1)
    run(raft)
    for size in (4, 6, 1, 50, 3):
        raft.propose(b"x" * size)
    appends = [m for m in run(raft) if m.type == raftpb.MsgApp and m.to == 2]
    assert [len(m.entries) for m in appends] == [2, 1, 1, 1]


def test_while_probing_one_append_goes_out_per_heartbeat() -> None:
    raft = elected(core())
    assert raft.progress[2].state is State.PROBE
    for _ in range(5):
        raft.propose(b"a")
        assert not [m for m in run(raft) if m.to == 2]
    assert len([m for m in heartbeat_answer(raft, 2) if m.to == 2]) == 1
    assert not [m for m in run(raft) if m.to == 2]


def test_an_answer_to_a_heartbeat_recovers_a_member_that_has_everything() -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    run(raft)
    raft.report_unreachable(2)
    assert raft.progress[2].state is State.PROBE
    (probe,) = [m for m in heartbeat_answer(raft, 2) if m.to == 2]
    assert (probe.type, probe.index, len(probe.entries)) == (raftpb.MsgApp, 1, 0)
    ack(raft, 2, 1)
    assert raft.progress[2].state is State.REPLICATE


@pytest.mark.parametrize(
    ("settings", "sent"),
    [({"max_inflight_messages": 3}, 3), ({"max_inflight_bytes": 25}, 3)],
)
def test_the_window_is_bounded_in_count_and_bytes(settings: dict[str, int], sent: int) -> None:
    raft = elected(core(**settings))
    ack(raft, 2, 1)
    run(raft)
    seen = []
    for _ in range(6):
        raft.propose(b"x" * 10)
        seen += [m for m in run(raft) if m.to == 2]
    assert len(seen) == sent
    assert raft.progress[2].is_paused
    # A heartbeat's answer lets one empty append through, and no more.
    (empty,) = [m for m in heartbeat_answer(raft, 2) if m.to == 2]
    assert (empty.index, len(empty.entries)) == (1 + sent, 0)
    raft.propose(b"y")
    assert not [m for m in run(raft) if m.to == 2]
    # Its rejection shows that the whole window was lost.
    raft.step(
        Message(
            raftpb.MsgAppResp,
            1,
            2,
            raft.term,
            index=empty.index,
            reject=True,
            reject_hint=1,
            log_term=raft.log.term(1) or 0,
        )
    )
    (probe,) = [m for m in run(raft) if m.to == 2]
    assert (probe.index, len(probe.entries)) == (1, 7)


def test_an_acknowledgement_opens_the_window() -> None:
    raft = elected(core(max_inflight_messages=2))
    ack(raft, 2, 1)
    run(raft)
    for _ in range(5):
        raft.propose(b"x")
        run(raft)
    ack(raft, 2, 2)
    (more,) = [m for m in run(raft) if m.to == 2]
    assert (more.index, len(more.entries)) == (3, 3)


def test_late_and_doubled_answers_change_nothing() -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    for _ in range(4):
        raft.propose(b"x")
        run(raft)
    ack(raft, 2, 4)
    before = (raft.progress[2].match, raft.progress[2].next)
    ack(raft, 2, 3)
    for index in (1, 3, 4):
        raft.step(
            Message(raftpb.MsgAppResp, 1, 2, raft.term, index=index, reject=True, reject_hint=0)
        )
    assert (raft.progress[2].match, raft.progress[2].next) == before == (4, 6)
    assert raft.progress[2].state is State.REPLICATE


def test_while_probing_only_the_probe_that_is_out_can_be_rejected() -> None:
    raft = elected(core(terms=[1, 1, 1, 1]))
    assert (raft.progress[2].state, raft.progress[2].next) == (State.PROBE, 5)
    raft.step(Message(raftpb.MsgAppResp, 1, 2, raft.term, index=2, reject=True, reject_hint=0))
    assert raft.progress[2].next == 5
    raft.step(Message(raftpb.MsgAppResp, 1, 2, raft.term, index=4, reject=True, reject_hint=2))
    assert raft.progress[2].next == 3


def test_the_commit_index_reaches_followers_without_waiting_for_a_heartbeat() -> None:
    group = Group.of()
    group.elect(1)
    group.propose(1, b"a")
    assert [raft.commit_index for raft in group.rafts.values()] == [2, 2, 2]


def test_a_heartbeat_tells_no_more_of_the_commit_index_than_the_member_has() -> None:
    raft = elected(core())
    raft.propose(b"a")
    run(raft)
    ack(raft, 2, 2)
    run(raft)
    raft.tick()
    beats = {m.to: m.commit for m in only(raft.messages(), raftpb.MsgHeartbeat)}
    assert beats == {2: 2, 3: 0}


# What can only be wrong.


@pytest.mark.parametrize(
    "message",
    [
        Message(raftpb.MsgAppResp, 1, 9, 1, index=1),
        Message(raftpb.MsgHeartbeatResp, 1, 9, 1),
        Message(raftpb.MsgVoteResp, 1, 9, 7),
        Message(raftpb.MsgHup, 1, 2, 1),
        Message(raftpb.MsgCheckQuorum, 1, 2, 1),
        Message(raftpb.MsgForgetLeader, 1, 2, 1),
        Message(raftpb.MsgHeartbeat, 3, 2, 7),
        Message(raftpb.MsgApp, 1, 2, 0),
        Message(raftpb.MsgApp, 1, 2, 1),
        Message(raftpb.MsgAppResp, 1, 2, 1, index=99),
    ],
    ids=lambda message: f"{message.type}-from-{message.sender}",
)
def test_what_can_only_be_wrong_is_counted_and_ignored(message: Message) -> None:
    raft = elected(core())
    raft.step(message)
    assert raft.refused == 1
    assert (raft.role, raft.term) == (Role.LEADER, 1)
    assert not raft.messages()
