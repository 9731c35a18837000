"""What must not read many large values at once: a value may be as large as a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc import index as index_module
from etcd_pinwheel.server_stub.mvcc import store as store_module
from etcd_pinwheel.server_stub.mvcc import watchable
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


@pytest.mark.parametrize("act", [hash_of_keys, hash_of_all, restore])
def test_a_piece_is_bounded_in_bytes(
    backend: CountingBackend, store: WatchableStore, act: Callable[[WatchableStore], None]
) -> None:
    act(store)
    assert sum(backend.ranges) >= 40 * len(VALUE)
    assert max(backend.ranges) < PAGE_BYTES + ROW_BYTES


def test_a_watch_of_the_past_is_told_in_pieces(
    backend: CountingBackend, store: WatchableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchable, "_BYTES_PER_PASS", PAGE_BYTES)
    stream = store.watch_stream(lambda: None)
    stream.watch(b"k", b"l", start_revision=1)
    passes = 1
    while store.sync_watchers():
        passes += 1
    assert passes >= 5
    told = [event.kv.mod_revision for batch in stream.take() for event in batch.events]
    assert told == list(range(2, store.revision + 1))
    assert max(backend.ranges) < PAGE_BYTES + ROW_BYTES


class TestCountsOfThePast:
    """A client that reads page by page has the whole range counted with every page."""

    def test_few_keys_are_counted_without_a_look_at_the_changes(
        self, backend: CountingBackend, store: WatchableStore
    ) -> None:
        for key in (b"a", b"b", b"c"):
            put(store, key, b"v")
        then = store.revision
        for number in range(20):
            put(store, b"z%d" % number, VALUE)
        with store.write() as txn:
            txn.delete_range(b"b", b"")
        backend.ranges.clear()
        found = store.range(b"a", b"d", revision=then, limit=2)
        assert ([kv.key for kv in found.kvs], found.count) == ([b"a", b"b"], 3)
        assert backend.ranges == []

    @pytest.mark.parametrize("changes", [3, 200])
    def test_of_many_keys_few_bytes_are_read(
        self,
        backend: CountingBackend,
        store: WatchableStore,
        changes: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(store_module, "_FEW_KEYS", 2)
        monkeypatch.setattr(store_module, "_FEW_BYTES", 4 * ROW_BYTES)
        monkeypatch.setattr(store_module, "_KEYS_A_CHANGE", 1)
        monkeypatch.setattr(store_module, "_BYTES_A_KEY", ROW_BYTES)
        then = store.revision
        with store.write() as txn:
            txn.delete_range(b"k0", b"k3")
        for number in range(changes):
            put(store, b"new%d" % (number % 3), VALUE)
        backend.ranges.clear()
        assert store.range(b"a", b"\0", revision=then, limit=1).count == 7
        assert max(backend.ranges) < 5 * ROW_BYTES

    def test_the_keys_are_not_walked_for_a_few_changes(
        self, backend: CountingBackend, store: WatchableStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A walk is counted in keys, and three changes are undone without one."""
        for number in range(1_000):
            put(store, b"m%04d" % number, b"v")
        then = store.revision
        put(store, b"m0007", b"changed")
        put(store, b"m1234", b"new")
        with store.write() as txn:
            txn.delete_range(b"m0500", b"")
        looked_at = 0
        visible = index_module._revision_of

        def counted(*args: Any) -> Any:
            nonlocal looked_at
            looked_at += 1
            return visible(*args)

        monkeypatch.setattr(index_module, "_revision_of", counted)
        assert store.range(b"m", b"n", revision=then, limit=10).count == 1_000
        assert looked_at < 50

    @pytest.mark.parametrize("keys", [501, 1_000, 10_000])
    def test_no_more_is_read_than_is_worth_a_walk(
        self, backend: CountingBackend, store: WatchableStore, keys: int
    ) -> None:
        with store.write() as txn:
            for number in range(keys):
                txn.put(b"m%05d" % number, b"v")
        then = store.revision
        for number in range(3_000):
            put(store, b"z%05d" % number, bytes(1_000))
        backend.ranges.clear()
        assert store.range(b"m", b"n", revision=then, limit=10).count == keys
        assert max(backend.ranges) < 300 * keys
