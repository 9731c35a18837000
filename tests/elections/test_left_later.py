"""Claims on a lease that lives on, which could not be given up when they were to be."""

from __future__ import annotations

import pytest
from elections.candidates import Candidate, leading, of_one_client, settle
from elections.store import Store

from etcd_pinwheel import (
    ClientClosed,
    ConnectionLost,
    EtcdError,
    InvalidArgument,
    NotSent,
    PermissionDenied,
    WaitTimedOut,
)
from etcd_pinwheel.client.claim import key_of
from etcd_pinwheel.client.flow import Sleep
from etcd_pinwheel.protos.errors import Code

KEY = key_of(b"job/", 1)
AHEAD = b"job/ahead"
OUTAGE = NotSent("...", code=Code.UNAVAILABLE)
LOST = ConnectionLost("...", code=Code.UNAVAILABLE)
DENIED = PermissionDenied("...", code=Code.PERMISSION_DENIED)


def in_line(store: Store) -> tuple[Candidate, Candidate]:
    """Two claims on one lease; the first is in line, behind somebody else."""
    store.put(AHEAD, b"")
    one, other = of_one_client(store, 2, wait=3.0)
    one.streams.waits = True
    one.start()
    settle([one])
    assert KEY in store.keys
    return one, other


def fail(candidate: Candidate, error: EtcdError = OUTAGE) -> None:
    """Let its request fail, so that the recipe learns of it."""
    candidate.interrupt(error)


def out_of_time(candidate: Candidate) -> None:
    """Let its time in line pass during an outage."""
    candidate._clock = lambda: candidate._asked.wait_seconds
    candidate.interrupt(WaitTimedOut("..."))
    fail(candidate)
    assert isinstance(candidate.ended_by, WaitTimedOut)


def test_a_candidate_that_cannot_be_withdrawn_is_withdrawn_later() -> None:
    store = Store()
    one, _ = in_line(store)
    out_of_time(one)
    assert KEY in store.keys
    assert one.streams.work(OUTAGE, LOST, OUTAGE) == 4
    assert list(store.keys) == [AHEAD]
    assert one._withdrawn
    assert one.streams.claims == {}


@pytest.mark.parametrize("lost_answer", [True, False])
def test_a_candidate_of_which_nothing_is_known_is_withdrawn_later(lost_answer: bool) -> None:
    store = Store()
    (one,) = of_one_client(store, 1)
    one.streams.waits = True
    one.start()
    if lost_answer:
        one.advance(answered=False)
    one.interrupt(KeyboardInterrupt())
    one.interrupt(KeyboardInterrupt())  # and again, while it withdraws
    assert isinstance(one.ended_by, KeyboardInterrupt)
    assert (KEY in store.keys) is lost_answer
    one.streams.work()
    assert store.keys == {}
    assert one.streams.claims == {}


def test_a_recipe_that_is_dropped_midway_is_withdrawn_later() -> None:
    """Ctrl-C may come between two steps, where no recipe learns of it."""
    store = Store()
    one, _ = in_line(store)
    one._recipe.close()
    one._abandon()
    one.streams.work()
    assert list(store.keys) == [AHEAD]


def test_a_hold_that_cannot_be_released_is_released_later() -> None:
    store = Store()
    one, _ = in_line(store)
    store.delete(AHEAD)
    settle([one])
    assert leading(one)
    one.release()
    fail(one)
    assert one.ended_by is OUTAGE, "on leaving the block it is told"
    assert not one._withdrawn
    one.streams.work()
    assert store.keys == {}
    assert one._withdrawn


def test_who_releases_again_need_not_wait_for_the_background() -> None:
    store = Store()
    one, _ = in_line(store)
    store.delete(AHEAD)
    settle([one])
    one.release()
    fail(one)
    one.release()
    settle([one])
    assert store.keys == {}
    assert one.streams.work() == 0, "it is done already"


def test_the_next_claim_on_the_lease_leaves_for_the_one_before() -> None:
    store = Store()
    one, other = in_line(store)
    out_of_time(one)
    store.put(b"job/behind", b"")
    other.start()
    settle([other])
    assert store.keys[KEY].create_revision > store.keys[b"job/behind"].create_revision
    assert one.streams.work() == 0
    assert other.busy, "in line, behind those who came meanwhile"
    assert one.streams.claims == {KEY: other}
    store.delete(AHEAD)
    store.delete(b"job/behind")
    settle([other])
    assert leading(other)


@pytest.mark.parametrize("under_way", [True, False])
def test_the_next_claim_waits_for_one_of_which_nothing_is_known(under_way: bool) -> None:
    """What leaves for it knows its lease alone, and would take the next one's key for its own."""
    store = Store()
    one, other = of_one_client(store, 2)
    one.streams.waits = True
    one.start()
    one.interrupt(LOST)
    while one.busy:
        fail(one)
    [(leaving, then)] = one.streams.background
    request = next(leaving)
    if not under_way:  # it failed, and is sent again after a pause
        assert isinstance(leaving.throw(OUTAGE), Sleep)
    other.start()
    for _ in range(5):
        other.advance()
    assert not leading(other)
    if not under_way:
        request = next(leaving)
    with pytest.raises(StopIteration) as left:
        leaving.send(store.answer(request))
    then(left.value.value)
    settle([other])
    assert leading(other)
    assert KEY in store.keys


@pytest.mark.parametrize("error", [OUTAGE, DENIED])
def test_who_was_never_in_line_has_nothing_to_leave(error: EtcdError) -> None:
    store = Store()
    (one,) = of_one_client(store, 1)
    one.streams.waits = True
    one.start()
    fail(one, error)
    while one.busy:
        fail(one)
    assert one.ended_by is error
    assert one.streams.background == []
    assert one.streams.claims == {}


def test_the_next_claim_fails_as_long_as_the_one_before_cannot_be_left() -> None:
    store = Store()
    one, other = in_line(store)
    out_of_time(one)
    other.start()
    while other.busy:
        fail(other, DENIED)
    assert other.ended_by is DENIED
    assert one.streams.claims == {KEY: one}
    one.streams.work()
    assert list(store.keys) == [AHEAD]
    assert one.streams.claims == {}


def test_while_it_is_held_no_claim_leaves_for_another() -> None:
    store = Store()
    one, other = in_line(store)
    other.start()
    assert isinstance(other.ended_by, InvalidArgument)
    assert one.busy
    assert KEY in store.keys


def test_what_etcd_refuses_is_not_asked_for_again() -> None:
    store = Store()
    one, _ = in_line(store)
    out_of_time(one)
    assert one.streams.work(LOST, DENIED) == 2
    assert KEY in store.keys
    assert not one._withdrawn
    assert one.streams.claims == {}, "the next claim finds the place in line"


@pytest.mark.parametrize("closed", [ClientClosed("..."), RuntimeError("no running event loop")])
def test_nothing_is_left_later_where_nothing_runs(closed: Exception) -> None:
    store = Store()
    one, _ = in_line(store)
    one.streams.closed = closed
    out_of_time(one)
    assert one.streams.background == []
    assert one.streams.claims == {}


def test_a_lease_of_its_own_is_left_to_expire() -> None:
    store = Store()
    store.put(AHEAD, b"")
    one = Candidate(store, 1, own_lease=True, wait=3.0)
    one.streams.waits = True
    one.start()
    settle([one])
    out_of_time(one)
    assert one.streams.background == []
    assert one.streams.claims == {}
