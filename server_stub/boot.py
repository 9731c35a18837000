"""What a start finds on disk, and what it makes of it.

A restart needs nothing but the directory: the log says who this is, the backend how far the log
has gone into it and which configuration was in force then. The log from there on is applied again
as far as it is known to be committed; about the rest the leader decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from ..protos import raftpb
from ..protos.etcdserverpb import Metadata
from .apply.applier import Applier
from .apply.leases import recover_leases
from .apply.membership import Membership
from .apply.quota import Quota
from .cluster import FOUNDING_TERM
from .config import Settings
from .joining import FirstStart
from .lease.lessor import Lessor
from .mvcc.backend import Bucket
from .mvcc.compaction import Compaction
from .mvcc.watchable import WatchableStore
from .raft.config import Config
from .raft.core import Raft
from .raft.log import Log
from .replica import Replica
from .standalone import standalone
from .state_transfer import received_path, remove_received
from .storage.backend import LmdbBackend, map_size_for
from .storage.data_dir import DataDir, DataDirError
from .storage.position import CONSISTENT_INDEX_KEY, position_of
from .storage.segment import sync_directory
from .storage.wal import Wal, WalContents, valid_snapshots

log = logging.getLogger(__name__)

REPLAYED_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class Booted:
    """The parts of a member, each with the state it had; whoever gets them closes them."""

    cluster_id: int
    backend: LmdbBackend
    wal: Wal
    replica: Replica
    store: WatchableStore
    lessor: Lessor


def min_lease_ttl_seconds(election_timeout_ms: int) -> int:
    """Return the shortest TTL that outlives an election, as etcd computes it."""
    return ceil(3 * election_timeout_ms / 2 / 1000)


def boot(
    settings: Settings,
    data_dir: DataDir,
    first: FirstStart | None,
    *,
    clock: Callable[[], float],
    random: Callable[[int], int],
    on_compaction: Callable[[Compaction], None],
) -> Booted:
    """Bring the state of a member up to what its log has committed for sure.

    ``first`` is who it is if the directory is empty; None: it is not. ``random(n)`` draws from
    0..n-1. Raises ``DataDirError``, ``BackendError``, ``WalCorrupt``, ``WalFailed``, ``LogLost``.
    """
    with ExitStack() as undoing:
        opened = None
        marks: list[tuple[int, int]] = []
        if first is not None:
            opened = _make_log(settings, data_dir, first)
            undoing.callback(opened[0].close)
        else:
            data_dir.hold_log()
            marks = valid_snapshots(data_dir.wal_path)
            finish_installation(data_dir.snap_path, marks)
        backend = LmdbBackend(
            data_dir.store_path,
            map_size_bytes=map_size_for(settings.quota_backend_bytes),
            batch_interval_s=settings.backend_batch_interval_seconds,
            batch_limit=settings.backend_batch_limit,
        )
        undoing.callback(backend.close)
        wal, start, contents = opened or _open_log(settings, data_dir, backend, marks)
        undoing.callback(wal.close)
        if contents.hard_state.term > FOUNDING_TERM:
            data_dir.confirm()  # it has taken part, as a founder may only when that is sure
        metadata = Metadata.FromString(contents.metadata)
        applier, store, lessor = _state(settings, backend, metadata.ClusterID, on_compaction)
        if settings.force_new_cluster:
            _go_on_alone(metadata.NodeID, applier, wal, contents)
        raft = _raft(settings, metadata.NodeID, start, contents, applier, random)
        replica = Replica(
            raft,
            applier,
            snapshot_every=settings.snapshot_count,
            catch_up_entries=settings.snapshot_catchup_entries,
        )
        raft.snapshot = replica.snapshot
        while replica.apply(REPLAYED_AT_ONCE, clock()):
            pass
        undoing.pop_all()
    return Booted(metadata.ClusterID, backend, wal, replica, store, lessor)


def _make_log(
    settings: Settings, data_dir: DataDir, first: FirstStart
) -> tuple[Wal, tuple[int, int], WalContents]:
    """Make the log of a first start: a founder's begins with its fellows, a joiner's is empty."""
    if data_dir.store_path.exists():
        raise DataDirError(data_dir.wal_path, "the log is missing; the store alone is not it")
    data_dir.hold_log()
    if data_dir.has_wal:
        raise DataDirError(data_dir.wal_path, "another process has made a log there")
    metadata = first.cluster.metadata(first.own_id)
    entries = first.cluster.bootstrap_entries() if first.is_founding else []
    if len(entries) > 1:
        data_dir.doubt()
    wal = Wal.create(data_dir.wal_path, metadata, entries, fsync=not settings.unsafe_no_fsync)
    return wal, (0, 0), WalContents(metadata, wal.hard_state, entries)


def finish_installation(snap_path: Path, marks: list[tuple[int, int]]) -> None:
    """Put a received state in its place, if a crash came between the log's word and that.

    ``marks`` are the snapshots that the log vouches for. Raises ``BackendError``, ``OSError``.
    """
    if not marks:
        return
    newest, _ = max(marks)
    received = received_path(snap_path, newest)
    if received.exists() and position_of(received).index == newest:
        received.replace(snap_path / "db")
        sync_directory(snap_path)
        log.info("finished installing the state of another member", extra={"index": newest})
    remove_received(snap_path, newest)


def _open_log(
    settings: Settings, data_dir: DataDir, backend: LmdbBackend, marks: list[tuple[int, int]]
) -> tuple[Wal, tuple[int, int], WalContents]:
    """Open the log behind the newest snapshot that the store covers; return that too."""
    in_store = int.from_bytes(backend.get(Bucket.META, CONSISTENT_INDEX_KEY) or b"", "big")
    start = max((each for each in marks if each[0] <= in_store), default=(0, 0))
    wal, contents = Wal.open(data_dir.wal_path, start, fsync=not settings.unsafe_no_fsync)
    if contents.torn is not None:
        log.warning(
            "cut an unfinished write off the write-ahead log",
            extra={"path": contents.torn.path, "offset": contents.torn.offset},
        )
    first_index = contents.entries[0].Index if contents.entries else start[0] + 1
    last_index = contents.entries[-1].Index if contents.entries else start[0]
    if not first_index <= in_store + 1 <= last_index + 1:
        wal.close()
        raise DataDirError(
            data_dir.path,
            f"the store has entry {in_store} but the log has {first_index} to {last_index}",
        )
    return wal, start, contents


def _state(
    settings: Settings,
    backend: LmdbBackend,
    cluster_id: int,
    on_compaction: Callable[[Compaction], None],
) -> tuple[Applier, WatchableStore, Lessor]:
    """Make what the backend is a picture of."""
    lessor = Lessor(
        min_lease_ttl_seconds(settings.election_timeout_ms),
        retry_seconds=settings.request_timeout_seconds,
        checkpoints=settings.lease_checkpoints,
    )
    recover_leases(backend, lessor)
    store = WatchableStore(backend, lessor)
    if store.unfinished_compaction is not None:
        on_compaction(store.unfinished_compaction)
    membership = Membership(backend, cluster_id, settings.max_learners)
    quota = Quota(backend, settings.quota_backend_bytes)
    return Applier(backend, store, lessor, membership, quota, on_compaction), store, lessor


def _go_on_alone(own_id: int, applier: Applier, wal: Wal, contents: WalContents) -> None:
    """Put into the log that all others leave. Raises ``NotAMember``, ``WalFailed``."""
    conf_state = applier.conf_state or applier.membership.cluster.conf_state()
    alone = standalone(own_id, conf_state, applier.index, contents.entries, contents.hard_state)
    log.warning(
        "going on alone: the others are removed, what was not committed is given up",
        extra={
            "member": f"{own_id:x}",
            "given-up": len(contents.entries) - len(alone.kept),
            "removed": [
                f"{raftpb.ConfChange.FromString(each.Data).node_id:x}" for each in alone.added
            ],
        },
    )
    wal.save(None, alone.added)
    wal.save(alone.hard_state)
    contents.entries = [*alone.kept, *alone.added]
    contents.hard_state = alone.hard_state


def _raft(
    settings: Settings,
    own_id: int,
    start: tuple[int, int],
    contents: WalContents,
    applier: Applier,
    random: Callable[[int], int],
) -> Raft:
    """Make the core, with the log and with the configuration as of what is applied."""
    entries = Log(contents.entries, compacted=start)
    entries.committed = entries.handed = entries.applied = applier.index
    hard_state = contents.hard_state
    hard_state.commit = max(hard_state.commit, applier.index)
    conf_state = applier.conf_state or applier.membership.cluster.conf_state()
    ticks = settings.election_timeout_ms // settings.heartbeat_interval_ms
    config = Config(id=own_id, election_ticks=ticks, pre_vote=settings.pre_vote)
    return Raft(config, entries, hard_state, conf_state, random)
