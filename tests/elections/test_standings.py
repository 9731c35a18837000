"""Observers: what they are told of an election is what happened in it, in order, once."""

from __future__ import annotations

from typing import Any

import pytest
from elections.playing import StoreStreams, StoreWatch, play
from elections.store import Store
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import Compacted, InvalidArgument, NotSent, PermissionDenied, WaitTimedOut
from etcd_pinwheel.client.claim import key_of
from etcd_pinwheel.client.leader_watch import LeaderWatchHandle
from etcd_pinwheel.client.recipe import Ask, Next
from etcd_pinwheel.client.results import KeyValue
from etcd_pinwheel.client.standings import Standings
from etcd_pinwheel.client.watch import EventType, WatchBatch, WatchEvent
from etcd_pinwheel.protos.errors import Code

JOB = b"job/"
State = tuple[int, int] | None


class Observer(LeaderWatchHandle):
    """An observer of the store's election, driven by hand."""

    def __init__(self, store: Store) -> None:
        super().__init__(StoreStreams(), JOB, clock=lambda: 0.0)  # type: ignore[arg-type]
        self.store = store
        self.watches: list[StoreWatch] = []
        self.told: list[State] = []

    def _watch(self, options: Any) -> Any:
        self.watches.append(StoreWatch(self.store, options))
        return self.watches[-1]

    def take_all(self, compacted: int = 0) -> None:
        """Take what there is to be told."""
        try:
            while play(self._next(0.0), self.store, compacted):
                self.told.append(state(self.leader))
        except WaitTimedOut:
            return

    def take_one(self, compacted: int = 0) -> None:
        """Take a piece of news, if there is any."""
        try:
            if play(self._next(0.0), self.store, compacted):
                self.told.append(state(self.leader))
        except WaitTimedOut:
            return

    def lose_one(self) -> None:
        """Be interrupted by Ctrl-C just when the watch has handed out a batch."""
        recipe = self._next(0.0)
        try:
            step = next(recipe)
        except StopIteration:  # there was news in hand
            self.told.append(state(self.leader))
            return
        if isinstance(step, Next):
            step.handle.take()  # type: ignore[attr-defined]
        elif isinstance(step, Ask):
            step.flow.close()
        with pytest.raises(KeyboardInterrupt):
            recipe.throw(KeyboardInterrupt())


def state(leader: Any) -> State:
    return (leader.create_revision, leader.mod_revision) if leader else None


def leads(store: Store) -> State:
    """Who leads, said in another way than the code says it."""
    keys = sorted(store.keys.items(), key=lambda item: (item[1].create_revision, item[0]))
    return next((state(kv) for key, kv in keys if key.startswith(JOB)), None)


leases = st.integers(1, 4)
changes = st.lists(
    st.tuples(st.sampled_from(["put", "delete"]), leases), min_size=1, max_size=3, unique_by=repr
)
"""What one revision does: to several keys at times, as the end of a lease or a transaction."""


def change(store: Store, what: list[tuple[str, int]]) -> None:
    at = store.revision + 1
    touched = set()
    for verb, lease in what:
        key = key_of(JOB, lease)
        if key in touched:
            continue  # a transaction changes a key once
        touched.add(key)
        if verb == "put":
            store.put(key, b"", lease, at)
        else:
            store.delete(key, at)


@given(
    st.lists(changes, max_size=5),
    st.lists(st.one_of(changes, st.sampled_from(["take", "elsewhere"])), max_size=40),
)
def test_every_state_is_told_once_and_in_order(before: list[Any], program: list[Any]) -> None:
    store = Store()
    for step in before:
        change(store, step)
    observer = Observer(store)
    play(observer._open(), store)
    expected = [leads(store)]
    for step in program:
        if step == "take":
            observer.take_one()
        elif step == "elsewhere":
            store.put(b"jobs", b"")
        else:
            change(store, step)
            if leads(store) != expected[-1]:
                expected.append(leads(store))
    observer.take_all()
    assert observer.told == expected
    assert len(observer.watches) == 1, "what is told by the watch need not be read"


steps = st.one_of(
    changes, st.sampled_from(["take", "take", "compact", "interrupt", "compact and interrupt"])
)


@given(st.lists(steps, max_size=40))
def test_after_a_gap_it_goes_on_with_how_things_stand(program: list[Any]) -> None:
    """Compactions and interrupts leave states out; never the latest, and none is repeated."""
    store = Store()
    change(store, [("put", 1)])
    observer = Observer(store)
    play(observer._open(), store)
    happened = [leads(store)]
    compacted = 0
    for step in program:
        if step == "take":
            observer.take_one(compacted)
        elif isinstance(step, str):
            if "compact" in step:
                compacted = store.revision
            if "interrupt" in step:
                observer.lose_one()
        else:
            change(store, step)
            if leads(store) != happened[-1]:
                happened.append(leads(store))
    observer.take_all(compacted)
    assert observer.told[-1] == leads(store)
    assert all(one != other for one, other in zip(observer.told, observer.told[1:], strict=False))
    remaining = iter(happened)
    assert all(told in remaining for told in observer.told), "in the order in which it happened"
    assert sum(not watch.removed for watch in observer.watches) == 1, "no watch is left behind"


def test_an_outage_while_it_reads_anew_is_waited_out() -> None:
    store = Store()
    observer = Observer(store)
    play(observer._open(), store)
    observer.take_all()
    change(store, [("put", 1)])
    recipe = observer._next(None)
    step = next(recipe)
    assert isinstance(step, Next)
    step = recipe.throw(Compacted("...", code=Code.OUT_OF_RANGE))
    for _ in range(3):
        assert isinstance(step, Ask)  # the reading
        step = recipe.throw(NotSent("nobody there", code=Code.UNAVAILABLE))
        assert isinstance(step, Ask)  # the pause
        step = recipe.send(None)
    with pytest.raises(PermissionDenied):
        recipe.throw(PermissionDenied("...", code=Code.PERMISSION_DENIED))
    observer.take_all()
    assert observer.told == [None, leads(store)]


def test_closing_ends_it_wherever_it_is() -> None:
    store = Store()
    observer = Observer(store)
    with pytest.raises(InvalidArgument, match="open it first"):
        next(observer._next(None))
    play(observer._open(), store)
    with pytest.raises(InvalidArgument, match="opened once"):
        next(observer._open())
    observer._close()
    assert play(observer._next(None), store) is False
    assert observer.watches[0].removed
    late = Observer(store)
    opening = late._open()
    assert isinstance(next(opening), Ask)
    late._close()
    opening.close()
    assert late.watches == []


def test_old_batches_and_progress_are_no_news() -> None:
    standings = Standings()
    assert standings.read([], 5)
    assert not standings.read([], 6)
    kv = KeyValue(b"job/1", b"", 6, 6, 1, 1)
    event = WatchEvent(EventType.PUT, kv, None)
    assert not standings.take(WatchBatch(6, (event,)))
    assert not standings.take(WatchBatch(9, ()))
    assert standings.revision == 9
    assert standings.take(WatchBatch(10, (event,)))
    assert standings.leader is kv
