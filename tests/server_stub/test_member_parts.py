"""The small decisions of a member: request numbers, retention."""

from __future__ import annotations

import pytest

from etcd_pinwheel.server_stub.boot import min_lease_ttl_seconds
from etcd_pinwheel.server_stub.compactor import (
    PeriodicRetention,
    RevisionRetention,
    retention_of,
)
from etcd_pinwheel.server_stub.request_ids import RequestIds


def test_request_numbers_are_member_time_and_count() -> None:
    ids = RequestIds(0xABCD_1234, now_ms=0x11_2233_4455_66)
    assert [ids.next(), ids.next()] == [0x1234_2233_4455_6601, 0x1234_2233_4455_6602]


@pytest.mark.parametrize("member_id", [0, 0xFFFF, (1 << 64) - 1])
def test_numbers_stay_in_their_range_and_never_repeat(member_id: int) -> None:
    ids = RequestIds(member_id, now_ms=(1 << 40) - 1)
    numbers = [ids.next() for _ in range(600)]
    assert len(set(numbers)) == 600
    assert all(0 <= number < 1 << 64 for number in numbers)
    assert all(number >> 48 == member_id & 0xFFFF for number in numbers)
    assert all(0 < ids.next_lease() < 1 << 63 for _ in range(10))


def test_a_restart_a_moment_later_repeats_no_number() -> None:
    first = RequestIds(1, now_ms=1_000)
    before = {first.next() for _ in range(200)}
    second = RequestIds(1, now_ms=1_001)
    assert before.isdisjoint(second.next() for _ in range(200))


@pytest.mark.parametrize(("election_ms", "seconds"), [(1000, 2), (100, 1), (3000, 5), (2000, 3)])
def test_the_shortest_lease_outlives_an_election(election_ms: int, seconds: int) -> None:
    assert min_lease_ttl_seconds(election_ms) == seconds


def test_periodic_retention_keeps_a_period() -> None:
    """A period of 10 s, a revision a second: from then on, once a period, what was 10 s ago."""
    retention = PeriodicRetention(10.0)
    assert retention.interval_seconds == 1.0
    due = {second: retention.due(100 + second, float(second)) for second in range(35)}
    assert {at: revision for at, revision in due.items() if revision} == {
        10: 100,
        20: 110,
        30: 120,
    }


def test_a_long_period_is_sampled_by_the_hour() -> None:
    retention = PeriodicRetention(24 * 3600.0)
    assert retention.interval_seconds == 360.0
    due = {
        step: revision
        for step in range(300)
        if (revision := retention.due(100 + step, step * 360.0)) is not None
    }
    assert list(due.items())[:3] == [(240, 100), (250, 110), (260, 120)]


def test_a_store_at_rest_is_not_compacted_twice() -> None:
    retention = PeriodicRetention(10.0)
    due = [retention.due(7, float(second)) for second in range(60)]
    assert [revision for revision in due if revision] == [7]


def test_revision_retention_keeps_so_many() -> None:
    retention = RevisionRetention(100)
    revisions = [50, 100, 101, 101, 250]
    assert [retention.due(each, 0.0) for each in revisions] == [None, None, 1, None, 150]


def test_what_the_flags_ask_for() -> None:
    assert retention_of("periodic", 0.0, 0) is None
    assert retention_of("revision", 0.0, 0) is None
    assert isinstance(retention_of("periodic", 60.0, 0), PeriodicRetention)
    assert isinstance(retention_of("revision", 60.0, 9), RevisionRetention)
