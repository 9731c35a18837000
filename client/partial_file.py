"""A file that gets its name when it is whole, and that one writer at a time writes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from .errors import InvalidArgument

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_LOOK: Final = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""How to open what is there already, whatever that is."""


class PartialFile:
    """A file under ``<path>.part``, for the owner's eyes only, until it is complete.

    Used in ``with``: leaving it without :meth:`commit` leaves nothing behind.

    Invariant: whoever writes it holds a lock on it, so what nobody holds one on is left from a
    writer that died. Where there are no locks to be had, two writers take each other's file away;
    the file is asked for by its inode before it is named or removed, so none takes one for its own.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises FileExistsError when another one is being written there; OSError.

        Raises InvalidArgument when no file can have that name.
        """
        self._path = _named(path)
        self._part = self._path.with_name(self._path.name + ".part")
        descriptor = self._begin()
        while descriptor is None:
            descriptor = self._begin()
        self._own = os.fstat(descriptor)
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        self._committed = False

    def write(self, data: bytes) -> None:
        """Add bytes. Raises OSError, e.g. on a full disk."""
        with self._naming_the_file():
            self._file.write(data)

    def commit(self) -> None:
        """Make the file durable and give it its name, in place of an older one."""
        with self._naming_the_file():
            self._file.flush()
            os.fsync(self._file.fileno())
            if not self._is_there(self._own):
                raise FileNotFoundError(errno.ENOENT, "somebody took it away", str(self._part))
            self._part.replace(self._path)
            self._committed = True
            self._file.close()
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Leave nothing behind, unless it was committed."""
        if not self._committed and self._is_there(self._own):
            self._part.unlink(missing_ok=True)
        with suppress(OSError):  # what is still buffered may not fit on a full disk
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.discard()

    def _begin(self) -> int | None:
        """Make the file and lock it; None: somebody was in the way, who is not any more."""
        try:
            descriptor = os.open(self._part, _CREATE, 0o600)
        except FileExistsError:
            self._clear_away()
            return None
        try:
            self._lock(descriptor)
            if self._is_there(os.fstat(descriptor)):  # before the lock it looked left over
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _clear_away(self) -> None:
        """Remove what is left from a writer that died, or from somebody else."""
        try:
            descriptor = os.open(self._part, _LOOK)
        except FileNotFoundError:
            return
        except OSError:  # nothing that we could be writing
            self._part.unlink(missing_ok=True)
            return
        try:
            self._lock(descriptor)
            if self._is_there(os.fstat(descriptor)):
                self._part.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        """Lock the file until it is closed, by whatever end of its writer."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            problem = "another snapshot is being written there"
            raise FileExistsError(errno.EEXIST, problem, str(self._part)) from held
        except OSError:  # not all file systems have locks
            return

    def _is_there(self, file: os.stat_result) -> bool:
        """Whether this file, which is open, is the one with the name."""
        try:
            named = os.stat(self._part, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, file)

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self._part)
            raise


def _named(path: str | os.PathLike[str]) -> Path:
    with suppress(TypeError, ValueError):
        named = Path(path)
        if named.name and b"\0" not in os.fsencode(named):
            return named
    raise InvalidArgument(f"path: the name of a file is needed, not {path!r}")
