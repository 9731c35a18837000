"""Raft snapshots on disk: ``<term>-<index>.snap``, as etcd names and frames them.

Such a file says that the store holds everything up to ``index``; the data itself is in the store's
own file. It is a ``snappb.snapshot``: a serialized ``raftpb.Snapshot`` under its CRC-32C.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from ...protos import raftpb, snappb
from .record import extend_crc
from .segment import DIRECTORY_MODE, FILE_MODE, sync_directory

log = logging.getLogger(__name__)

KEPT_SNAPSHOTS: Final = 5
"""What ``--max-snapshots`` is when nobody says otherwise."""
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap")


class SnapshotCorrupt(Exception):
    """A snapshot file that cannot be believed; ``path`` and ``reason`` tell which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"corrupt snapshot {path}: {reason}")
        self.path = path
        self.reason = reason


class SnapshotFiles:
    """The snapshot files of one member."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(self, snapshot: raftpb.Snapshot) -> Path:
        """Write a snapshot; durable, whole or not at all. Raises ``OSError``."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        metadata = snapshot.metadata
        path = self.directory / f"{metadata.term:016x}-{metadata.index:016x}.snap"
        data = snapshot.SerializeToString()
        framed = snappb.snapshot(crc=extend_crc(0, data), data=data).SerializeToString()
        unnamed = path.with_suffix(".snap.tmp")
        try:
            _write_durably(unnamed, framed)
            unnamed.rename(path)
        except OSError:
            unnamed.unlink(missing_ok=True)
            raise
        sync_directory(self.directory)
        return path

    def load_newest(self, valid: Collection[tuple[int, int]]) -> raftpb.Snapshot | None:
        """Read the newest snapshot that ``valid`` (pairs of index and term) vouches for.

        One that is corrupt is renamed to ``.broken``, as etcd does, and the one before it is
        taken: the log still holds what came after. None when there is none.
        """
        for path in reversed(self._files()):
            try:
                snapshot = read_snapshot(path)
            except SnapshotCorrupt as error:
                log.warning("set a corrupt snapshot aside: %s", error)
                path.rename(path.with_suffix(".snap.broken"))
                continue
            if (snapshot.metadata.index, snapshot.metadata.term) in valid:
                return snapshot
        return None

    def release(self, keep: int = KEPT_SNAPSHOTS) -> list[Path]:
        """Delete all but the newest ``keep`` (0: none), and what an unfinished save left behind.

        Returns what was deleted.
        """
        deleted = list(self.directory.glob("*.snap.tmp"))
        if keep:
            deleted += self._files()[:-keep]
        for path in deleted:
            path.unlink()
        return deleted

    def _files(self) -> list[Path]:
        """The snapshot files, oldest first: term, then index, as the names sort."""
        if not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))


def read_snapshot(path: Path) -> raftpb.Snapshot:
    """Read one snapshot file; raises ``SnapshotCorrupt`` or ``OSError``."""
    framed = path.read_bytes()
    if not framed:
        raise SnapshotCorrupt(path, "the file is empty")
    try:
        envelope = snappb.snapshot.FromString(framed)
        if not envelope.data or extend_crc(0, envelope.data) != envelope.crc:
            raise SnapshotCorrupt(path, "the checksum does not match")
        return raftpb.Snapshot.FromString(envelope.data)
    except DecodeError:
        raise SnapshotCorrupt(path, "not a snapshot") from None


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
