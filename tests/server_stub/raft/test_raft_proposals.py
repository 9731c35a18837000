"""Proposals: handed on, dropped, bounded, and handed out once committed."""

from __future__ import annotations

import random

import pytest
from group import (
    Group,
    ack,
    core,
    elected,
    only,
    run,
)

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import ProposalDropped, Role
from etcd_pinwheel.server_stub.raft.messages import Message


def test_what_is_proposed_at_a_follower_is_handed_on_in_one_message() -> None:
    group = Group.of()
    group.elect(1)
    group.sent.clear()
    for data in (b"a", b"b", b"c"):
        group[2].propose(data)
    group.settle()
    assert len(only(group.sent, raftpb.MsgProp)) == 1
    assert group.data == {1: [b"a", b"b", b"c"], 2: [b"a", b"b", b"c"], 3: [b"a", b"b", b"c"]}


def portions(messages: list[Message]) -> list[list[int]]:
    """How large the proposals are that go together."""
    handed_on = only(messages, raftpb.MsgProp)
    return [[len(entry.Data) for entry in message.entries] for message in handed_on]


def test_no_message_of_proposals_is_larger_than_an_append() -> None:
    """A larger one may be more than can be sent, and then all of it is lost."""
    raft = core(max_message_bytes=100)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 1))
    run(raft)
    sizes = [60, 40, 1, 0, 250, 99, 1, 100, 100]
    for size in sizes:
        raft.propose(bytes(size))
    handed_on = raft.messages()
    assert portions(handed_on) == [[60, 40], [1, 0], [250], [99, 1], [100], [100]]
    entries = [entry for message in handed_on for entry in message.entries]
    raft.step(Message(raftpb.MsgProp, 1, 3, entries=entries))
    assert portions(raft.messages()) == portions(handed_on), "nor is what goes further"


def test_a_proposal_follows_the_leader_once() -> None:
    group = Group.of()
    group.elect(1)
    group[2].propose(b"a")
    (late,) = group[2].messages()
    group[1].transfer_leader(3)
    group.settle()
    assert group[3].role is Role.LEADER
    group.deliver([late])
    group.settle()
    assert group.data[2] == [b"a"]


def test_a_doubled_message_shares_no_entry_with_the_log() -> None:
    raft = elected(core())
    message = Message(raftpb.MsgProp, 1, 2, entries=[raftpb.Entry(Data=b"a")])
    raft.step(message)
    raft.step(message)
    assert [entry.Index for entry in raft.log.slice(2, 4)] == [2, 3]
    assert message.entries[0].Index == 0


def test_without_a_leader_proposals_are_dropped() -> None:
    raft = core()
    with pytest.raises(ProposalDropped, match="nobody leads"):
        raft.propose(b"a")
    raft.campaign()
    with pytest.raises(ProposalDropped, match="nobody leads"):
        raft.propose(b"a")


def test_a_leader_that_is_cut_off_does_not_let_its_log_grow_without_bound() -> None:
    raft = elected(core(max_uncommitted_bytes=100))
    ack(raft, 2, 1)
    for _ in range(10):
        raft.propose(b"x" * 10)
    with pytest.raises(ProposalDropped, match="100 bytes"):
        raft.propose(b"x")
    raft.propose(b"")  # what has no payload is never refused
    raft.step(Message(raftpb.MsgProp, 1, 2, entries=[raftpb.Entry(Data=b"y")]))
    assert raft.dropped == 1
    run(raft)
    ack(raft, 2, 12)
    raft.propose(b"x" * 1000)  # nor is the first, however large
    raft.propose(b"")


def test_what_is_committed_is_handed_out_once_in_order_and_in_portions() -> None:
    raft = core(voters=[1], terms=[1] * 7, committed=7)
    portions = []
    while entries := raft.committed(3):
        portions.append([entry.Index for entry in entries])
        raft.check()
    assert portions == [[1, 2, 3], [4, 5, 6], [7]]


@pytest.mark.parametrize("seed", range(5))
def test_logs_converge_although_messages_are_lost_and_doubled(seed: int) -> None:
    chance = random.Random(seed)
    group = Group.of()
    group.elect(1)
    group.lose = lambda message: chance.random() < 0.3
    for place in range(20):
        group[1].propose(b"%d" % place)
        group.settle()
        group.tick(1)
        group.settle()
    group.lose = lambda message: False
    for _ in range(4):
        group.tick(1)
        group.settle()
    expected = [b"%d" % place for place in range(20)]
    assert group.data == {1: expected, 2: expected, 3: expected}
