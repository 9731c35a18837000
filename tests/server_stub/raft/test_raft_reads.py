"""Read index: answered once a quorum has confirmed, after the question, that the leader leads."""

from __future__ import annotations

import pytest
from group import Group, ack, core, elected, heartbeat_answer, only, run, save

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft, ReadState, Role
from etcd_pinwheel.server_stub.raft.messages import Message


def leader(**settings: int | bool) -> Raft:
    """Return a leader of three that has committed in its term."""
    raft = elected(core(**settings))
    ack(raft, 2, 1)
    run(raft)
    assert raft.committed_in_term
    return raft


def round_of(raft: Raft) -> bytes:
    """Return the context of the heartbeats sent now."""
    beats = only(raft.messages(), raftpb.MsgHeartbeat)
    assert [beat.to for beat in beats] == [2, 3]
    assert beats[0].context == beats[1].context
    return beats[0].context


def answer_round(raft: Raft, member: int, context: bytes) -> None:
    raft.step(Message(raftpb.MsgHeartbeatResp, raft.id, member, raft.term, context=context))
    raft.check()


@pytest.mark.parametrize("reader", [1, 2, 3, 4])
def test_any_member_may_ask_a_learner_too(reader: int) -> None:
    group = Group.of([1, 2, 3], [4])
    group.elect(1)
    group.propose(1, b"a")
    group[reader].read_index(b"q")
    group.settle()
    assert group[reader].reads() == [ReadState(2, b"q")]
    assert group[reader].reads() == []


def test_no_answer_without_a_round_that_a_quorum_answers() -> None:
    raft = leader()
    raft.read_index(b"q")
    assert raft.reads() == []
    context = round_of(raft)
    answer_round(raft, 1, context)
    assert raft.reads() == []
    answer_round(raft, 3, context)
    assert raft.reads() == [ReadState(1, b"q")]


def test_an_answer_to_an_earlier_heartbeat_confirms_nothing() -> None:
    raft = leader()
    raft.read_index(b"q")
    first = round_of(raft)
    raft.read_index(b"r")
    answer_round(raft, 2, b"")
    answer_round(raft, 2, first)
    assert raft.reads() == [ReadState(1, b"q")], "the round was sent before the second came"
    answer_round(raft, 3, first)
    second = round_of(raft)
    answer_round(raft, 3, first)
    assert raft.reads() == []
    answer_round(raft, 2, second)
    assert raft.reads() == [ReadState(1, b"r")]


def test_an_answer_to_a_later_round_confirms_all_earlier_ones() -> None:
    raft = leader()
    raft.read_index(b"q")
    round_of(raft)
    raft.read_index(b"r")
    answer_round(raft, 2, round_of(raft))
    assert [read.context for read in raft.reads()] == [b"q", b"r"]


def test_a_lost_round_is_made_good_by_the_next_heartbeat() -> None:
    raft = leader()
    raft.read_index(b"q")
    lost = round_of(raft)
    raft.tick()
    again = round_of(raft)
    assert again == lost
    answer_round(raft, 3, again)
    assert raft.reads() == [ReadState(1, b"q")]


def test_many_questions_share_one_round() -> None:
    raft = leader()
    for _ in range(5):
        raft.read_index(b"q")
    raft.tick()
    answer_round(raft, 2, round_of(raft))
    assert raft.reads() == [ReadState(1, b"q")] * 5


def test_a_question_that_is_repeated_is_not_taken_for_the_earlier_one() -> None:
    """Its answer is of its own time (etcd#20418)."""
    raft = leader()
    raft.read_index(b"same")
    first = round_of(raft)
    raft.propose(b"a")
    run(raft)
    ack(raft, 2, 2)
    raft.read_index(b"same")
    answer_round(raft, 2, first)
    assert raft.reads() == [ReadState(1, b"same")]
    answer_round(raft, 2, round_of(raft))
    assert raft.reads() == [ReadState(2, b"same")]


def test_a_new_leader_answers_only_after_a_commit_in_its_term() -> None:
    """It does not know before what is committed (etcd#7331); what came meanwhile is kept."""
    raft = elected(core(terms=[1, 1], committed=1))
    raft.read_index(b"q")
    raft.step(Message(raftpb.MsgReadIndex, 1, 2, context=b"r"))
    raft.tick()
    heartbeat_answer(raft, 2)
    assert raft.reads() == []
    ack(raft, 2, 3)
    answer_round(raft, 2, round_of(raft))
    assert raft.reads() == [ReadState(3, b"q")]
    (response,) = only(raft.messages(), raftpb.MsgReadIndexResp)
    assert (response.to, response.index, response.context) == (2, 3, b"r")


def test_the_only_voter_answers_at_once_but_not_before_its_first_commit() -> None:
    raft = core(voters=[1], learners=[2], terms=[1, 1], committed=1)
    raft.campaign()
    save(raft)
    assert raft.role is Role.LEADER
    raft.read_index(b"q")
    assert raft.reads() == [], "a crash may have taken its commit index back"
    save(raft)
    assert raft.reads() == [ReadState(3, b"q")]
    raft.read_index(b"r")
    assert raft.reads() == [ReadState(3, b"r")]


def test_learners_confirm_nothing() -> None:
    raft = elected(core(learners=[4, 5]))
    ack(raft, 2, 1)
    run(raft)
    raft.read_index(b"q")
    context = only(raft.messages(), raftpb.MsgHeartbeat)[0].context
    for learner in (4, 5):
        answer_round(raft, learner, context)
    assert raft.reads() == []


def test_who_has_lost_the_lead_answers_nothing_that_was_asked_before() -> None:
    raft = leader()
    raft.read_index(b"q")
    context = round_of(raft)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 2))
    answer_round(raft, 3, context)
    assert raft.reads() == []


def test_what_waits_for_a_commit_is_forgotten_with_the_lead() -> None:
    raft = elected(core())
    raft.read_index(b"q")
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 2))
    raft.check()
    elected(raft)
    ack(raft, 2, raft.log.last_index)
    answer_round(raft, 2, b"")
    run(raft)
    assert (raft.committed_in_term, raft.reads()) == (True, [])


def test_without_a_leader_questions_are_dropped() -> None:
    raft = core()
    raft.read_index(b"q")
    raft.step(Message(raftpb.MsgReadIndex, 1, 2, context=b"r"))
    assert (raft.messages(), raft.reads()) == ([], [])


def test_a_leader_that_is_cut_off_answers_nothing() -> None:
    group = Group.of()
    group.elect(1)
    group.isolate(1)
    group.elect_by_timeout(2)
    group.propose(2, b"new")
    group[1].read_index(b"q")
    group.tick_all(3)
    assert group[1].reads() == []
    group.heal()
    group.tick_all(2)
    assert group[1].reads() == []


def test_lease_reads_are_answered_at_once_unless_the_lead_is_handed_over() -> None:
    raft = leader(lease_reads=True)
    raft.read_index(b"q")
    assert raft.reads() == [ReadState(1, b"q")]
    raft.transfer_leader(3)
    raft.read_index(b"r")
    assert raft.reads() == [], "the target may lead already"


def test_lease_reads_need_check_quorum() -> None:
    with pytest.raises(ValueError, match="lease_reads needs check_quorum"):
        Config(id=1, lease_reads=True, check_quorum=False)
