"""Watchers, and the bounded streams through which they get what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from ...protos.errors import COMPACTED, Refused
from ...protos.mvccpb import Event
from .index import FROM_KEY
from .interval_tree import IntervalTree

STREAM_CAPACITY: Final = 128
"""Batches that a stream holds before its watchers become victims."""
ALL_WATCHERS: Final = -1
"""The watch id of a progress notice that speaks for every watcher of the stream."""


class EmptyWatchRange(ValueError):
    """A watch on a range that holds no key."""

    def __init__(self) -> None:
        super().__init__("mvcc: watcher range is empty")


class DuplicateWatchId(ValueError):
    """A watch under an id that the stream uses already."""

    def __init__(self) -> None:
        super().__init__("mvcc: duplicate watch ID provided on the WatchStream")


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """What one watcher is told at once; whole revisions, never a part of one."""

    watch_id: int
    revision: int
    """The store's revision, for the header: that of the events if they are news."""
    events: list[Event]
    """Not to be changed: watchers share them. Empty for a notice."""
    compact_revision: int = 0
    """Not 0: the watch wants a revision that is compacted; this is the last it hears."""
    progress: bool = False
    """Whether this is the notice that every event up to `revision` was told."""


@dataclass(slots=True, eq=False)
class Watcher:
    """One watch on a key or a range; its group in the store says how it is getting on.

    Invariant: it was told every event that it wants before ``min_revision``, or holds (as a victim)
    a batch that ends there.
    """

    id: int
    key: bytes
    end: bytes
    """As on the wire: ``b""`` for the one key, ``b"\\0"`` for everything from `key` on."""
    start_revision: int
    """As asked for; 0 is what comes next."""
    min_revision: int
    """The next revision that it wants."""
    unwanted: frozenset[int]
    """Types of events that are filtered out."""
    wants_prev_kv: bool
    stream: WatchStream


class WatcherGroup:
    """Watchers by what they watch; iterates in the order they were added."""

    def __init__(self) -> None:
        self._members: dict[Watcher, None] = {}
        self._by_key: dict[bytes, dict[Watcher, None]] = {}
        self._by_range: IntervalTree[Watcher] = IntervalTree()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, watcher: Watcher) -> bool:
        return watcher in self._members

    def __iter__(self) -> Iterator[Watcher]:
        return iter(self._members)

    def add(self, watcher: Watcher) -> None:
        """Add a watcher that is in no group."""
        self._members[watcher] = None
        if watcher.end:
            end = None if watcher.end == FROM_KEY else watcher.end
            self._by_range.add(watcher.key, end, watcher)
        else:
            self._by_key.setdefault(watcher.key, {})[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        """Remove a watcher, if it is here."""
        if watcher not in self._members:
            return
        del self._members[watcher]
        if watcher.end:
            end = None if watcher.end == FROM_KEY else watcher.end
            self._by_range.remove(watcher.key, end, watcher)
            return
        same_key = self._by_key[watcher.key]
        del same_key[watcher]
        if not same_key:
            del self._by_key[watcher.key]

    def containing(self, key: bytes) -> Iterator[Watcher]:
        """Yield the watchers of `key`."""
        yield from self._by_key.get(key, ())
        yield from self._by_range.containing(key)

    def _check(self) -> None:
        self._by_range._check()
        assert all(self._by_key.values())


class _Hub(Protocol):
    """What a stream asks of the store."""

    revision: int

    def _enroll(self, watcher: Watcher, /) -> None: ...
    def _dismiss(self, watcher: Watcher, /) -> None: ...
    def _is_synced(self, watcher: Watcher, /) -> bool: ...
    def _forget_stream(self, stream: WatchStream, /) -> None: ...


class WatchStream:
    """The watchers of one client stream, and a queue of what they are to be told.

    The queue holds :data:`STREAM_CAPACITY` batches; what does not fit waits in the store.
    """

    def __init__(self, hub: _Hub, wake: Callable[[], None]) -> None:
        self._hub = hub
        self._wake = wake
        self._watchers: dict[int, Watcher] = {}
        self._ended: set[int] = set()
        """Ids of watches that heard that their start is compacted; taken until they are canceled,
        as with etcd."""
        self._next_id = 0
        self._queue: list[WatchBatch] = []

    def __len__(self) -> int:
        """Count the watchers."""
        return len(self._watchers)

    def watch(
        self,
        key: bytes,
        end: bytes = b"",
        *,
        watch_id: int = 0,
        start_revision: int = 0,
        filters: frozenset[int] = frozenset(),
        prev_kv: bool = False,
    ) -> int:
        """Watch [key, end) from `start_revision` on (0: from the next); return the watch's id.

        A `watch_id` of 0 takes the next free one, counting from 0. `filters` are event types that
        are not wanted (their numbers are those of the wire's filters). A start that is compacted is
        told of by a batch; one in the future is silence until then.
        Raises :class:`EmptyWatchRange`, :class:`DuplicateWatchId`, and ``Refused`` (COMPACTED) for
        a negative start.
        """
        if end not in (b"", FROM_KEY) and end <= key:
            raise EmptyWatchRange
        if start_revision < 0:
            raise Refused(COMPACTED)
        watcher = Watcher(
            id=self._free_id(watch_id),
            key=key,
            end=end,
            start_revision=start_revision,
            min_revision=start_revision or self._hub.revision + 1,
            unwanted=filters,
            wants_prev_kv=prev_kv,
            stream=self,
        )
        self._watchers[watcher.id] = watcher
        self._hub._enroll(watcher)
        return watcher.id

    def cancel(self, watch_id: int) -> bool:
        """End a watch; what was queued for it is dropped. Returns whether there was one."""
        if watch_id in self._ended:
            self._ended.remove(watch_id)
            return True
        watcher = self._watchers.pop(watch_id, None)
        if watcher is None:
            return False
        self._hub._dismiss(watcher)
        self._queue = [batch for batch in self._queue if batch.watch_id != watch_id]
        return True

    def request_progress(self, watch_id: int = ALL_WATCHERS) -> bool:
        """Queue a notice of how far one watch is, or all; return whether it could be given.

        It says that every event up to its revision was queued before it. There is none while a
        watch in question lags, has a start in the future, or while nothing is watched.
        """
        if watch_id == ALL_WATCHERS:
            watchers = list(self._watchers.values())
        else:
            watchers = [self._watchers[watch_id]] if watch_id in self._watchers else []
        revision = self._hub.revision
        for watcher in watchers:
            if not self._hub._is_synced(watcher) or revision < watcher.start_revision:
                return False
        return bool(watchers) and self._push(WatchBatch(watch_id, revision, [], progress=True))

    def take(self) -> list[WatchBatch]:
        """Take what is queued, oldest first."""
        taken, self._queue = self._queue, []
        return taken

    def close(self) -> None:
        """End all watches, and the stream."""
        for watch_id in list(self._watchers):
            self.cancel(watch_id)
        self._queue.clear()
        self._hub._forget_stream(self)

    def _free_id(self, wanted: int) -> int:
        """Return the id for a new watch."""
        if wanted:
            if self._is_taken(wanted):
                raise DuplicateWatchId
            return wanted
        while self._is_taken(self._next_id):
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _is_taken(self, watch_id: int) -> bool:
        return watch_id in self._watchers or watch_id in self._ended

    def _push(self, batch: WatchBatch) -> bool:
        """Queue a batch, if there is room."""
        if len(self._queue) >= STREAM_CAPACITY:
            return False
        self._queue.append(batch)
        if len(self._queue) == 1:
            self._wake()
        return True

    def _end(self, watcher: Watcher, compact_revision: int) -> None:
        """Queue the last word to a watch whose start is compacted.

        Room or not: there is but one per watch, and it lets the store forget the watch.
        """
        self._watchers.pop(watcher.id)
        self._ended.add(watcher.id)
        notice = WatchBatch(watcher.id, 0, [], compact_revision=compact_revision)
        self._queue.append(notice)
        if len(self._queue) == 1:
            self._wake()
