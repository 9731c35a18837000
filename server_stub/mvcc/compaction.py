"""Deleting what a compaction gave up, a batch at a time."""

from __future__ import annotations

from collections import deque
from typing import Final

from .backend import FINISHED_COMPACT_KEY, Backend, Bucket
from .index import Index
from .revision import revision_key

_KEYS_PER_PAGE: Final = 1_000
_PAGES_PER_STEP: Final = 10


class Compaction:
    """The physical part of a compaction to one revision.

    It walks the index, not the B+tree: each key forgets its old revisions, and those are deleted.
    A crash on the way loses nothing but the work since the last commit: the index is built again
    from what is left and the walk starts over. Writes may come between steps, and steps of other
    compactions: work is done in the order it was asked for, whoever is stepped, so that "finished
    up to here" is true when it is recorded.
    """

    def __init__(
        self,
        backend: Backend,
        index: Index,
        revision: int,
        queue: deque[Compaction],
        *,
        batch_limit: int = 1_000,
    ) -> None:
        """Enter the `queue` of compactions, to delete at most `batch_limit` revisions a step."""
        self.revision = revision
        self._backend = backend
        self._index = index
        self._batch_limit = batch_limit
        self._queue = queue
        queue.append(self)
        self._doomed: list[bytes] = []
        """Keys in the B+tree that the index has forgotten, oldest revision of a key first."""
        self._after: bytes | None = b""
        """The last key that was compacted in the index; None behind the end."""
        self.is_done = False

    def step(self) -> bool:
        """Delete a batch; return whether more is left.

        The step that finds nothing left records that the compaction is finished; what must be
        durable before it is told of (``physical``) takes a ``commit`` behind that.
        """
        if not self.is_done:
            self._queue[0]._delete_batch()
        return not self.is_done

    def _delete_batch(self) -> None:
        """Delete a batch of this compaction, the oldest that is left."""
        self._forget()
        for key in self._doomed[: self._batch_limit]:
            self._backend.delete(Bucket.KEY, key)
        del self._doomed[: self._batch_limit]
        if not self._doomed and self._after is None:
            self._backend.put(Bucket.META, FINISHED_COMPACT_KEY, revision_key(self.revision))
            self._queue.popleft()
            self.is_done = True

    def _forget(self) -> None:
        """Compact keys in the index until there is something to delete, or enough was looked at."""
        pages = 0
        while not self._doomed and self._after is not None and pages < _PAGES_PER_STEP:
            self._after, self._doomed = self._index.compact_behind(
                self._after, self.revision, _KEYS_PER_PAGE
            )
            pages += 1
