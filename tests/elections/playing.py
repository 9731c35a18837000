"""The world as a test plays it to recipes: calls answered by the store, watches fed from it."""

from __future__ import annotations

from typing import Any

from elections.store import Store, StoreCall, run

from etcd_pinwheel.client.errors import Compacted, WaitTimedOut
from etcd_pinwheel.client.recipe import Ask, Next, Open
from etcd_pinwheel.client.watch import WatchBatch, WatchEvent, WatchOptions
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.mvccpb import Event


class StoreStreams:
    """Stands for a client's streams."""

    def __init__(self) -> None:
        self.call = StoreCall()


class StoreWatch:
    """A watch that takes its batches from a store's history, when it is asked for the next."""

    def __init__(self, store: Store, options: WatchOptions) -> None:
        request = options.request
        self._store = store
        self._start, self._end = request.key, request.range_end or request.key + b"\0"
        self._deletions_only = bool(request.filters)
        self._next_revision = request.start_revision
        self.revision = 0
        self.opened = self.removed = False

    def take(self, compacted: int = 0) -> WatchBatch | None:
        """Hand out the next revision; None: there is none yet."""
        if self._next_revision <= compacted:
            raise Compacted("compacted", code=Code.OUT_OF_RANGE)
        news = [(at, event) for at, event in self._store.history if self._wants(at, event)]
        if not news:
            return None
        self.revision = news[0][0]
        self._next_revision = self.revision + 1
        events = tuple(WatchEvent.of(event) for at, event in news if at == self.revision)
        return WatchBatch(self.revision, events)

    def _wants(self, at: int, event: Event) -> bool:
        wanted = at >= self._next_revision and self._start <= event.kv.key < self._end
        return wanted and not (self._deletions_only and event.type == Event.PUT)

    def _remove(self) -> None:
        self.removed = True


def play(recipe: Any, store: Store, compacted: int = 0) -> Any:
    """Carry a recipe out; where it would have to wait, its time is up."""
    try:
        step = next(recipe)
        while True:
            try:
                outcome = _do(step, store, compacted)
            except Exception as error:
                step = recipe.throw(error)
            else:
                step = recipe.send(outcome)
    except StopIteration as stop:
        return stop.value


def _do(step: Any, store: Store, compacted: int) -> Any:
    match step:
        case Ask(flow):
            return run(flow, store)
        case Open(handle):
            handle.opened = True
            return handle
        case Next(handle, _):
            assert handle.opened
            if handle.removed:
                return None
            batch = handle.take(compacted)
            if batch is None:
                raise WaitTimedOut("not in time")
            return batch
    raise AssertionError(step)
