"""Who steps down when, and who is not disturbed by members that come and go."""

from __future__ import annotations

import pytest
from group import ELECTION_TICKS, Group, ack, core, elected, heartbeat_answer

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import Role
from etcd_pinwheel.server_stub.raft.messages import Message


def test_a_leader_without_an_active_quorum_steps_down() -> None:
    group = Group.of([1, 2, 3], [4])
    group.elect(1)
    group.isolate(1, 4)  # the learner is there, but that does not help
    group.tick_all(2 * ELECTION_TICKS)
    assert group[1].role is not Role.LEADER
    assert group[1].leader == 0


def test_a_leader_with_an_active_quorum_stays() -> None:
    group = Group.of()
    group.elect(1)
    group.isolate(3)
    group.tick_all(5 * ELECTION_TICKS)
    assert group[1].role is Role.LEADER
    assert group[1].term == 1


def test_a_leader_hears_of_members_although_the_quorum_was_just_checked() -> None:
    """Each tick is a heartbeat, and at each the answers to the one before are still to come."""
    leader = elected(core())
    assert not leader.hears(2), "not yet, as a leader"
    heartbeat_answer(leader, 2)
    for _ in range(3 * ELECTION_TICKS):
        leader.tick()
        assert leader.hears(2)
        assert not leader.hears(3)
        heartbeat_answer(leader, 2)
    heard = []
    for _ in range(ELECTION_TICKS):
        leader.tick()
        heard.append(leader.hears(2))
    assert heard == [True] * (ELECTION_TICKS - 1) + [False]
    ack(leader, 2, 1)
    assert leader.hears(2)
    assert not leader.hears(404)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_member_that_was_cut_off_disturbs_nobody_with_pre_vote(pre_vote: bool) -> None:
    group = Group.of(pre_vote=pre_vote)
    group.elect(1)
    group.isolate(3)
    group.tick_all(6 * ELECTION_TICKS)
    assert (group[3].term > 1) is not pre_vote
    group.heal()
    group.settle()
    group.tick_all(1)
    assert (group[1].role is Role.LEADER and group[1].term == 1) is pre_vote


def test_a_stuck_candidate_is_freed_by_deposing_the_leader() -> None:
    """Its requests are ignored while there is a leader; its answers to appends are not."""
    group = Group.of(pre_vote=False)
    group.elect(1)
    group.isolate(3)
    group[3].campaign()
    group.settle()
    group[3].campaign()
    group.settle()
    group.heal()
    assert (group[3].role, group[3].term, group[1].term) == (Role.CANDIDATE, 3, 1)
    group[1].tick()
    group.settle()
    assert (group[1].role, group[1].term) == (Role.FOLLOWER, 3)
    group.elect(1)
    assert group[3].leader == 1


def test_a_group_of_which_all_were_cut_off_finds_a_leader_again() -> None:
    group = Group.of()
    for one in (1, 2, 3):
        for other in (1, 2, 3):
            group.cut.add((one, other))
    group.tick_all(4 * ELECTION_TICKS)
    assert Role.LEADER not in group.roles()
    group.heal()
    group.tick_all(6 * ELECTION_TICKS)
    assert group.roles().count(Role.LEADER) == 1


def test_a_split_pre_vote_is_settled_in_a_later_term() -> None:
    group = Group.of(terms={1: [1], 2: [1], 3: [1]})
    group.isolate(1)  # the leader died; both others campaign together
    group[2].campaign()
    group[3].campaign()
    group.settle()
    assert [group[member].term for member in (2, 3)] == [2, 2]
    assert Role.LEADER not in group.roles()
    group.elect(2)
    assert group[2].term == 3


def test_a_member_with_pre_vote_gets_on_with_members_without() -> None:
    """While a cluster is being switched over (pre-vote migration)."""
    group = Group(core(1, pre_vote=False), core(2, pre_vote=False), core(3, pre_vote=True))
    group.elect(1)
    group.isolate(3)
    group.propose(1, b"a")
    group[3].campaign()
    group.settle()
    assert group[3].role is Role.PRE_CANDIDATE
    group[1].transfer_leader(2)
    group.settle()
    assert group[2].role is Role.LEADER
    group.heal()
    group[3].campaign()
    group.settle()
    assert group[3].role is not Role.LEADER, "its log is behind"
    group.tick_all(2)
    assert (group[3].role, group[3].leader, group[3].term) == (Role.FOLLOWER, 2, 2)
    assert group.data[3] == [b"a"]


def test_forgetting_the_leader_lets_others_be_voted_for_at_once() -> None:
    group = Group.of()
    group.elect(1)
    elapsed = group[3].election_elapsed
    group[3].forget_leader()
    assert (group[3].leader, group[3].election_elapsed) == (0, elapsed)
    group[1].forget_leader()
    assert group[1].leader == 1, "a leader knows"
    group.isolate(1)
    group.elect(2)


def test_with_lease_reads_a_leader_is_not_forgotten() -> None:
    group = Group.of(lease_reads=True)
    group.elect(1)
    group[3].forget_leader()
    assert group[3].leader == 1


def test_a_higher_term_makes_a_leader_follow_nobody() -> None:
    raft = elected(core())
    raft.tick()
    raft.step(Message(raftpb.MsgAppResp, 1, 2, 9))
    assert (raft.role, raft.term, raft.leader, raft.vote) == (Role.FOLLOWER, 9, 0, 0)
    assert not raft.progress
    assert raft.election_elapsed == 0
