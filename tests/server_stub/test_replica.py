"""A replica: what the log does to the core and to the state, and when the log may be shortened."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.errors import (
    LEASE_NOT_FOUND,
    MEMBER_NOT_FOUND,
    NOT_ENOUGH_STARTED,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.apply.quota import Quota
from etcd_pinwheel.server_stub.cluster import Cluster, ClusterMember
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.replica import Applied, Replica, parse_request
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

OWN = ClusterMember(1, ("http://one:2380",), "one")
OTHER = ClusterMember(2, ("http://two:2380",), "two", is_learner=True)
ALL = 1_000_000


class Alone:
    """The replica of the only voter; whatever it saves is durable at once."""

    def __init__(self, backend: MemoryBackend | None = None, **cadence: int) -> None:
        self.backend = backend or MemoryBackend()
        lessor = Lessor(1)
        self.store = WatchableStore(self.backend, lessor)
        membership = Membership(self.backend, 99)
        quota = Quota(self.backend, 0)
        self.applier = Applier(
            self.backend, self.store, lessor, membership, quota, lambda compaction: None
        )
        conf_state = self.applier.conf_state or raftpb.ConfState()
        position = (self.applier.index, self.applier.term)
        entries = [] if self.applier.index else Cluster(99, (OWN,)).bootstrap_entries()
        self.raft = Raft(
            Config(id=1),
            Log(entries, compacted=position),
            raftpb.HardState(term=max(position[1], 1), commit=position[0] + len(entries)),
            conf_state,
            lambda limit: 0,
        )
        cadence = {"snapshot_every": 10, "catch_up_entries": 4, **cadence}
        self.replica = Replica(self.raft, self.applier, **cadence)
        self.replica.apply(ALL, 0.0)
        self.raft.campaign()
        self.run()

    def run(self, limit: int = ALL) -> list[Applied]:
        """Save what is to be saved; apply, and return what came of it."""
        while (ready := self.raft.ready()) is not None:
            self.raft.saved(ready)
            self.raft.messages()
        return self.replica.apply(limit, 0.0)

    def __call__(self, **fields: Any) -> Applied:
        self.raft.propose(InternalRaftRequest(**fields).SerializeToString())
        (applied,) = self.run()
        return applied

    def change(self, kind: raftpb.ConfChangeType, member: ClusterMember) -> Applied:
        change = raftpb.ConfChange(type=kind, node_id=member.id, id=7, context=member.to_json())
        self.raft.propose_change(change)
        (applied,) = self.run()
        return applied


def put(key: bytes) -> dict[str, Any]:
    return {"put": {"key": key, "value": b"v"}}


def test_it_begins_with_the_founders_and_an_entry_of_its_own() -> None:
    alone = Alone()
    assert alone.applier.membership.cluster.members == (OWN,)
    assert alone.applier.conf_state == raftpb.ConfState(voters=[1])
    assert (alone.applier.index, alone.applier.term) == (2, 2)
    assert alone.raft.applied_index == 2


def test_entries_are_applied_in_order_and_a_few_at_a_time() -> None:
    alone = Alone()
    for number in range(5):
        alone.raft.propose(InternalRaftRequest(**put(b"%d" % number)).SerializeToString())
    done = alone.run(limit=3) + alone.run(limit=3)
    assert [applied.entry.Index for applied in done] == [3, 4, 5, 6, 7]
    assert [applied.reply.header.revision for applied in done] == [2, 3, 4, 5, 6]  # type: ignore[union-attr]
    assert alone.raft.applied_index == 7
    assert alone.run() == []


def test_a_refusal_is_what_came_of_an_entry() -> None:
    alone = Alone()
    applied = alone(lease_revoke={"ID": 9})
    assert applied.reply is None
    assert applied.refused is not None
    assert applied.refused.refusal is LEASE_NOT_FOUND
    assert alone.applier.index == applied.entry.Index


def test_who_has_the_request_spares_the_parsing() -> None:
    alone = Alone()
    request = InternalRaftRequest(**put(b"k"))
    known = {request.SerializeToString(): request}
    alone.replica.request_of = lambda data: known.get(data) or parse_request(data)
    alone.raft.propose(next(iter(known)))
    alone.raft.propose(InternalRaftRequest(**put(b"other")).SerializeToString())
    first, second = alone.run()
    assert first.request is request
    assert second.request == InternalRaftRequest(**put(b"other"))


def test_a_change_is_one_of_the_core_and_of_the_state() -> None:
    alone = Alone()
    applied = alone.change(raftpb.ConfChangeAddLearnerNode, OTHER)
    assert applied.change is not None
    assert (applied.change.id, applied.refused) == (7, None)
    assert alone.applier.membership.cluster.members == (OWN, OTHER)
    wanted = raftpb.ConfState(voters=[1], learners=[2])
    assert alone.raft.config_state() == alone.applier.conf_state == wanted


def test_a_change_that_is_refused_changes_neither() -> None:
    alone = Alone()
    stranger = ClusterMember(3, ("http://three:2380",))
    applied = alone.change(raftpb.ConfChangeRemoveNode, stranger)
    assert applied.refused is not None
    assert applied.refused.refusal is MEMBER_NOT_FOUND
    assert alone.applier.membership.cluster.members == (OWN,)
    assert alone.raft.config_state() == alone.applier.conf_state == raftpb.ConfState(voters=[1])
    assert alone.applier.index == alone.raft.applied_index == applied.entry.Index
    assert alone.change(raftpb.ConfChangeAddLearnerNode, OTHER).refused is None, "nothing pends"


def test_a_log_in_which_the_last_voter_goes_is_applied_to_its_end() -> None:
    alone = Alone()
    applied = alone.change(raftpb.ConfChangeRemoveNode, OWN)
    assert applied.refused is not None
    assert applied.refused.refusal is NOT_ENOUGH_STARTED
    assert alone.applier.membership.cluster.members == (OWN,)
    assert alone.raft.config_state() == alone.applier.conf_state == raftpb.ConfState(voters=[1])
    assert alone(**put(b"k")).refused is None


def test_a_restart_goes_on_where_the_backend_is() -> None:
    alone = Alone()
    alone.change(raftpb.ConfChangeAddLearnerNode, OTHER)
    alone(**put(b"k"))
    again = Alone(alone.backend)
    assert again.raft.config_state() == raftpb.ConfState(voters=[1], learners=[2])
    assert again.applier.membership.cluster.members == (OWN, OTHER)
    applied = again(**put(b"k"))
    assert applied.entry.Index == alone.applier.index + 2, "one entry for the new term, one put"
    assert again.store.revision == 3


def test_snapshots_are_due_every_so_many_entries() -> None:
    alone = Alone(snapshot_every=10, catch_up_entries=4)
    taken = []
    for number in range(30):
        alone(**put(b"%d" % number))
        snapshot = alone.replica.due_snapshot()
        if snapshot is not None:
            metadata = snapshot.metadata
            assert (metadata.index, metadata.term) == (alone.applier.index, 2)
            assert metadata.conf_state == raftpb.ConfState(voters=[1])
            alone.replica.snapshot_saved(snapshot)
            taken.append((metadata.index, alone.raft.log.first_index))
    assert taken == [(11, 8), (22, 19)]


def test_the_log_stays_while_the_state_is_on_its_way() -> None:
    alone = Alone(snapshot_every=10, catch_up_entries=4)
    alone.replica.begin_transfer()
    alone.replica.begin_transfer()
    firsts = []
    for transfers in (2, 1, 0):
        for number in range(10):
            alone(**put(b"%d" % number))
        snapshot = alone.replica.snapshot()
        alone.replica.snapshot_saved(snapshot)
        firsts.append(alone.raft.log.first_index)
        if transfers:
            alone.replica.end_transfer()
    assert firsts == [1, 1, 29]


def test_less_than_the_catch_up_is_never_dropped() -> None:
    alone = Alone(snapshot_every=10, catch_up_entries=100)
    for number in range(20):
        alone(**put(b"%d" % number))
    alone.replica.snapshot_saved(alone.replica.snapshot())
    assert alone.raft.log.first_index == 1


def test_another_state_takes_the_place_of_this_one() -> None:
    """What a driver does with a snapshot: the backend is replaced, then all else is read again."""
    source, target = Alone(), Alone()
    source.change(raftpb.ConfChangeAddLearnerNode, OTHER)
    source(lease_grant={"ID": 5, "TTL": 60})
    source(put={"key": b"k", "lease": 5})
    target(lease_grant={"ID": 6, "TTL": 60})
    stream = target.store.watch_stream(lambda: None)
    stream.watch(b"k")
    target.backend.__dict__.update(source.backend.__dict__)
    target.replica.installed()
    assert target.applier.index == source.applier.index
    assert target.applier.membership.cluster == source.applier.membership.cluster
    assert target.applier.conf_state == source.applier.conf_state
    assert target.store.hash_by_revision() == source.store.hash_by_revision()
    while target.store.sync_watchers():
        pass
    (batch,) = stream.take()
    assert [event.kv.mod_revision for event in batch.events] == [2]
    with pytest.raises(Refused):
        target.applier.writes.put(InternalRaftRequest(put={"key": b"x", "lease": 6}).put)
