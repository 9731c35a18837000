"""A copy of a backend that nobody writes to, such as one that another member has sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import lmdb

from ..mvcc.backend import Bucket
from .lmdb_file import BackendError
from .write_buffer import first_of


class CopiedBackend:
    """A copy, open for reading; to be used in a ``with`` statement, by one thread. Blocks."""

    def __init__(self, path: Path) -> None:
        """Open the copy at `path`. Raises ``BackendError``."""
        self.path = path
        try:
            self._file: Any = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, max_dbs=len(Bucket)
            )
            try:
                self._databases = {
                    bucket: self._file.open_db(bucket.encode(), create=False) for bucket in Bucket
                }
                self._reader: Any = self._file.begin()
            except BaseException:
                self._file.close()
                raise
        except lmdb.Error as error:
            raise BackendError(path, f"cannot be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.abort()
        self._file.close()

    def get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        found: bytes | None = self._reader.get(key, None, self._databases[bucket])
        return found

    def range(
        self,
        bucket: Bucket,
        start: bytes,
        end: bytes | None = None,
        limit: int = 0,
        limit_bytes: int = 0,
    ) -> list[tuple[bytes, bytes]]:
        """Return the pairs with start <= key < end in key order.

        At most `limit`, and none behind the one with which they come to `limit_bytes`; 0: no bound.
        """
        with self._reader.cursor(self._databases[bucket]) as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return []
            rows = cursor.iternext()
            if end is None:
                return first_of(rows, limit, limit_bytes)
            return first_of((row for row in rows if row[0] < end), limit, limit_bytes)
