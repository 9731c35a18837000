"""Handing the lead over: to whom, how long that may take, and what is refused meanwhile."""

from __future__ import annotations

import pytest
from group import ELECTION_TICKS, Group, ack, core, elected, only, remove, run, snapshot_of

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import ProposalDropped, Role
from etcd_pinwheel.server_stub.raft.messages import CAMPAIGN_TRANSFER, Message


def leader_of(group: Group) -> int:
    (leader,) = [raft.id for raft in group.rafts.values() if raft.role is Role.LEADER]
    return leader


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_the_lead_goes_to_whom_it_is_to_wherever_that_is_said(asked: int) -> None:
    group = Group.of()
    group.elect(1)
    group[asked].transfer_leader(2)
    group.settle()
    assert leader_of(group) == 2
    assert group[1].leader == 2
    assert group[2].term == 2, "at once, without a pre-vote, in spite of the leader's lease"
    assert group[1].transferee == 0


def test_the_target_gets_what_it_lacks_first() -> None:
    group = Group.of()
    group.elect(1)
    group.isolate(3)
    group.propose(1, b"a")
    group.heal()
    group[1].transfer_leader(3)
    group.settle()
    group.tick(1)
    group.settle()
    assert leader_of(group) == 3
    assert group.data[3] == [b"a"]


def test_the_target_is_told_when_it_has_all_and_not_before() -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    for _ in range(3):
        raft.propose(b"a")
    run(raft)
    raft.transfer_leader(2)
    ack(raft, 2, 3)
    assert not only(run(raft), raftpb.MsgTimeoutNow)
    ack(raft, 2, 4)
    assert [m.to for m in only(run(raft), raftpb.MsgTimeoutNow)] == [2]


def test_the_target_gets_a_snapshot_first_if_it_needs_one() -> None:
    group = Group.of()
    group.elect(1)
    group.isolate(3)
    for _ in range(5):
        group.propose(1, b"a")
    group[1].log.compact(group[1].applied_index)
    group[1].snapshot = lambda: snapshot_of(group[1].applied_index)
    group.heal()
    group[1].transfer_leader(3)
    group.settle()
    for _ in range(2):
        group.tick(1)
        group.settle()
    assert leader_of(group) == 3


@pytest.mark.parametrize("target", [1, 4, 9], ids=["itself", "a learner", "a stranger"])
def test_the_lead_stays_where_it_is(target: int) -> None:
    group = Group.of([1, 2, 3], [4])
    group.elect(1)
    group[1].transfer_leader(target)
    group.settle()
    assert leader_of(group) == 1
    assert group[1].transferee == 0
    group.propose(1, b"a")


def test_no_proposals_meanwhile_and_no_longer_than_an_election_timeout() -> None:
    group = Group.of()
    group.elect(1)
    group.isolate(3)
    group.propose(1, b"a")
    group[1].transfer_leader(3)
    with pytest.raises(ProposalDropped, match="handed over"):
        group[1].propose(b"b")
    for tick in range(ELECTION_TICKS):
        assert group[1].transferee == 3, tick
        group.tick(1)
        group.settle()
    assert (group[1].transferee, group[1].role) == (0, Role.LEADER)
    group.propose(1, b"b")
    assert group.data[2] == [b"a", b"b"]


def test_a_later_wish_replaces_an_earlier_one() -> None:
    group = Group.of([1, 2, 3, 4])
    group.elect(1)
    group.isolate(3)
    group[1].transfer_leader(3)
    assert group[1].transferee == 3
    group[1].transfer_leader(2)
    group.settle()
    assert leader_of(group) == 2


def test_the_same_wish_again_gives_no_more_time() -> None:
    raft = elected(core())
    raft.tick()
    raft.transfer_leader(2)
    for _ in range(ELECTION_TICKS - 1):
        raft.tick()
        raft.step(Message(raftpb.MsgHeartbeatResp, 1, 3, raft.term))
        raft.transfer_leader(2)
    assert raft.transferee == 2
    raft.tick()
    assert raft.transferee == 0


def test_the_wish_to_stay_cancels_a_hand_over() -> None:
    raft = elected(core())
    raft.transfer_leader(2)
    raft.transfer_leader(1)
    assert raft.transferee == 0


def test_the_removal_of_the_target_ends_the_hand_over() -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    run(raft)
    raft.propose_change(remove(3))
    run(raft)
    raft.transfer_leader(3)
    assert raft.transferee == 3
    ack(raft, 2, 2)
    run(raft)
    assert raft.transferee == 0
    raft.propose(b"a")


def test_a_leader_that_is_deposed_hands_over_no_more() -> None:
    raft = elected(core())
    raft.transfer_leader(3)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 9))
    assert (raft.transferee, raft.leader) == (0, 2)
    raft.check()


def test_the_targets_request_says_that_the_leader_wants_it_so() -> None:
    raft = core(terms=[1])
    raft.step(Message(raftpb.MsgTimeoutNow, 1, 2, 1))
    requests = run(raft)
    assert raft.role is Role.CANDIDATE
    assert {(m.type, m.context, m.term) for m in requests} == {
        (raftpb.MsgVote, CAMPAIGN_TRANSFER, 2)
    }


def test_who_campaigns_already_is_not_hurried() -> None:
    raft = core(terms=[1], pre_vote=False)
    raft.campaign()
    run(raft)
    raft.step(Message(raftpb.MsgTimeoutNow, 1, 2, raft.term))
    assert raft.term == 2


def test_who_is_told_of_nobody_to_ask_asks_nobody() -> None:
    raft = core()
    raft.transfer_leader(2)
    assert not only(raft.messages(), raftpb.MsgTransferLeader)
