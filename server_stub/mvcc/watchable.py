"""The store that tells watchers of its revisions.

A watcher is in one of three groups:

    unsynced  --told all there is-->  synced  --its stream is full-->  victims
        ^                                ^                                |
        +----- there is news by now -----+---- its batch was taken -------+

Synced watchers are told of a revision as it is made. Unsynced ones are behind and get the past out
of the B+tree, whole revisions at a time. A victim holds the batch that its stream had no room for.

Source: etcd's server/storage/mvcc/watchable_store.go for the groups and what they may observe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from ...protos.mvccpb import Event, KeyValue
from .backend import Backend, Bucket
from .restoring import Restored
from .revision import REVISION_KEY_BYTES, main_of, revision_key
from .store import LeaseBook, Store
from .watch_stream import WatchBatch, Watcher, WatcherGroup, WatchStream

_WATCHERS_PER_PASS: Final = 512
_CHANGES_PER_PASS: Final = 5_000
_BYTES_PER_PASS: Final = 16 * 2**20
"""More than a page: up to here, a watcher is told of the past in the same batches as by etcd."""
_REVISIONS_PER_BATCH: Final = 1_000

_PUT: Final = Event.PUT
_DELETE: Final = Event.DELETE


class WatchableStore(Store):
    """A store with watchers.

    It does nothing by itself: a writer's changes reach synced watchers within the transaction, and
    the owner calls :meth:`sync_watchers` and :meth:`retry_victims` every so often for the others.

    Invariant: a watcher is in one group; ``min_revision`` of a synced one is not behind an event
    that it wants.
    """

    def __init__(self, backend: Backend, leases: LeaseBook) -> None:
        super().__init__(backend, leases)
        self._synced = WatcherGroup()
        self._unsynced = WatcherGroup()
        self._victims: dict[Watcher, WatchBatch] = {}
        self._streams: dict[WatchStream, None] = {}
        self.events_sent: int = 0
        """Events queued for watchers, for metrics."""

    @property
    def watcher_count(self) -> int:
        """How many watchers there are."""
        return len(self._synced) + len(self._unsynced) + len(self._victims)

    @property
    def slow_watcher_count(self) -> int:
        """How many of them are behind."""
        return len(self._unsynced) + len(self._victims)

    @property
    def stream_count(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def watch_stream(self, wake: Callable[[], None]) -> WatchStream:
        """Open a stream of watches; `wake` is called when there is something to take again."""
        stream = WatchStream(self, wake)
        self._streams[stream] = None
        return stream

    def sync_watchers(self) -> bool:
        """Tell unsynced watchers a piece of the past; return whether there is more to tell.

        The longest waiting one decides from which revision on; those that want the same piece are
        served with it.
        """
        waiting = self._take_waiting()
        if not waiting:
            return len(self._unsynced) > 0
        first = waiting[0].min_revision
        rows, behind = self._piece_of_history(first)
        group = WatcherGroup()
        for watcher in waiting:
            if first <= watcher.min_revision < behind:
                group.add(watcher)
        told = self._match(rows, group)
        for watcher in group:
            self._unsynced.discard(watcher)
            if self._tell_past(watcher, told.get(watcher, []), behind):
                self._regroup(watcher)
        return len(self._unsynced) > 0

    def retry_victims(self) -> bool:
        """Try again to queue what streams had no room for; return whether some still have none."""
        for watcher, batch in list(self._victims.items()):
            if self._send(watcher, batch):
                del self._victims[watcher]
                self._regroup(watcher)
        return bool(self._victims)

    def restore(self, backend: Backend, restored: Restored | None = None) -> None:
        """Go on with another backend; watchers are told what they missed."""
        seen = self.revision
        super().restore(backend, restored)
        for watcher in list(self._synced):
            self._synced.discard(watcher)
            watcher.min_revision = max(watcher.min_revision, seen + 1)
            self._unsynced.add(watcher)

    def _publish(self, changes: list[KeyValue]) -> None:
        """Tell synced watchers of the revision just made."""
        if not self._synced:
            return
        revision = self.revision
        told: dict[Watcher, list[Event]] = {}
        for change in changes:
            kind = _PUT if change.create_revision else _DELETE
            sharing = _SharedEvent(self, kind, change)
            for watcher in self._synced.containing(change.key):
                if watcher.min_revision <= revision and kind not in watcher.unwanted:
                    told.setdefault(watcher, []).append(sharing.for_watcher(watcher))
        for watcher, events in told.items():
            watcher.min_revision = revision + 1
            batch = WatchBatch(watcher.id, revision, events)
            if not self._send(watcher, batch):
                self._synced.discard(watcher)
                self._victims[watcher] = batch

    def _take_waiting(self) -> list[Watcher]:
        """Return some unsynced watchers that have history to be told, longest waiting first.

        Those whose revision is compacted are told so and dismissed.
        """
        waiting = []
        for watcher in list(islice(self._unsynced, _WATCHERS_PER_PASS)):
            if watcher.min_revision < self.compacted_revision:
                self._unsynced.discard(watcher)
                watcher.stream._end(watcher, self.compacted_revision)
            elif watcher.min_revision > self.revision:
                self._unsynced.discard(watcher)
                self._synced.add(watcher)
            else:
                waiting.append(watcher)
        return waiting

    def _piece_of_history(self, first: int) -> tuple[list[tuple[bytes, bytes]], int]:
        """Return stored changes from revision `first` on, and the revision behind them.

        Revisions are whole, however many changes they have.
        """
        start, end = revision_key(first), revision_key(self.revision + 1)
        rows = self._backend.range(Bucket.KEY, start, end, _CHANGES_PER_PASS, _BYTES_PER_PASS)
        if not rows:
            return rows, self.revision + 1
        newest = rows[-1][0]
        behind = main_of(newest) + 1
        rows += self._backend.range(Bucket.KEY, newest + b"\0", revision_key(behind))
        return rows, behind

    def _match(
        self, rows: list[tuple[bytes, bytes]], group: WatcherGroup
    ) -> dict[Watcher, list[Event]]:
        """Return which events of `rows` each watcher of `group` wants."""
        told: dict[Watcher, list[Event]] = {}
        for stored_key, value in rows:
            kv = KeyValue.FromString(value)
            kind = _PUT
            if len(stored_key) > REVISION_KEY_BYTES:
                kind = _DELETE
                kv.mod_revision = main_of(stored_key)
            sharing = _SharedEvent(self, kind, kv)
            for watcher in group.containing(kv.key):
                if watcher.min_revision <= kv.mod_revision and kind not in watcher.unwanted:
                    told.setdefault(watcher, []).append(sharing.for_watcher(watcher))
        return told

    def _tell_past(self, watcher: Watcher, events: list[Event], behind: int) -> bool:
        """Queue `events`, which end at revision `behind`; return False if that made it a victim."""
        for batch_events in _split(events):
            watcher.min_revision = batch_events[-1].kv.mod_revision + 1
            batch = WatchBatch(watcher.id, self.revision, batch_events)
            if not self._send(watcher, batch):
                self._victims[watcher] = batch
                return False
        watcher.min_revision = behind
        return True

    def _send(self, watcher: Watcher, batch: WatchBatch) -> bool:
        """Queue a batch of events, if the stream has room."""
        if not watcher.stream._push(batch):
            return False
        self.events_sent += len(batch.events)
        return True

    def _previous(self, kv: KeyValue) -> KeyValue | None:
        """Return what the key was before the change that made `kv`, unless that is compacted."""
        before = kv.mod_revision - 1
        if before < self.compacted_revision:
            return None
        revision = self._index.get(kv.key, revision_key(before + 1))
        return None if revision is None else KeyValue.FromString(self._values([revision])[0])

    def _regroup(self, watcher: Watcher) -> None:
        """Put a watcher that is in no group where it belongs."""
        if watcher.min_revision > self.revision:
            self._synced.add(watcher)
        else:
            self._unsynced.add(watcher)

    def _enroll(self, watcher: Watcher) -> None:
        self._regroup(watcher)

    def _dismiss(self, watcher: Watcher) -> None:
        self._synced.discard(watcher)
        self._unsynced.discard(watcher)
        self._victims.pop(watcher, None)

    def _is_synced(self, watcher: Watcher) -> bool:
        return watcher in self._synced

    def _forget_stream(self, stream: WatchStream) -> None:
        self._streams.pop(stream, None)

    def _check(self) -> None:
        super()._check()
        for group in (self._synced, self._unsynced):
            group._check()
        everyone = [*self._synced, *self._unsynced, *self._victims]
        assert len(everyone) == len(set(everyone))
        assert all(watcher.min_revision <= self.revision + 1 for watcher in self._victims)
        assert all(watcher.stream in self._streams for watcher in everyone)


class _SharedEvent:
    """The event of one change, made when the first watcher wants it and shared by all."""

    __slots__ = ("_change", "_kind", "_plain", "_store", "_with_previous")

    def __init__(self, store: WatchableStore, kind: Event.EventType, change: KeyValue) -> None:
        self._store = store
        self._kind = kind
        self._change = change
        self._plain: Event | None = None
        self._with_previous: Event | None = None

    def for_watcher(self, watcher: Watcher) -> Event:
        """Return the event as `watcher` wants it."""
        if watcher.wants_prev_kv and not self._is_creation:
            if self._with_previous is None:
                previous = self._store._previous(self._change)
                self._with_previous = Event(type=self._kind, kv=self._change, prev_kv=previous)
            return self._with_previous
        if self._plain is None:
            self._plain = Event(type=self._kind, kv=self._change)
        return self._plain

    @property
    def _is_creation(self) -> bool:
        change = self._change
        return self._kind == _PUT and change.create_revision == change.mod_revision


def _split(events: list[Event]) -> Iterable[list[Event]]:
    """Yield the events in batches of a limited number of whole revisions."""
    batch: list[Event] = []
    revisions = last = 0
    for event in events:
        if event.kv.mod_revision != last:
            last = event.kv.mod_revision
            if revisions == _REVISIONS_PER_BATCH:
                yield batch
                batch, revisions = [], 0
            revisions += 1
        batch.append(event)
    if batch:
        yield batch
