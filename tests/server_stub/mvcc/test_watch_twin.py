"""Watchers against a naive replay of history: nothing lost, repeated, reordered or torn.

Programs are drawn from a seed, which hypothesis picks and prints: its own state machines leave out
rules at random (swarm testing), and then hardly any history comes about.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etcd_pinwheel.protos.mvccpb import Event, KeyValue
from etcd_pinwheel.server_stub.mvcc import watch_stream, watchable
from etcd_pinwheel.server_stub.mvcc.watch_stream import WatchStream
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

NAMES = [b"a", b"aa", b"b", b"c", b"\xff"]
ENDS = [b"", b"", b"\0", b"aa", b"b", b"c", b"\xff\xff"]
FILTERS: list[frozenset[int]] = [frozenset(), frozenset(), frozenset({0}), frozenset({1})]

SMALL_LIMITS = (
    (watch_stream, "STREAM_CAPACITY", 3),
    (watchable, "_WATCHERS_PER_PASS", 3),
    (watchable, "_CHANGES_PER_PASS", 4),
    (watchable, "_REVISIONS_PER_BATCH", 2),
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


@dataclass(eq=False)
class Watch:
    """What was asked for, and what came of it."""

    stream: WatchStream
    watch_id: int
    key: bytes
    end: bytes
    first: int
    """The first revision that is wanted."""
    filters: frozenset[int]
    prev_kv: bool
    got: list[Event] = field(default_factory=list)
    last_header: int = 0
    compacted_at: int = 0
    safe_until: int = 0
    """It had been told everything when the store was compacted at this revision."""

    def wants(self, event: Event) -> bool:
        key = event.kv.key
        inside = key == self.key if not self.end else key >= self.key
        before_end = self.end in (b"", b"\0") or key < self.end
        return inside and before_end and event.type not in self.filters


class Program:
    """A random order of writes, watches, cancels, takes, passes and compactions."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.store = WatchableStore(MemoryBackend(), NoLeases())
        self.history: list[Event] = []
        """Every event with its prev_kv, in order."""
        self.woken = [False, False]
        self.streams = [self.store.watch_stream(self.waker(number)) for number in (0, 1)]
        self.watches: dict[tuple[int, int], Watch] = {}
        self.over: list[Watch] = []
        self.notices: tuple[list[list[Watch]], list[list[Watch]]] = ([], [])
        """Of whom each queued notice of progress speaks."""

    def run(self, steps: int) -> None:
        weights: dict[Callable[[], None], int] = {
            self.write: 12,
            self.watch: 4,
            self.cancel: 1,
            self.take: 5,
            self.progress: 2,
            self.sync: 4,
            self.retry: 3,
            self.compact: 1,
            self.receive_snapshot: 1,
        }
        for action in self.random.choices(list(weights), list(weights.values()), k=steps):
            action()
            self.store._check()
            for stream in self.streams:
                assert len(stream._queue) <= 3 + len(self.watches)
        self.run_out()

    def waker(self, number: int) -> Callable[[], None]:
        def wake() -> None:
            self.woken[number] = True

        return wake

    def write(self) -> None:
        """Delete a range and put some keys in one revision; each key changes once, as in etcd."""
        random = self.random
        puts = random.sample(NAMES, random.randrange(3))
        key, end = random.choice(NAMES), random.choice(ENDS)
        main = self.store.revision + 1
        before = {kv.key: kv for kv in self.store.range(b"\0", b"\0").kvs}
        with self.store.write() as txn:
            if random.random() < 0.3:
                txn.delete_range(key, end)
            deleted = {change.key for change in txn.changes}
            for name in puts:
                if name not in deleted:
                    txn.put(name, b"%d" % main)
            changes = list(txn.changes)
        for change in changes:
            kind = Event.PUT if change.version else Event.DELETE
            assert change.mod_revision == main
            event = Event(type=kind, kv=change, prev_kv=before.get(change.key))
            if kind == Event.PUT and change.create_revision == main:
                event.ClearField("prev_kv")
            self.history.append(event)

    def watch(self) -> None:
        random = self.random
        number, key, end = random.randrange(2), random.choice(NAMES), random.choice(ENDS)
        if end not in (b"", b"\0") and end <= key:
            return
        start = random.choice([0, max(self.store.revision - random.randrange(-3, 15), 1)])
        filters, prev_kv = random.choice(FILTERS), random.random() < 0.5
        watch_id = self.streams[number].watch(
            key, end, start_revision=start, filters=filters, prev_kv=prev_kv
        )
        assert (number, watch_id) not in self.watches
        first = start or self.store.revision + 1
        watch = Watch(self.streams[number], watch_id, key, end, first, filters, prev_kv)
        self.watches[number, watch_id] = watch

    def cancel(self) -> None:
        if not self.watches:
            return
        number, watch_id = self.random.choice(list(self.watches))
        self.take_from(number)
        assert self.streams[number].cancel(watch_id)
        self.over.append(self.watches.pop((number, watch_id)))

    def take(self) -> None:
        self.take_from(self.random.randrange(2))

    def take_from(self, number: int) -> None:
        batches = self.streams[number].take()
        assert self.woken[number] == bool(batches)
        self.woken[number] = False
        for batch in batches:
            if batch.progress:
                for told in self.notices[number].pop(0):
                    if told.first <= batch.revision:
                        self.check_whole(told, batch.revision)
                continue
            watch = self.watches[number, batch.watch_id]
            if batch.compact_revision:
                watch.compacted_at = batch.compact_revision
                assert max(watch.first, watch.safe_until) < watch.compacted_at
                continue
            assert not watch.compacted_at
            assert batch.events
            assert batch.revision >= batch.events[-1].kv.mod_revision
            assert batch.revision >= watch.last_header
            watch.last_header = batch.revision
            if watch.got:
                assert watch.got[-1].kv.mod_revision < batch.events[0].kv.mod_revision
            watch.got += batch.events

    def progress(self) -> None:
        """A notice says that whoever watched by then has every event up to its revision."""
        number = self.random.randrange(2)
        watches = [w for (stream, _), w in self.watches.items() if stream == number]
        if self.streams[number].request_progress():
            alive = self.streams[number]._watchers
            self.notices[number].append([w for w in watches if w.watch_id in alive])

    def sync(self) -> None:
        behind = self.store.slow_watcher_count
        more = self.store.sync_watchers()
        assert more == (len(self.store._unsynced) > 0)
        assert self.store.slow_watcher_count <= behind

    def retry(self) -> None:
        assert self.store.retry_victims() == bool(self.store._victims)

    def compact(self) -> None:
        """Whoever was told everything so far loses nothing by it, and must not hear of it."""
        revision = self.store.revision - self.random.randrange(8)
        if revision > max(self.store.compacted_revision, 0):
            compaction = self.store.compact(revision)
            while compaction.step() and self.random.random() < 0.9:
                pass
            for watcher in self.store._synced:
                watch = self.watches[self.streams.index(watcher.stream), watcher.id]
                watch.safe_until = revision

    def receive_snapshot(self) -> None:
        """Restore from the same data: watchers go on as if nothing happened."""
        self.store.restore(self.store._backend)

    def check_whole(self, watch: Watch, until: int) -> None:
        """Compare with the replay of history up to a revision."""
        expected = [
            event
            for event in self.history
            if watch.first <= event.kv.mod_revision <= until and watch.wants(event)
        ]
        assert [event.kv for event in watch.got] == [event.kv for event in expected]
        for event, truth in zip(watch.got, expected, strict=True):
            assert event.type == truth.type
            if not watch.prev_kv:
                assert not event.HasField("prev_kv")
            elif event.HasField("prev_kv") or self.store.compacted_revision < 0:
                assert event.prev_kv == truth.prev_kv
            elif truth.HasField("prev_kv"):
                assert event.kv.mod_revision - 1 < self.store.compacted_revision

    def run_out(self) -> None:
        """Let everything be told, then compare."""
        while self.store.slow_watcher_count:
            self.sync()
            self.retry()
            for number in (0, 1):
                self.take_from(number)
        for number in (0, 1):
            self.take_from(number)
        self.compare()
        for stream in self.streams:
            stream.close()
        self.store._check()
        assert (self.store.watcher_count, self.store.stream_count) == (0, 0)

    def compare(self) -> None:
        for watch in self.over:
            self.check_whole(watch, watch.got[-1].kv.mod_revision if watch.got else 0)
        for watch in self.watches.values():
            if watch.compacted_at:
                self.check_whole(watch, watch.got[-1].kv.mod_revision if watch.got else 0)
            else:
                self.check_whole(watch, self.store.revision)


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**64))
def test_watchers_see_the_history(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        for module, name, limit in SMALL_LIMITS:
            small.setattr(module, name, limit)
        Program(seed).run(steps=120)


def test_the_twin_reads_events_of_a_kind() -> None:
    """A deletion has its key and mod_revision only, as the replay takes for granted."""
    store = WatchableStore(MemoryBackend(), NoLeases())
    with store.write() as txn:
        txn.put(b"k", b"v")
    with store.write() as txn:
        txn.delete_range(b"k", b"")
        assert txn.changes == [KeyValue(key=b"k", mod_revision=3)]
