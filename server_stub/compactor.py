"""Deletes what compactions gave up, in the background, and decides when to compact by itself."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from .mvcc.compaction import Compaction
from .storage.backend import LmdbBackend

REVISION_MODE_INTERVAL_SECONDS: Final = 300.0
_SAMPLES_PER_PERIOD: Final = 10
_MAX_SAMPLED_PERIOD_SECONDS: Final = 3600.0


class Compactor:
    """Carries out compactions one after the other, a batch and a pause at a time."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._todo: deque[tuple[Compaction, asyncio.Event]] = deque()
        self._has_work = asyncio.Event()

    def add(self, compaction: Compaction) -> None:
        """Queue a compaction."""
        self._todo.append((compaction, asyncio.Event()))
        self._has_work.set()

    async def finished(self) -> None:
        """Wait until all that is queued now is deleted, and durably so."""
        if self._todo:
            await self._todo[-1][1].wait()

    async def run(self, backend: LmdbBackend) -> None:
        """Work for ever. Each batch is committed before the next, so deletes never pile up."""
        while True:
            await self._has_work.wait()
            compaction, is_finished = self._todo[0]
            while compaction.step():
                await backend.commit_async()
                await asyncio.sleep(self._pause_seconds)
            await backend.commit_async()
            self._todo.popleft()
            is_finished.set()
            if not self._todo:
                self._has_work.clear()


class PeriodicRetention:
    """Compacts to what was current a period ago: ``--auto-compaction-mode=periodic``.

    The revision is sampled ten times a period (of an hour, if the period is longer). Once the
    samples span the period, the oldest of them is compacted to, every period or every hour.
    """

    def __init__(self, period_seconds: float) -> None:
        window_seconds = min(period_seconds, _MAX_SAMPLED_PERIOD_SECONDS)
        self.interval_seconds = window_seconds / _SAMPLES_PER_PERIOD
        """How often :meth:`due` is to be asked."""
        self._window_seconds = window_seconds
        self._samples: deque[int] = deque()
        self._max_samples = int(period_seconds / self.interval_seconds) + 1
        self._last_done: float | None = None
        self._previous = 0

    def due(self, revision: int, now: float) -> int | None:
        """Note the current revision; return the one to compact to, if it is time for that."""
        self._samples.append(revision)
        if len(self._samples) > self._max_samples:
            self._samples.popleft()
        if len(self._samples) < self._max_samples:
            return None
        oldest = self._samples[0]
        is_early = self._last_done is not None and now - self._last_done < self._window_seconds
        if is_early or oldest == self._previous:
            return None
        self._last_done, self._previous = now, oldest
        return oldest


class RevisionRetention:
    """Keeps a number of revisions: ``--auto-compaction-mode=revision``."""

    interval_seconds = REVISION_MODE_INTERVAL_SECONDS

    def __init__(self, revisions: int) -> None:
        self._revisions = revisions
        self._previous = 0

    def due(self, revision: int, now: float) -> int | None:
        """Return the revision to compact to, if there is news."""
        wanted = revision - self._revisions
        if wanted <= 0 or wanted == self._previous:
            return None
        self._previous = wanted
        return wanted


Retention = PeriodicRetention | RevisionRetention


def retention_of(mode: str, period_seconds: float, revisions: int) -> Retention | None:
    """Return what the flags ask for; None: never compact by itself."""
    if mode == "revision":
        return RevisionRetention(revisions) if revisions else None
    return PeriodicRetention(period_seconds) if period_seconds else None
