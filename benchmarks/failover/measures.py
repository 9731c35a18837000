"""The numbers that claims speak of, each taken from one run of one client; None: not to be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.failover.figures import (
    BEFORE,
    DOWN,
    SLOW_SECONDS,
    Span,
    answered_by,
    audit,
    audit_events,
    figures,
    longest_gap,
)
from benchmarks.failover.record import Call, Sample
from benchmarks.failover.run import Outcome

DETECTED_SECONDS: Final = 2.0
"""After so long a fault should be known, and no more calls be lost to it."""
SWITCH_SECONDS: Final = 1.0
"""Connections made within this after the pin was lost belong to the switch."""


@dataclass(frozen=True)
class Measure:
    """A number with its name and unit."""

    name: str
    unit: str
    of: Callable[[Outcome], float | None]

    def text(self, value: float) -> str:
        """Write a value as tables have it."""
        match self.unit:
            case "%":
                return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %"
            case "ms":
                return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"
            case "s":
                return f"{value:.1f} s"
            case _:
                return f"{value:.2f}" if value % 1 else f"{value:.0f}"


def span_of(outcome: Outcome) -> Span:
    return Span(outcome.struck, outcome.undone)


def calls_of(outcome: Outcome, operation: str = "") -> list[Call]:
    calls = outcome.recording.calls
    return [call for call in calls if not operation or call.operation == operation]


def _share(bad: int, calls: int) -> float | None:
    return 100 * bad / calls if calls else None


def _is_bad(call: Call) -> bool:
    return bool(call.error) or call.seconds > SLOW_SECONDS


def _failed(outcome: Outcome) -> float:
    return sum(bool(call.error) for call in calls_of(outcome))


def _failed_puts(outcome: Outcome) -> float:
    return sum(bool(call.error) for call in calls_of(outcome, "put"))


def _failed_gets(outcome: Outcome) -> float:
    return sum(bool(call.error) for call in calls_of(outcome, "get"))


def _bad_share(outcome: Outcome) -> float | None:
    calls = calls_of(outcome)
    return _share(sum(map(_is_bad, calls)), len(calls))


def _bad_share_during(outcome: Outcome) -> float | None:
    span = span_of(outcome)
    calls = [call for call in calls_of(outcome) if span.phase(call) == DOWN]
    return _share(sum(map(_is_bad, calls)), len(calls))


def _failed_share(outcome: Outcome) -> float | None:
    return _share(int(_failed(outcome)), len(calls_of(outcome)))


def _bad_after_detection(outcome: Outcome) -> float:
    known = outcome.struck + DETECTED_SECONDS
    calls = calls_of(outcome)
    return sum(_is_bad(call) for call in calls if known <= call.due < outcome.undone)


def _put_gap_ms(outcome: Outcome) -> float:
    return figures(calls_of(outcome, "put"), span_of(outcome), outcome.seconds).longest_gap_ms


def _beyond_election_ms(outcome: Outcome) -> float | None:
    """How much longer no put succeeded than there was no leader."""
    if outcome.led_after is None:
        return None
    return _put_gap_ms(outcome) - outcome.led_after * 1000


def _lost_at(outcome: Outcome) -> float:
    """When the client learned that it lost its connection to the victim; else when it struck."""
    return next(
        (
            news.at
            for news in outcome.recording.news
            if news.event == "endpoint_disconnected"
            and news.endpoint == outcome.victim
            and news.at >= outcome.struck
        ),
        outcome.struck,
    )


def _first_elsewhere_ms(outcome: Outcome) -> float | None:
    """How long the first call took that succeeded on another member after the connection ended:
    from when it was due, or from the end of the connection if it was under way."""
    lost_at = _lost_at(outcome)
    elsewhere = [
        call
        for call in calls_of(outcome)
        if not call.error and call.member != outcome.victim and call.ended > lost_at
    ]
    if not elsewhere:
        return None
    first = min(elsewhere, key=lambda call: call.ended)
    return (first.ended - max(first.due, lost_at)) * 1000


def sample_at(samples: list[Sample], at: float) -> Sample | None:
    """What was counted last before a moment."""
    return next((each for each in reversed(samples) if each.at <= at), None)


def _sockets_before(outcome: Outcome) -> float | None:
    sample = sample_at(list(outcome.recording.sockets), outcome.struck)
    return None if sample is None else sample.total


def _sockets_after(outcome: Outcome) -> float | None:
    at = min(outcome.struck + 2 * SWITCH_SECONDS, outcome.undone)
    sample = sample_at(list(outcome.recording.sockets), at)
    return None if sample is None else sample.total


def _dialled(outcome: Outcome) -> float:
    """Count the members that were connected to in the switch away from the victim."""
    lost_at = _lost_at(outcome)
    return len(
        {
            news.endpoint
            for news in outcome.recording.news
            if news.event == "endpoint_connected" and 0 <= news.at - lost_at <= SWITCH_SECONDS
        }
    )


def _unevenness(outcome: Outcome) -> float | None:
    """How many times as many calls the busiest member answered as the idlest, before the fault."""
    counts = answered_by(calls_of(outcome), span_of(outcome))[BEFORE]
    least = min((counts[member] for member in outcome.members), default=0)
    return max(counts.values()) / least if least else None


def _answered_by_victim(outcome: Outcome) -> float:
    counts = answered_by(calls_of(outcome), span_of(outcome))[DOWN]
    return counts[outcome.victim]


def _at_victim(outcome: Outcome) -> float:
    """Count the calls that the victim got: answered, failed, or sent on to another."""
    calls = sum(call.member == outcome.victim for call in calls_of(outcome))
    retried = sum(
        news.event == "call_retried" and news.endpoint == outcome.victim
        for news in outcome.recording.news
    )
    return calls + retried


def _retries(outcome: Outcome) -> float:
    return sum(news.event == "call_retried" for news in outcome.recording.news)


def _avoided_s(outcome: Outcome) -> float:
    """For how long the victim was avoided after it was back: listed as unhealthy, or out."""
    back = outcome.undone
    avoided, since = 0.0, None
    for each in outcome.recording.standings:
        if each.endpoint != outcome.victim:
            continue
        if since is not None:
            avoided += max(0.0, each.at - max(since, back))
        since = each.at if each.reason else None
    if since is not None:
        avoided += max(0.0, outcome.seconds - max(since, back))
    return avoided


def _watch_silence_s(outcome: Outcome) -> float | None:
    """The longest time without an event, from the strike on."""
    if not outcome.recording.stored:
        return None
    moments = [event.at for event in outcome.recording.watched if event.at >= outcome.struck]
    return longest_gap([outcome.struck, *moments, outcome.seconds])


def _wrong_events(outcome: Outcome) -> float | None:
    if not outcome.recording.stored:
        return None
    return audit_events(outcome.recording).wrong


def _leases_lost(outcome: Outcome) -> float | None:
    lease = outcome.recording.lease
    return None if not lease.ttl else float(lease.lost_at is not None)


def _lost_writes(outcome: Outcome) -> float:
    return audit(outcome.recording).lost


def _doubled_writes(outcome: Outcome) -> float:
    return audit(outcome.recording).twice


def _stale_reads(outcome: Outcome) -> float:
    return audit(outcome.recording).stale_reads


FAILED: Final = Measure("failed calls", "", _failed)
FAILED_PUTS: Final = Measure("failed puts", "", _failed_puts)
FAILED_GETS: Final = Measure("failed reads", "", _failed_gets)
FAILED_SHARE: Final = Measure("calls failed", "%", _failed_share)
BAD_SHARE: Final = Measure("calls failed or slow", "%", _bad_share)
BAD_SHARE_DURING: Final = Measure("calls failed or slow while it lasts", "%", _bad_share_during)
BAD_AFTER_DETECTION: Final = Measure(
    f"calls failed or slow from {DETECTED_SECONDS:g} s on", "", _bad_after_detection
)
PUT_GAP: Final = Measure("longest time without a put", "ms", _put_gap_ms)
BEYOND_ELECTION: Final = Measure(
    "longest time without a put, less the election", "ms", _beyond_election_ms
)
FIRST_ELSEWHERE: Final = Measure(
    "first success elsewhere, after the connection ended, takes", "ms", _first_elsewhere_ms
)
SOCKETS_BEFORE: Final = Measure("sockets before", "", _sockets_before)
SOCKETS_AFTER: Final = Measure("sockets after the switch", "", _sockets_after)
DIALLED: Final = Measure("members dialled in the switch", "", _dialled)
UNEVENNESS: Final = Measure("busiest member / idlest", "", _unevenness)
ANSWERED_BY_VICTIM: Final = Measure("calls that it answers meanwhile", "", _answered_by_victim)
AT_VICTIM: Final = Measure("calls that the learner gets", "", _at_victim)
RETRIES: Final = Measure("attempts repeated", "", _retries)
AVOIDED: Final = Measure("avoided after it is back", "s", _avoided_s)
WATCH_SILENCE: Final = Measure("longest time without an event", "s", _watch_silence_s)
WRONG_EVENTS: Final = Measure("events lost, twice or out of order", "", _wrong_events)
LEASES_LOST: Final = Measure("leases lost", "", _leases_lost)
LOST_WRITES: Final = Measure("acknowledged writes lost", "", _lost_writes)
DOUBLED_WRITES: Final = Measure("writes applied twice", "", _doubled_writes)
STALE_READS: Final = Measure("stale reads", "", _stale_reads)
