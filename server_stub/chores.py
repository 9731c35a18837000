"""What a member does beside answering: sync watchers, compact, release the log, set a version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..protos import raftpb
from ..protos.errors import COMPACTED, Refused
from ..protos.etcdserverpb import CompactionRequest
from .compactor import Retention, retention_of
from .entering import see_to_cluster_version
from .replica import Replica
from .storage.snapshot import SnapshotFiles

if TYPE_CHECKING:
    from .member import Member

log = logging.getLogger(__name__)

WATCH_SYNC_SECONDS: Final = 0.1
VICTIM_RETRY_SECONDS: Final = 0.01
TIMEOUT_CHECK_SECONDS: Final = 0.25


class Chores:
    """The background tasks of a member."""

    def __init__(self, member: Member, replica: Replica, snap_path: Path) -> None:
        self._member = member
        self._replica = replica
        self._snapshots = SnapshotFiles(snap_path)
        self._tasks: list[asyncio.Task[None]] = []
        self._watchers_wait = asyncio.Event()
        self._log_is_long = asyncio.Event()

    def start(self) -> None:
        """Begin with all of them."""
        member, settings = self._member, self._member.settings
        chores: list[Coroutine[Any, Any, None]] = [
            member.lease_duties.run(),
            member.learner_duties.run(),
            self._sync_watchers(),
            self._expire_proposals(),
            self._release_log(),
            see_to_cluster_version(member),
            member.compactor.run(member.backend),
        ]
        retention = retention_of(
            settings.auto_compaction_mode,
            settings.auto_compaction_period_seconds,
            settings.auto_compaction_revisions,
        )
        if retention is not None:
            chores.append(self._compact_by_itself(retention))
        self._tasks = [asyncio.create_task(chore) for chore in chores]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End them; none leaves anything half done."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def nudge_watchers(self) -> None:
        """See soon to watchers that are behind."""
        self._watchers_wait.set()

    def note_applied(self) -> None:
        """Look whether the log has grown enough to be released."""
        if self._replica.is_snapshot_due:
            self._log_is_long.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A chore that fails stops the member: it failed on the disk, or it is a bug."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a background task failed", exc_info=error)
            self._member.consensus.fail(error)

    # Watchers

    async def _sync_watchers(self) -> None:
        """Serve those behind every 100 ms, or as soon as there is one; the stuck every 10 ms."""
        store, clock = self._member.store, self._member.clock
        pause_seconds = WATCH_SYNC_SECONDS
        while True:
            await _first_of(self._watchers_wait.wait(), pause_seconds)
            self._watchers_wait.clear()
            began = clock()
            if store.sync_watchers():
                pause_seconds = clock() - began  # as long for everybody else
                self._watchers_wait.set()
                await asyncio.sleep(pause_seconds)
            is_stuck = store.retry_victims()
            pause_seconds = VICTIM_RETRY_SECONDS if is_stuck else WATCH_SYNC_SECONDS

    # Proposals

    async def _expire_proposals(self) -> None:
        while True:
            await asyncio.sleep(TIMEOUT_CHECK_SECONDS)
            self._member.proposals.expire()

    # The log

    async def _release_log(self) -> None:
        """Let the store stand for the log, every so many entries, and delete what it covers."""
        while True:
            await self._log_is_long.wait()
            self._log_is_long.clear()
            snapshot = self._replica.due_snapshot()
            if snapshot is not None:
                await self._member.backend.commit_async()
                await self._member.consensus.in_log_thread(partial(self._mark, snapshot))
                self._replica.snapshot_saved(snapshot)

    def _mark(self, snapshot: raftpb.Snapshot) -> None:
        """Note a snapshot and delete what it covers; in the thread of the log."""
        wal, settings, metadata = self._member.wal, self._member.settings, snapshot.metadata
        self._snapshots.save(snapshot)
        wal.save_commit(metadata.index)
        wal.save_snapshot(metadata.index, metadata.term, metadata.conf_state)
        if settings.max_wals:
            wal.release_to(metadata.index, settings.max_wals)
        self._snapshots.release(settings.max_snapshots)
        log.info("saved a snapshot", extra={"index": metadata.index, "term": metadata.term})

    # Compaction

    async def _compact_by_itself(self, retention: Retention) -> None:
        member = self._member
        while True:
            revision = retention.due(member.store.revision, member.clock())
            if revision is not None and member.is_leader:
                await self._compact(revision)
            await asyncio.sleep(retention.interval_seconds)

    async def _compact(self, revision: int) -> None:
        try:
            await self._member.compact(CompactionRequest(revision=revision))
        except Refused as refused:
            if refused.refusal is not COMPACTED:
                log.warning(
                    "failed to compact", extra={"revision": revision, "reason": str(refused)}
                )
        else:
            log.info("compacted by itself", extra={"revision": revision})


async def _first_of(event: Awaitable[object], timeout_seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await event
