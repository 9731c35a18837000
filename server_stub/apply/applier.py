"""The one writer: applies the entries of the log, in order, each exactly once.

The index of an entry is noted in the same batch of the backend as what the entry did. After a
crash the log is read again from a point at or before the backend's, and what the backend has
already is skipped.

Around every change stand the same guards as in etcd: a corrupt cluster changes nothing; without
space, nothing that takes space is carried out; and what exceeds the quota is carried out, but
answered with NO_SPACE, so that every member does the same whatever the size of its own backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import Message

from ...protos import raftpb
from ...protos.errors import CORRUPT, NO_SPACE, Code, Refusal, Refused
from ...protos.etcdserverpb import CORRUPT as CORRUPT_ALARM
from ...protos.etcdserverpb import (
    NOSPACE,
    CompactionRequest,
    CompactionResponse,
    EmptyResponse,
    InternalRaftRequest,
    LeaseGrantRequest,
)
from ...protos.membershippb import ClusterMemberAttrSetRequest, ClusterVersionSetRequest
from ..lease.lessor import Lessor
from ..mvcc.backend import Backend, Bucket
from ..mvcc.compaction import Compaction
from ..mvcc.restoring import Restored
from ..mvcc.store import Store
from ..storage.position import CONF_STATE_KEY, CONSISTENT_INDEX_KEY, TERM_KEY
from .alarms import Alarms
from .leases import Leases, recover_leases
from .membership import Membership
from .quota import LEASE_COST_BYTES, Quota, put_cost, txn_cost
from .writes import Writes


class _Kind(NamedTuple):
    """What the applier does with one kind of request."""

    apply: Callable[[Any, float], Message]
    cost: Callable[[Any], int] | None = None
    """What it takes of the quota, in bytes; None: nothing, it may free space."""
    changes_data: bool = True
    """Whether it is stopped while the cluster is corrupt."""


class Applier:
    """Applies entries to the state of one member.

    Invariant: ``index`` and ``term`` are those of the last entry applied, and what the backend
    will have noted when the changes made so far are durable.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        lessor: Lessor,
        membership: Membership,
        quota: Quota,
        on_compaction: Callable[[Compaction], None],
    ) -> None:
        """``on_compaction`` is handed the work that a compaction leaves to be done."""
        self._backend = backend
        self._store = store
        self._lessor = lessor
        self._on_compaction = on_compaction
        self.alarms = Alarms(backend)
        self.writes = Writes(store, lessor)
        self.membership = membership
        self.quota = quota
        self.index = 0
        self.term = 0
        self._read_position()
        leases = Leases(backend, store, lessor)
        self._kinds: dict[str, _Kind] = {
            "put": _Kind(lambda request, _: self.writes.put(request), put_cost),
            "txn": _Kind(lambda request, _: self.writes.txn(request), txn_cost),
            "delete_range": _Kind(lambda request, _: self.writes.delete_range(request)),
            "lease_grant": _Kind(leases.grant, _lease_cost),
            "lease_revoke": _Kind(leases.revoke),
            "lease_checkpoint": _Kind(leases.checkpoint, changes_data=False),
            "compaction": _Kind(self._compact),
            "alarm": _Kind(lambda request, _: self.alarms.apply(request), changes_data=False),
            "cluster_version_set": _Kind(self._set_version, changes_data=False),
            "cluster_member_attr_set": _Kind(self._set_attributes, changes_data=False),
        }

    def reload(self, restored: Restored | None = None) -> None:
        """Go on from what the backend has now: the state of another member was put into it.

        Watchers of the store stay, and are told what they missed. ``restored`` is what was read of
        that state before, if anything was.
        """
        recover_leases(self._backend, self._lessor)
        self._store.restore(self._backend, restored)
        if self._store.unfinished_compaction is not None:
            self._on_compaction(self._store.unfinished_compaction)
        self.alarms.reload()
        self.membership.reload()
        self._read_position()

    def apply(
        self, index: int, term: int, request: InternalRaftRequest | None, now: float
    ) -> Message | None:
        """Apply an entry; return the reply, or None where there is none.

        Raises ``Refused``: the entry is applied all the same, its answer is the refusal. `request`
        is None for the empty entry with which a leader begins its term.
        """
        if not self._is_new(index, term) or request is None:
            return None
        kind, message = self._parse(request)
        if kind.changes_data and CORRUPT_ALARM in self.alarms.active:
            raise Refused(CORRUPT)
        if kind.cost is None:
            return kind.apply(message, now)
        cost = kind.cost(message)
        if cost and NOSPACE in self.alarms.active:
            raise Refused(NO_SPACE)
        has_room = self.quota.has_room_for(cost)
        reply = kind.apply(message, now)
        if not has_room:
            raise Refused(NO_SPACE)
        return reply

    def apply_change(
        self,
        index: int,
        term: int,
        change: raftpb.ConfChange,
        conf_state: raftpb.ConfState | None = None,
    ) -> None:
        """Apply a change of the membership, which leads to the configuration `conf_state`."""
        if self._is_new(index, term):
            self.membership.change(change)
            self._note_configuration(conf_state)

    def pass_over(self, index: int, term: int, conf_state: raftpb.ConfState | None = None) -> None:
        """Count an entry as applied that changes nothing but perhaps the configuration."""
        if self._is_new(index, term):
            self._note_configuration(conf_state)

    @property
    def conf_state(self) -> raftpb.ConfState | None:
        """The configuration as of the entry at ``index``; None: no change was applied yet."""
        stored = self._backend.get(Bucket.META, CONF_STATE_KEY)
        return None if stored is None else raftpb.ConfState.FromString(stored)

    def _note_configuration(self, conf_state: raftpb.ConfState | None) -> None:
        if conf_state is not None:
            self._backend.put(Bucket.META, CONF_STATE_KEY, conf_state.SerializeToString())

    def _read_position(self) -> None:
        self.index = _read_number(self._backend, CONSISTENT_INDEX_KEY)
        self.term = _read_number(self._backend, TERM_KEY)

    def _is_new(self, index: int, term: int) -> bool:
        """Note an entry as applied, unless it was applied before."""
        if index <= self.index:
            return False
        self.index = index
        self._backend.put(Bucket.META, CONSISTENT_INDEX_KEY, index.to_bytes(8, "big"))
        if term != self.term:
            self.term = term
            self._backend.put(Bucket.META, TERM_KEY, term.to_bytes(8, "big"))
        return True

    def _parse(self, request: InternalRaftRequest) -> tuple[_Kind, Any]:
        for name, kind in self._kinds.items():
            if request.HasField(name):
                return kind, getattr(request, name)
        fields = [field.name for field, _ in request.ListFields() if field.name != "header"]
        raise Refused(Refusal(Code.UNIMPLEMENTED, f"cannot apply {', '.join(fields) or 'nothing'}"))

    def _compact(self, request: CompactionRequest, now: float) -> CompactionResponse:
        self._on_compaction(self._store.compact(request.revision))
        reply = CompactionResponse()
        reply.header.revision = self._store.revision
        return reply

    def _set_version(self, request: ClusterVersionSetRequest, now: float) -> EmptyResponse:
        self.membership.set_version(request.ver)
        return EmptyResponse()

    def _set_attributes(self, request: ClusterMemberAttrSetRequest, now: float) -> EmptyResponse:
        self.membership.set_attributes(request)
        return EmptyResponse()


def _lease_cost(_: LeaseGrantRequest) -> int:
    return LEASE_COST_BYTES


def _read_number(backend: Backend, key: bytes) -> int:
    return int.from_bytes(backend.get(Bucket.META, key) or b"", "big")
