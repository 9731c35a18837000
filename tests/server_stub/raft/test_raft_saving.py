"""What is to be saved, and what waits for it."""

from __future__ import annotations

import pytest
from group import ack, append, core, elected, log_terms, save

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.messages import Message


def test_one_save_at_a_time_with_all_there_is() -> None:
    raft = elected(core())
    for data in (b"a", b"b"):
        raft.propose(data)
    ready = raft.ready()
    assert ready is not None
    assert [entry.Data for entry in ready.entries] == [b"a", b"b"]
    raft.propose(b"c")
    assert raft.ready() is None
    raft.saved(ready)
    following = raft.ready()
    assert following is not None
    assert [entry.Data for entry in following.entries] == [b"c"]


def test_only_the_save_that_is_under_way_can_end() -> None:
    raft = elected(core())
    raft.propose(b"a")
    ready = raft.ready()
    assert ready is not None
    raft.saved(ready)
    with pytest.raises(ValueError, match="not the save that is under way"):
        raft.saved(ready)


def test_the_state_is_saved_when_it_has_changed() -> None:
    raft = elected(core())
    raft.propose(b"a")
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state is None
    raft.saved(ready)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 4))
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state == raftpb.HardState(term=4)
    assert ready.must_sync


@pytest.mark.parametrize("more", [False, True])
def test_a_commit_index_waits_for_more_to_save_or_a_tick(more: bool) -> None:
    raft = elected(core())
    ack(raft, 2, 1)
    raft.tick()
    assert save(raft)
    assert not save(raft)
    raft.propose(b"a")
    save(raft)
    ack(raft, 2, 2)
    assert raft.ready() is None
    raft.propose(b"b") if more else raft.tick()
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state == raftpb.HardState(term=1, vote=1, commit=2)
    assert ready.must_sync is more
    raft.saved(ready)
    raft.tick()
    assert raft.ready() is None


def test_a_commit_index_on_record_is_proof_that_its_entries_were_durable_before() -> None:
    follower = core()
    append(follower, 0, 0, [5, 5], commit=2)
    ready = follower.ready()
    assert ready is not None
    assert follower.commit_index == 2
    assert ready.hard_state == raftpb.HardState(term=5)
    follower.saved(ready)
    append(follower, 2, 5, [5])
    ready = follower.ready()
    assert ready is not None
    assert ready.hard_state == raftpb.HardState(term=5, commit=2)


def test_answers_wait_for_the_save_that_covers_them() -> None:
    follower = core()
    append(follower, 0, 0, [5])
    first = follower.ready()
    append(follower, 1, 5, [5])
    assert not follower.messages()
    assert first is not None
    follower.saved(first)
    assert [m.index for m in follower.messages()] == [1]
    assert not follower.messages()
    save(follower)
    assert [m.index for m in follower.messages()] == [2]


def test_answers_that_need_no_save_go_at_once() -> None:
    follower = core(terms=[1, 1], term=5)
    append(follower, 1, 1, [1])
    assert [m.index for m in follower.messages()] == [2]


def test_heartbeats_are_answered_while_a_save_is_under_way() -> None:
    follower = core()
    append(follower, 0, 0, [5])
    follower.ready()
    follower.step(Message(raftpb.MsgHeartbeat, 1, 2, 5, context=b"c"))
    assert [(m.type, m.context) for m in follower.messages()] == [(raftpb.MsgHeartbeatResp, b"c")]


def test_what_is_replaced_during_a_save_is_saved_again() -> None:
    follower = core(terms=[1])
    append(follower, 1, 1, [2, 2], term=2)
    first = follower.ready()
    append(follower, 1, 1, [3], term=3)
    assert first is not None
    follower.saved(first)
    follower.check()
    assert [m.index for m in follower.messages()] == [3], "true when it was saved"
    second = follower.ready()
    assert second is not None
    assert [(entry.Index, entry.Term) for entry in second.entries] == [(2, 3)]
    follower.saved(second)
    assert log_terms(follower) == [1, 3]
    assert [(m.index, m.term) for m in follower.messages()] == [(2, 3)]
