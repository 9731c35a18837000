"""Writes on their way to the B+tree, and how reads see through them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from ..mvcc.backend import Bucket

Row: TypeAlias = tuple[bytes, bytes]
Change: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None: it is deleted."""

WriteBatch: TypeAlias = dict[Bucket, dict[bytes, bytes | None]]
"""The last change of each key, by bucket; every bucket is there."""


def empty_batch() -> WriteBatch:
    """Return a batch without changes."""
    return {bucket: {} for bucket in Bucket}


def stacked(older: WriteBatch, newer: WriteBatch) -> WriteBatch:
    """Return the two batches as one."""
    return {bucket: older[bucket] | newer[bucket] for bucket in Bucket}


def changes_between(
    layers: tuple[WriteBatch, ...], bucket: Bucket, start: bytes, end: bytes | None
) -> list[Change]:
    """Return what `layers`, oldest first, change at start <= key < end, in key order."""
    changes: dict[bytes, bytes | None] = {}
    for layer in layers:
        changes.update(
            change
            for change in layer[bucket].items()
            if start <= change[0] and (end is None or change[0] < end)
        )
    return sorted(changes.items(), key=lambda change: change[0])


def merged(stored: Iterator[Row], changes: list[Change]) -> Iterator[Row]:
    """Yield the rows of `stored` as `changes` leave them; both are in key order."""
    upcoming = iter(changes)
    changed = next(upcoming, None)
    for row in stored:
        while changed is not None and changed[0] < row[0]:
            yield from _as_row(changed)
            changed = next(upcoming, None)
        if changed is None or changed[0] != row[0]:
            yield row
    while changed is not None:
        yield from _as_row(changed)
        changed = next(upcoming, None)


def first_of(rows: Iterator[Row], limit: int, limit_bytes: int) -> list[Row]:
    """Take at most `limit` rows, up to the one with which they come to `limit_bytes`; 0: all."""
    bounded = islice(rows, limit or None)
    if not limit_bytes:
        return list(bounded)
    found: list[Row] = []
    size_bytes = 0
    for row in bounded:
        found.append(row)
        size_bytes += len(row[0]) + len(row[1])
        if size_bytes >= limit_bytes:
            break
    return found


def _as_row(change: Change) -> Iterator[Row]:
    """Yield the row that a change leaves, if it leaves one."""
    key, value = change
    if value is not None:
        yield key, value
