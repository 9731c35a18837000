"""HashKV and Hash: digests by which members, and releases, are compared.

HashKV is bit-exact with etcd's: CRC-32C of ``key``, then of revision key and value of each stored
revision up to the one asked for. Revisions at or below the compacted one count only if they are
visible at the revision asked for: the others may or may not be deleted already. For the same reason
a tombstone at the compacted revision itself does not count (releases differ in keeping it).

Source: etcd's server/storage/mvcc/hash.go; the 38 constants of its tests.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final, NamedTuple, Protocol

from google_crc32c import extend

from ...protos.errors import COMPACTED, Refused
from .backend import PAGE_ROWS, Backend, Bucket, pages
from .index import Index
from .revision import revision_key

_NOT_HASHED: Final = frozenset({b"consistent_index", b"term", b"storageVersion"})
"""Keys of META that differ between members with equal data."""


class KVHash(NamedTuple):
    """The answer to HashKV."""

    hash: int
    compact_revision: int
    hash_revision: int
    current_revision: int


class _Revisions(Protocol):
    """What hashing asks of the store."""

    revision: int
    compacted_revision: int


class KVHashing:
    """The work of one HashKV, in steps short enough for an event loop."""

    def __init__(self, store: _Revisions, backend: Backend, index: Index, revision: int) -> None:
        self._store = store
        self._backend = backend
        self._index = index
        self._revision = revision
        self._restart()

    def _restart(self) -> None:
        self._compacted = self._store.compacted_revision
        self._hash = 0
        self._work = self._run()
        self._is_done = False

    def step(self) -> bool:
        """Do a piece; return whether more is left.

        Starts over if the store was compacted in the meantime; raises ``Refused`` (COMPACTED) if
        that went past the revision that is hashed.
        """
        if self._is_done:
            return False
        if self._compacted != self._store.compacted_revision:
            if self._revision < self._store.compacted_revision:
                raise Refused(COMPACTED)
            self._restart()
        self._is_done = next(self._work, None) is None
        return not self._is_done

    def result(self) -> KVHash:
        """Return the digest, once :meth:`step` has nothing left."""
        assert self._is_done
        return KVHash(self._hash, self._compacted, self._revision, self._store.revision)

    def _run(self) -> Iterator[bool]:
        """Hash, yielding after each page."""
        kept: set[bytes] = set()
        if self._compacted > 0:
            kept = yield from self._visible_and_old(self._revision)
        self._hash = extend(0, b"key")
        floor = revision_key(max(self._compacted, 0) + 1)
        end = revision_key(self._revision + 1)
        for rows in pages(self._backend, Bucket.KEY, end):
            if rows[0][0] < floor:
                hashed = [row for row in rows if row[0] >= floor or row[0] in kept]
            else:
                hashed = rows
            self._hash = extend(self._hash, b"".join(map(b"".join, hashed)))
            yield True

    def _visible_and_old(self, revision: int) -> Generator[bool, None, set[bytes]]:
        """Return the revisions visible at `revision` that are not above the compacted one.

        If nothing at all is visible there, etcd counts whatever is stored. Take for that what its
        compaction will leave, lest an unfinished one show.
        """
        before = revision_key(revision + 1)
        floor = revision_key(self._compacted + 1)
        kept: set[bytes] = set()
        something_is_visible = False
        after, found = self._index.visible_behind(b"", before, PAGE_ROWS)
        while after is not None:
            something_is_visible = something_is_visible or bool(found)
            kept.update(key for key in found if key < floor)
            yield True
            after, found = self._index.visible_behind(after, before, PAGE_ROWS)
        if something_is_visible or revision == self._compacted:
            return kept
        return (yield from self._visible_and_old(self._compacted))


def hash_buckets(backend: Backend) -> int:
    """Return the CRC-32C of every bucket in name order: its name, then its keys and values."""
    checksum = 0
    for bucket in sorted(Bucket):
        checksum = extend(checksum, bucket.encode())
        skipped = _NOT_HASHED if bucket is Bucket.META else frozenset()
        for rows in pages(backend, bucket):
            hashed = (key + value for key, value in rows if key not in skipped)
            checksum = extend(checksum, b"".join(hashed))
    return checksum
