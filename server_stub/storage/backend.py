"""The member's backend: a B+tree on disk (LMDB), written behind by a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ..mvcc.backend import Bucket
from .lmdb_file import BackendError, LmdbFile
from .write_buffer import WriteBatch, changes_between, empty_batch, first_of, merged, stacked

__all__ = ["MAX_KEY_BYTES", "BackendError", "LmdbBackend", "map_size_for"]

MAX_KEY_BYTES: Final = 511
"""LMDB's limit. User keys are values here, so it bites on user and role names only."""

_GIB: Final = 2**30
_UNLIMITED_MAP_BYTES: Final = 1024 * _GIB
_SCANNED_ROWS: Final = 1_000
"""Rows that make a range a scan, as does a bound on its bytes."""
_SCANNED_BYTES: Final = 32 * 2**20
_ABSENT: Final = b"<absent>"
"""Compared by identity: the layer asked says nothing of the key."""


def map_size_for(quota_bytes: int) -> int:
    """Return the map for a quota: address space, not disk or memory.

    Deletes and compactions copy pages before they free any, and go on when the quota is reached;
    the map must not be full before. A quota of 0 or less is none.
    """
    return 2 * quota_bytes + _GIB if quota_bytes > 0 else _UNLIMITED_MAP_BYTES


class LmdbBackend:
    """The treaty of :class:`..mvcc.backend.Backend` over one LMDB file.

    Writes are buffered, and committed by a thread every `batch_interval_s` or `batch_limit` writes
    once :meth:`start` was called; until then, by ``commit`` alone. Reads look into the batch that
    collects, the batch that is being committed, and the file, in that order. Batches change hands
    in callbacks of the loop, never within one, so what a callback writes stays together. If the
    disk falls a whole batch behind, the loop waits for it.

    Everything belongs to the loop's thread but :meth:`snapshot`.

    Invariant: a batch is in the file, or it is a layer that reads go through.
    """

    def __init__(
        self,
        path: Path,
        *,
        map_size_bytes: int = 5 * _GIB,
        batch_interval_s: float = 0.1,
        batch_limit: int = 10_000,
    ) -> None:
        """Open or create the file `path` (see :func:`map_size_for`). Raises ``BackendError``."""
        self._file = LmdbFile(path, map_size_bytes)
        self._batch_interval_s = batch_interval_s
        self._batch_limit = batch_limit
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="backend-writer")
        self._collecting: WriteBatch = empty_batch()
        self._writes: int = 0
        """Writes in the batch that collects."""
        self._committing: WriteBatch = empty_batch()
        self._commit: Future[BackendError | None] | None = None
        """The commit of that batch, until its result is taken."""
        self._is_written = False
        """Set by the writer's thread when the commit has ended, well or badly."""
        self.failure: BackendError | None = None
        """Why the last commit failed; kept until ``commit`` succeeds in trying again."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._is_abandoned = False
        self.on_commit: Callable[[float], None] = lambda _seconds: None
        """Is told, in the writer's thread, how long each commit took."""
        self._scanned_bytes: int = 0
        """What long ranges have read since pages were last unmapped."""

    def start(self) -> None:
        """Commit by itself from now on; to be called on the running event loop."""
        self._loop = asyncio.get_running_loop()
        if self._writes:
            self._set_timer()

    def abandon(self) -> None:
        """Commit nothing from now on, not even at the end; reads go on.

        For an owner that has failed between two writes that belong together: what collects may be
        half of something. A batch that is with the writer already is whole.
        """
        self._is_abandoned = True
        self._stop_timer()
        self._loop = None

    def close(self) -> None:
        """Commit, stop the writer and close the file, even if the commit raises.

        Closing again does nothing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._stop_timer()
        self._loop = None
        try:
            if not self._is_abandoned:
                self.commit()
        finally:
            self._writer.shutdown()
            self._file.close()

    def get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        if self._is_written:
            self._settle()
        value = self._collecting[bucket].get(key, _ABSENT)
        if value is not _ABSENT:
            return value
        value = self._committing[bucket].get(key, _ABSENT)
        if value is not _ABSENT:
            return value
        return self._file.get(bucket, key)

    def range(
        self,
        bucket: Bucket,
        start: bytes,
        end: bytes | None = None,
        limit: int = 0,
        limit_bytes: int = 0,
    ) -> list[tuple[bytes, bytes]]:
        """Return the pairs with start <= key < end in key order.

        At most `limit`, and none behind the one with which they come to `limit_bytes`; 0: no bound.
        """
        if self._is_written:
            self._settle()
        layers = (self._committing, self._collecting)
        rows = self._file.rows(bucket, start, end)
        changes = changes_between(layers, bucket, start, end)
        found = first_of(merged(rows, changes) if changes else rows, limit, limit_bytes)
        if limit_bytes or len(found) >= _SCANNED_ROWS:
            self._note_scan(found)
        return found

    def put(self, bucket: Bucket, key: bytes, value: bytes) -> None:
        """Set `key` (1 to 511 bytes) to `value`. Raises ``BackendError`` if a commit failed."""
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise ValueError(
                f"a key of {len(key)} bytes in {bucket}; it takes 1 to {MAX_KEY_BYTES}"
            )
        self._note_write()
        self._collecting[bucket][key] = value

    def delete(self, bucket: Bucket, key: bytes) -> None:
        """Remove `key`, if it is there. Raises ``BackendError`` if a commit failed."""
        if 0 < len(key) <= MAX_KEY_BYTES:
            self._note_write()
            self._collecting[bucket][key] = None

    def commit(self) -> None:
        """Return when every write so far is durable.

        Raises ``BackendError`` if that cannot be; the writes are kept then, and tried again by the
        next ``commit``.
        """
        self._settle()
        self._take_back()
        self.hand_over()
        self._settle()
        self._raise_failure()

    async def commit_async(self) -> None:
        """Commit as :meth:`commit` does, while the loop goes on."""
        while self._is_busy:
            await self._written()
        self._settle()
        self._take_back()
        self.hand_over()
        mine = self._commit
        while mine is not None and mine is self._commit and self._is_busy:
            await self._written()
        self._settle()
        self._raise_failure()

    def hand_over(self) -> None:
        """Let the writer commit what was collected; waits for the batch before, if need be.

        The loop calls it by itself; without one, it is for the owner to call between transactions.
        A failure is kept for the next write or ``commit``.
        """
        self._settle()
        self._stop_timer()
        if self._writes and self.failure is None and not self._is_abandoned:
            self._committing, self._collecting = self._collecting, empty_batch()
            self._writes = 0
            try:
                self._commit = self._writer.submit(self._write, self._committing)
            except RuntimeError as error:  # at the interpreter's end, which takes threads first
                self.failure = BackendError(self._file.path, f"commits no more: {error}")

    def snapshot(self, directory: Path) -> Path:
        """Write a consistent copy of what is committed to a new file in `directory`.

        It is the caller's to delete; its size is a multiple of 512. Blocks; may run in any thread,
        but not while the backend is closed or defragmented. Raises ``BackendError``.
        """
        return self._file.copy_to(directory)

    def defragment(self) -> None:
        """Give free pages back to the file system; blocks. Raises ``BackendError``."""
        self.commit()
        self._file.defragment()

    def replace_by(self, path: Path) -> None:
        """Go on with the file `path`, which is moved here; what was written here before is gone.

        Blocks, also for a :meth:`snapshot` under way. Raises ``BackendError``.
        """
        self._settle()
        self._stop_timer()
        self._collecting, self._committing = empty_batch(), empty_batch()
        self._writes, self.failure = 0, None
        self._file.replace_by(path)

    @property
    def size_bytes(self) -> int:
        """What the file takes, free pages included, as of the last commit."""
        return self._file.size_bytes

    @property
    def size_in_use_bytes(self) -> int:
        """What it would take without free pages, as of the last commit."""
        return self._file.size_in_use_bytes

    def _note_scan(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Keep scans of the whole file from making all of it resident memory."""
        self._scanned_bytes += sum(len(value) for _, value in rows)
        if self._scanned_bytes >= _SCANNED_BYTES and self._commit is None:
            self._scanned_bytes = 0
            self._file.unmap_pages()

    def _write(self, batch: WriteBatch) -> BackendError | None:
        """Commit `batch`, in the writer's thread."""
        began = time.perf_counter()
        try:
            self._file.write(batch)
            self.on_commit(time.perf_counter() - began)
        except BackendError as error:
            return error
        finally:
            self._is_written = True
        return None

    @property
    def _is_busy(self) -> bool:
        """Whether the writer is at work."""
        return self._commit is not None and not self._is_written

    async def _written(self) -> None:
        """Wait for the writer."""
        assert self._commit is not None
        await asyncio.wait([asyncio.wrap_future(self._commit)])

    def _settle(self) -> None:
        """Take the result of the commit that runs or ran, waiting for it."""
        if self._commit is None:
            return
        self.failure = self._commit.result()
        self._commit, self._is_written = None, False
        if self.failure is None:
            self._committing = empty_batch()
            self._file.renew()

    def _take_back(self) -> None:
        """Put a batch that could not be committed before the one that collects."""
        if self.failure is not None:
            self._collecting = stacked(self._committing, self._collecting)
            self._committing = empty_batch()
            self._writes += 1
            self.failure = None

    def _note_write(self) -> None:
        """Count a write and see that it gets committed."""
        if self._is_written:
            self._settle()
        self._raise_failure()
        self._writes += 1
        if self._loop is None:
            return
        if self._writes == 1:
            self._set_timer()
        elif self._writes % self._batch_limit == 0:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Hand over when it is time; wait for the writer only if it is a whole batch behind."""
        if self._is_busy and self._writes < 2 * self._batch_limit:
            self._set_timer()
        else:
            self.hand_over()

    def _set_timer(self) -> None:
        self._stop_timer()
        if self._loop is not None:
            self._timer = self._loop.call_later(self._batch_interval_s, self._turn)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _raise_failure(self) -> None:
        if self._is_abandoned:
            raise BackendError(self._file.path, "commits no more: its owner has failed")
        if self.failure is not None:
            raise BackendError(self.failure.path, self.failure.reason) from self.failure
