"""etcd's own published HashKV constants."""

import json
from pathlib import Path

import pytest

from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

VECTORS = json.loads(
    (Path(__file__).parents[2] / "data" / "hashkv-vectors.json").read_text("utf-8")
)


class NoLeases:
    """A lessor without leases."""

    def exists(self, lease_id: int) -> bool:
        return False

    def attach(self, lease_id: int, key: bytes) -> None:
        raise AssertionError

    def detach(self, key: bytes) -> None:
        pass

    def lease_of(self, key: bytes) -> int:
        return 0


@pytest.mark.parametrize("compaction_finishes", [True, False])
@pytest.mark.parametrize("run", ["mid_round", "last_revision"])
def test_hashes_are_those_of_etcd(run: str, compaction_finishes: bool) -> None:
    """All 38, whether or not the physical part of the compactions was done."""
    store = Store(MemoryBackend(), NoLeases())
    assert len(VECTORS[run]) == 19
    for row in VECTORS[run]:
        for position in range(row["first"], row["last"] + 1):
            with store.write() as txn:
                txn.put(VECTORS["keys"][position].encode(), str(position).encode())
        found = store.hash_by_revision(row["hash_revision"])
        assert (found.hash, found.compact_revision, found.hash_revision) == (
            row["hash"],
            row["compact_revision"],
            row["hash_revision"],
        )
        compaction = store.compact(row["hash_revision"])
        while compaction_finishes and compaction.step():
            pass
    store._check()
