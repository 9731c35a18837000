"""The store: every version of every key, until compacted.

A B-tree in memory (:mod:`.index`) finds the revision, the B+tree (:mod:`.backend`) has the
``mvccpb.KeyValue`` of each revision. One revision of the store is one :class:`WriteTxn`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from ...protos.errors import COMPACTED, FUTURE_REVISION, Refused
from ...protos.mvccpb import KeyValue
from .backend import SCHEDULED_COMPACT_KEY, Backend, Bucket
from .compaction import Compaction
from .hashing import KVHash, KVHashing, hash_buckets
from .index import FROM_KEY
from .restoring import Restored, restore
from .revision import TOMBSTONE_MARK, RevisionKey, revision_key

_KEY: Final = Bucket.KEY
_FEW_KEYS: Final = 500
"""So few are looked at before it is even seen what has changed."""
_FEW_CHANGES: Final = 5_000
_FEW_BYTES: Final = 8 * 2**20
_KEYS_A_CHANGE: Final = 40
"""How many keys are looked at in the time in which one change is undone."""
_BYTES_A_KEY: Final = 256
"""How many bytes are read in the time in which one key is looked at."""


class LeaseBook(Protocol):
    """What the store asks of the lessor: which lease a key is attached to."""

    def exists(self, lease_id: int, /) -> bool:
        """Tell whether the lease is there to attach keys to."""
        ...

    def attach(self, lease_id: int, key: bytes, /) -> None:
        """Attach `key` to an existing lease."""
        ...

    def detach(self, key: bytes, /) -> None:
        """Detach `key` from its lease, if it has one."""
        ...

    def lease_of(self, key: bytes, /) -> int:
        """Return the lease that `key` is attached to, or 0."""
        ...


@dataclass(frozen=True, slots=True)
class RangeResult:
    """The answer to a range."""

    kvs: list[KeyValue]
    """In key order, at most ``limit`` of them."""
    count: int
    """How many keys are in the range, whatever the limit."""
    revision: int
    """The store's current revision, not the one asked for."""


@dataclass(frozen=True, slots=True)
class StoredRange:
    """The answer to a range, with the key-values still serialized."""

    values: list[bytes]
    """``mvccpb.KeyValue`` messages as stored, in key order, at most ``limit`` of them."""
    count: int
    """How many keys are in the range, whatever the limit."""
    revision: int
    """The store's current revision, not the one asked for."""


@dataclass(slots=True)
class Counters:
    """What the store did since it was opened, counted as etcd's metrics do."""

    ranges: int = 0
    puts: int = 0
    deletes: int = 0
    """Ranges deleted, however many keys they had."""
    txns: int = 0
    """Write transactions of more than one operation."""


class Store:
    """Every version of every key since the last compaction.

    Ranges are [key, end) as on the wire: an ``end`` of ``b""`` is the one key, ``b"\\0"``
    everything from `key` on, an end at or before `key` nothing. A ``revision`` of 0 is now.

    Invariant: compacted_revision <= revision, and the index is exactly what the bucket KEY says.
    """

    def __init__(self, backend: Backend, leases: LeaseBook) -> None:
        """Restore the store from `backend`; `leases` must have its leases already.

        An interrupted compaction waits in :attr:`unfinished_compaction`.
        """
        self._leases = leases
        self.counters = Counters()
        self.revision: int
        self.compacted_revision: int
        """The oldest revision that can be read; -1 while nothing was ever compacted."""
        self.unfinished_compaction: Compaction | None
        """What a crash interrupted; the owner is to step it to its end."""
        self._take_over(backend, restore(backend))

    def restore(self, backend: Backend, restored: Restored | None = None) -> None:
        """Go on with what another backend has, after a snapshot was received.

        The leases must be those of that backend already. ``restored`` is what was read of it, if
        somebody has read it before.
        Compactions under way end here; what they left in that backend is its own to finish.
        """
        for compaction in self._compactions:
            compaction.is_done = True
        self._take_over(backend, restore(backend) if restored is None else restored)

    def _take_over(self, backend: Backend, restored: Restored) -> None:
        """Become the store that `backend` has, and attach the keys to their leases."""
        self._backend = backend
        for key, lease_id in restored.leased.items():
            if self._leases.exists(lease_id):
                self._leases.attach(lease_id, key)
        self._index = restored.index
        self.revision = restored.revision
        self.compacted_revision = restored.compacted
        self._compactions: deque[Compaction] = deque()
        self.unfinished_compaction = None
        if restored.compaction_is_unfinished:
            self.unfinished_compaction = self._compaction(restored.compacted)

    @property
    def key_count(self) -> int:
        """How many keys the index has, deleted ones included until they are compacted."""
        return len(self._index)

    def range(
        self, key: bytes, end: bytes, *, revision: int = 0, limit: int = 0, count_only: bool = False
    ) -> RangeResult:
        """Read [key, end) as of `revision`, at most `limit` keys unless it is 0.

        Raises ``Refused`` (COMPACTED, FUTURE_REVISION). Reading at the compacted revision itself is
        allowed.
        """
        stored = self.range_stored(key, end, revision=revision, limit=limit, count_only=count_only)
        kvs = [KeyValue.FromString(value) for value in stored.values]
        return RangeResult(kvs, stored.count, stored.revision)

    def range_stored(
        self, key: bytes, end: bytes, *, revision: int = 0, limit: int = 0, count_only: bool = False
    ) -> StoredRange:
        """Read as :meth:`range` does, but leave the key-values as the bytes they are stored as."""
        self.counters.ranges += 1
        before = self._bound(revision)
        if count_only:
            return StoredRange([], self._count(key, end, before), self.revision)
        if limit <= 0:
            revisions = self._index.revisions(key, end, before)
        else:
            revisions = self._index.first_revisions(key, end, before, limit)
        count = len(revisions)
        if count == limit:
            count = self._count(key, end, before)
        return StoredRange(self._values(revisions), count, self.revision)

    def page_stored(self, key: bytes, end: bytes, *, revision: int, limit: int) -> list[bytes]:
        """Read the first `limit` serialized key-values of a range, without counting the rest.

        For reading a large range piece by piece: the cost is that of the page, not of the range.
        Raises as :meth:`range` does.
        """
        return self._values(self._index.first_revisions(key, end, self._bound(revision), limit))

    def write(self) -> WriteTxn:
        """Open a write transaction, to be used in a ``with`` statement; one at a time."""
        return WriteTxn(self)

    def compact(self, revision: int) -> Compaction:
        """Give up the revisions before `revision`; return the work of deleting them.

        Reads of them are refused from now on. What must be deleted is noted in the B+tree, so that
        a restart resumes it. Raises ``Refused`` (COMPACTED, FUTURE_REVISION).
        """
        if revision <= self.compacted_revision:
            raise Refused(COMPACTED)
        if revision > self.revision:
            raise Refused(FUTURE_REVISION)
        self._backend.put(Bucket.META, SCHEDULED_COMPACT_KEY, revision_key(revision))
        self.compacted_revision = revision
        return self._compaction(revision)

    def hash_by_revision(self, revision: int = 0) -> KVHash:
        """Return etcd's HashKV: a digest of all that is to be seen at `revision` (0: now).

        Equal on every member, whether or not it has finished its compactions. Raises ``Refused``
        (COMPACTED, FUTURE_REVISION).
        """
        hashing = self.hashing(revision)
        while hashing.step():
            pass
        return hashing.result()

    def hashing(self, revision: int = 0) -> KVHashing:
        """Return the work of :meth:`hash_by_revision`, to be done step by step.

        Raises as that does; a later step does, too, if a compaction overtakes it.
        """
        self._bound(revision)
        at = max(revision, -1) or self.revision  # of any negative one, etcd hashes nothing
        return KVHashing(self, self._backend, self._index, at)

    def hash(self) -> int:
        """Return a CRC-32C of every bucket, less what differs between equal members."""
        return hash_buckets(self._backend)

    def _compaction(self, revision: int) -> Compaction:
        return Compaction(self._backend, self._index, revision, self._compactions)

    def _bound(self, revision: int) -> RevisionKey | None:
        """Return the revision key behind `revision`, or None for now; refuse what is not here."""
        if revision <= 0 or revision == self.revision:
            return None
        if revision > self.revision:
            raise Refused(FUTURE_REVISION)
        if revision < self.compacted_revision:
            raise Refused(COMPACTED)
        return revision_key(revision + 1)

    def _count(self, key: bytes, end: bytes, before: RevisionKey | None) -> int:
        """Count the keys of a range.

        The index counts fast only what is there now. Of a past not long gone, take that and undo
        what happened since: a client that reads page by page asks for it with every page. That
        takes the whole values of all keys that changed, so look at the keys instead if there are
        few, or if so much has changed that it takes longer.
        """
        if before is None or not end:
            return self._index.count(key, end, before)
        known = self._index.known(key, end)
        if known <= _FEW_KEYS:
            return self._index.count(key, end, before)
        most_changes = min(known // _KEYS_A_CHANGE + 1, _FEW_CHANGES)
        most_bytes = min(known * _BYTES_A_KEY, _FEW_BYTES)
        since = self._backend.range(_KEY, before, None, most_changes, most_bytes)
        size_bytes = sum(len(stored_key) + len(value) for stored_key, value in since)
        if len(since) == most_changes or size_bytes >= most_bytes:
            return self._index.count(key, end, before)
        get = self._index.get
        changed = {KeyValue.FromString(value).key for _, value in since}
        inside = [name for name in changed if name >= key and (end == FROM_KEY or name < end)]
        then = sum(get(name, before) is not None for name in inside)
        now = sum(get(name) is not None for name in inside)
        return known - self._index.deleted(key, end) + then - now

    def _values(self, revisions: Iterable[RevisionKey]) -> list[bytes]:
        """Return the stored values of `revisions`."""
        get = self._backend.get
        values = [get(_KEY, revision) for revision in revisions]
        assert None not in values, "the index names a revision that the B+tree does not have"
        return values  # type: ignore[return-value]

    def _publish(self, changes: list[KeyValue]) -> None:
        """Tell of a new revision; a hook for :class:`.watchable.WatchableStore`."""

    def _check(self) -> None:
        self._index._check()
        assert self.compacted_revision <= self.revision


class WriteTxn:
    """A transaction that makes at most one revision of the store; all its changes share its main.

    Its effects are there at once and cannot be undone: check before you write. Should an exception
    end the ``with`` block all the same, the changes made until then are the revision.
    """

    __slots__ = ("_backend", "_main", "_operations", "_store", "changes")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._backend = store._backend
        self._main = store.revision + 1
        self._operations: int = 0
        self.changes: list[KeyValue] = []
        """What was changed, in order; a deletion has only its key and mod_revision."""

    def __enter__(self) -> WriteTxn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._operations > 1:  # as etcd counts: one operation makes no txn
            self._store.counters.txns += 1
        if self.changes:
            self._store._publish(self.changes)

    @property
    def revision(self) -> int:
        """The store's revision as this transaction sees it: one more once it changed something."""
        return self._store.revision

    def range(
        self, key: bytes, end: bytes, *, revision: int = 0, limit: int = 0, count_only: bool = False
    ) -> RangeResult:
        """Read as :meth:`Store.range` does; the changes made so far are seen."""
        self._operations += 1
        return self._store.range(key, end, revision=revision, limit=limit, count_only=count_only)

    def range_stored(
        self, key: bytes, end: bytes, *, revision: int = 0, limit: int = 0, count_only: bool = False
    ) -> StoredRange:
        """Read as :meth:`Store.range_stored` does; the changes made so far are seen."""
        self._operations += 1
        return self._store.range_stored(
            key, end, revision=revision, limit=limit, count_only=count_only
        )

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """Set `key`, attached to `lease` (0: to none), which must exist."""
        store = self._store
        revision = self._next_revision()
        created, version = store._index.put(key, revision)
        kv = KeyValue(
            key=key,
            create_revision=created,
            mod_revision=self._main,
            version=version,
            value=value,
            lease=lease,
        )
        self._backend.put(_KEY, revision, kv.SerializeToString())
        self.changes.append(kv)
        store.counters.puts += 1
        self._operations += 1
        if store._leases.lease_of(key):
            store._leases.detach(key)
        if lease:
            store._leases.attach(lease, key)

    def delete_range(self, key: bytes, end: bytes) -> int:
        """Delete the keys of [key, end); return how many there were."""
        self._store.counters.deletes += 1
        self._operations += 1
        keys = self._store._index.keys(key, end)
        for name in keys:
            self._delete(name)
        return len(keys)

    def _delete(self, key: bytes) -> None:
        """Write the tombstone of an existing key."""
        store = self._store
        revision = self._next_revision()
        store._index.tombstone(key, revision)
        self._backend.put(_KEY, revision + TOMBSTONE_MARK, KeyValue(key=key).SerializeToString())
        self.changes.append(KeyValue(key=key, mod_revision=self._main))
        store._leases.detach(key)

    def _next_revision(self) -> RevisionKey:
        """Return the revision of the next change; the first one moves the store's revision."""
        self._store.revision = self._main
        return revision_key(self._main, len(self.changes))
