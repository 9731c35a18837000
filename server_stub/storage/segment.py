"""One file of the write-ahead log: its name, its space on disk, appending to it.

A file is called ``<sequence>-<index>.wal``, both as 16 hex digits: sequence counts the files, and
index is that of the first entry that may stand in it. Its whole size is taken from the file system
when it is made, so that an append changes no metadata and a full disk is met at a cut rather than
in the middle of a record.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple, Self

SEGMENT_BYTES: Final = 64_000_000
FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")
_flush_to_disk = getattr(os, "fdatasync", os.fsync)


class SegmentName(NamedTuple):
    """What a file's name says."""

    sequence: int
    first_index: int

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Read a file name; None: it is not one of the log's."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1], 16), int(match[2], 16)) if match else None

    def __str__(self) -> str:
        return f"{self.sequence:016x}-{self.first_index:016x}.wal"


def segments_of(directory: Path) -> list[tuple[SegmentName, Path]]:
    """The files of the log in ``directory``, in order."""
    named = [(SegmentName.parse(path.name), path) for path in directory.iterdir()]
    return sorted((name, path) for name, path in named if name is not None)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Segment:
    """A file of the log, open for appending at ``end``.

    Errors are the operating system's own (``OSError``): what they mean for the log is for
    :class:`~.wal.Wal` to say.
    """

    __slots__ = ("_descriptor", "end", "path")

    def __init__(self, path: Path, descriptor: int, end: int) -> None:
        self.path = path
        self.end = end
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path, size: int = SEGMENT_BYTES) -> Self:
        """Make a new file of ``size`` bytes, all zeros."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        segment = cls(path, descriptor, 0)
        try:
            segment.reserve(size)
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def open(cls, path: Path, end: int) -> Self:
        """Open a file whose good records end at ``end``."""
        return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC), end)

    def append(self, data: bytes) -> None:
        """Write behind what is there; durable only after ``sync``."""
        view = memoryview(data)
        at = self.end
        while view:
            written = os.pwrite(self._descriptor, view, at)
            view = view[written:]
            at += written
        self.end = at

    def sync(self) -> None:
        """Return once what was appended is on the disk."""
        _flush_to_disk(self._descriptor)

    def truncate(self) -> None:
        """Drop everything behind ``end``, durably."""
        os.ftruncate(self._descriptor, self.end)
        os.fsync(self._descriptor)

    def reserve(self, size: int) -> None:
        """Take ``size`` bytes, zeros behind what is there, from the file system."""
        if size <= os.fstat(self._descriptor).st_size:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, size)
        else:
            os.ftruncate(self._descriptor, size)

    def finish(self) -> None:
        """Give back what was not used, durably, and close: nothing follows in this file."""
        self.truncate()
        self.close()

    def rename(self, path: Path) -> None:
        """Give the file another name in its directory, durably."""
        os.rename(self.path, path)
        self.path = path
        sync_directory(path.parent)

    def close(self) -> None:
        """Close the file; again is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
