"""One watch's place in history, and the revisions that wait to be taken. Pure.

The rules that keep a watch whole over any number of streams:

* The place moves by whole revisions. Events of a revision that may not be complete (a fragment of
  a larger response) are held back until an event of a later revision, or the last fragment, says
  that it is; when the stream breaks before, they are dropped and sent again by the next one.
* The place comes from what was delivered: the last event's own revision. A response's header
  carries the server's *current* revision, which for a watcher that is catching up is far ahead:
  resuming from it skips events (the mistake of several clients). The header counts only where it
  is exact: in the created response (start_revision 0: nothing between the creation and the first
  event may be lost) and in the automatic progress of this one watch. The answer to a manual
  progress request is *not* exact in etcd before 3.4.25 and 3.5.8, where it may overtake events
  (etcd issue 15220): it is passed on, and the place stays.
* The place never moves back, and an event from before it is dropped: it was delivered already
  (etcd issue 20221).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ..protos.etcdserverpb import ResponseHeader, WatchCreateRequest
from ..protos.mvccpb import Event

NO_ID: Final = -1


class WatcherState(Enum):
    """Where a watcher stands with the server."""

    NEW = auto()
    """Not added yet."""
    QUEUED = auto()
    """To be created on the stream as soon as it is its turn."""
    CREATING = auto()
    """Asked for, not answered yet."""
    LIVE = auto()
    """The server sends its events."""
    PARKED = auto()
    """Full: cancelled on the server, to be created again when there is room."""
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Taken:
    """A revision as it came from the wire: all of its events that the watch asked for."""

    revision: int
    events: tuple[Event, ...]
    """Empty: progress; everything up to the revision has been delivered."""


class Watcher:
    """One watch. Invariant: every event below ``next_revision`` is queued or taken, none at it."""

    __slots__ = (
        "_buffered",
        "_held",
        "_queue",
        "attempts",
        "buffer_events",
        "cluster_id",
        "created",
        "down_since",
        "error",
        "known_revision",
        "max_outage_seconds",
        "next_revision",
        "request",
        "state",
        "tokens_refused",
        "was_doubted",
        "watch_id",
    )

    def __init__(
        self,
        request: WatchCreateRequest,
        *,
        buffer_events: int,
        max_outage_seconds: float | None = None,
    ) -> None:
        self.request = request
        self.buffer_events = buffer_events
        self.max_outage_seconds = max_outage_seconds
        self.state = WatcherState.NEW
        self.watch_id = NO_ID
        self.next_revision = request.start_revision
        """Where the next creation starts. 0: from now on, until the first creation pins it."""
        self.known_revision = 0
        """What the cluster had reached for sure; less than that later means that it lost data."""
        self.cluster_id = 0
        self.attempts = 0
        """How many of its creations the server may have carried out."""
        self.created = False
        """Whether the server ever created it."""
        self.down_since = 0.0
        self.tokens_refused = 0
        """In a row; the server created it with none of them."""
        self.was_doubted = False
        """Whether it was denied once already, although its keys may be read."""
        self.error: Exception | None = None
        """Why it ended; None when its user ended it."""
        self._queue: deque[Taken] = deque()
        self._held: list[Event] = []
        """Events of revisions at or above ``next_revision`` that may lack some still."""
        self._buffered = 0

    # Creation

    def creation(self) -> WatchCreateRequest:
        """Build the request that starts, or resumes, this watch at its place."""
        request = WatchCreateRequest()
        request.CopyFrom(self.request)
        request.start_revision = self.next_revision
        return request

    def accept(self, watch_id: int, header: ResponseHeader) -> None:
        """Take in that the server created it; the first time pins its place."""
        self.watch_id = watch_id
        self.state = WatcherState.LIVE
        self.created = True
        self.tokens_refused, self.was_doubted = 0, False
        self.cluster_id = self.cluster_id or header.cluster_id
        if self.next_revision == 0:
            self.next_revision = header.revision + 1
        self.known_revision = max(self.known_revision, header.revision)

    # What the server sends

    def append(self, events: Iterable[Event], *, complete: bool) -> bool:
        """Queue whole revisions; return whether there is something new to take.

        A message is taken in whole, for it is in memory already and would only have to be sent
        again; whoever is full after that must be sent no more.
        """
        floor = self.next_revision
        self._held.extend(event for event in events if event.kv.mod_revision >= floor)
        ready = len(self._held) if complete else self._complete_until()
        start = 0
        while start < ready:
            start = self._queue_revision(start)
        del self._held[:start]
        return start > 0

    def progressed(self, revision: int, *, exact: bool) -> None:
        """Take in that all up to ``revision`` was sent; only the latest such news is kept.

        ``exact``: the server says so of this very watch, in order with its events.
        """
        if exact:
            self.next_revision = max(self.next_revision, revision + 1)
            self.known_revision = max(self.known_revision, revision)
        if self._queue and not self._queue[-1].events:
            self._queue.pop()
        self._queue.append(Taken(revision, ()))

    def interrupt(self) -> None:
        """Take in that the server does not serve it any more; half-sent revisions are dropped."""
        self.watch_id = NO_ID
        self._held.clear()

    def end(self, error: Exception | None) -> None:
        """End it; what is queued can still be taken."""
        if self.state is not WatcherState.ENDED:
            self.state = WatcherState.ENDED
            self.error = error
            self.interrupt()

    # Its user

    def take(self) -> Taken | None:
        """Hand out the oldest revision; None when there is none yet."""
        if not self._queue:
            return None
        taken = self._queue.popleft()
        self._buffered -= len(taken.events)
        return taken

    def discard(self) -> None:
        """Drop what is queued, for nobody is going to take it."""
        self._queue.clear()
        self._buffered = 0

    @property
    def full(self) -> bool:
        """Whether it must be sent no more events for now."""
        return self._buffered >= self.buffer_events

    @property
    def roomy(self) -> bool:
        """Whether enough was taken for it to be worth going on after it was full."""
        return self._buffered <= self.buffer_events // 2

    def __repr__(self) -> str:
        key, end = self.request.key, self.request.range_end
        what = repr(key) if not end else f"{key!r}..{end!r}"
        return f"{what} {self.state.name.lower()} at {self.next_revision}"

    # Inner workings

    def _complete_until(self) -> int:
        """Count the held events of all revisions but the last, which may have more to come."""
        until = len(self._held)
        last_revision = self._held[-1].kv.mod_revision if self._held else 0
        while until and self._held[until - 1].kv.mod_revision == last_revision:
            until -= 1
        return until

    def _queue_revision(self, start: int) -> int:
        """Queue the revision that begins at ``start`` in the held events; return where it ends."""
        held, end = self._held, start + 1
        revision = held[start].kv.mod_revision
        while end < len(held) and held[end].kv.mod_revision == revision:
            end += 1
        self._queue.append(Taken(revision, tuple(held[start:end])))
        self._buffered += end - start
        self.next_revision = revision + 1
        self.known_revision = max(self.known_revision, revision)
        return end
