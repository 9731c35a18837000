"""The treaty between the store and its persistent B+tree."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, Protocol


class Bucket(StrEnum):
    """The named key spaces of the B+tree; each has its own order."""

    KEY = "key"
    META = "meta"
    LEASE = "lease"
    ALARM = "alarm"
    CLUSTER = "cluster"
    MEMBERS = "members"
    MEMBERS_REMOVED = "members_removed"
    AUTH = "auth"
    AUTH_USERS = "authUsers"
    AUTH_ROLES = "authRoles"


SCHEDULED_COMPACT_KEY: Final = b"scheduledCompactRev"
"""In META: the revision that a compaction was last asked for, as a revision key."""
FINISHED_COMPACT_KEY: Final = b"finishedCompactRev"
"""In META: the revision up to which compaction has deleted what it had to, as a revision key."""

PAGE_ROWS: Final = 10_000
PAGE_BYTES: Final = 2 * 2**20
"""What of the B+tree is worked through at once: a few milliseconds of an event loop."""


class Rows(Protocol):
    """What is read of a B+tree; see :class:`Backend`."""

    def get(self, bucket: Bucket, key: bytes, /) -> bytes | None:
        """Return the value of `key`, or None."""
        ...

    def range(
        self,
        bucket: Bucket,
        start: bytes,
        end: bytes | None = None,
        limit: int = 0,
        limit_bytes: int = 0,
        /,
    ) -> list[tuple[bytes, bytes]]:
        """Return the pairs with start <= key < end in key order.

        An `end` of None is behind every key. There are at most `limit` pairs, unless that is 0; and
        the one with which keys and values come to `limit_bytes` is the last, unless that is 0.
        Whoever goes through much must set that one: a value may be as large as a request.
        """
        ...


class Backend(Rows, Protocol):
    """A persistent B+tree of buckets, with buffered writes.

    - Reads see every write made before them, committed or not.
    - Writes reach the disk in the order they were made, in batches that are each there wholly or
      not at all. Writes made between two turns of the event loop are never split over two batches,
      so that whoever applies an entry and notes its index in one go needs no transaction.
    - A failure to write (disk full, map full) is kept: the writes concerned stay readable, and the
      next ``put``, ``delete`` or ``commit`` raises it as a ``BackendError``. Whoever gets one must
      stop; the log has every acknowledged write and applies it again at the next start.
    """

    def put(self, bucket: Bucket, key: bytes, value: bytes, /) -> None:
        """Set `key` to `value`."""
        ...

    def delete(self, bucket: Bucket, key: bytes, /) -> None:
        """Remove `key`; nothing happens if there is none."""
        ...

    def commit(self) -> None:
        """Return when every write so far is durable."""
        ...

    @property
    def size_bytes(self) -> int:
        """What the B+tree takes on disk, free pages included."""
        ...

    @property
    def size_in_use_bytes(self) -> int:
        """What it would take without its free pages."""
        ...


def pages(
    rows: Rows, bucket: Bucket, end: bytes | None = None
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the pairs before `end`, a page at a time; each is read when it is asked for."""
    start = b""
    while page := rows.range(bucket, start, end, PAGE_ROWS, PAGE_BYTES):
        yield page
        start = page[-1][0] + b"\0"
