"""Watch streams of both servers, settled after every step so that answers come one by one.

What a watcher is due follows from the events that a watcher of everything saw on the real etcd;
only how many, so the wait has an end: what they are is compared between the two servers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import mvccpb, rpcs

from .comparison import Delta, deltas
from .pair import EVERYTHING, MARKER, Disagreement, Pair
from .remote import CALL_SECONDS, Remote, Stream


class History:
    """Every event since a fresh start, as both servers told a watcher of everything."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        create = pb.WatchRequest(create_request=EVERYTHING)
        self._etcd, self._ours = pair.on_each(lambda side: _open(side, create))
        marker = mvccpb.Event(kv=mvccpb.KeyValue(key=MARKER, mod_revision=pair.base_revision))
        self._start = [marker]

    def settle(self) -> None:
        """Wait until both told of the newest revision, and compare what they told."""
        newest = self._pair.revision
        for stream in (self._etcd, self._ours):
            stream.wait_for(
                lambda s: s.replies[-1].header.revision >= newest, self._pair.settle_seconds
            )
        _compare("the watcher of everything", self._etcd.replies, self._ours.replies, self._pair)

    @property
    def events(self) -> list[mvccpb.Event]:
        told = [event for reply in self._etcd.replies for event in reply.events]
        return self._start + told

    def close(self) -> None:
        self._etcd.close()
        self._ours.close()


@dataclass
class Watcher:
    """A watcher that both servers accepted, and from where it sees events."""

    asked: pb.WatchCreateRequest
    start_revision: int
    compacted: bool
    """It asked for what is compacted: it is due a cancellation and no event."""
    before: int
    """How many events an earlier watcher of the same id had."""
    canceled: bool = False
    due: int = 0
    """How many events the id must have had by now."""

    def sees(self, event: mvccpb.Event) -> bool:
        return (
            not self.compacted
            and event.kv.mod_revision >= self.start_revision
            and int(event.type) not in self.asked.filters
            and _in_range(event.kv.key, self.asked.key or b"\0", self.asked.range_end)
        )


@dataclass
class WatchPair:
    """One watch stream on each server, sent the same requests."""

    pair: Pair
    history: History
    watchers: dict[int, Watcher] = field(default_factory=dict)
    creates: int = 0
    cancels: int = 0
    progresses: int = 0

    def __post_init__(self) -> None:
        self.etcd, self.ours = self.pair.on_each(lambda side: side.stream(rpcs.WATCH_WATCH))

    def send(self, request: pb.WatchRequest) -> None:
        """Send one request to both and wait until both answered it."""
        current, compacted = self.pair.revision, self.pair.compacted_revision
        before = self._events_by_id(self.etcd)
        for stream in (self.etcd, self.ours):
            stream.send(request)
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._created(request.create_request, current, compacted, before)
        elif kind == "cancel_request":
            self._canceled(request.cancel_request.watch_id)
        elif kind == "progress_request":
            self.progresses += 1
        self.settle()

    def _created(
        self, asked: pb.WatchCreateRequest, current: int, compacted: int, before: Counter[int]
    ) -> None:
        self.creates += 1
        for stream in (self.etcd, self.ours):
            stream.wait_for(self._all_created, self.pair.settle_seconds)
        answers = [reply for reply in self.etcd.replies if reply.created]
        if len(answers) != self.creates or answers[-1].canceled:
            return  # refused, or never answered: settling tells
        start = asked.start_revision or current + 1
        watch_id = answers[-1].watch_id
        watcher = Watcher(asked, start, start < compacted, before[watch_id])
        self.cancels += watcher.compacted
        self.watchers[watch_id] = watcher

    def _canceled(self, watch_id: int) -> None:
        """Expect an answer once, also of a watcher that was told that its start is compacted."""
        watcher = self.watchers.get(watch_id)
        if watcher and not watcher.canceled:
            watcher.canceled = True
            self.cancels += 1

    def settle(self) -> None:
        """Wait until each watcher had what it is due, and compare all that came."""
        self.history.settle()
        for watcher in self.watchers.values():
            if not watcher.canceled:
                watcher.due = watcher.before + sum(map(watcher.sees, self.history.events))
        for stream in (self.etcd, self.ours):
            stream.wait_for(self._has_all, self.pair.settle_seconds)
        _compare("the watch stream", self.etcd.replies, self.ours.replies, self.pair)
        if not self._has_all(self.etcd):
            raise Disagreement("etcd itself did not send what was expected of it", [])

    def _all_created(self, stream: Stream) -> bool:
        return sum(reply.created for reply in stream.replies) >= self.creates

    @staticmethod
    def _events_by_id(stream: Stream) -> Counter[int]:
        had: Counter[int] = Counter()
        for reply in stream.replies:
            had[reply.watch_id] += len(reply.events)
        return had

    def _has_all(self, stream: Stream) -> bool:
        had = self._events_by_id(stream)
        cancels = progresses = 0
        for reply in stream.replies:
            cancels += reply.canceled and not reply.created
            progresses += reply.watch_id == -1 and not reply.created and not reply.canceled
        return (
            self._all_created(stream)
            and cancels >= self.cancels
            and progresses >= self.progresses
            and all(had[watch_id] >= each.due for watch_id, each in self.watchers.items())
        )

    def end(self) -> None:
        """Cancel every watcher, which flushes whatever came too much, and close the streams."""
        for watch_id, watcher in list(self.watchers.items()):
            if not watcher.canceled:
                self.send(pb.WatchRequest(cancel_request={"watch_id": watch_id}))
        self.close()

    def close(self) -> None:
        self.etcd.close()
        self.ours.close()


def _open(side: Remote, create: pb.WatchRequest) -> Stream:
    stream = side.stream(rpcs.WATCH_WATCH)
    stream.send(create)
    assert stream.wait_for(lambda s: bool(s.replies), CALL_SECONDS), stream.ended
    return stream


def _in_range(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


def by_watcher(replies: list[Any]) -> dict[int, list[Any]]:
    """Split a stream by watcher; between watchers there is no order to rely on."""
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for reply in replies:
        found[reply.watch_id].append(reply)
    return dict(found)


def _compare(what: str, etcd: list[Any], ours: list[Any], pair: Pair) -> None:
    theirs, our = by_watcher(etcd), by_watcher(ours)
    for watch_id in sorted(theirs.keys() | our.keys()):
        left, right = theirs.get(watch_id, []), our.get(watch_id, [])
        found = []
        if len(left) != len(right):
            found.append(Delta("responses.length", str(len(left)), str(len(right))))
        for one, other in zip(left, right, strict=False):
            found += deltas(one, other)
        unexplained = list(pair.excuses.unexplained("watch", found))
        if unexplained:
            told = f"etcd told {left[-3:]}\nours told {right[-3:]}"
            raise Disagreement(f"{what}, watcher {watch_id}\n{told}", unexplained)
