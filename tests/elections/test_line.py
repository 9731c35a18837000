"""Candidates in line, in any order of their steps: one leads at a time, and each in its turn."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from elections.candidates import Candidate, leading, of_one_client, settle
from elections.store import Store
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import (
    ClaimLost,
    ClientClosed,
    ConnectionLost,
    InvalidArgument,
    LossReason,
    WaitTimedOut,
)
from etcd_pinwheel.client.claim import key_of
from etcd_pinwheel.client.claim_handle import options
from etcd_pinwheel.client.recipe import Ask, Next


def line_of(
    store: Store, count: int, *, own_lease: bool = True, wait: float = math.inf
) -> list[Candidate]:
    """Candidates with the leases 1, 2, ..."""
    return [Candidate(store, 1 + each, own_lease=own_lease, wait=wait) for each in range(count)]


def check(store: Store, candidates: list[Candidate]) -> None:
    led_by = [candidate.key for candidate in candidates if leading(candidate)]
    assert len(led_by) <= 1
    if led_by:
        oldest = min(store.keys.values(), key=lambda kv: kv.create_revision)
        assert led_by == [oldest.key]
    waited_for = Counter(
        watch._start
        for candidate in candidates
        for watch in candidate.watches
        if watch.opened and not watch.removed and not candidate.over
        if key_of(b"job/", candidate.lease.id) in store.keys
    )
    assert all(times == 1 for times in waited_for.values()), "one waits for one"


VERBS = (
    *("start", "advance", "advance", "advance", "notice", "lose an answer"),
    *("interrupt", "release", "expire", "expire unnoticed", "delete", "compact"),
)


@given(
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 3)), max_size=80),
)
def test_one_leads_at_a_time_and_nobody_is_forgotten(
    own_leases: bool, program: list[tuple[str, int]]
) -> None:
    store = Store()
    candidates = line_of(store, 4, own_lease=own_leases)
    for verb, number in program:
        candidate = candidates[number]
        match verb:
            case "lose an answer":
                candidate.advance(answered=False)
            case "interrupt":
                candidate.interrupt(KeyboardInterrupt())
            case "expire" | "expire unnoticed":
                store.revoke(candidate.lease.id)
                candidate.lease.keeper.loss = candidate.lease.keeper.loss or LossReason.EXPIRED
                if verb == "expire":
                    candidate.lease.lost.tell()
            case "delete":
                store.delete(key_of(b"job/", candidate.lease.id))
            case "compact":
                candidate.overtake()
            case _:
                getattr(candidate, verb)()
        check(store, candidates)
    finish(store, candidates)


def finish(store: Store, candidates: list[Candidate]) -> None:
    """Let each lead that can, and see it out; in the end nothing is left."""
    order = []
    while True:
        settle(candidates)
        check(store, candidates)
        led_by = [candidate for candidate in candidates if leading(candidate)]
        if not led_by:
            break
        order.append(led_by[0].fence)
        led_by[0].release()
    assert order == sorted(order), "first come, first served"
    for candidate in candidates:
        candidate.release()
    settle(candidates)
    for candidate in candidates:
        assert not candidate.busy, f"{candidate} waits for ever"
        assert all(watch.removed for watch in candidate.watches)
        assert not candidate.streams.pump.wakers or not candidate.over
        if candidate._begun and not candidate._asked.own_lease:
            assert key_of(b"job/", candidate.lease.id) not in store.keys
    own = {key_of(b"job/", each.lease.id) for each in candidates if each.lease.keeper.loss}
    assert not own & set(store.keys), "what a lease has ended is gone"


def test_a_candidate_waits_for_the_one_just_ahead_and_no_other() -> None:
    store = Store()
    candidates = line_of(store, 5)
    for candidate in candidates:
        candidate.start()
        settle(candidates)
    assert [leading(candidate) for candidate in candidates] == [True] + [False] * 4
    waited_for = [candidate.watches[-1]._start for candidate in candidates[1:]]
    assert waited_for == [candidate._own.key for candidate in candidates[:-1] if candidate._own]
    candidates[2].interrupt(KeyboardInterrupt())
    settle(candidates)
    assert isinstance(candidates[2].ended_by, KeyboardInterrupt)
    assert candidates[3].watches[-1]._start == key_of(b"job/", 2), "the gap is closed"
    assert [len(candidate.watches) for candidate in candidates] == [0, 1, 1, 2, 1]


@pytest.mark.parametrize("own_lease", [True, False])
@pytest.mark.parametrize("steps", range(12))
def test_an_interrupt_anywhere_leaves_no_candidate(steps: int, own_lease: bool) -> None:
    store = Store()
    store.put(b"job/ahead", b"")
    (candidate,) = line_of(store, 1, own_lease=own_lease)
    candidate.start()
    for _ in range(steps):
        candidate.advance()
    candidate.interrupt(KeyboardInterrupt())
    settle([candidate])
    assert isinstance(candidate.ended_by, KeyboardInterrupt)
    assert list(store.keys) == [b"job/ahead"]
    assert candidate.streams.pump.wakers == {}
    assert (candidate.lease.keeper.loss is None) is not own_lease


@pytest.mark.parametrize("own_lease", [True, False])
def test_an_answer_that_is_lost_is_asked_for_again(own_lease: bool) -> None:
    store = Store()
    (candidate,) = line_of(store, 1, own_lease=own_lease)
    candidate.start()
    if own_lease:
        candidate.advance()  # the lease
    candidate.advance(answered=False)
    assert store.keys, "it was carried out"
    settle([candidate])
    assert leading(candidate)
    candidate.release()
    candidate.advance(answered=False)
    settle([candidate])
    assert candidate._withdrawn
    assert (store.keys, store.revision) == ({}, 3)


@pytest.mark.parametrize("own_lease", [True, False])
def test_an_entry_whose_answer_is_not_to_be_had_is_withdrawn(own_lease: bool) -> None:
    store = Store()
    (candidate,) = line_of(store, 1, own_lease=own_lease)
    candidate.start()
    if own_lease:
        candidate.advance()  # the lease
    while not candidate.over:
        candidate.advance(answered=candidate.giving_up)
    assert isinstance(candidate.ended_by, ConnectionLost)
    assert store.keys == {}


def test_an_outage_does_not_cost_the_place_in_line() -> None:
    store = Store()
    store.put(b"job/ahead", b"")
    (candidate,) = line_of(store, 1)
    candidate.start()
    while not candidate.watches:
        candidate.advance()
    for _ in range(5):
        candidate.interrupt(ConnectionLost("...", code=3))  # type: ignore[arg-type]
        assert candidate.ended_by is None
        candidate.advance()
        candidate.advance()
    store.delete(b"job/ahead")
    settle([candidate])
    assert leading(candidate)


@pytest.mark.parametrize("how", ["lease", "key"])
def test_a_candidate_whose_claim_is_lost_does_not_wait_on(how: str) -> None:
    """clientv3's waits for ever (etcd issue 19597)."""
    store = Store()
    store.put(b"job/ahead", b"")
    (candidate,) = line_of(store, 1)
    candidate.start()
    settle([candidate])
    assert candidate.busy
    if how == "lease":
        candidate.lease.expire()
    else:
        store.delete(key_of(b"job/", 1))
        candidate.notice()
    settle([candidate])
    assert isinstance(candidate.ended_by, ClaimLost)
    assert candidate.ended_by.reason == ("expired" if how == "lease" else "deleted")


def test_time_is_up() -> None:
    store = Store()
    store.put(b"job/ahead", b"")
    (candidate,) = line_of(store, 1, wait=3.0)
    candidate.start()
    settle([candidate])
    assert isinstance(candidate._step, Next)
    assert candidate._step.seconds == 3.0
    candidate._clock = lambda: 3.0
    candidate.interrupt(WaitTimedOut("..."))
    settle([candidate])
    assert isinstance(candidate.ended_by, WaitTimedOut)
    assert "given up" in str(candidate.ended_by)
    assert list(store.keys) == [b"job/ahead"]


def test_a_lease_has_one_place_in_a_line() -> None:
    store = Store()
    one, other, third = of_one_client(store, 3)
    one.start()
    other.start()
    assert isinstance(other.ended_by, InvalidArgument), "while the first one is being entered"
    settle([one])
    third.start()
    assert isinstance(third.ended_by, InvalidArgument), "while it holds"
    assert leading(one), "it was not withdrawn with the others"


@pytest.mark.parametrize("how", ["release", "interrupt", "delete"])
def test_a_claim_that_is_over_leaves_its_place(how: str) -> None:
    store = Store()
    one, other = of_one_client(store, 2)
    one.start()
    if how == "interrupt":
        one.interrupt(KeyboardInterrupt())
    settle([one])
    if how == "release":
        one.release()
        settle([one])
    elif how == "delete":
        store.delete(one.key)
        one.notice()
    other.start()
    settle([other])
    assert leading(other)
    one.release()  # too late to delete what is the other's by now
    settle([one, other])
    assert leading(other)


def test_a_claim_keeps_its_place_until_its_key_is_deleted_for_sure() -> None:
    store = Store()
    one, other = of_one_client(store, 2)
    one.start()
    settle([one])
    one.release()
    other.start()
    assert isinstance(other.ended_by, InvalidArgument), "or it would hold what is being deleted"


def test_a_leader_is_told_of_its_end_once() -> None:
    store = Store()
    (candidate,) = line_of(store, 1)
    candidate.start()
    settle([candidate])
    told: list[LossReason] = []
    candidate.lost.add_callback(told.append)
    candidate.overtake()
    assert not candidate.lost.is_set(), "the key was there when it was read"
    candidate.notice()
    store.delete(candidate.key)
    candidate.notice()
    candidate.lease.expire()
    assert told == [LossReason.DELETED]
    with pytest.raises(ClaimLost, match="deleted"):
        candidate.lost.check()
    recipe = candidate._rename("v", None)
    with pytest.raises(ClaimLost):
        next(recipe)


def test_a_key_that_is_gone_when_it_is_read_anew() -> None:
    store = Store()
    (candidate,) = line_of(store, 1)
    candidate.start()
    settle([candidate])
    store.delete(candidate.key)
    candidate.overtake()
    assert candidate.lost.reason is LossReason.DELETED


def test_a_leader_whose_client_closes_is_told_at_once() -> None:
    """Its watch ends before anything else does: the key is not read once more."""
    store = Store()
    (candidate,) = line_of(store, 1)
    candidate.start()
    settle([candidate])
    candidate.end_watch(ClientClosed("the client is closed"))
    assert candidate.lost.reason is LossReason.CLOSED


def test_who_resigns_is_not_called_back() -> None:
    store = Store()
    (candidate,) = line_of(store, 1)
    candidate.start()
    settle([candidate])
    told: list[LossReason] = []
    candidate.lost.add_callback(told.append)
    candidate.release()
    settle([candidate])
    assert candidate.lost.reason is LossReason.RESIGNED
    assert told == []
    assert store.keys == {}


def test_a_proclamation_finds_that_it_leads_no_more() -> None:
    store = Store()
    (candidate,) = line_of(store, 1)
    candidate.start()
    settle([candidate])
    store.delete(candidate.key)
    candidate._take_up(candidate._rename("w", None))
    settle([candidate])
    assert isinstance(candidate.ended_by, ClaimLost)
    assert store.keys == {}


@pytest.mark.parametrize(
    ("ttl", "lease", "timeout", "text"),
    [
        (None, None, None, "give either ttl"),
        (5, object(), None, "give either ttl"),
        (None, 4711, None, "kept alive is needed"),
        (5, None, -1.0, "timeout"),
    ],
)
def test_what_cannot_be_asked_for(ttl: Any, lease: Any, timeout: Any, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        options("job", "v", ttl, lease, timeout)


def test_only_a_claim_that_is_held_has_a_fence() -> None:
    (candidate,) = line_of(Store(), 1)
    for ask in (lambda: candidate.fence, lambda: candidate.lost, lambda: candidate.condition):
        with pytest.raises(InvalidArgument, match="open it first"):
            ask()
    candidate.start()
    assert not isinstance(candidate._step, Ask)
