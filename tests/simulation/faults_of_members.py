"""Bugs in changes of the membership, in leases and in watches."""

from __future__ import annotations

from typing import Any

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub import replica
from etcd_pinwheel.server_stub.lease.lessor import Lease, Lessor
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.mvcc.watch_stream import ALL_WATCHERS, WatchBatch, WatchStream
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.raft import election, membership
from etcd_pinwheel.server_stub.raft.node import Node

from . import booting
from .planting import Plant


def change_applied_late(plant: Plant) -> None:
    """9: the core hears of a change only when the next entry is applied (etcd#7280, #11284)."""
    apply_change = replica.Replica._apply_change
    late: dict[int, raftpb.ConfChange] = {}

    def apply(each: replica.Replica, entry: raftpb.Entry) -> replica.Applied:
        if entry.Term == 1:  # the founders
            return apply_change(each, entry)
        raft, waiting = each.raft, late.pop(id(each), None)
        late[id(each)] = raftpb.ConfChange.FromString(entry.Data)
        real = raft.apply_change

        def defer(change: Any) -> raftpb.ConfState:
            return real(waiting) if waiting is not None else raft.config_state()

        raft.apply_change = defer  # type: ignore[method-assign]
        try:
            return apply_change(each, entry)
        finally:
            del raft.apply_change

    plant(replica.Replica, "_apply_change", apply)


def change_before_earlier_one_is_applied(plant: Plant) -> None:
    """10: a leader appends a change while another one is not applied (Ongaro, raft-dev 2015)."""
    plant(membership, "refusal", lambda node, change: None)


def new_leader_changes_at_once(plant: Plant) -> None:
    """10b: a new leader does not wait for the changes that its predecessor left in the log."""
    become = election._become_leader

    def forget(node: Node) -> None:
        become(node)
        node.pending_conf_index = 0

    plant(election, "_become_leader", forget)


def campaigns_with_unapplied_change(plant: Plant) -> None:
    """10c: a member campaigns in a configuration that it knows to be over (etcd#7625)."""
    plant(election, "has_unapplied_change", lambda node: False)


def commit_index_of_changes_forgotten(plant: Plant) -> None:
    """10d: a restart forgets that all changes but the last of a log had been applied."""
    plant(membership, "implied_commit", lambda log: 0)


def empty_disk_under_an_old_id(plant: Plant) -> None:
    """17: a member that has lost its disk starts again as if it were new (RethinkDB)."""
    plant(booting, "refuse_founding_twice", lambda *_: None)
    plant(booting, "take_identity", lambda *_: None)


def lease_not_renewed_by_new_leader(plant: Plant) -> None:
    """25: a new leader counts leases from when they were granted, if it knows, or from never."""

    def refresh(lessor: Lessor, lease: Lease, now: float, extend_seconds: float = 0.0) -> None:
        lease.expiry = now + extend_seconds + 0.5
        lessor._schedule_checkpoint(lease, now)

    plant(Lessor, "_refresh", refresh)


def watch_misses_what_a_snapshot_brought(plant: Plant) -> None:
    """26: watchers are not told what happened before a state that was received (etcd#15271)."""

    def restore(store: WatchableStore, backend: Any, restored: Any = None) -> None:
        Store.restore(store, backend, restored)
        for watcher in store._synced:
            watcher.min_revision = store.revision + 1

    plant(WatchableStore, "restore", restore)


def progress_told_before_events(plant: Plant) -> None:
    """26b: a progress notice overtakes the events that it speaks of (etcd#15220)."""

    def request_progress(stream: WatchStream, watch_id: int = ALL_WATCHERS) -> bool:
        return stream._push(WatchBatch(watch_id, stream._hub.revision, [], progress=True))

    plant(WatchStream, "request_progress", request_progress)
