"""What the store should be: keys and revisions, computed from the log by the shortest way."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from etcd_pinwheel.protos.etcdserverpb import Compare, InternalRaftRequest, TxnRequest


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reply to a request has to say."""

    revision: int
    succeeded: bool = True
    deleted: int = 0
    refused: bool = False


class Model:
    """Knows the requests that the workload makes, and no others."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = -1
        self.leases: dict[int, set[bytes]] = {}
        self.changes: dict[bytes, list[tuple[int, bytes | None]]] = {}
        """By key: at which revision it became what; None is deleted."""
        self.events: dict[int, list[tuple[bytes, bytes | None]]] = {}
        """By revision."""
        self._lease_of: dict[bytes, int] = {}

    def value_at(self, key: bytes, revision: int) -> bytes | None:
        """What a key was at a revision."""
        changes = self.changes.get(key, ())
        position = bisect_right(changes, revision, key=lambda change: change[0])
        return changes[position - 1][1] if position else None

    def modified_at(self, key: bytes) -> int:
        """The revision at which a key got what it is; 0 when it is not there."""
        changes = self.changes.get(key)
        return changes[-1][0] if changes and changes[-1][1] is not None else 0

    def next_change(self, key: bytes | None, after: int) -> int | None:
        """The next revision that changes a key (None: any); None when there is none yet."""
        if key is None:
            return after + 1 if after < self.revision else None
        changes = self.changes.get(key, [])
        position = bisect_left(changes, after + 1, key=lambda change: change[0])
        return changes[position][0] if position < len(changes) else None

    def apply(self, request: InternalRaftRequest) -> Expected:
        """Carry a request out; one that is none of the workload's changes nothing."""
        if request.HasField("put"):
            return self._write([request.put], [])
        if request.HasField("delete_range"):
            return self._write([], [request.delete_range.key])
        if request.HasField("txn"):
            return self._txn(request.txn)
        if request.HasField("compaction"):
            return self._compact(request.compaction.revision)
        if request.HasField("lease_grant"):
            refused = request.lease_grant.ID in self.leases
            self.leases.setdefault(request.lease_grant.ID, set())
            return Expected(self.revision, refused=refused)
        if request.HasField("lease_revoke"):
            return self._revoke(request.lease_revoke.ID)
        return Expected(self.revision)

    def _txn(self, txn: TxnRequest) -> Expected:
        succeeded = all(self._holds(each) for each in txn.compare)
        ops = txn.success if succeeded else txn.failure
        puts = [op.request_put for op in ops if op.HasField("request_put")]
        gone = [op.request_delete_range.key for op in ops if op.HasField("request_delete_range")]
        expected = self._write(puts, gone)
        return Expected(expected.revision, succeeded, expected.deleted, expected.refused)

    def _holds(self, compare: Compare) -> bool:
        assert (compare.target, compare.result) == (Compare.MOD, Compare.EQUAL)
        return bool(self.modified_at(compare.key) == compare.mod_revision)

    def _write(self, puts: list, gone: list[bytes]) -> Expected:  # type: ignore[type-arg]
        if any(put.lease and put.lease not in self.leases for put in puts):
            return Expected(self.revision, refused=True)
        gone = [key for key in gone if self.modified_at(key)]
        if not puts and not gone:
            return Expected(self.revision)
        self.revision += 1
        for put in puts:
            self._change(put.key, put.value, put.lease)
        for key in gone:
            self._change(key, None, 0)
        return Expected(self.revision, deleted=len(gone))

    def _change(self, key: bytes, value: bytes | None, lease: int) -> None:
        self.changes.setdefault(key, []).append((self.revision, value))
        self.events.setdefault(self.revision, []).append((key, value))
        old = self._lease_of.pop(key, 0)
        if old:
            self.leases[old].discard(key)
        if lease:
            self.leases[lease].add(key)
            self._lease_of[key] = lease

    def _revoke(self, lease_id: int) -> Expected:
        if lease_id not in self.leases:
            return Expected(self.revision, refused=True)
        self._write([], sorted(self.leases[lease_id]))
        del self.leases[lease_id]
        return Expected(self.revision)

    def _compact(self, revision: int) -> Expected:
        if not self.compacted < revision <= self.revision:
            return Expected(self.revision, refused=True)
        self.compacted = revision
        return Expected(self.revision)
