"""Changes of the membership: when one may be proposed, and what it does to who is in office."""

from __future__ import annotations

import pytest
from group import (
    ELECTION_TICKS,
    Group,
    ack,
    add_learner,
    add_voter,
    change,
    core,
    elected,
    only,
    remove,
    run,
    save,
    snapshot_of,
)

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.confchange import ChangeRefused
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import ProposalDropped, Raft, Role
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.raft.progress import State


def joint(*changes: raftpb.ConfChange, explicit: bool = False) -> raftpb.ConfChangeV2:
    transition = (
        raftpb.ConfChangeTransitionJointExplicit
        if explicit
        else raftpb.ConfChangeTransitionJointImplicit
    )
    return raftpb.ConfChangeV2(
        transition=transition,
        changes=[raftpb.ConfChangeSingle(type=one.type, node_id=one.node_id) for one in changes],
    )


LEAVE = raftpb.ConfChangeV2()


# When a change may be proposed.


def test_one_change_at_a_time() -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    run(raft)
    raft.propose_change(add_voter(4))
    with pytest.raises(ProposalDropped, match="may be unapplied"):
        raft.propose_change(add_voter(5))
    run(raft)
    ack(raft, 2, 2)
    with pytest.raises(ProposalDropped, match="may be unapplied"):
        raft.propose_change(add_voter(5))
    run(raft)
    assert list(raft.config_state().voters) == [1, 2, 3, 4]
    raft.propose_change(add_voter(5))


def test_a_new_leader_takes_no_change_before_its_log_of_old_is_applied() -> None:
    """There may be one in it (the bug in single-server changes of 2015)."""
    raft = elected(core(terms=[1, 1]))
    with pytest.raises(ProposalDropped, match="may be unapplied"):
        raft.propose_change(remove(2))
    ack(raft, 2, 3)
    run(raft)
    raft.propose_change(remove(2))


def test_a_change_that_is_handed_on_and_refused_is_dropped() -> None:
    group = Group.of()
    group.elect(1)
    group[1].propose_change(add_learner(4))
    group[1].step(
        Message(
            raftpb.MsgProp,
            1,
            3,
            entries=[
                raftpb.Entry(Type=raftpb.EntryConfChange, Data=add_learner(5).SerializeToString())
            ],
        )
    )
    assert group[1].dropped == 1


def test_while_joint_only_leaving_is_taken_and_else_it_is_not() -> None:
    group = Group.of()
    group.elect(1)
    with pytest.raises(ProposalDropped, match="not in a joint"):
        group[1].propose_change(LEAVE)
    group.change(1, joint(add_voter(4), remove(3), explicit=True))
    assert list(group[1].config_state().voters_outgoing) == [1, 2, 3]
    with pytest.raises(ProposalDropped, match="must leave"):
        group[1].propose_change(add_voter(5))
    group.change(1, LEAVE)
    for member in (1, 2):
        assert group[member].config_state() == raftpb.ConfState(voters=[1, 2, 4])


def test_a_joint_configuration_is_left_by_itself_once() -> None:
    group = Group.of()
    group.elect(1)
    group[1].propose_change(joint(add_voter(4), add_voter(5)))
    group[1].propose(b"applied before the leaving is")
    group.settle()
    entries = group[1].log.slice(1, group[1].log.last_index + 1)
    leaves = [entry for entry in entries if entry.Type == raftpb.EntryConfChangeV2]
    assert len(leaves) == 2
    assert group[1].config_state() == raftpb.ConfState(voters=[1, 2, 3, 4, 5])


def test_a_leader_that_is_elected_in_a_joint_configuration_leaves_it() -> None:
    group = Group.of()
    group.elect(1)
    group.lose = lambda message: any(not entry.Data for entry in message.entries)  # the leaving
    group.change(1, joint(add_voter(4), remove(1)))
    assert group[2].configuration.is_joint
    group.isolate(1)
    group.lose = lambda message: False
    group.rafts[4] = core(4, [1, 2, 3])
    group.data[4] = []
    group.elect_by_timeout(2)
    group.tick_all(2)
    assert group[2].config_state() == raftpb.ConfState(voters=[2, 3, 4])


def test_a_vetoed_change_changes_nothing_and_lets_the_next_one_pass() -> None:
    raft = elected(core(voters=[1]))
    raft.propose_change(remove(1))
    save(raft)
    assert raft.committed(9)[-1].Type == raftpb.EntryConfChange
    assert list(raft.apply_change(change(raftpb.ConfChangeRemoveNode, 0)).voters) == [1]
    raft.applied(2)
    raft.propose_change(add_learner(2))


def test_an_impossible_change_is_refused_and_changes_nothing() -> None:
    raft = core(voters=[1])
    with pytest.raises(ChangeRefused, match="removed all voters"):
        raft.apply_change(remove(1))
    assert list(raft.config_state().voters) == [1]


def test_a_change_behind_another_one_proves_after_a_restart_that_that_is_committed() -> None:
    """The commit index may be lost in a crash; to run in a configuration from before is unsafe."""
    entries = [
        raftpb.Entry(Index=index, Term=1, Type=raftpb.EntryConfChange, Data=one.SerializeToString())
        for index, one in enumerate((add_voter(4), add_voter(5)), 1)
    ]
    raft = Raft(
        Config(id=1),
        Log(entries),
        raftpb.HardState(term=1),
        raftpb.ConfState(voters=[1, 2, 3]),
        lambda n: 0,
    )
    assert raft.commit_index == 1
    raft.campaign()
    assert raft.role is Role.FOLLOWER
    run(raft)
    assert list(raft.config_state().voters) == [1, 2, 3, 4], "not the second: that is open"
    raft.campaign()
    assert raft.role is Role.PRE_CANDIDATE


# What it does.


def test_a_newcomer_is_fed_and_counts_as_active_until_it_had_time_to_answer() -> None:
    """Or the next look at the quorum could depose the leader."""
    raft = elected(core(voters=[1]))
    for _ in range(5):
        raft.propose(b"x")
    run(raft)
    raft.propose_change(add_voter(2))
    sent = run(raft)
    assert raft.progress[2].recent_active
    (probe,) = only(sent, raftpb.MsgApp)
    assert probe.to == 2
    for _ in range(ELECTION_TICKS):
        raft.tick()
    assert raft.role is Role.LEADER
    for _ in range(ELECTION_TICKS):
        raft.tick()
    assert raft.role is Role.FOLLOWER


def test_a_learner_gets_the_log_and_keeps_its_progress_when_promoted() -> None:
    group = Group.of([1, 2, 3], [4])
    group.elect(1)
    group.propose(1, b"a")
    assert group.data[4] == [b"a"]
    assert group[4].is_learner
    progress = group[1].progress[4]
    assert progress.is_learner
    group.change(1, add_voter(4))
    assert group[1].progress[4] is progress
    assert not progress.is_learner
    assert progress.match == 3
    assert progress.state is State.REPLICATE
    assert not group[4].is_learner


def test_a_promoted_learner_can_lead() -> None:
    group = Group.of([1, 2], [3])
    group.elect(1)
    group.change(1, add_voter(3))
    group[1].transfer_leader(3)
    group.settle()
    assert group[3].role is Role.LEADER


def test_what_a_smaller_quorum_has_is_committed_at_once() -> None:
    raft = elected(core(voters=[1, 2, 3, 4]))
    ack(raft, 2, 1)
    ack(raft, 3, 1)
    run(raft)
    raft.propose_change(remove(4))
    raft.propose(b"behind it")
    save(raft)
    ack(raft, 2, 3)
    ack(raft, 3, 2)
    assert raft.commit_index == 2
    run(raft)
    assert raft.commit_index == 3


@pytest.mark.parametrize("demote", [False, True])
@pytest.mark.parametrize("step_down", [False, True])
def test_a_leader_that_is_removed_or_demoted_steps_down(demote: bool, step_down: bool) -> None:
    group = Group.of(step_down_on_removal=step_down)
    group.elect(1)
    group.change(1, add_learner(1) if demote else remove(1))
    assert list(group[2].config_state().voters) == [2, 3]
    assert (group[1].role is Role.FOLLOWER) is step_down
    if not step_down and not demote:
        with pytest.raises(ProposalDropped, match="not a member"):
            group[1].propose(b"a")
    group[1].campaign()
    assert group[1].role is not Role.CANDIDATE


def test_a_removed_leader_that_stays_does_not_count_itself() -> None:
    raft = elected(core(step_down_on_removal=False))
    ack(raft, 2, 1)
    run(raft)
    raft.propose_change(remove(1))
    raft.propose(b"a")
    save(raft)
    ack(raft, 2, 2)
    run(raft)
    ack(raft, 2, 3)
    assert raft.commit_index == 2, "one of the two that are left"
    ack(raft, 3, 3)
    assert raft.commit_index == 3


def test_the_answers_of_a_removed_member_count_for_nothing() -> None:
    group = Group.of()
    group.elect(1)
    group.change(1, remove(3))
    assert 3 not in group[1].progress
    before = group[1].refused
    group[1].step(Message(raftpb.MsgAppResp, 1, 3, 9, index=1))
    assert (group[1].refused, group[1].term, group[1].role) == (before + 1, 1, Role.LEADER)


def test_nobody_hears_of_a_member_that_is_removed() -> None:
    group = Group.of()
    group.elect(1)
    group.change(1, remove(3))
    group.sent.clear()
    group.propose(1, b"a")
    group.tick_all(2)
    assert {message.to for message in group.sent} == {1, 2}


@pytest.mark.parametrize(
    ("voters", "learners", "is_learner"),
    [([2, 3, 1], [], False), ([2, 3], [1], True)],
    ids=["promoted", "demoted"],
)
def test_a_snapshot_brings_the_membership_of_its_time(
    voters: list[int], learners: list[int], is_learner: bool
) -> None:
    raft = core(1, [2, 3], [1]) if not is_learner else core(1, [1, 2, 3])
    snapshot = snapshot_of(5)
    snapshot.metadata.conf_state.CopyFrom(raftpb.ConfState(voters=voters, learners=learners))
    raft.step(Message(raftpb.MsgSnap, 1, 2, 1, snapshot=snapshot))
    run(raft)
    assert raft.is_learner is is_learner
    raft.campaign()
    assert (raft.role is Role.FOLLOWER) is is_learner


def test_a_learner_catches_up_by_a_snapshot_and_is_promoted() -> None:
    group = Group.of([1, 2])
    group.elect(1)
    for place in range(5):
        group.propose(1, b"%d" % place)
    group[1].log.compact(group[1].applied_index)
    group[1].snapshot = lambda: snapshot_of(group[1].applied_index, 1, (1, 2))
    joined = snapshot_of(7, 1, (1, 2))
    joined.metadata.conf_state.learners.append(3)
    group.change(1, add_learner(3))
    group[1].snapshot = lambda: joined
    group.rafts[3] = core(3, [], [])
    group.data[3] = []
    group.tick_all(3)
    assert group[3].is_learner
    assert group[3].applied_index == group[1].applied_index == 7
    group.change(1, add_voter(3))
    assert list(group[3].config_state().voters) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes_at", "committed", "known"),
    [([], 1, 1), ([3], 1, 1), ([3, 5], 1, 3), ([2, 3, 5], 0, 3), ([3, 5], 4, 4)],
)
def test_a_change_behind_another_one_proves_that_the_other_is_committed(
    changes_at: list[int], committed: int, known: int
) -> None:
    """A restart may have lost the commit index, not the knowledge that the log itself gives."""
    entries = [
        raftpb.Entry(
            Index=index,
            Term=1,
            Type=raftpb.EntryConfChange if index in changes_at else raftpb.EntryNormal,
            Data=add_voter(4).SerializeToString() if index in changes_at else b"",
        )
        for index in range(1, 7)
    ]
    raft = Raft(
        Config(id=1, election_ticks=ELECTION_TICKS),
        Log(entries),
        raftpb.HardState(term=1, commit=committed),
        raftpb.ConfState(voters=[1, 2, 3]),
        lambda n: 0,
    )
    assert raft.commit_index == known
    raft.campaign()
    assert (raft.role is Role.FOLLOWER) == any(index <= known for index in changes_at)
