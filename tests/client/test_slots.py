"""Who has which marker key, and since when: as data, with a clock that is a number."""

from __future__ import annotations

import math
from random import Random

import pytest

from etcd_pinwheel.client.slots import Slot, Slots


def made(slots: Slots, now: float = 0.0, seconds: float = 5.0, revision: int = 7) -> Slot:
    """Take a slot as a call does that makes it."""
    slot = slots.take(now, seconds)
    slot.session.is_granted = True
    slot.mod_revision = slot.mod_revision or revision
    return slot


def test_every_slot_is_somebody_elses_until_it_is_given_back() -> None:
    slots = Slots(b"once/", Random(1))
    first, second = made(slots), made(slots)
    assert first.key != second.key
    assert first.key.startswith(b"once/")
    slots.give_back(first)
    assert slots.take(0.0, 5.0) is first
    assert slots.take(0.0, 5.0) not in (first, second)


def test_all_slots_of_a_time_share_a_lease() -> None:
    slots = Slots(b"once/", Random(1))
    assert slots.take(0.0, 5.0).session is slots.take(1.0, 5.0).session


def test_one_that_could_not_be_made_is_not_handed_out_again() -> None:
    slots = Slots(b"once/", Random(1))
    slot = slots.take(0.0, 5.0)
    slots.give_back(slot)
    assert slots.take(0.0, 5.0) is not slot


def test_past_half_of_its_time_a_lease_is_followed_by_another() -> None:
    slots = Slots(b"once/", Random(1))
    old, kept = made(slots, now=100.0), made(slots, now=100.0)
    half = old.session.ttl_seconds / 2
    slots.give_back(old)
    assert slots.take(100.0 + half, 5.0) is old
    slots.give_back(old)
    new = made(slots, now=100.1 + half)
    assert new.session is not old.session
    assert new.session.lease_id != old.session.lease_id
    slots.give_back(kept)  # of the lease before: left to expire with it
    assert slots.take(100.1 + half, 5.0) not in (old, kept)


@pytest.mark.parametrize(
    ("timeout", "ttl"), [(1.0, 60), (16.1, 65), (100.0, 400), (1e6, 3600), (math.inf, 3600)]
)
def test_a_lease_outlives_the_calls_of_a_client(timeout: float, ttl: int) -> None:
    slots = Slots(b"once/", Random(1), timeout_seconds=timeout)
    assert slots.take(0.0, timeout).session.ttl_seconds == ttl


def test_a_longer_call_than_others_gets_a_longer_lease() -> None:
    slots = Slots(b"once/", Random(1))
    usual = made(slots)
    long = made(slots, seconds=1000.0)
    assert long.session.ttl_seconds >= 2000
    assert long.session is not usual.session
    assert slots.take(0.0, 5.0).session is long.session


def test_a_call_without_end_takes_what_there_is() -> None:
    slots = Slots(b"once/", Random(1))
    assert made(slots).session is slots.take(0.0, math.inf).session


def test_slots_of_a_lease_that_is_gone_are_not_used_any_more() -> None:
    slots = Slots(b"once/", Random(1))
    first, other = made(slots), made(slots)
    slots.give_back(first)
    slots.end(first.session)
    new = made(slots)
    assert new.session is not first.session
    slots.give_back(other)
    slots.end(first.session)  # told once more, by a call that was late
    assert slots.take(0.0, 5.0).session is new.session


def test_ids_differ_between_clients_and_operations() -> None:
    """By default from the system: a fork must not make two clients alike."""
    ids = {Slots().operation_id() for _ in range(10)}
    assert len(ids) == 10
    assert len({made(Slots()).key for _ in range(10)}) == 10
    assert len({made(Slots()).session.lease_id for _ in range(10)}) == 10
