"""A new cluster out of a snapshot: keys, revisions and leases stay, the members are new.

Every member of the new cluster is restored from the same file, each with the same
``--initial-cluster`` and a name of its own. The ids are new ones, so that no member of the old
cluster can be taken for one of the new.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

from ..protos import raftpb
from .cluster import CLUSTER_VERSION_KEY, FOUNDING_TERM, Cluster, ClusterMember, save_members
from .config.restoring import RestoreOrder
from .joining import JoinRefused, check_founding, resolve
from .mvcc.backend import Backend, Bucket
from .storage.backend import BackendError, LmdbBackend, map_size_for
from .storage.copied import CopiedBackend
from .storage.data_dir import DataDirError, held, is_bbolt
from .storage.position import CONF_STATE_KEY, CONSISTENT_INDEX_KEY, TERM_KEY
from .storage.segment import DIRECTORY_MODE, sync_directory
from .storage.snapshot import SnapshotFiles
from .storage.wal import Wal, WalFailed

DIGEST_BYTES: Final = 32
PAGE_BYTES: Final = 512
_BLOCK_BYTES: Final = 1 << 20


class RestoreError(Exception):
    """A snapshot that cannot be restored, or a place where it cannot be restored to."""


def run(order: RestoreOrder) -> bool:
    """Restore as a command does: say how it went; False when it did not."""
    try:
        own = asyncio.run(restore(order))
    except (RestoreError, JoinRefused, BackendError, DataDirError, WalFailed, OSError) as error:
        print(f"restore: {error}", file=sys.stderr)
        return False
    cluster = Cluster.initial(order.settings)
    print(
        f"restored {order.file} to {order.settings.data_dir}"
        f" as member {own.id:x} of cluster {cluster.id:x}"
    )
    return True


async def restore(order: RestoreOrder) -> ClusterMember:
    """Make a data directory out of a snapshot file; return the member that it is of.

    The directory appears whole or not at all, and whoever restores to the same one meanwhile, or
    runs with the same log, is not harmed. Raises ``RestoreError``, ``JoinRefused`` (the flags
    contradict each other), ``BackendError``, ``DataDirError``, ``WalFailed``, ``OSError``.
    """
    settings = order.settings
    own = await check_founding(settings, resolve)
    beside = settings.data_dir.with_name(settings.data_dir.name + ".restoring")
    made_in = (beside,) if settings.wal_dir is None else (beside, settings.wal_dir)
    with ExitStack() as holds:
        for directory in made_in:
            holds.enter_context(held(directory))
        for directory in (settings.data_dir, settings.wal_path):
            _refuse_filled(directory)
        _empty(beside)
        try:
            _build(order, own, beside)
            with suppress(FileNotFoundError):
                settings.data_dir.rmdir()
            beside.rename(settings.data_dir)
        except BaseException:
            for directory in made_in:
                _empty(directory)
            raise
        sync_directory(settings.data_dir.parent)
    return own


def _empty(directory: Path) -> None:
    """Remove what is in a directory, but not itself: it may be a mount, and it is held."""
    with suppress(OSError):
        for inner in directory.iterdir():
            if inner.is_dir() and not inner.is_symlink():
                shutil.rmtree(inner, ignore_errors=True)
            else:
                inner.unlink(missing_ok=True)


def _refuse_filled(directory: Path) -> None:
    try:
        if not directory.exists() or not any(directory.iterdir()):
            return
    except OSError as error:
        raise RestoreError(f"cannot restore to {directory}: {error.strerror}") from error
    raise RestoreError(f"cannot restore to {directory}: it is not empty")


def _build(order: RestoreOrder, own: ClusterMember, data_dir: Path) -> None:
    settings = order.settings
    snap_path = data_dir / "member" / "snap"
    snap_path.mkdir(parents=True, mode=DIRECTORY_MODE)
    copy_checked(order.file, snap_path / "db", skip_hash_check=order.skip_hash_check)
    cluster = Cluster.initial(settings)
    size_bytes = (snap_path / "db").stat().st_size
    try:
        _refuse_foreign(snap_path / "db")
        backend = LmdbBackend(snap_path / "db", map_size_bytes=map_size_for(size_bytes))
    except BackendError as error:
        raise RestoreError(
            f"{order.file} is no snapshot of this server: it {error.reason}"
        ) from error
    try:
        refound(backend, cluster)
        backend.commit()
    finally:
        backend.close()
    wal_path = settings.wal_dir if settings.wal_dir is not None else data_dir / "member" / "wal"
    _write_log(wal_path, SnapshotFiles(snap_path), cluster, own)


def _refuse_foreign(store: Path) -> None:
    """Raise ``BackendError`` for an LMDB file that no member has ever written to."""
    with CopiedBackend(store) as copy:
        if copy.get(Bucket.META, CONSISTENT_INDEX_KEY) is None:
            raise BackendError(store, "holds no store")


def copy_checked(source: Path, target: Path, *, skip_hash_check: bool = False) -> None:
    """Copy a snapshot without the SHA-256 at its end, and hold the one against the other.

    A store is a whole number of pages, so 32 bytes more are a digest. Durable on return. Raises
    ``RestoreError``, ``OSError``.
    """
    try:
        with source.open("rb") as file, target.open("xb") as copy:
            size_bytes = os.fstat(file.fileno()).st_size
            has_digest = _has_digest(source, size_bytes, skip_hash_check)
            found = _copy(file, copy, size_bytes - DIGEST_BYTES * has_digest)
            told = file.read()
            os.fsync(copy.fileno())
    except IsADirectoryError:
        raise RestoreError(f"cannot read {source}: it is a directory") from None
    except OSError as error:
        if error.filename not in (None, str(source)):
            raise
        raise RestoreError(f"cannot read {source}: {error.strerror}") from error
    if has_digest and found != told and not skip_hash_check:
        raise RestoreError(f"{source} is damaged: expected sha256 {told.hex()}, got {found.hex()}")
    if is_bbolt(target):
        raise RestoreError(
            f"{source} is a snapshot of etcd itself (a bbolt file), which is for etcdutl to restore"
        )


def _has_digest(source: Path, size_bytes: int, skip_hash_check: bool) -> bool:
    past_pages = size_bytes % PAGE_BYTES
    if past_pages not in (0, DIGEST_BYTES) or size_bytes < PAGE_BYTES:
        raise RestoreError(
            f"{source} is cut short, or no snapshot: {size_bytes} bytes are not whole pages"
        )
    if past_pages == 0 and not skip_hash_check:
        raise RestoreError(
            f"{source} has no digest at its end: it was not made by a snapshot, or is cut short."
            " If it is a copy of member/snap/db of a stopped member, give --skip-hash-check"
        )
    return past_pages == DIGEST_BYTES


def _copy(file: BinaryIO, copy: BinaryIO, left_bytes: int) -> bytes:
    """Copy so many bytes; return their SHA-256."""
    digest = hashlib.sha256()
    while left_bytes:
        block = file.read(min(_BLOCK_BYTES, left_bytes))
        if not block:
            raise RestoreError(f"{file.name} became shorter while it was read")
        digest.update(block)
        copy.write(block)
        left_bytes -= len(block)
    copy.flush()
    return digest.digest()


def refound(backend: Backend, cluster: Cluster) -> None:
    """Make a store the one of a new cluster, as its members will find it at the first start.

    What applying ``cluster.bootstrap_entries()`` leaves behind is put there. The old members are
    forgotten, and who was removed: their ids mean nothing in the new cluster.
    """
    for bucket in (Bucket.MEMBERS, Bucket.MEMBERS_REMOVED):
        for key, _ in backend.range(bucket, b"", None):
            backend.delete(bucket, key)
    backend.delete(Bucket.CLUSTER, CLUSTER_VERSION_KEY)
    save_members(backend, cluster.members)
    index = len(cluster.members)
    backend.put(Bucket.META, CONSISTENT_INDEX_KEY, index.to_bytes(8, "big"))
    backend.put(Bucket.META, TERM_KEY, FOUNDING_TERM.to_bytes(8, "big"))
    backend.put(Bucket.META, CONF_STATE_KEY, cluster.conf_state().SerializeToString())


def _write_log(
    wal_path: Path, snapshots: SnapshotFiles, cluster: Cluster, own: ClusterMember
) -> None:
    """Write the log that leads to the store, and the snapshot that says so."""
    entries = cluster.bootstrap_entries()
    metadata = raftpb.SnapshotMetadata(
        conf_state=cluster.conf_state(), index=len(entries), term=FOUNDING_TERM
    )
    wal = Wal.create(wal_path, cluster.metadata(own.id))
    try:
        wal.save(raftpb.HardState(term=FOUNDING_TERM), entries)
        wal.save_commit(metadata.index)
        snapshots.save(raftpb.Snapshot(metadata=metadata))
        wal.save_snapshot(metadata.index, metadata.term, metadata.conf_state)
    finally:
        wal.close()
