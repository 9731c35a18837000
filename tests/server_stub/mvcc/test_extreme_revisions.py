"""Revisions and ids at the ends of what the wire can say: the store answers or refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest

from etcd_pinwheel.protos.errors import Refused
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

EXTREMES = (-(2**63), -(2**63) + 1, -1, 0, 2**63 - 2, 2**63 - 1)


@pytest.fixture(params=[False, True], ids=["whole", "compacted"])
def store(request: pytest.FixtureRequest) -> WatchableStore:
    """Keys a, b, c at revisions up to 5; compacted at 3, or never."""
    store = WatchableStore(MemoryBackend(), Lessor(2))
    for key in (b"a", b"b", b"a", b"c"):
        with store.write() as txn:
            txn.put(key, b"v")
    if request.param:
        compaction = store.compact(3)
        while compaction.step():
            pass
    return store


@pytest.mark.parametrize("revision", EXTREMES)
def test_reads_and_compactions(store: WatchableStore, revision: int) -> None:
    with suppress(Refused):
        assert store.range(b"a", b"z", revision=revision).count == 3
    with suppress(Refused):
        store.hash_by_revision(revision)
    with suppress(Refused):
        compaction = store.compact(revision)
        while compaction.step():
            pass
    store._check()


@pytest.mark.parametrize("watch_id", EXTREMES)
@pytest.mark.parametrize("revision", EXTREMES)
def test_watches(store: WatchableStore, revision: int, watch_id: int) -> None:
    stream = store.watch_stream(lambda: None)
    with suppress(Refused):
        given = stream.watch(b"a", b"z", start_revision=revision, watch_id=watch_id)
        stream.request_progress(given)
        store.sync_watchers()
        with store.write() as txn:
            txn.put(b"a", b"1")
        assert any(batch.events for batch in stream.take()) == (revision == 0)
        assert stream.cancel(given)
    store._check()
