"""Building the index again from what the B+tree has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...protos.mvccpb import KeyValue
from .backend import FINISHED_COMPACT_KEY, SCHEDULED_COMPACT_KEY, Bucket, Rows, pages
from .index import Index
from .revision import REVISION_KEY_BYTES, main_of

_FIRST_REVISION: Final = 1
_NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Restored:
    """The state of a store as its B+tree tells it."""

    index: Index
    revision: int
    compacted: int
    """The oldest revision that can be read, -1 if nothing was ever compacted."""
    compaction_is_unfinished: bool
    """Whether revisions given up by that compaction may still be stored."""
    leased: dict[bytes, int]
    """The keys that hang on leases, and on which."""


def restore(backend: Rows) -> Restored:
    """Read the whole bucket KEY; return the state of the store.

    Takes seconds for millions of keys, and touches nothing but its result: it may run in a thread
    of its own if `backend` may be read there.

    A revision that was compacted away still counts: the last transactions may have been deletions
    whose tombstones are gone, so the revision is at least that of the last compaction.
    """
    index = Index()
    leased: dict[bytes, int] = {}
    last = _FIRST_REVISION
    for rows in pages(backend, Bucket.KEY):
        _restore_rows(rows, index, leased)
        last = main_of(rows[-1][0])
    scheduled = _main_at(backend, SCHEDULED_COMPACT_KEY)
    finished = _main_at(backend, FINISHED_COMPACT_KEY)
    compacted = max(scheduled, finished)
    return Restored(index, max(last, compacted), compacted, scheduled > finished, leased)


def _restore_rows(rows: list[tuple[bytes, bytes]], index: Index, leased: dict[bytes, int]) -> None:
    """Add stored revisions to the index, oldest first; note which lease each key is left with."""
    parse = KeyValue.FromString
    restore_put = index.restore_put
    for stored_key, value in rows:
        kv = parse(value)
        key = kv.key
        if len(stored_key) > REVISION_KEY_BYTES:
            index.restore_tombstone(key, stored_key[:REVISION_KEY_BYTES])
            leased.pop(key, None)
            continue
        restore_put(key, stored_key, kv.create_revision, kv.version)
        if lease_id := kv.lease:
            leased[key] = lease_id
        elif leased:
            leased.pop(key, None)


def _main_at(backend: Rows, key: bytes) -> int:
    """Return the main revision stored in META under `key`, or -1."""
    stored = backend.get(Bucket.META, key)
    return _NEVER if stored is None else main_of(stored)
