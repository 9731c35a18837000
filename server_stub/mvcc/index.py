"""The in-memory B-tree: user key -> the revisions that the key has.

Most keys of most stores were written once. Such a key has no :class:`KeyIndex` but the bare
revision key of its one put, which says all there is to say (created then, version 1) in a quarter
of the memory. :class:`Index` is the only one to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, TypeAlias, cast

from BTrees.OOBTree import (  # pyright: ignore[reportMissingImports]
    OOBTree,
    OOTreeSet,
)

from .key_index import KeyIndex
from .revision import REVISION_KEY_BYTES, RevisionKey, main_of

FROM_KEY: Final = b"\0"
"""As the end of a range: there is none. (An empty end makes it the one key.)"""

_Entry: TypeAlias = RevisionKey | KeyIndex


class Index:
    """Every key that the store knows, in key order.

    Ranges are given as on the wire: [key, end), with end ``b""`` for the one key and ``b"\\0"`` for
    everything from `key` on; an end at or before the key is an empty range.
    ``before`` asks for the past: the state just before that revision key; None means now.
    """

    def __init__(self) -> None:
        self._tree: Any = OOBTree()
        self._deleted: Any = OOTreeSet()
        """The keys that do not exist now, but did: for counting without looking at each key."""

    def __len__(self) -> int:
        """Count the keys, deleted ones included until they are compacted."""
        return len(self._tree)

    def put(self, key: bytes, revision: RevisionKey) -> tuple[int, int]:
        """Add a put; return the create revision and the version that the key has with it."""
        entry = self._tree.get(key)
        if entry is None:
            self._tree[key] = revision
            return main_of(revision), 1
        return self._put_again(key, entry, revision)

    def tombstone(self, key: bytes, revision: RevisionKey) -> None:
        """Add a tombstone; the key must exist."""
        self._expand(key, self._tree[key]).end_generation(revision)
        self._deleted.insert(key)

    def restore_put(self, key: bytes, revision: RevisionKey, created: int, version: int) -> None:
        """Add a stored put, whose key may have lost its earlier revisions to compaction."""
        entry = revision if version == 1 else KeyIndex.restored(revision, created, version)
        if not self._tree.insert(key, entry):
            self._put_again(key, self._tree[key], revision)

    def restore_tombstone(self, key: bytes, revision: RevisionKey) -> None:
        """Add a stored tombstone, before which compaction may have left nothing."""
        entry = self._tree.get(key)
        if entry is None:
            self._tree[key] = KeyIndex.restored_tombstone(revision)
            self._deleted.insert(key)
        else:
            self.tombstone(key, revision)

    def get(self, key: bytes, before: RevisionKey | None = None) -> RevisionKey | None:
        """Return the revision that holds the key's value, or None."""
        entry = self._tree.get(key)
        return None if entry is None else _revision_of(entry, before)

    def keys(self, key: bytes, end: bytes) -> list[bytes]:
        """Return the keys of a range that exist now."""
        if not end:
            return [] if self.get(key) is None else [key]
        last = None if end == FROM_KEY else end
        items = self._tree.iteritems(key, last, False, last is not None)
        return [name for name, entry in items if _revision_of(entry, None) is not None]

    def revisions(
        self, key: bytes, end: bytes, before: RevisionKey | None = None
    ) -> list[RevisionKey]:
        """Return the revisions that hold the values of a range, in key order."""
        if not end:
            revision = self.get(key, before)
            return [] if revision is None else [revision]
        entries = self._entries(key, end)
        if before is None:
            found = (entry if isinstance(entry, bytes) else entry.newest() for entry in entries)
        else:
            found = (_revision_of(entry, before) for entry in entries)
        return [revision for revision in found if revision is not None]

    def count(self, key: bytes, end: bytes, before: RevisionKey | None = None) -> int:
        """Count the keys of a range; now is far cheaper than the past."""
        if before is not None or not end:
            return len(self.revisions(key, end, before))
        return self.known(key, end) - self.deleted(key, end)

    def known(self, key: bytes, end: bytes) -> int:
        """Count the keys of a range (not of one key), deleted ones included: what a walk takes."""
        return len(self._tree.keys(*_bounds(key, end)))

    def deleted(self, key: bytes, end: bytes) -> int:
        """Count those of them that do not exist now."""
        return len(self._deleted.keys(*_bounds(key, end)))

    def first_revisions(
        self, key: bytes, end: bytes, before: RevisionKey | None, limit: int
    ) -> list[RevisionKey]:
        """Return as :meth:`revisions` does, but look no further than `limit` results."""
        found = (_revision_of(entry, before) for entry in self._entries(key, end))
        return list(islice((revision for revision in found if revision is not None), limit))

    def visible_behind(
        self, after: bytes, before: RevisionKey, limit: int
    ) -> tuple[bytes | None, list[RevisionKey]]:
        """Look at `limit` keys behind the key `after`: the last of them, and what they show.

        For passes over all keys that pause on the way; the key is None when there are no more.
        """
        page = self._page(after, limit)
        found = [_revision_of(entry, before) for _, entry in page]
        return _last_key(page), [revision for revision in found if revision is not None]

    def compact_behind(
        self, after: bytes, main: int, limit: int
    ) -> tuple[bytes | None, list[bytes]]:
        """Compact `limit` keys behind the key `after`: the last of them, and what they lose.

        The latter are keys in the B+tree, tombstones with their mark, to be deleted there.
        """
        page = self._page(after, limit)
        dropped: list[bytes] = []
        for key, entry in page:
            if isinstance(entry, KeyIndex):
                dropped += entry.compact(main)
                self._shrink(key, entry)
        return _last_key(page), dropped

    def _entries(self, key: bytes, end: bytes) -> Iterable[Any]:
        """Return the entries of a range of keys."""
        if not end:
            entry = self._tree.get(key)
            return () if entry is None else (entry,)
        if end == FROM_KEY:
            return cast("Iterable[Any]", self._tree.values(key))
        return cast("Iterable[Any]", self._tree.values(key, end, False, True))

    def _page(self, after: bytes, limit: int) -> list[tuple[bytes, Any]]:
        """Return at most `limit` pairs behind the key `after`."""
        return list(islice(self._tree.iteritems(after, None, True), limit))

    def _put_again(self, key: bytes, entry: _Entry, revision: RevisionKey) -> tuple[int, int]:
        """Add a put to a known key."""
        index = self._expand(key, entry)
        if not index.version:
            self._deleted.remove(key)
        return index.put(revision)

    def _expand(self, key: bytes, entry: _Entry) -> KeyIndex:
        """Return the key's full index, giving it one if it had but its revision."""
        if isinstance(entry, KeyIndex):
            return entry
        index = KeyIndex.restored(entry, main_of(entry), 1)
        self._tree[key] = index
        return index

    def _shrink(self, key: bytes, index: KeyIndex) -> None:
        """Store a compacted key as briefly as it can be; not at all if nothing is left of it."""
        if index.is_empty:
            del self._tree[key]
            self._deleted.remove(key)
        elif index.version == 1 and len(index.generations) == 1:
            self._tree[key] = index.generations[0][0]

    def _check(self) -> None:
        self._tree._check()
        for entry in self._tree.values():
            if isinstance(entry, KeyIndex):
                entry._check()
                assert not entry.is_empty
            else:
                assert len(entry) == REVISION_KEY_BYTES
        deleted = [key for key, entry in self._tree.items() if _revision_of(entry, None) is None]
        assert list(self._deleted) == deleted


def _revision_of(entry: _Entry, before: RevisionKey | None) -> RevisionKey | None:
    """Return what `entry` shows just before the revision key `before`, or now."""
    if isinstance(entry, bytes):
        return entry if before is None or entry < before else None
    return entry.newest() if before is None else entry.newest_before(before)


def _bounds(key: bytes, end: bytes) -> tuple[bytes, bytes | None, bool, bool]:
    """Return a range of more than one key as the tree takes it."""
    last = None if end == FROM_KEY else end
    return key, last, False, last is not None


def _last_key(page: list[tuple[bytes, Any]]) -> bytes | None:
    return page[-1][0] if page else None
