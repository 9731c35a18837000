"""How far the log has gone into a backend: kept in META, in the same batch as what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ...protos import raftpb
from ..mvcc.backend import Bucket
from .copied import CopiedBackend
from .lmdb_file import BackendError

CONSISTENT_INDEX_KEY: Final = b"consistent_index"
"""The index of the last entry that the backend has, 8 bytes big-endian."""
TERM_KEY: Final = b"term"
"""The term of that entry, 8 bytes big-endian."""
CONF_STATE_KEY: Final = b"confState"
"""The ``raftpb.ConfState`` after that entry."""


def position_of(path: Path) -> raftpb.SnapshotMetadata:
    """Tell which entry a copy of a backend ends with, and the configuration after it.

    Blocks; may run in any thread. Raises ``BackendError``.
    """
    keys = (CONSISTENT_INDEX_KEY, TERM_KEY, CONF_STATE_KEY)
    with CopiedBackend(path) as copy:
        index, term, conf_state = (copy.get(Bucket.META, key) for key in keys)
    if index is None or term is None or conf_state is None:
        raise BackendError(path, "does not tell which entry it ends with")
    return raftpb.SnapshotMetadata(
        index=int.from_bytes(index, "big"),
        term=int.from_bytes(term, "big"),
        conf_state=raftpb.ConfState.FromString(conf_state),
    )
