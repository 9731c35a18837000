"""Revisions, and the keys that they have in the B+tree.

A revision key is 8 bytes of main, ``_``, 8 bytes of sub, both big-endian, so that byte order is
revision order: the index and the compaction compare and carry revision keys as they are stored and
never decode them. A tombstone's key in the B+tree has a ``t`` behind it.

Source: etcd's data-model page.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, TypeAlias

RevisionKey: TypeAlias = bytes
"""A revision as the B+tree knows it: 17 bytes, without a tombstone's mark."""

REVISION_KEY_BYTES: Final = 17
TOMBSTONE_MARK: Final = b"t"

_LAYOUT: Final = Struct(">QcQ")


class Revision(NamedTuple):
    """One change of the store: ``main`` counts transactions, ``sub`` the changes within one."""

    main: int
    sub: int = 0


def revision_key(main: int, sub: int = 0) -> RevisionKey:
    """Return the key of revision ``main``/``sub``; of ``main`` alone, the first key it can have."""
    return _LAYOUT.pack(main, b"_", sub)


def encode(revision: Revision, tombstone: bool = False) -> bytes:
    """Return the B+tree's key for a put (17 bytes) or a tombstone (18 bytes) at `revision`."""
    key = revision_key(revision.main, revision.sub)
    return key + TOMBSTONE_MARK if tombstone else key


def decode(key: bytes) -> tuple[Revision, bool]:
    """Return the revision of a key of the B+tree, and whether it is a tombstone's.

    Raises ``ValueError`` for anything that :func:`encode` does not produce.
    """
    if len(key) < REVISION_KEY_BYTES or key[8:9] != b"_" or key[17:] not in (b"", TOMBSTONE_MARK):
        raise ValueError(f"not a revision key: {key!r}")
    main, _, sub = _LAYOUT.unpack_from(key)
    return Revision(main, sub), len(key) > REVISION_KEY_BYTES


def main_of(key: bytes) -> int:
    """Return the main part of a revision key, with or without a tombstone's mark."""
    return int.from_bytes(key[:8], "big")
