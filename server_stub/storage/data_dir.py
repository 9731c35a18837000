"""The data directory: its layout, who holds it, and whether it is ours.

    <data-dir>/member/snap/db                 the store
    <data-dir>/member/snap/<term>-<index>.snap
    <data-dir>/member/wal/<sequence>-<index>.wal
    <data-dir>/member/unconfirmed             while it is not sure that the member is a new one

The layout is etcd's, the store inside is not: a directory that etcd wrote is recognised and left
alone.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from .segment import DIRECTORY_MODE, FILE_MODE, segments_of, sync_directory

_BBOLT_MAGIC: Final = 0xED0CDAED
_BBOLT_MAGIC_OFFSETS: Final = (16, 4096 + 16)
_OURS: Final = frozenset({"member"})
_UNCONFIRMED: Final = "unconfirmed"
_OURS_IN_MEMBER: Final = frozenset({"snap", "wal", "wal.tmp", _UNCONFIRMED})
"""``wal.tmp``: what a crash left of a log that was made beside its place, as etcd does."""
_UNNAMED_SEGMENTS: Final = frozenset({"0.tmp", "1.tmp"})
"""What a crash leaves of a file of the log that was not whole yet."""
_SYSTEM_ENTRIES: Final = frozenset({"lost+found"})


class DataDirError(Exception):
    """A data directory that cannot be used; ``path`` and ``reason`` tell which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot use {path}: {reason}")
        self.path = path
        self.reason = reason


class DataDir:
    """A data directory and its log's, held by this process until ``close``.

    The locks are on the directories themselves, so they leave no file behind, and they go with the
    process however that ends. The log has one of its own, for it may be anywhere: another data
    directory's member must not write to it.
    """

    def __init__(self, path: Path, wal_path: Path) -> None:
        """Lock the directory at `path`, which is there. Raises ``DataDirError``."""
        self.path = path
        self.wal_path = wal_path
        self._locks = ExitStack()
        self._holds_log = False
        self._hold(path)

    @classmethod
    def open(cls, path: Path, wal_path: Path | None = None) -> Self:
        """Make or take over the directory at ``path``; raises ``DataDirError``.

        ``wal_path`` is where the log is kept if not inside; it is held as well if it is there, and
        else from :meth:`hold_log` on.
        """
        wal_path = wal_path if wal_path is not None else path / "member" / "wal"
        _make(path)
        directory = cls(path, wal_path)
        try:
            _refuse_foreign(path, wal_path)
            if wal_path.resolve() in {each.resolve() for each in (path, *directory._own_paths)}:
                raise DataDirError(wal_path, "the log needs a directory of its own")
            if wal_path.is_dir():
                directory.hold_log()
                if not directory.has_wal:
                    _refuse_unknown(wal_path, _UNNAMED_SEGMENTS)
            for inner in (*directory._own_paths, wal_path.parent):
                _make(inner)
            for written in {directory.snap_path, wal_path.parent, *_existing(wal_path)}:
                _probe_writable(written)
        except BaseException:
            directory.close()
            raise
        return directory

    def hold_log(self) -> None:
        """See that nobody else has the log, of which there may be only the place as yet.

        To be called before the log is made or read. Raises ``DataDirError``.
        """
        if not self._holds_log:
            _make(self.wal_path)
            self._hold(self.wal_path)
            self._holds_log = True

    def _hold(self, path: Path) -> None:
        self._locks.callback(os.close, _lock(path))

    @property
    def snap_path(self) -> Path:
        """Where snapshots and the store are."""
        return self.path / "member" / "snap"

    @property
    def _own_paths(self) -> tuple[Path, ...]:
        return self.path / "member", self.snap_path

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return self.snap_path / "db"

    @property
    def has_wal(self) -> bool:
        """Whether a member has run here before."""
        return self.wal_path.is_dir() and bool(segments_of(self.wal_path))

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the member may have run before, in a directory that was lost."""
        return self._mark.exists()

    def doubt(self) -> None:
        """Remember, durably, that it is not sure yet whether the member is a new one."""
        self._mark.touch(FILE_MODE)
        sync_directory(self._mark.parent)

    def confirm(self) -> None:
        """Note, durably, that the member is a new one."""
        if self.is_unconfirmed:
            self._mark.unlink()
            sync_directory(self._mark.parent)

    @property
    def _mark(self) -> Path:
        return self.path / "member" / _UNCONFIRMED

    def close(self) -> None:
        """Let go of the directory; again is harmless."""
        self._locks.close()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other processes out of a directory, which is made; gone at the end if it has nothing.

    Raises ``DataDirError``.
    """
    is_new = not path.exists()
    _make(path)
    descriptor = _lock(path)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it has another name now, or is not empty
                path.rmdir()
        os.close(descriptor)


def _existing(path: Path) -> tuple[Path, ...]:
    return (path,) if path.is_dir() else ()


def _make(path: Path) -> None:
    try:
        if path.is_dir():
            return
        path.mkdir(parents=True, mode=DIRECTORY_MODE)
        sync_directory(path.parent)
    except FileExistsError:
        raise DataDirError(path, "it is not a directory") from None
    except NotADirectoryError:
        raise DataDirError(path, "a part of the path is not a directory") from None
    except OSError as error:
        raise DataDirError(path, f"cannot make it: {error.strerror}") from error


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DataDirError(path, f"cannot open it: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DataDirError(path, "another process is using it") from None
    except OSError as error:
        os.close(descriptor)
        raise DataDirError(path, f"cannot lock it: {error.strerror}") from error
    return descriptor


def _probe_writable(path: Path) -> None:
    """Make sure that files can be made here; a mode alone does not tell (read-only mounts)."""
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".probe-"):
            pass
    except OSError as error:
        raise DataDirError(path, f"cannot write in it: {error.strerror}") from error


def _refuse_foreign(path: Path, wal_path: Path) -> None:
    """Raise when the directory holds what is not ours, so that nothing of it is harmed."""
    inner = path / "member"
    try:
        _refuse_unknown(path, _OURS | _entries_towards(wal_path, path))
        if inner.exists():
            _refuse_unknown(inner, _OURS_IN_MEMBER | _entries_towards(wal_path, inner))
        _refuse_bbolt(path / "member" / "snap" / "db")
    except NotADirectoryError as error:
        raise DataDirError(Path(str(error.filename)), "it is not a directory") from None
    except OSError as error:
        raise DataDirError(path, f"cannot read it: {error.strerror}") from error


def _entries_towards(wal_path: Path, directory: Path) -> frozenset[str]:
    """Return the names in a directory by which the log is reached, if it is somewhere below."""
    names = set()
    for form in (os.path.abspath, os.path.realpath):  # by the path as given, or through links
        wal, above = Path(form(wal_path)), Path(form(directory))
        if wal != above and wal.is_relative_to(above):
            names.add(wal.relative_to(above).parts[0])
    return frozenset(names)


def _refuse_unknown(path: Path, known: frozenset[str]) -> None:
    known |= _SYSTEM_ENTRIES
    names = os.listdir(path)
    unknown = sorted(name for name in names if name not in known and not name.startswith("."))
    if unknown:
        raise DataDirError(
            path, f"it holds what no member wrote ({', '.join(unknown[:3])}); give an empty one"
        )


def _refuse_bbolt(store: Path) -> None:
    if store.is_file() and is_bbolt(store):
        raise DataDirError(
            store, "it is a bbolt file: etcd itself wrote this directory; give another"
        )


def is_bbolt(path: Path) -> bool:
    """Tell whether a file is a store of etcd itself. Raises ``OSError``."""
    with path.open("rb") as file:
        head = file.read(2 * 4096)
    magics = (head[offset : offset + 4] for offset in _BBOLT_MAGIC_OFFSETS)
    return any(struct.unpack("<I", each)[0] == _BBOLT_MAGIC for each in magics if len(each) == 4)
