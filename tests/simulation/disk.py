"""Disks that forget: the write-ahead log's files, and the backend.

The log is the real one, on real files (in memory, where the system has such a place): what is
virtual is when its bytes count as written. A power cut takes sectors that were never synced, all
of them, the last of them, or any of them.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self

from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend
from etcd_pinwheel.server_stub.storage.segment import SEGMENT_BYTES, Segment

SECTOR_BYTES = 512


class Disk:
    """One member's disk."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.fails = False
        """Whether no sync returns well from now on; what is written may be there all the same."""
        self.backend = CrashingBackend()
        self.arrived: dict[tuple[int, int], CrashingBackend] = {}
        """Other members' states, by index and term: on disk, not in their place yet."""
        self.synced: dict[Path, int] = {}
        """How many bytes of each file have to be there after a power cut."""
        self.written: dict[Path, int] = {}

        class DiskSegment(VirtualSegment):
            disk = self

        self.segment_type: type[Segment] = DiskSegment

    def kill(self) -> None:
        """End the process only: what was written is there, whether synced or not."""
        self.backend.lose_uncommitted()
        self.fails = False

    def cut_power(self, random: Random) -> str:
        """Take what was not synced, or some of it; return in a word what was left."""
        self.backend.lose_uncommitted()
        self.fails = False
        left = "all"
        for path in sorted(self.written):
            start, end = self.synced[path], self.written[path]
            if start < end and path.exists():
                left = self._tear(path, start, end, random)
        self.synced.clear()
        self.written.clear()
        return left

    def _tear(self, path: Path, start: int, end: int, random: Random) -> str:
        left = random.choice(("none", "all", "first", "some"))
        first, behind = start // SECTOR_BYTES, -(-end // SECTOR_BYTES)
        kept = set(range(first, behind)) if left == "all" else set()
        if left == "first":
            kept = set(range(first, random.randint(first, behind)))
        elif left == "some":
            kept = {sector for sector in range(first, behind) if random.random() < 0.5}
        with path.open("r+b") as file:
            for sector in range(first, behind):
                if sector not in kept:
                    at = max(start, sector * SECTOR_BYTES)
                    file.seek(at)
                    file.write(bytes(min(end, (sector + 1) * SECTOR_BYTES) - at))
        return left


class VirtualSegment(Segment):
    """A file of the log that knows how much of it was synced."""

    __slots__ = ()
    disk: ClassVar[Disk]

    @classmethod
    def create(cls, path: Path, size: int = SEGMENT_BYTES) -> Self:
        segment = super().create(path, size)
        cls.disk.synced[path] = cls.disk.written[path] = 0
        return segment

    @classmethod
    def open(cls, path: Path, end: int) -> Self:
        """Open a file; what a killed process had not synced still is not."""
        cls.disk.synced[path] = min(cls.disk.synced.get(path, end), end)
        cls.disk.written[path] = end
        return super().open(path, end)

    def append(self, data: bytes) -> None:
        super().append(data)
        self.disk.written[self.path] = self.end

    def sync(self) -> None:
        if self.disk.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.disk.synced[self.path] = self.end

    def truncate(self) -> None:
        if self.disk.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.ftruncate(self._descriptor, self.end)
        self.disk.synced[self.path] = self.disk.written[self.path] = self.end

    def rename(self, path: Path) -> None:
        os.rename(self.path, path)
        disk, old = self.disk, self.path
        disk.synced[path], disk.written[path] = disk.synced.pop(old), disk.written.pop(old)
        self.path = path


class CrashingBackend(MemoryBackend):
    """A backend in memory whose writes since the last commit can be lost, all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._before: list[tuple[Bucket, bytes, bytes | None]] = []

    def put(self, bucket: Bucket, key: bytes, value: bytes) -> None:
        trees: Any = self._trees[bucket]
        self._before.append((bucket, key, trees.get(key)))
        trees[key] = value

    def delete(self, bucket: Bucket, key: bytes) -> None:
        trees: Any = self._trees[bucket]
        old = trees.get(key)
        if old is not None:
            self._before.append((bucket, key, old))
            del trees[key]

    def commit(self) -> None:
        self._before.clear()

    def lose_uncommitted(self) -> None:
        """Become what the last commit made durable."""
        for bucket, key, value in reversed(self._before):
            if value is None:
                del self._trees[bucket][key]
            else:
                self._trees[bucket][key] = value
        self._before.clear()

    def become(self, other: CrashingBackend) -> None:
        """Take over the content of another one, durably; what was written here is gone."""
        self._before.clear()
        for bucket, tree in other._trees.items():
            mine: Any = self._trees[bucket]
            mine.clear()
            mine.update(tree)

    def copy(self) -> CrashingBackend:
        """A backend with the same content, all of it durable."""
        twin = CrashingBackend()
        for bucket, tree in self._trees.items():
            twin._trees[bucket].update(tree)
        return twin
