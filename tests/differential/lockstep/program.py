"""Programs as data: operations with symbolic revisions, and running them against a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.rpc import Rpc

from .pair import MARKER, Disagreement, Pair
from .watches import History, WatchPair

RPC_BY_NAME: dict[str, Rpc[Any, Any]] = {rpc.name: rpc for rpc in rpcs.ALL}


@dataclass(frozen=True)
class Rev:
    """A revision counted from where the program starts, so that programs can be replayed."""

    offset: int


@dataclass(frozen=True)
class Call:
    """A unary (or server-streaming) call; ``request`` holds the fields of the message."""

    rpc: str
    request: dict[str, Any]


@dataclass(frozen=True)
class KeepAlive:
    """One message on the program's keep-alive stream."""

    lease: int


@dataclass(frozen=True)
class Watch:
    """One message on one of the program's watch streams, which open when first used."""

    stream: int
    request: dict[str, Any]


Operation = Call | KeepAlive | Watch


class Run:
    """One program on a pair that starts afresh."""

    def __init__(self, pair: Pair) -> None:
        pair.start_afresh()
        self._pair = pair
        self._history = History(pair)
        self._watches: dict[int, WatchPair] = {}
        self._maybe_behind = False
        """Whether a watcher may still be catching up without being due an event."""

    def __call__(self, program: Sequence[Operation], *, hashes: bool) -> None:
        """Run a program; whatever it started is closed when this returns or raises."""
        try:
            for operation in program:
                self._step(operation)
            for watches in self._watches.values():
                watches.end()
            self._history.settle()
            if hashes:
                self._compare_hashes()
        finally:
            for watches in self._watches.values():
                watches.close()
            self._history.close()

    def _step(self, operation: Operation) -> None:
        match operation:
            case Watch(stream, request):
                self._watch(stream, pb.WatchRequest(**self._resolved(request)))
            case KeepAlive(lease):
                keep_alive(self._pair, lease)
            case Call(name, request):
                if name == "Compact":
                    self._let_watchers_catch_up()
                self._pair.call(RPC_BY_NAME[name], **self._resolved(request))
        for watches in self._watches.values():
            watches.settle()

    def _watch(self, number: int, request: pb.WatchRequest) -> None:
        start = request.create_request.start_revision
        if 0 < start == self._pair.compacted_revision and self._is_deletion(start):
            # What a watch from there sees of a tombstone is a known difference, and on the real
            # etcd a matter of luck until the compaction is done (tombstone-at-compaction).
            request.create_request.start_revision += 1
        self._maybe_behind |= 0 < start <= self._pair.revision
        if number not in self._watches:
            self._watches[number] = WatchPair(self._pair, self._history)
        self._watches[number].send(request)

    def _is_deletion(self, revision: int) -> bool:
        self._history.settle()
        events = [e for e in self._history.events if e.kv.mod_revision == revision]
        return any(event.type for event in events)

    def _let_watchers_catch_up(self) -> None:
        """Wait until no watcher is behind: a compaction would cancel it, or not, by luck.

        A pass over the watchers that are behind takes them all, so when a watcher that came
        after them had its event they are through.
        """
        if not self._maybe_behind:
            return
        self._maybe_behind = False
        put = self._pair.call(rpcs.KV_PUT, key=MARKER, value=b"fence")
        start = put.reply.header.revision
        fence = WatchPair(self._pair, self._history)
        try:
            asked = {"key": MARKER, "start_revision": start}
            fence.send(pb.WatchRequest(create_request=asked))
        finally:
            fence.close()

    def _compare_hashes(self) -> None:
        pair = self._pair
        for revision in range(max(1, pair.compacted_revision), pair.revision + 1):
            pair.call(rpcs.MAINTENANCE_HASH_KV, revision=revision)

    def _resolved(self, value: Any) -> Any:
        """Put numbers in the place of symbolic revisions."""
        match value:
            case Rev(offset):
                return self._pair.base_revision + offset
            case dict():
                return {name: self._resolved(each) for name, each in value.items()}
            case list():
                return [self._resolved(each) for each in value]
        return value


def keep_alive(pair: Pair, lease: int) -> Any:
    """Renew a lease on both; answer etcd's reply."""
    streams = pair.on_each(lambda side: side.stream(rpcs.LEASE_LEASE_KEEP_ALIVE))
    try:
        for stream in streams:
            stream.send(pb.LeaseKeepAliveRequest(ID=lease))
        for stream in streams:
            if not stream.wait_for(lambda s: bool(s.replies), pair.settle_seconds):
                raise Disagreement(f"keep-alive of {lease} got no answer: {stream.ended}", [])
        etcd, ours = (stream.replies[0] for stream in streams)
        pair.compare_replies("LeaseKeepAlive", pb.LeaseKeepAliveRequest(ID=lease), etcd, ours)
        return etcd
    finally:
        for stream in streams:
            stream.close()


def run(pair: Pair, program: Sequence[Operation], *, hashes: bool = True) -> None:
    """Run one program on a pair, from a fresh start; then compare HashKV at every revision."""
    Run(pair)(program, hashes=hashes)
