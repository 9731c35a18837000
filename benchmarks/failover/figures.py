"""What a recording says: failures, gaps, latencies around a fault; audits of writes and events."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.failover.record import Call, Recording, WatchEvent

SLOW_SECONDS = 0.25
BEFORE, DOWN, AFTER = "before", "during", "after"
PHASES = (BEFORE, DOWN, AFTER)


@dataclass(frozen=True, slots=True)
class Span:
    """When a fault struck and when it was undone, in seconds since the load began."""

    struck: float
    undone: float

    def phase(self, call: Call) -> str:
        """Say in which phase a call began."""
        if call.due < self.struck:
            return BEFORE
        return DOWN if call.due < self.undone else AFTER


@dataclass(frozen=True, slots=True)
class Latency:
    """Of calls that succeeded, in milliseconds; None where there were none."""

    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """The calls of one kind in one run."""

    calls: int
    failed: int
    slow: int
    """Succeeded, but only after more than 250 ms."""
    longest_gap_ms: float
    """The longest time in which no call succeeded, the beginning and the end included."""
    latency: Mapping[str, Latency]
    """By phase."""
    errors: Mapping[str, int]
    """Failed calls by kind of error."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What became of the writes."""

    acknowledged: int
    lost: int
    """Acknowledged, but not in the store."""
    twice: int
    """Applied more than once."""
    unacknowledged_applied: int
    """Failed for the caller, and yet carried out: allowed, for nobody said they were not."""
    stale_reads: int
    """Reads that missed a write acknowledged before they began."""


@dataclass(frozen=True, slots=True)
class EventAudit:
    """What became of the events of a watch."""

    seen: int
    lost: int
    """In the store, but never told."""
    twice: int
    reordered: int
    """Told after an event of a later revision."""

    @property
    def wrong(self) -> int:
        return self.lost + self.twice + self.reordered


def figures(calls: Sequence[Call], span: Span, seconds: float = 0.0) -> Figures:
    """Sum up calls. ``seconds``: how long there was load; a gap at the end counts up to there."""
    done = [call for call in calls if not call.error]
    ended = [call.ended for call in done]
    bounds = [0.0, seconds] if seconds else []
    return Figures(
        calls=len(calls),
        failed=len(calls) - len(done),
        slow=sum(call.seconds > SLOW_SECONDS for call in done),
        longest_gap_ms=longest_gap([*ended, *bounds]) * 1000,
        latency={
            phase: latency([call.seconds for call in done if span.phase(call) == phase])
            for phase in PHASES
        },
        errors=dict(Counter(call.error for call in calls if call.error).most_common()),
    )


def longest_gap(moments: Iterable[float]) -> float:
    """Return the longest time between two neighbours; 0 when there are fewer than two."""
    return max((later - earlier for earlier, later in pairwise(sorted(moments))), default=0.0)


def latency(seconds: Sequence[float]) -> Latency:
    most = max(seconds) * 1000 if seconds else None
    return Latency(percentile_ms(seconds, 50), percentile_ms(seconds, 99), most)


def percentile_ms(seconds: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that so many percent do not exceed (nearest rank)."""
    if not seconds:
        return None
    rank = math.ceil(percent / 100 * len(seconds))
    return sorted(seconds)[max(rank, 1) - 1] * 1000


def audit(recording: Recording) -> Audit:
    """Hold what callers were told against what is in the store."""
    puts = [call for call in recording.calls if call.operation == "put"]
    acknowledged = {call.number for call in puts if not call.error}
    stored = recording.stored
    return Audit(
        acknowledged=len(acknowledged),
        lost=len(acknowledged - stored.keys()),
        twice=sum(each.version > 1 for each in stored.values()) if puts else 0,
        unacknowledged_applied=len(stored.keys() - acknowledged) if puts else 0,
        stale_reads=sum(call.stale for call in recording.calls),
    )


def audit_events(recording: Recording) -> EventAudit:
    """Hold what a watch was told against what is in the store."""
    events: Sequence[WatchEvent] = recording.watched
    told = Counter((event.number, event.revision) for event in events)
    numbers = {event.number for event in events}
    return EventAudit(
        seen=len(events),
        lost=len(recording.stored.keys() - numbers),
        twice=sum(count - 1 for count in told.values()),
        reordered=sum(later.revision < earlier.revision for earlier, later in pairwise(events)),
    )


def answered_by(calls: Iterable[Call], span: Span) -> dict[str, Counter[str]]:
    """Count the calls that each member answered, by phase."""
    counts: dict[str, Counter[str]] = {phase: Counter() for phase in PHASES}
    for call in calls:
        if not call.error:
            counts[span.phase(call)][call.member] += 1
    return counts
