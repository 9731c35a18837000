"""A backend that forgets: for tests and simulations."""

from __future__ import annotations

from typing import Any

from BTrees.OOBTree import OOBTree  # pyright: ignore[reportMissingImports]

from ..mvcc.backend import Bucket
from .write_buffer import first_of


class MemoryBackend:
    """The treaty of :class:`..mvcc.backend.Backend` without a disk; every write is durable."""

    def __init__(self) -> None:
        self._trees: dict[Bucket, Any] = {bucket: OOBTree() for bucket in Bucket}
        self.size_bytes: int = 0
        """Bytes of all keys and values."""

    @property
    def size_in_use_bytes(self) -> int:
        """The same: there are no free pages."""
        return self.size_bytes

    def get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        found: bytes | None = self._trees[bucket].get(key)
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
        items = self._trees[bucket].iteritems(start, end, False, end is not None)
        return first_of(items, limit, limit_bytes)

    def put(self, bucket: Bucket, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""
        self.delete(bucket, key)
        self._trees[bucket][key] = value
        self.size_bytes += len(key) + len(value)

    def delete(self, bucket: Bucket, key: bytes) -> None:
        """Remove `key`; nothing happens if there is none."""
        value = self._trees[bucket].pop(key, None)
        if value is not None:
            self.size_bytes -= len(key) + len(value)

    def commit(self) -> None:
        """Return at once."""
