"""The failover benchmark's figures, measures and audits, over made-up recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.failover import measures
from benchmarks.failover.figures import (
    AFTER,
    BEFORE,
    DOWN,
    Span,
    answered_by,
    audit,
    audit_events,
    figures,
    longest_gap,
    percentile_ms,
)
from benchmarks.failover.measures import Measure
from benchmarks.failover.record import (
    Call,
    LeaseStory,
    News,
    Recording,
    Sample,
    Standing,
    Stored,
    WatchEvent,
)
from benchmarks.failover.run import Outcome
from tests.benchmarks.failover_runs import get, outcome, put, steady

SPAN = Span(struck=5.0, undone=10.0)


def test_calls_are_summed_up_around_the_fault() -> None:
    calls = [put(0, 1.0), put(1, 4.99, 1.5), put(2, 5.0, 3.0, "TimedOut"), put(3, 10.0)]
    sums = figures(calls, SPAN)
    assert (sums.calls, sums.failed, sums.slow) == (4, 1, 1)
    assert sums.errors == {"TimedOut": 1}
    assert sums.latency[BEFORE].p50_ms == pytest.approx(2.0)
    assert sums.latency[BEFORE].p99_ms == pytest.approx(1500.0)
    assert sums.latency[BEFORE].max_ms == pytest.approx(1500.0)
    assert sums.latency[DOWN].p50_ms is None
    assert sums.latency[AFTER].p99_ms == pytest.approx(2.0)


def test_a_gap_is_between_successes_whatever_order_they_came_in() -> None:
    assert longest_gap([3.0, 1.0, 1.5]) == 1.5
    assert longest_gap([1.0]) == 0.0
    failed_between = [put(0, 1.0), put(1, 2.0, error="TimedOut"), put(2, 4.0)]
    assert figures(failed_between, SPAN).longest_gap_ms == pytest.approx(3000.0)


def test_a_gap_that_lasts_to_the_end_of_the_load_is_one() -> None:
    assert figures([put(0, 1.0)], SPAN, seconds=9.0).longest_gap_ms == pytest.approx(7998.0)
    assert figures([], SPAN, seconds=9.0).longest_gap_ms == pytest.approx(9000.0)


def test_percentiles_are_values_that_occurred() -> None:
    seconds = [number / 1000 for number in range(1, 101)]
    assert percentile_ms(seconds, 50) == 50.0
    assert percentile_ms(seconds, 99) == 99.0
    assert percentile_ms([0.001], 99) == 1.0
    assert percentile_ms([], 99) is None


def test_the_audit_finds_what_was_lost_doubled_and_missed() -> None:
    calls = [
        put(0, 0.0),
        put(1, 0.1),
        put(2, 0.2, error="ConnectionLost"),
        put(3, 0.3, error="TimedOut"),
        Call("get", 3, 0.3, 0.4, stale=True),
    ]
    found = audit(Recording(calls, stored={0: Stored(2, 10), 2: Stored(1, 11)}))
    assert found.acknowledged == 2
    assert found.lost == 1
    assert found.twice == 1
    assert found.unacknowledged_applied == 1
    assert found.stale_reads == 1


def test_events_are_held_against_the_store() -> None:
    stored = {number: Stored(1, 10 + number) for number in range(4)}
    told = [WatchEvent(1.0, 0, 10), WatchEvent(1.1, 2, 12), WatchEvent(1.2, 1, 11)]
    found = audit_events(Recording(stored=stored, watched=[*told, WatchEvent(1.3, 1, 11)]))
    assert (found.seen, found.lost, found.twice, found.reordered) == (4, 1, 1, 1)
    assert found.wrong == 3


def test_members_are_counted_by_the_calls_they_answered() -> None:
    calls = [put(0, 1.0, member="a"), put(1, 6.0, member="b"), put(2, 6.0, error="x", member="a")]
    counts = answered_by(calls, SPAN)
    assert counts[BEFORE] == {"a": 1}
    assert counts[DOWN] == {"b": 1}
    assert counts[AFTER] == {}


def test_a_recording_survives_its_file(tmp_path: Path) -> None:
    recording = Recording(
        [put(0, 0.0), put(1, 0.1, error="TimedOut")],
        12.5,
        {0: Stored(1, 7)},
        [WatchEvent(0.1, 0, 7)],
        "gone",
        LeaseStory(5, 3.0, "expired"),
        [Sample(0.0, {"m1": 1})],
        [News(0.2, "call_retried", "m1")],
        [Standing(0.3, "m1", True, False, "unhealthy")],
        0.25,
    )
    recording.save(tmp_path / "recording.json")
    assert Recording.load(tmp_path / "recording.json") == recording


def test_members_are_called_by_their_names() -> None:
    recording = Recording(
        [put(0, 0.0, member="cafe")],
        sockets=[Sample(0.0, {"127.0.0.1:1": 1})],
        news=[News(0.0, "endpoint_connected", "http://127.0.0.1:1")],
    )
    names = {"cafe": "m1", "127.0.0.1:1": "m1", "http://127.0.0.1:1": "m1"}
    renamed = recording.renamed(lambda alias: names[alias])
    assert renamed.calls[0].member == "m1"
    assert renamed.sockets[0].counts == {"m1": 1}
    assert renamed.news[0].endpoint == "m1"


STANDINGS = [
    Standing(1.0, "m1", True, True, ""),
    Standing(2.1, "m1", False, False, "unhealthy"),
    Standing(2.1, "m2", True, True, "x"),
    Standing(9.0, "m1", False, False, ""),
]
SWITCH = [
    News(-1.0, "endpoint_connected", "m3"),
    News(2.2, "endpoint_disconnected", "m1"),
    News(2.3, "endpoint_connected", "m2"),
    News(2.3, "endpoint_connected", "m3"),
    News(7.0, "endpoint_connected", "m1"),
]


@pytest.mark.parametrize(
    ("measure", "run", "value"),
    [
        (measures.FAILED, outcome([put(0, 1.0), get(0, 3.0, error="x")]), 1),
        (measures.FAILED_PUTS, outcome([put(0, 1.0), get(0, 3.0, error="x")]), 0),
        (measures.FAILED_GETS, outcome([put(0, 1.0), get(0, 3.0, error="x")]), 1),
        (measures.BAD_SHARE, outcome([put(0, 1.0, 0.3), put(1, 1.0), put(2, 3.0)]), 100 / 3),
        (measures.BAD_SHARE_DURING, outcome([put(0, 1.0, 0.3), put(1, 3.0)]), 0),
        (measures.BAD_SHARE_DURING, outcome(steady(100, 33)), 33),
        (measures.BAD_AFTER_DETECTION, outcome([put(0, 3.9, error="x")]), 0),
        (measures.BAD_AFTER_DETECTION, outcome([put(0, 4.1, error="x"), put(1, 5.0, 0.3)]), 2),
        (measures.BEYOND_ELECTION, outcome([put(0, 5.0, 0.0)], led_after=1.5), 3500),
        (measures.BEYOND_ELECTION, outcome([put(0, 5.0)]), None),
        (measures.FIRST_ELSEWHERE, outcome([put(0, 2.3, 0.1, member="m2")], news=SWITCH), 100),
        (measures.FIRST_ELSEWHERE, outcome([put(0, 2.1, 0.2, member="m2")], news=SWITCH), 100),
        (measures.FIRST_ELSEWHERE, outcome([put(0, 2.3, 0.1, member="m1")], news=SWITCH), None),
        (measures.DIALLED, outcome(news=SWITCH), 2),
        (measures.SOCKETS_BEFORE, outcome(sockets=[Sample(0, {"m1": 1}), Sample(3, {})]), 1),
        (measures.SOCKETS_AFTER, outcome(sockets=[Sample(0, {"m1": 1}), Sample(3, {})]), 0),
        (measures.SOCKETS_BEFORE, outcome(), None),
        (measures.AVOIDED, outcome(standings=STANDINGS), 1.0),
        (measures.AVOIDED, outcome(standings=STANDINGS[:2]), 2.0),
        (measures.AVOIDED, outcome(standings=STANDINGS[:1]), 0.0),
        (measures.WATCH_SILENCE, outcome(stored={0: Stored(1, 1)}), 8.0),
        (
            measures.WATCH_SILENCE,
            outcome(stored={0: Stored(1, 1)}, watched=[WatchEvent(8.5, 0, 1)]),
            6.5,
        ),
        (measures.WRONG_EVENTS, outcome(), None),
        (measures.LEASES_LOST, outcome(lease=LeaseStory(5, 7.0, "unanswered")), 1),
        (measures.LEASES_LOST, outcome(lease=LeaseStory(5)), 0),
        (measures.LEASES_LOST, outcome(lease=LeaseStory(reason="not granted")), None),
        (measures.RETRIES, outcome(news=[News(1, "call_retried", "m1")] * 3), 3),
        (
            measures.AT_VICTIM,
            outcome([put(0, 1.0, member="m1")], news=[News(1, "call_retried", "m1")]),
            2,
        ),
    ],
)
def test_what_is_measured(measure: Measure, run: Outcome, value: float | None) -> None:
    assert measure.of(run) == (None if value is None else pytest.approx(value))


def test_load_is_even_if_all_members_answer_alike() -> None:
    calls = [put(number, 0.5, member=f"m{number % 3 + 1}") for number in range(30)]
    assert measures.UNEVENNESS.of(outcome(calls)) == 1.0
    more = [put(number, 0.5, member="m2") for number in range(10)]
    assert measures.UNEVENNESS.of(outcome([*calls, *more])) == 2.0
    assert measures.UNEVENNESS.of(outcome(more)) is None


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        (measures.FAILED, 3.0, "3"),
        (measures.BAD_SHARE, 33.4, "33 %"),
        (measures.BAD_SHARE, 0.25, "0.2 %"),
        (measures.PUT_GAP, 1234.0, "1.23 s"),
        (measures.PUT_GAP, 20.0, "20 ms"),
        (measures.AVOIDED, 1.24, "1.2 s"),
    ],
)
def test_values_are_written_in_their_unit(measure: Measure, value: float, text: str) -> None:
    assert measure.text(value) == text
