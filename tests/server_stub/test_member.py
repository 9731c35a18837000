"""A member: group commit, restart, crash, failure, and what runs beside the requests."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from inprocess.served import PATIENCE_SECONDS, Served, until

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import (
    NOT_ENOUGH_STARTED,
    STOPPED,
    TIMEOUT,
    TOO_MANY_REQUESTS,
    Refused,
)
from etcd_pinwheel.server_stub import member as member_module
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.joining import Fetch, FirstStart
from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.proposals import MAX_UNAPPLIED_ENTRIES
from etcd_pinwheel.server_stub.storage.backend import BackendError
from etcd_pinwheel.server_stub.storage.data_dir import DataDirError
from etcd_pinwheel.server_stub.storage.segment import segments_of
from etcd_pinwheel.server_stub.storage.wal import Wal, WalFailed, valid_snapshots


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Served(tmp_path / "data") as served:
        yield served


class Gate:
    """Holds the log's thread before each save, and notes what is saved."""

    def __init__(self, wal: Wal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.error: Exception | None = None
        self._open = threading.Event()
        self._save: Callable[..., None] = wal.save
        monkeypatch.setattr(wal, "save", self._gated)

    def _gated(self, hard_state: Any, entries: Any = ()) -> None:
        assert self._open.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        self.batches.append(len(entries))
        self._save(hard_state, entries)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def gate(served: Served, monkeypatch: pytest.MonkeyPatch) -> Gate:
    core = served.member.core
    await until(lambda: core._saved_commit == core.commit_index)  # else a tick will save it
    return Gate(served.member.wal, monkeypatch)


def start_puts(served: Served, count: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(served.put(b"k%d" % number)) for number in range(count)]


async def outcomes(tasks: list[asyncio.Task[int]]) -> list[object]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        done = await asyncio.gather(*tasks, return_exceptions=True)
    return [each.refusal if isinstance(each, Refused) else each for each in done]


async def test_what_waits_for_the_disk_is_one_batch(served: Served, gate: Gate) -> None:
    first = start_puts(served, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = start_puts(served, 100)
    await asyncio.sleep(0)
    assert served.member.store.revision == 1, "nothing is applied before it is durable"
    gate.open()
    assert await outcomes(first + rest) == list(range(2, 103))
    assert [size for size in gate.batches if size] == [1, 100]


async def test_a_disk_that_fails_stops_the_member(served: Served, gate: Gate) -> None:
    failed = asyncio.create_task(served.member.failed())
    gate.error = WalFailed(Path("wal"), "Input/output error")
    waiting = start_puts(served, 3)
    await asyncio.sleep(0)
    gate.open()
    assert await outcomes(waiting) == [STOPPED] * 3
    with pytest.raises(WalFailed, match="Input/output error"):
        await failed
    assert await served.refusal(rpcs.KV_PUT, key=b"k") is STOPPED
    assert served.member.store.revision == 1
    assert (await served.http("/health")).status == 503


@pytest.mark.parametrize("puts_that_work", range(7))
async def test_a_backend_that_fails_stops_the_member(
    served: Served, monkeypatch: pytest.MonkeyPatch, puts_that_work: int
) -> None:
    """Nothing that was acknowledged is lost, and half an entry is never kept: the log has all."""
    await served.put(b"k", b"kept")
    put = served.member.backend.put
    left = iter(range(puts_that_work))

    def fail_after_a_while(*written: Any) -> None:
        if next(left, None) is None:
            raise BackendError(Path("db"), "the map is full")
        put(*written)

    ops = [{"request_put": {"key": key}} for key in (b"a", b"b", b"c")]
    with monkeypatch.context() as patched:
        patched.setattr(served.member.backend, "put", fail_after_a_while)
        transaction = asyncio.create_task(served(rpcs.KV_TXN, success=ops))
        waiting = [transaction, *start_puts(served, 3)]
        done = await outcomes(waiting)
        assert done[-1] is STOPPED
    with pytest.raises(BackendError, match="the map is full"):
        await served.member.failed()
    await served.restart()
    assert (await served(rpcs.KV_RANGE, key=b"k")).kvs[0].value == b"kept"
    assert (await served(rpcs.KV_RANGE, key=b"a", range_end=b"d")).count == 3
    assert (await served(rpcs.KV_RANGE, key=b"k0", range_end=b"l")).count == 3


async def test_a_background_task_that_fails_stops_the_member(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(served.member.store, "sync_watchers", fail)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(RuntimeError, match="a bug"):
            await served.member.failed()
    assert await served.refusal(rpcs.KV_PUT, key=b"k") is STOPPED


async def test_a_proposal_that_takes_too_long_is_answered(served: Served, gate: Gate) -> None:
    real, late = served.member.proposals._clock, served.settings.request_timeout_seconds + 1
    early = start_puts(served, 1)
    await asyncio.sleep(0)
    served.member.proposals._clock = lambda: real() + late
    second = start_puts(served, 1)
    assert await outcomes(early) == [TIMEOUT]
    gate.open()
    assert await outcomes(second) == [3], "the first took effect all the same"


async def test_a_log_far_ahead_turns_requests_away(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = MAX_UNAPPLIED_ENTRIES
    seen = property(lambda raft: raft.log.committed + ahead)
    monkeypatch.setattr(type(served.member.core), "commit_index", seen)
    await served.put(b"k")
    ahead += 1
    assert await served.refusal(rpcs.KV_PUT, key=b"k") is TOO_MANY_REQUESTS


async def test_a_caller_that_leaves_changes_nothing_for_others(served: Served, gate: Gate) -> None:
    tasks = start_puts(served, 3)
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    gate.open()
    assert [each for each in await outcomes(tasks) if isinstance(each, int)] == [2, 4]


async def test_a_stop_answers_what_was_proposed_and_nothing_else(
    served: Served, gate: Gate
) -> None:
    tasks = start_puts(served, 5)
    await asyncio.sleep(0)
    stopping = asyncio.create_task(served.member.stop())
    await asyncio.sleep(0)
    gate.open()
    await stopping
    assert await outcomes(tasks) == [2, 3, 4, 5, 6]
    assert await served.refusal(rpcs.KV_PUT, key=b"k") is STOPPED
    await served.start()
    assert (await served(rpcs.KV_RANGE, key=b"k", range_end=b"l")).count == 5


async def everything(served: Served) -> tuple[Any, ...]:
    leases = (await served(rpcs.LEASE_LEASE_LEASES)).leases
    looked = [
        await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=lease.ID, keys=True) for lease in leases
    ]
    return (
        served.member.store.revision,
        (await served(rpcs.MAINTENANCE_HASH_KV)).hash,
        sorted((each.ID, each.grantedTTL, tuple(each.keys)) for each in looked),
        list((await served(rpcs.MAINTENANCE_ALARM)).alarms),
        served.member.applier.membership.cluster,
    )


async def fill(served: Served) -> None:
    await served(rpcs.LEASE_LEASE_GRANT, ID=7, TTL=100)
    for number in range(40):
        await served.put(b"k%d" % (number % 9), b"%d" % number, lease=7 * (number % 2))
    await served(rpcs.KV_DELETE_RANGE, key=b"k3", range_end=b"k6")
    await served(rpcs.KV_COMPACT, revision=20)
    await served(rpcs.MAINTENANCE_ALARM, action=1, memberID=9, alarm=1)
    await served(rpcs.MAINTENANCE_ALARM, action=1, memberID=9, alarm=2)
    await served(rpcs.MAINTENANCE_ALARM, action=2, memberID=9, alarm=2)


async def test_a_restart_finds_everything(served: Served) -> None:
    await fill(served)
    before = await everything(served)
    for _ in range(2):
        await served.restart()
        assert await everything(served) == before


@pytest.mark.parametrize("committed_early", [True, False])
async def test_a_crash_at_any_moment_loses_nothing(tmp_path: Path, committed_early: bool) -> None:
    """What a power cut would leave: a copy of the files while the member runs."""
    async with Served(tmp_path / "data", backend_batch_interval_seconds=1000.0) as served:
        if committed_early:
            await served.put(b"early")
            await served.member.backend.commit_async()
        await fill(served)
        before = await everything(served)
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
    async with Served(tmp_path / "copy") as again:
        assert await everything(again) == before
        await again(rpcs.MAINTENANCE_ALARM, action=2, memberID=9, alarm=1)
        assert await again.put(b"goes on") == before[0] + 1


async def test_the_store_stands_for_the_log(tmp_path: Path) -> None:
    """Every so many entries the log gets a mark, from which the next start reads."""
    async with Served(tmp_path / "data", snapshot_count=10, max_snapshots=2) as served:
        async with asyncio.timeout(PATIENCE_SECONDS):  # a slow disk makes fewer marks
            while len(valid_snapshots(served.settings.wal_path)) <= 3:
                await served.put(b"k", b"x")
        before = await everything(served)
        await served.restart()
        assert await everything(served) == before
        marks = valid_snapshots(served.settings.wal_path)
        assert marks[-1][0] > 10
        assert len(list(served.settings.snap_path.glob("*.snap"))) == 2


async def test_files_of_the_log_that_are_covered_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Served(tmp_path / "data", snapshot_count=10, max_wals=2) as served:
        monkeypatch.setattr(served.member.wal, "_segment_bytes", 4_000)
        wal_path = served.settings.wal_path
        async with asyncio.timeout(PATIENCE_SECONDS):
            while segments_of(wal_path)[0][0].sequence == 0:
                await served.put(b"k", b"x" * 100)
        before = await everything(served)
        await served.restart()
        assert await everything(served) == before


@pytest.mark.slow
async def test_an_interrupted_compaction_is_resumed(tmp_path: Path) -> None:
    async with Served(tmp_path / "data", compaction_sleep_interval_seconds=1000.0) as served:
        for _ in range(3_000):
            await served.put(b"k")
        await served(rpcs.KV_COMPACT, revision=2_500)
    async with Served(tmp_path / "data") as again:
        await again.member.compactor.finished()
        stored = again.member.backend.range(Bucket.KEY, b"", None)
        assert len(stored) == 3_001 - 2_500 + 1


async def test_a_data_directory_has_one_member(served: Served) -> None:
    with pytest.raises(DataDirError, match="another process"):
        await Served(served.settings.data_dir).start()


async def test_a_log_has_one_member(served: Served, tmp_path: Path) -> None:
    other = Served(tmp_path / "other", wal_dir=served.settings.wal_path)
    with pytest.raises(DataDirError, match=f"cannot use {served.settings.wal_path}: another proc"):
        await other.start()
    await served.restart()


async def test_a_log_made_while_a_member_finds_its_cluster_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    find = member_module.first_start

    async def first_start(settings: Settings, fetch: Fetch) -> FirstStart:
        Wal.create(log, b"").close()
        return await find(settings, fetch)

    monkeypatch.setattr(member_module, "first_start", first_start)
    with pytest.raises(DataDirError, match="another process has made a log there"):
        await Served(tmp_path / "data", wal_dir=log).start()


async def test_a_log_that_is_missing_is_not_made_up(served: Served) -> None:
    await served.put(b"k")
    await served.stop()
    moved = served.settings.wal_path.rename(served.settings.data_dir.parent / "moved")
    with pytest.raises(DataDirError, match="the log is missing"):
        await served.start()
    moved.rename(served.settings.wal_path)
    await served.start()
    assert (await served(rpcs.KV_RANGE, key=b"k")).count == 1


async def test_a_store_that_is_missing_is_made_from_the_log(served: Served) -> None:
    await fill(served)
    before = await everything(served)
    await served.stop()
    for path in served.settings.snap_path.iterdir():
        path.unlink()
    await served.start()
    assert await everything(served) == before


async def test_the_last_voter_cannot_be_removed(tmp_path: Path) -> None:
    async with Served(tmp_path / "data", strict_reconfig_check=False) as served:
        refusal = await served.refusal(rpcs.CLUSTER_MEMBER_REMOVE, ID=served.member.id)
        assert refusal is NOT_ENOUGH_STARTED
        await served.restart()
        assert await served.put(b"k") == 2


async def test_a_member_is_its_directory(served: Served) -> None:
    """Flags that tell how to begin have no say afterwards, as with etcd."""
    identity = served.member.id, served.member.cluster_id
    await served.put(b"k")
    await served.stop()
    other = {"initial_cluster_token": "other", "initial_cluster_state": "existing"}
    async with Served(served.settings.data_dir, **other) as again:
        assert (again.member.id, again.member.cluster_id) == identity
        assert (await again(rpcs.KV_RANGE, key=b"k")).count == 1
    await served.start()


async def test_nothing_is_left_running(tmp_path: Path) -> None:
    threads = threading.active_count()
    async with Served(tmp_path / "data") as served:
        await served.put(b"k")
    assert threading.active_count() == threads
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_revisions_are_compacted_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etcd_pinwheel.server_stub.compactor import RevisionRetention

    monkeypatch.setattr(RevisionRetention, "interval_seconds", 0.01)
    options: dict[str, Any] = {"auto_compaction_mode": "revision", "auto_compaction_revisions": 5}
    async with Served(tmp_path / "data", **options) as served:
        for _ in range(20):
            await served.put(b"k")
        await until(lambda: served.member.store.compacted_revision >= 16)
        assert served.member.store.compacted_revision == 16
