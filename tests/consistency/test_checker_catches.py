"""The judge of histories: it accepts what a store can do, and finds each kind of lie."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from consistency.history import Forgotten, Operation, Seen, Violation, explain
from consistency.model import Delete, Get, Put, Read, Request, State, Stored, Txn, carry_out
from consistency.watching import check_watch

KEYS = [b"a", b"b", b"c"]


def request_of(chance: random.Random, state: State, number: int) -> Request:
    key, value = chance.choice(KEYS), b"%d" % number
    modified = state[key].modified if key in state and chance.random() < 0.7 else 0
    return chance.choice(
        [
            Put(key, value),
            Put(key, value),
            Delete(key),
            Txn(key, modified, (Put(key, value), Get(b"a")), (Get(key),)),
            Txn(key, modified, (Delete(key), Put(b"c", value))),
            Read(),
        ]
    )


def make_history(
    seed: int, count: int = 300, lost: float = 0.05
) -> tuple[list[Operation], list[Seen]]:
    """A store that works, used by several at once, some of whose answers get lost."""
    chance = random.Random(seed)
    state: State = {}
    revision, history, told = 1, [], []
    for number in range(count):
        request = request_of(chance, state, number)
        state, outcome, changes = carry_out(request, state, revision + 1)
        if changes:
            revision += 1
            told.append(Seen(revision, changes))
        called = number - chance.uniform(0, 5)
        returned = number + chance.uniform(0.1, 5)
        operation = Operation(f"c{number % 5}", request, called, returned, revision, outcome)
        if chance.random() < lost:
            operation = replace(operation, returned=inf, revision=0, outcome=None)
        history.append(operation)
        if chance.random() < lost:  # one that never arrived
            history.append(Operation("lost", request_of(chance, state, -number - 1), called))
    chance.shuffle(history)
    return history, told


@pytest.mark.parametrize("seed", range(30))
def test_what_a_store_did_is_accepted(seed: int) -> None:
    history, told = make_history(seed)
    timeline = explain(history, {}, 1, told)
    check_watch("watch", told, timeline, 2)


@pytest.mark.parametrize("seed", range(5))
def test_a_long_history_is_judged_at_once(seed: int) -> None:
    history, _ = make_history(seed, count=5000, lost=0.01)
    explain(history, {}, 1)


def stored(value: bytes, created: int, modified: int, version: int) -> Stored:
    return Stored(value, created, modified, version)


ONE = stored(b"1", 2, 2, 1)
TWO = stored(b"2", 2, 3, 2)
LIES: dict[str, list[Operation]] = {
    "a stale read": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("r", Read(), 2, 3, 1, {}),
    ],
    "a read of another time than it says": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("r", Read(), 2, 3, 2, {}),
    ],
    "a lost write": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("w", Put(b"a", b"2"), 2, 3, 3, None),
    ],
    "a write that was applied twice": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("r", Read(), 2, 3, 3, {b"a": stored(b"1", 2, 3, 2)}),
    ],
    "an unknown write that was applied twice": [
        Operation("w", Put(b"a", b"1"), 0),
        Operation("r", Read(), 2, 3, 3, {b"a": stored(b"1", 2, 3, 2)}),
    ],
    "an unknown write seen before it was made": [
        Operation("r", Read(), 0, 1, 2, {b"a": ONE}),
        Operation("w", Put(b"a", b"1"), 2),
    ],
    "two writes of one revision": [
        Operation("v", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("w", Put(b"b", b"1"), 0, 1, 2, None),
    ],
    "writes in another order than they were made in": [
        Operation("v", Put(b"a", b"2"), 0, 1, 3, ONE),
        Operation("w", Put(b"a", b"1"), 2, 3, 2, None),
    ],
    "a value nobody wrote": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("r", Read(), 2, 3, 2, {b"a": stored(b"?", 2, 2, 1)}),
    ],
    "a transaction that compared with the past": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("t", Txn(b"a", 0, (Put(b"a", b"2"),)), 2, 3, 3, (True, (None,))),
    ],
    "half a transaction": [
        Operation(
            "t", Txn(b"a", 0, (Put(b"a", b"1"), Put(b"b", b"1"))), 0, 1, 2, (True, (None,) * 2)
        ),
        Operation("r", Read(), 2, 3, 2, {b"a": ONE}),
    ],
    "a past that changed": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("w", Put(b"a", b"2"), 2, 3, 3, ONE),
        Operation("r", Read(at=2, serializable=True), 4, 5, 3, {b"a": TWO}),
    ],
    "a stale member that shows what never was": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("w", Put(b"a", b"2"), 2, 3, 3, ONE),
        Operation("r", Read(serializable=True), 4, 5, 2, {b"a": TWO}),
    ],
    "a delete of what was deleted": [
        Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
        Operation("d", Delete(b"a"), 2, 3, 3, ONE),
        Operation("e", Delete(b"a"), 4, 5, 4, ONE),
    ],
    "a time before the start": [Operation("r", Read(serializable=True), 0, 1, 0 + 1, {b"a": ONE})],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str) -> None:
    with pytest.raises(Violation):
        explain(LIES[lie], {}, 1)


def test_an_old_answer_is_no_lie_where_that_was_asked_for() -> None:
    explain(
        [
            Operation("w", Put(b"a", b"1"), 0, 1, 2, None),
            Operation("r", Read(serializable=True), 2, 3, 1, {}),
        ],
        {},
        1,
    )


WATCH_LIES: dict[str, Callable[[list[Seen]], list[Any]]] = {
    "a compaction that explains nothing": lambda told: [*told[:5], Forgotten(4), *told[5:]],
    "more left out than was compacted": lambda told: [*told[:5], Forgotten(9), *told[12:]],
    "a gap": lambda told: told[:10] + told[11:],
    "a repetition": lambda told: [*told[:10], told[9], *told[10:]],
    "two in the wrong order": lambda told: [*told[:10], told[11], told[10], *told[12:]],
    "a late start": lambda told: told[1:],
    "a change left out": lambda told: [
        Seen(each.revision, each.changes[1:]) if len(each.changes) > 1 else each for each in told
    ],
    "a change made up": lambda told: [Seen(told[0].revision, told[1].changes), *told[1:]],
    "a revision in two pieces": lambda told: [
        piece
        for each in told
        for piece in (
            [Seen(each.revision, each.changes[:1]), Seen(each.revision, each.changes[1:])]
            if len(each.changes) > 1
            else [each]
        )
    ],
}


def test_what_was_compacted_may_be_left_out_if_that_is_said() -> None:
    history, told = make_history(seed=1)
    timeline = explain(history, {}, 1, told)
    kept = next(number for number, each in enumerate(told) if each.revision == 12)
    check_watch("watch", [*told[:5], Forgotten(12), *told[kept:]], timeline, 2)


@pytest.mark.parametrize("lie", WATCH_LIES)
def test_a_lie_of_a_watch_is_found(lie: str) -> None:
    history, told = make_history(seed=1)
    timeline = explain(history, {}, 1, told)
    assert any(len(each.changes) > 1 for each in told)
    with pytest.raises(Violation):
        check_watch("watch", WATCH_LIES[lie](told), timeline, 2)
