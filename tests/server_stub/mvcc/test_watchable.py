"""Watching, case by case; that nothing is lost or repeated is shown by test_watch_twin.py."""

from collections.abc import Callable

import pytest

from etcd_pinwheel.protos.errors import COMPACTED, Refused
from etcd_pinwheel.protos.mvccpb import Event, KeyValue
from etcd_pinwheel.server_stub.mvcc import watchable
from etcd_pinwheel.server_stub.mvcc.watch_stream import (
    ALL_WATCHERS,
    STREAM_CAPACITY,
    DuplicateWatchId,
    EmptyWatchRange,
    WatchBatch,
    WatchStream,
)
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend


class NoLeases:
    """A lessor without leases."""

    def exists(self, lease_id: int) -> bool:
        return False

    def attach(self, lease_id: int, key: bytes) -> None:
        raise KeyError(lease_id)

    def detach(self, key: bytes) -> None:
        pass

    def lease_of(self, key: bytes) -> int:
        return 0


@pytest.fixture
def store() -> WatchableStore:
    return WatchableStore(MemoryBackend(), NoLeases())


@pytest.fixture
def stream(store: WatchableStore) -> WatchStream:
    return store.watch_stream(lambda: None)


def put(store: WatchableStore, *keys: bytes, value: bytes = b"v") -> None:
    """Put each key in a revision of its own."""
    for key in keys:
        with store.write() as txn:
            txn.put(key, value)


def delete(store: WatchableStore, key: bytes, end: bytes = b"") -> None:
    with store.write() as txn:
        txn.delete_range(key, end)


def seen(batches: list[WatchBatch]) -> list[tuple[int, int, list[bytes]]]:
    """Say of each batch: for which watch, under which revision, of which keys."""
    return [(b.watch_id, b.revision, [event.kv.key for event in b.events]) for b in batches]


class TestNews:
    def test_one_batch_a_revision(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a", b"c")
        put(store, b"a", b"b", b"c")
        with store.write() as txn:
            for key in (b"b", b"x", b"a"):
                txn.put(key, b"")
        assert seen(stream.take()) == [(0, 2, [b"a"]), (0, 3, [b"b"]), (0, 5, [b"b", b"a"])]

    def test_a_deletion_has_key_and_revision(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, b"a")
        stream.watch(b"a")
        delete(store, b"\0", b"\0")
        (batch,) = stream.take()
        assert batch.events == [Event(type=Event.DELETE, kv=KeyValue(key=b"a", mod_revision=3))]

    def test_the_value_before(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a", prev_kv=True)
        stream.watch(b"a")
        put(store, b"a", b"a")
        delete(store, b"a")
        put(store, b"a")
        with_previous = [b.events[0] for b in stream.take() if b.watch_id == 0]
        versions = [e.prev_kv.version if e.HasField("prev_kv") else None for e in with_previous]
        assert versions == [None, 1, 2, None]

    @pytest.mark.parametrize(("unwanted", "told"), [(0, [3]), (1, [2, 4])])
    def test_filters(
        self, store: WatchableStore, stream: WatchStream, unwanted: int, told: list[int]
    ) -> None:
        """A batch of which nothing is left is not sent."""
        stream.watch(b"a", filters=frozenset({unwanted}))
        put(store, b"a")
        delete(store, b"a")
        put(store, b"a")
        assert [batch.revision for batch in stream.take()] == told

    def test_from_a_future_revision(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a", start_revision=4)
        put(store, b"a", b"a", b"a", b"a")
        assert [batch.revision for batch in stream.take()] == [4, 5]

    def test_watchers_share_events(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a")
        stream.watch(b"\0", b"\0")
        put(store, b"a")
        one, other = stream.take()
        assert one.events[0] is other.events[0]


class TestHistory:
    def test_is_told_under_the_current_revision(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, b"a", b"b", b"a")
        stream.watch(b"a", start_revision=1)
        assert stream.take() == []
        assert not store.sync_watchers()
        assert seen(stream.take()) == [(0, 4, [b"a", b"a"])]
        put(store, b"a")
        assert seen(stream.take()) == [(0, 5, [b"a"])]

    def test_comes_in_batches_of_a_thousand_revisions(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, *[b"a"] * 2_500)
        stream.watch(b"a", start_revision=2)
        store.sync_watchers()
        batches = stream.take()
        assert [len(batch.events) for batch in batches] == [1_000, 1_000, 500]
        assert {batch.revision for batch in batches} == {store.revision}

    def test_is_told_in_pieces(self, store: WatchableStore, stream: WatchStream) -> None:
        """No pass is longer than an event loop can bear, and no watcher waits for another."""
        put(store, *[b"a"] * 12_000)
        stream.watch(b"a", start_revision=2)
        stream.watch(b"a", start_revision=store.revision)
        assert store.sync_watchers()
        assert {batch.watch_id for batch in stream.take()} == {0}
        assert store.sync_watchers()
        assert seen(stream.take()) == [(1, store.revision, [b"a"])]
        while store.sync_watchers():
            pass
        assert sum(len(batch.events) for batch in stream.take()) == 7_000

    def test_a_huge_revision_stays_whole(self, store: WatchableStore, stream: WatchStream) -> None:
        put(store, b"a")
        with store.write() as txn:
            for number in range(7_000):
                txn.put(b"%d" % number, b"")
        put(store, b"z")
        stream.watch(b"\0", b"\0", start_revision=2)
        assert store.sync_watchers()
        assert not store.sync_watchers()
        batches = stream.take()
        assert [len(batch.events) for batch in batches] == [7_001, 1]

    def test_more_watchers_than_a_pass_serves(
        self, store: WatchableStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watchable, "_WATCHERS_PER_PASS", 2)
        stream = store.watch_stream(lambda: None)
        put(store, b"a")
        for _ in range(5):
            stream.watch(b"a", start_revision=1)
        assert [store.sync_watchers() for _ in range(3)] == [True, True, False]
        assert [batch.watch_id for batch in stream.take()] == [0, 1, 2, 3, 4]

    def test_the_value_before_may_be_compacted(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, b"a", b"a", b"a")
        store.compact(3)
        stream.watch(b"a", start_revision=3, prev_kv=True)
        store.sync_watchers()
        (batch,) = stream.take()
        assert [event.HasField("prev_kv") for event in batch.events] == [False, True]


class TestCompacted:
    def test_a_start_before_the_compaction(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, b"a", b"a", b"a")
        store.compact(3)
        stream.watch(b"a", start_revision=2)
        store.sync_watchers()
        assert stream.take() == [WatchBatch(0, 0, [], compact_revision=3)]
        assert (store.watcher_count, len(stream)) == (0, 0)

    def test_the_id_of_a_watch_that_was_ended_is_taken_until_it_is_canceled(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, b"a", b"a", b"a")
        store.compact(3)
        stream.watch(b"a", watch_id=5, start_revision=2)
        store.sync_watchers()
        with pytest.raises(DuplicateWatchId):
            stream.watch(b"a", watch_id=5)
        assert stream.cancel(5)
        assert not stream.cancel(5)
        assert stream.watch(b"a", watch_id=5) == 5

    def test_the_compacted_revision_itself_can_be_watched(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        put(store, b"a")
        delete(store, b"a")
        compaction = store.compact(3)
        while compaction.step():
            pass
        stream.watch(b"a", start_revision=3)
        store.sync_watchers()
        (batch,) = stream.take()
        assert [event.type for event in batch.events] == [Event.DELETE]

    def test_a_negative_start(self, stream: WatchStream) -> None:
        with pytest.raises(Refused) as caught:
            stream.watch(b"a", start_revision=-1)
        assert caught.value.refusal == COMPACTED

    def test_a_quiet_watcher_is_not_behind(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        """It saw no event for long; what was compacted meanwhile does not concern it."""
        stream.watch(b"quiet")
        put(store, b"a", b"a", b"a")
        store.compact(4)
        store.restore(store._backend)
        store.sync_watchers()
        put(store, b"quiet")
        assert seen(stream.take()) == [(0, 5, [b"quiet"])]


class TestIds:
    def test_are_counted_from_zero_and_skip_those_in_use(self, stream: WatchStream) -> None:
        assert stream.watch(b"a", watch_id=1) == 1
        assert [stream.watch(b"a") for _ in range(2)] == [0, 2]
        with pytest.raises(DuplicateWatchId, match="mvcc: duplicate watch ID provided on the"):
            stream.watch(b"a", watch_id=2)

    @pytest.mark.parametrize("end", [b"a", b"b"])
    def test_an_empty_range(self, stream: WatchStream, end: bytes) -> None:
        with pytest.raises(EmptyWatchRange, match="mvcc: watcher range is empty"):
            stream.watch(b"b", end)

    def test_one_key_and_from_key_are_not_confused(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        """etcd did (GHSA-xg4h-6gfc-h4m8)."""
        stream.watch(b"a", b"")
        stream.watch(b"a", b"\0")
        put(store, b"b")
        assert [batch.watch_id for batch in stream.take()] == [1]


class TestCancelling:
    def test_drops_what_was_queued(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a")
        stream.watch(b"a")
        put(store, b"a")
        assert stream.cancel(0)
        assert [batch.watch_id for batch in stream.take()] == [1]
        assert not stream.cancel(0)

    @pytest.mark.parametrize("state", ["synced", "unsynced", "victim"])
    def test_ends_a_watcher_in_any_state(
        self, store: WatchableStore, stream: WatchStream, state: str
    ) -> None:
        put(store, b"a")
        stream.watch(b"a", start_revision=1 if state == "unsynced" else 0)
        if state == "victim":
            put(store, *[b"a"] * (STREAM_CAPACITY + 1))
        assert stream.cancel(0)
        store._check()
        assert store.watcher_count == 0
        put(store, b"a")
        assert (store.sync_watchers(), store.retry_victims(), stream.take()) == (False, False, [])

    def test_closing_ends_them_all(self, store: WatchableStore, stream: WatchStream) -> None:
        for key in (b"a", b"b"):
            stream.watch(key)
        put(store, b"a")
        stream.close()
        assert (store.watcher_count, store.stream_count, stream.take()) == (0, 0, [])


class TestSlowStreams:
    def test_hold_a_bounded_queue(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a")
        put(store, *[b"a"] * 500)
        assert store.slow_watcher_count == 1
        assert store.retry_victims()
        first = stream.take()
        assert [batch.revision for batch in first] == list(range(2, STREAM_CAPACITY + 2))
        assert not store.retry_victims()
        assert not store.sync_watchers()
        held, rest = stream.take()
        assert (held.revision, len(held.events)) == (STREAM_CAPACITY + 2, 1)
        assert (rest.revision, len(rest.events)) == (501, 500 - STREAM_CAPACITY - 1)
        assert store.slow_watcher_count == 0

    def test_do_not_hold_up_others(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a")
        other = store.watch_stream(lambda: None)
        other.watch(b"a")
        for _ in range(500):
            put(store, b"a")
            assert len(other.take()) == 1

    def test_may_find_that_the_rest_is_compacted(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        """What it was promised before comes first."""
        stream.watch(b"a")
        put(store, *[b"a"] * 300)
        store.compact(store.revision)
        stream.take()
        store.retry_victims()
        store.sync_watchers()
        held, last = stream.take()
        assert held.revision == STREAM_CAPACITY + 2
        assert last.compact_revision == 301


class TestProgress:
    def test_comes_behind_the_events(self, store: WatchableStore, stream: WatchStream) -> None:
        stream.watch(b"a")
        stream.watch(b"b")
        put(store, b"a")
        assert stream.request_progress()
        assert stream.request_progress(1)
        put(store, b"b")
        assert [(b.watch_id, b.revision, b.progress) for b in stream.take()] == [
            (0, 2, False),
            (ALL_WATCHERS, 2, True),
            (1, 2, True),
            (1, 3, False),
        ]

    def test_there_is_none_without_watchers(self, stream: WatchStream) -> None:
        assert not stream.request_progress()
        assert not stream.request_progress(7)
        assert stream.take() == []

    def test_there_is_none_while_one_lags(self, store: WatchableStore, stream: WatchStream) -> None:
        put(store, b"a")
        stream.watch(b"a")
        stream.watch(b"a", start_revision=1)
        assert not stream.request_progress()
        assert stream.request_progress(0)
        store.sync_watchers()
        assert stream.request_progress()

    def test_there_is_none_before_a_future_start(
        self, store: WatchableStore, stream: WatchStream
    ) -> None:
        stream.watch(b"a", start_revision=2)
        assert not stream.request_progress()
        put(store, b"b")
        assert stream.request_progress()


def test_waking_happens_when_there_is_something_again(store: WatchableStore) -> None:
    wakes: list[int] = []
    wake: Callable[[], None] = lambda: wakes.append(store.revision)  # noqa: E731
    stream = store.watch_stream(wake)
    stream.watch(b"a")
    put(store, b"b")
    assert wakes == []
    put(store, b"a", b"a")
    assert wakes == [3]
    stream.take()
    put(store, b"a")
    assert wakes == [3, 5]
    stream.watch(b"a", start_revision=1)
    stream.take()
    store.compact(2)
    store.sync_watchers()
    assert wakes == [3, 5, 5]
