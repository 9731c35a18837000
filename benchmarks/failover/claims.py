"""The claims of etcd's client design notes, and of our own policy, as data: where to look, what to
expect of whom, and what was seen."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from benchmarks.failover import faults, measures
from benchmarks.failover.faults import Fault
from benchmarks.failover.measures import Measure
from benchmarks.failover.run import Results
from benchmarks.failover.settings import (
    ALL,
    EXACTLY_ONCE,
    HEALTH_AWARE,
    PING_SECONDS,
    PING_TIMEOUT_SECONDS,
    PINNED_MULTI,
    PINNED_SINGLE,
    ROUND_ROBIN,
    Setting,
)

PINGED_SECONDS: Final = 2 * PING_SECONDS + PING_TIMEOUT_SECONDS
"""How long it takes at most until a ping finds a dead connection: grpc sends one when nothing has
come for the time between pings, and looks once in that time."""
ELECTION_SLACK_MS: Final = 1000.0
"""How much longer than the cluster had no leader a client may go without a put: until the next
attempt, whose pause may have been cut."""


class Verdict(Enum):
    """How an expectation and what was seen compare."""

    SEEN = "as expected"
    NOT_SEEN = "not as expected"
    NOT_MEASURED = "not measured"
    NO_CLAIM = ""


@dataclass(frozen=True)
class Expectation:
    """What a measure should be."""

    words: str
    holds: Callable[[float], bool]
    every_time: bool = False
    """Whether it has to hold in every repeat, and not only for the median."""


def exactly(value: float) -> Expectation:
    return Expectation(f"{value:g}", lambda seen: seen == value)


def at_most(value: float, words: str) -> Expectation:
    return Expectation(words, lambda seen: seen <= value)


def at_least(value: float, words: str) -> Expectation:
    return Expectation(words, lambda seen: seen >= value)


def between(least: float, most: float, words: str) -> Expectation:
    return Expectation(words, lambda seen: least <= seen <= most)


NEVER: Final = Expectation("0", lambda seen: seen == 0, every_time=True)


@dataclass(frozen=True, eq=False)
class Row:
    """One measure of one claim, for every policy."""

    faults: tuple[Fault, ...]
    """Where to look; the values of several are added up."""
    measure: Measure
    expected: Mapping[Setting, Expectation]
    """Of whom what is claimed; the others are shown for comparison."""
    scenario: str = ""
    """Instead of the fault's own title."""

    @property
    def where(self) -> str:
        return self.scenario or self.faults[0].title


@dataclass(frozen=True, eq=False)
class Claim:
    """A sentence of the design notes, and the rows that test it."""

    number: int
    text: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Finding:
    """What was seen of one policy in one row."""

    claim: Claim
    row: Row
    setting: Setting
    values: Sequence[float] = field(default_factory=tuple)
    """One per repeat."""

    @property
    def expectation(self) -> Expectation | None:
        return self.row.expected.get(self.setting)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def seen(self) -> str:
        """The median, and the spread where there is one."""
        if self.median is None:
            return "-"
        text = self.row.measure.text
        least, most = text(min(self.values)), text(max(self.values))
        return text(self.median) + (f" ({least} - {most})" if least != most else "")

    @property
    def verdict(self) -> Verdict:
        expected = self.expectation
        if expected is None:
            return Verdict.NO_CLAIM
        if self.median is None:
            return Verdict.NOT_MEASURED
        judged = self.values if expected.every_time else [self.median]
        return Verdict.SEEN if all(map(expected.holds, judged)) else Verdict.NOT_SEEN


def findings(
    results: Results, settings: Sequence[Setting] = ALL, played: Sequence[Fault] = faults.FAULTS
) -> list[Finding]:
    """Judge every claim that the faults played say something about."""
    names = {fault.name for fault in played}
    return [
        Finding(claim, row, setting, values_of(results, row, setting))
        for claim in CLAIMS
        for row in claim.rows
        if names & {fault.name for fault in row.faults}
        for setting in settings
    ]


def values_of(results: Results, row: Row, setting: Setting) -> list[float]:
    """Take the measure of every repeat, added up over the row's faults."""
    values: dict[int, float] = {}
    for fault in row.faults:
        for outcome in results.of(fault.name, setting.name):
            value = row.measure.of(outcome)
            if value is not None:
                values[outcome.repeat] = values.get(outcome.repeat, 0.0) + value
    return [values[repeat] for repeat in sorted(values)]


OURS: Final = (HEALTH_AWARE, EXACTLY_ONCE)
WITH_CALLS: Final = tuple(
    fault for fault in faults.FAULTS if fault.calls and fault is not faults.LEARNER_LISTED
)
WITH_STREAMS: Final = tuple(fault for fault in faults.FAULTS if fault.streams)
ONE_PER_CENT: Final = at_most(1.0, "<= 1 %")
A_THIRD: Final = between(25.0, 45.0, "about a third")
NEARLY_ALL: Final = at_least(90.0, "nearly all, until healed")


def _each(settings: Sequence[Setting], expected: Expectation) -> dict[Setting, Expectation]:
    return dict.fromkeys(settings, expected)


def _stuck(fault: Fault) -> Row:
    return Row((fault,), measures.BAD_SHARE_DURING, {PINNED_MULTI: NEARLY_ALL})


def _pinged(fault: Fault) -> Row:
    words = f"< {PINGED_SECONDS:g} s, as long as it lasts"
    return Row((fault,), measures.WATCH_SILENCE, {PINNED_SINGLE: at_most(11.0, words)})


CLAIMS: Final = (
    Claim(
        1,
        "1.0 keeps a TCP connection to each endpoint: faster failover, more resources",
        (
            Row(
                (faults.KILL_FOLLOWER,),
                measures.SOCKETS_BEFORE,
                _each([PINNED_MULTI, ROUND_ROBIN, HEALTH_AWARE], exactly(3)),
                "the pin is killed under load",
            ),
            Row(
                (faults.KILL_FOLLOWER,),
                measures.FIRST_ELSEWHERE,
                {PINNED_MULTI: at_most(10.0, "<= 10 ms")},
                "the pin is killed under load",
            ),
        ),
    ),
    Claim(
        2,
        "1.0 does not know health or membership, and can get stuck on a partitioned node",
        (_stuck(faults.PARTITION), _stuck(faults.BLACK_HOLE), _stuck(faults.HANG)),
    ),
    Claim(
        3,
        "1.7 pins the first that answers and closes the others: least resources",
        (
            Row(
                (faults.KILL_FOLLOWER,),
                measures.SOCKETS_BEFORE,
                {PINNED_SINGLE: exactly(1)},
                "the pin is killed under load",
            ),
            Row(
                (faults.KILL_FOLLOWER,),
                measures.DIALLED,
                {PINNED_SINGLE: between(1, 2, "all that live: 2, or 1 where that is first")},
                "the pin is killed under load",
            ),
            Row(
                (faults.KILL_FOLLOWER,),
                measures.SOCKETS_AFTER,
                {PINNED_SINGLE: exactly(1)},
                "the pin is killed under load",
            ),
        ),
    ),
    Claim(
        4,
        "1.7's pings find a dead pin for streams, too",
        (_pinged(faults.IDLE_HANG), _pinged(faults.IDLE_BLACK_HOLE)),
    ),
    Claim(
        5,
        "1.7's ping cannot detect a partition",
        (
            Row(
                (faults.IDLE_PARTITION,),
                measures.WATCH_SILENCE,
                {PINNED_SINGLE: at_least(7.5, "as long as the fault: events come when it heals")},
            ),
        ),
    ),
    Claim(
        6,
        "1.7's unhealthy list has false positives",
        (
            Row(
                (faults.RESTART,),
                measures.AVOIDED,
                {
                    PINNED_SINGLE: between(1.0, 6.0, "for 3 to 6 s from when it fell"),
                    HEALTH_AWARE: at_most(1.5, "until a probe says so: <= 1.5 s"),
                },
                "the pin is killed and started again at once",
            ),
        ),
    ),
    Claim(
        7,
        "1.23 spreads load evenly and needs no status tracking",
        (
            Row(
                (faults.KILL_FOLLOWER,),
                measures.UNEVENNESS,
                {ROUND_ROBIN: at_most(1.1, "<= 1.1")},
                "steady load",
            ),
            Row((faults.KILL_FOLLOWER,), measures.FAILED_GETS, {ROUND_ROBIN: NEVER}),
        ),
    ),
    Claim(
        8,
        "1.23 still sends 1/n of the calls to a partitioned or hung node",
        (
            Row((faults.PARTITION,), measures.BAD_SHARE_DURING, {ROUND_ROBIN: A_THIRD}),
            Row((faults.HANG,), measures.BAD_SHARE_DURING, {ROUND_ROBIN: A_THIRD}),
            Row((faults.BLACK_HOLE,), measures.BAD_SHARE_DURING, {ROUND_ROBIN: A_THIRD}),
        ),
    ),
    Claim(
        9,
        "retry is in the chain: reads are repeated, writes are not (at most once)",
        (
            Row(WITH_CALLS, measures.LOST_WRITES, _each(ALL, NEVER), "all faults"),
            Row(WITH_CALLS, measures.DOUBLED_WRITES, _each(ALL, NEVER), "all faults"),
            Row(
                (faults.KILL_LEADER,),
                measures.FAILED_GETS,
                _each([ROUND_ROBIN, *OURS], NEVER),
            ),
        ),
    ),
    Claim(
        10,
        "health checking fixes the partition case",
        (
            Row((faults.PARTITION,), measures.BAD_SHARE, _each(OURS, ONE_PER_CENT)),
            Row((faults.HANG,), measures.BAD_SHARE, _each(OURS, ONE_PER_CENT)),
            Row((faults.BLACK_HOLE,), measures.BAD_SHARE, _each(OURS, ONE_PER_CENT)),
            Row((faults.KILL_FOLLOWER,), measures.FAILED_PUTS, _each(OURS, NEVER)),
            Row(
                (faults.PARTITION, faults.HANG, faults.BLACK_HOLE),
                measures.BAD_AFTER_DETECTION,
                _each(OURS, NEVER),
                "the three of them together",
            ),
        ),
    ),
    Claim(
        11,
        "failing over is transparent to watches and leases",
        (
            Row(WITH_STREAMS, measures.WRONG_EVENTS, _each(ALL, NEVER), "all faults"),
            Row(WITH_STREAMS, measures.LEASES_LOST, _each(ALL, NEVER), "all faults, TTL 5 s"),
        ),
    ),
    Claim(
        12,
        "a learner in the endpoint list never gets what it cannot serve; 1.23 fails part of the "
        "calls",
        (
            Row(
                (faults.LEARNER_LISTED,),
                measures.FAILED_SHARE,
                {
                    ROUND_ROBIN: at_least(5.0, "part of the calls"),
                    **_each(OURS, NEVER),
                },
            ),
            Row((faults.LEARNER_LISTED,), measures.AT_VICTIM, _each(OURS, NEVER)),
        ),
    ),
    Claim(
        13,
        "losing the leader costs no more than the election, and gives no wrong answer",
        (
            Row(
                (faults.KILL_LEADER,),
                measures.BEYOND_ELECTION,
                _each(
                    [ROUND_ROBIN, *OURS],
                    at_most(ELECTION_SLACK_MS, f"<= {ELECTION_SLACK_MS / 1000:g} s"),
                ),
            ),
            Row((faults.KILL_LEADER,), measures.FAILED_PUTS, {EXACTLY_ONCE: NEVER}),
            Row((faults.KILL_LEADER,), measures.STALE_READS, _each(ALL, NEVER)),
        ),
    ),
    Claim(
        14,
        "rolling restart of all members, rolling defrag",
        (
            Row((faults.ROLLING_RESTART,), measures.FAILED, _each(OURS, NEVER)),
            Row((faults.ROLLING_DEFRAG,), measures.FAILED, _each(OURS, NEVER)),
        ),
    ),
)
