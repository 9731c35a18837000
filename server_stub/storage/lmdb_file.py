"""One LMDB environment in one file: opening it, writing batches, copying, compacting."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import lmdb

from ..mvcc.backend import Bucket
from .write_buffer import Row, WriteBatch

_DIRECTORY_MODE: Final = 0o700
_META_PAGES: Final = 2
_COPY_SUFFIX: Final = ".snap.db.tmp"
_READ_ALL: Final = """
import lmdb, os, sys
path, buckets = sys.argv[1:]
env = lmdb.open(path, subdir=False, readonly=True, lock=False, max_dbs=int(buckets))
env.copyfd(os.open(os.devnull, os.O_WRONLY), compact=True)
"""
"""A program that reads every page in use of a file."""


class BackendError(Exception):
    """The backend's file cannot be opened, or no longer be written to."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"backend {path}: {reason}")
        self.path = path
        self.reason = reason


class LmdbFile:
    """An LMDB file with the buckets of a member, which no other process has open.

    :meth:`write` may run in one other thread and :meth:`copy_to` in any; the rest belongs to the
    owner's thread.
    """

    def __init__(self, path: Path, map_size_bytes: int) -> None:
        """Open or create the file `path`, its directories included.

        The map is larger where the file needs it: see :func:`_map_for`. Raises
        :class:`BackendError`.
        """
        self.path = path
        self._least_map_bytes = self._map_size_bytes = map_size_bytes
        self._copying = Lock()
        """Held while the environment is read by another thread, or is closed."""
        with self._failing("cannot be opened"):
            path.parent.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            self._lock = _locked(path)
            try:
                self._remove_leftovers()
                _refuse_unusable(path)
                self._open()
            except BaseException:
                os.close(self._lock)
                raise

    @property
    def _defragmented(self) -> Path:
        """Where :meth:`defragment` writes."""
        return self.path.with_name(self.path.name + ".defragmented")

    def _remove_leftovers(self) -> None:
        """Delete the copies that a crash left beside the file."""
        self._defragmented.unlink(missing_ok=True)
        for copy in self.path.parent.glob("*" + _COPY_SUFFIX):
            copy.unlink()

    def _open(self) -> None:
        """Open the environment and its buckets."""
        self._map_size_bytes = _map_for(self.path, self._least_map_bytes)
        self._env: Any = lmdb.open(
            str(self.path),
            map_size=self._map_size_bytes,
            subdir=False,
            max_dbs=len(Bucket),
            mode=0o600,
            readahead=False,
        )
        try:
            with self._env.begin(write=True) as txn:  # one, for each that writes is synced
                self._databases = {
                    bucket: self._env.open_db(bucket.encode(), txn=txn) for bucket in Bucket
                }
            self._reader: Any = self._env.begin()
        except BaseException:
            self._env.close()
            raise

    def get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """Return the committed value of `key`, as of the last :meth:`renew`."""
        try:
            found: bytes | None = self._reader.get(key, None, self._databases[bucket])
        except lmdb.BadValsizeError:
            return None  # no key is empty, or as long as that
        return found

    def rows(self, bucket: Bucket, start: bytes, end: bytes | None) -> Iterator[Row]:
        """Yield the committed rows with start <= key < end, as of the last :meth:`renew`."""
        with self._reader.cursor(self._databases[bucket]) as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for row in cursor.iternext():
                if end is not None and row[0] >= end:
                    return
                yield row

    def renew(self) -> None:
        """Read what is committed by now; pages that only the past needed become free."""
        self._reader.abort()
        self._reader = self._env.begin()

    def unmap_pages(self) -> None:
        """Let go of the pages read so far, unless a copy is being made; nothing may be written.

        They stay in the kernel's cache but no longer count as this process's memory.
        """
        if self._copying.acquire(blocking=False):
            try:
                with self._failing("cannot be opened again"):
                    self._close_environment()
                    self._open()
            finally:
                self._copying.release()

    def write(self, batch: WriteBatch) -> None:
        """Commit `batch`: durable on return. Raises :class:`BackendError`, nothing done then."""
        with self._failing("cannot be written"), self._env.begin(write=True) as txn:
            for bucket, changes in batch.items():
                if changes:
                    _write_bucket(txn, self._databases[bucket], changes)

    def copy_to(self, directory: Path) -> Path:
        """Write a consistent, defragmented copy of what is committed; return its new, unique path.

        May run in any thread. Raises :class:`BackendError`.
        """
        with self._failing(f"cannot be copied to {directory}"), self._copying:
            handle, name = tempfile.mkstemp(_COPY_SUFFIX, dir=directory)
            try:
                self._env.copyfd(handle, compact=True)
            except BaseException:
                os.unlink(name)
                raise
            finally:
                os.close(handle)
            return Path(name)

    def defragment(self) -> None:
        """Replace the file by a compact copy of itself. Raises :class:`BackendError`.

        A crash leaves the old file or the new one. If the copy fails, the old one stays in use.
        """
        copy = self._defragmented
        with self._failing("cannot be defragmented"), self._copying:
            copy.unlink(missing_ok=True)
            try:
                with open(copy, "xb") as file:
                    self._env.copyfd(file.fileno(), compact=True)
                    os.fsync(file.fileno())
            except BaseException:
                copy.unlink(missing_ok=True)
                raise
            self._close_environment()
            try:
                os.replace(copy, self.path)
                os.fsync(self._lock)
            finally:
                self._open()

    def replace_by(self, path: Path) -> None:
        """Move the file `path` of the same directory here, and go on with it.

        Durable on return. After a crash the old file is here, or the new one. Raises
        :class:`BackendError`.
        """
        with self._failing(f"cannot be replaced by {path}"), self._copying:
            self._close_environment()
            try:
                os.replace(path, self.path)
                os.fsync(self._lock)
            finally:
                self._open()

    def close(self) -> None:
        """Close the file and let others open it."""
        with self._copying:
            self._close_environment()
            os.close(self._lock)

    @property
    def size_bytes(self) -> int:
        """Pages ever used, times their size."""
        return _allocated_bytes(self._env)

    @property
    def size_in_use_bytes(self) -> int:
        """Pages that hold data, times their size."""
        statistics = [self._env.stat()]
        statistics += [self._reader.stat(database) for database in self._databases.values()]
        pages = sum(
            one["branch_pages"] + one["leaf_pages"] + one["overflow_pages"] for one in statistics
        )
        return int((pages + _META_PAGES) * statistics[0]["psize"])

    def _close_environment(self) -> None:
        self._reader.abort()
        self._env.close()

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Raise as :class:`BackendError` what the system or LMDB has to say."""
        try:
            yield
        except lmdb.MapFullError as error:
            reason = f"{what}: the map of {self._map_size_bytes} bytes is full"
            raise BackendError(self.path, reason) from error
        except lmdb.InvalidError as error:
            raise BackendError(self.path, f"{what}: not a backend of this server") from error
        except (lmdb.Error, OSError) as error:
            raise BackendError(self.path, f"{what}: {error}") from error


def _locked(path: Path) -> int:
    """Return a descriptor of the directory of `path`, locked against other processes."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BackendError(path, "is in use by another process") from error
        raise
    return descriptor


def _refuse_unusable(path: Path) -> None:
    """Refuse what is no file, and a file that lost its end: reading there kills (SIGBUS).

    LMDB leaves out trailing pages that it freed in the transaction that took them, so a short file
    may yet be whole. That is rare enough to let another process try all its pages.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise BackendError(path, "is not a regular file")
    has = path.stat().st_size
    if not has:
        return
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment:
        wanted = _allocated_bytes(environment)
    attempt = (sys.executable, "-c", _READ_ALL, str(path), str(len(Bucket)))
    if has < wanted and subprocess.run(attempt, stderr=subprocess.DEVNULL, check=False).returncode:
        raise BackendError(path, f"is cut short: {has} of {wanted} bytes are left")


def _map_for(path: Path, least_bytes: int) -> int:
    """Return the map for a file that is there: one in which as much again can be written.

    A file may have grown under a larger quota, or come from a member that has one. Without room not
    even what frees pages could be written: the member could neither start nor be told to compact.
    """
    return max(least_bytes, 2 * path.stat().st_size if path.exists() else 0)


def _allocated_bytes(environment: Any) -> int:
    """Return the size of all pages ever used."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _write_bucket(txn: Any, database: Any, changes: dict[bytes, bytes | None]) -> None:
    """Apply `changes` to one database.

    Keys behind all others, as revisions mostly are, are appended: LMDB then fills its pages instead
    of splitting each in two halves.
    """
    puts = sorted((key, value) for key, value in changes.items() if value is not None)
    for key, value in changes.items():
        if value is None:
            txn.delete(key, db=database)
    with txn.cursor(database) as cursor:
        newest = cursor.key() if cursor.last() else b""
        behind = bisect_right(puts, newest, key=lambda row: row[0])
        cursor.putmulti(puts[:behind])
        cursor.putmulti(puts[behind:], append=True)
