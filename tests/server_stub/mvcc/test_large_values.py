"""What must not read many large values at once: a value may be as large as a request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.backend import PAGE_BYTES, Bucket
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

VALUE = b"x" * (PAGE_BYTES // 8)
ROW_BYTES = len(VALUE) + 100
"""What a row takes at most, with its keys."""


class CountingBackend(MemoryBackend):
    """A backend that notes how many bytes each of its ranges had."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[int] = []

    def range(
        self,
        bucket: Bucket,
        start: bytes,
        end: bytes | None = None,
        limit: int = 0,
        limit_bytes: int = 0,
    ) -> list[tuple[bytes, bytes]]:
        rows = super().range(bucket, start, end, limit, limit_bytes)
        self.ranges.append(sum(len(key) + len(value) for key, value in rows))
        return rows


@pytest.fixture
def backend() -> CountingBackend:
    return CountingBackend()


@pytest.fixture
def store(backend: CountingBackend) -> WatchableStore:
    """A store with several times as much as is read at once."""
    store = WatchableStore(backend, Lessor(2))
    for number in range(40):
        put(store, b"k%d" % (number % 7), VALUE)
    backend.ranges.clear()
    return store


def put(store: WatchableStore, key: bytes, value: bytes) -> None:
    with store.write() as txn:
        txn.put(key, value)


def hash_of_keys(store: WatchableStore) -> None:
    before = store.revision
    hashing = store.hashing()
    steps = 0
    while hashing.step():
        steps += 1
    assert steps >= 5
    assert hashing.result().hash_revision == before


def hash_of_all(store: WatchableStore) -> None:
    store.hash()


def restore(store: WatchableStore) -> None:
    before = store.revision
    store.restore(store._backend)
    assert store.revision == before


def watch_of_the_past(store: WatchableStore) -> None:
    stream = store.watch_stream(lambda: None)
    stream.watch(b"k", b"l", start_revision=1)
    passes = 1
    while store.sync_watchers():
        passes += 1
    assert passes >= 5
    told = [event.kv.mod_revision for batch in stream.take() for event in batch.events]
    assert told == list(range(2, store.revision + 1))


@pytest.mark.parametrize("act", [hash_of_keys, hash_of_all, restore, watch_of_the_past])
def test_a_piece_is_bounded_in_bytes(
    backend: CountingBackend, store: WatchableStore, act: Callable[[WatchableStore], None]
) -> None:
    act(store)
    assert sum(backend.ranges) >= 40 * len(VALUE)
    assert max(backend.ranges) < PAGE_BYTES + ROW_BYTES
