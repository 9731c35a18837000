"""What the outcomes say, laid out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.failover.claims import Claim, Finding, Row, Verdict
from benchmarks.failover.faults import Fault
from benchmarks.failover.figures import PHASES, Figures, audit, audit_events, figures
from benchmarks.failover.measures import (
    ANSWERED_BY_VICTIM,
    FIRST_ELSEWHERE,
    RETRIES,
    SOCKETS_AFTER,
    SOCKETS_BEFORE,
    calls_of,
    span_of,
)
from benchmarks.failover.run import Outcome, Results
from benchmarks.failover.settings import Setting
from benchmarks.report import Table

OPERATIONS = ("put", "get")
COUNTED = (SOCKETS_BEFORE, SOCKETS_AFTER, FIRST_ELSEWHERE, ANSWERED_BY_VICTIM, RETRIES)
LATE_SECONDS = 0.5
"""A load whose calls begin later than that says more about the machine than about the client."""
MARKS = {
    Verdict.SEEN: " \u2713",
    Verdict.NOT_SEEN: " \u2717",
    Verdict.NOT_MEASURED: "",
    Verdict.NO_CLAIM: "",
}


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.1f} ms"


def rows_of(found: Sequence[Finding]) -> dict[Claim, dict[Row, list[Finding]]]:
    """Group findings by claim and by what was measured."""
    grouped: dict[Claim, dict[Row, list[Finding]]] = {}
    for finding in found:
        grouped.setdefault(finding.claim, {}).setdefault(finding.row, []).append(finding)
    return grouped


def together(found: Sequence[Finding]) -> Verdict:
    """The verdict on several findings: the worst of theirs."""
    verdicts = {finding.verdict for finding in found}
    for verdict in (Verdict.NOT_SEEN, Verdict.NOT_MEASURED, Verdict.SEEN):
        if verdict in verdicts:
            return verdict
    return Verdict.NO_CLAIM


def expected_of(found: Sequence[Finding]) -> str:
    """Say what is expected of whom."""
    by_words: dict[str, list[str]] = {}
    for finding in found:
        if finding.expectation is not None:
            by_words.setdefault(finding.expectation.words, []).append(finding.setting.name)
    return "; ".join(
        f"{'all' if len(names) == len(found) else ', '.join(names)}: {words}"
        for words, names in by_words.items()
    )


def claims_table(found: Sequence[Finding]) -> Table:
    """The verdict on each claim, policies side by side."""
    names = list(dict.fromkeys(finding.setting.name for finding in found))
    rows: list[tuple[str, ...]] = []
    for claim, measured in rows_of(found).items():
        rows.append((f"{claim.number}. {claim.text}", *[""] * (len(names) + 2)))
        for row, mine in measured.items():
            seen = {each.setting.name: f"{each.seen}{MARKS[each.verdict]}" for each in mine}
            cells = [seen.get(name, "") for name in names]
            what = f"{row.where}: {row.measure.name}"
            rows.append((what, expected_of(mine), *cells, together(mine).value))
    return Table(
        "Claim by claim",
        ("scenario: what is measured", "expected", *names, "verdict"),
        rows,
        "The median of the repeats, and in brackets the smallest and the largest. \u2713: as "
        "expected, \u2717: not; no mark: the claim says nothing of this policy, which is there "
        "for comparison.",
    )


def summary_table(found: Sequence[Finding]) -> Table:
    """Count the verdicts, claim by claim."""
    rows = []
    for claim in dict.fromkeys(finding.claim for finding in found):
        mine = [finding for finding in found if finding.claim is claim]
        counts = [
            sum(finding.verdict is verdict for finding in mine)
            for verdict in (Verdict.SEEN, Verdict.NOT_SEEN, Verdict.NOT_MEASURED)
        ]
        rows.append((f"{claim.number}. {claim.text}", *map(str, counts)))
    return Table("Summary", ("claim", "as expected", "not as expected", "not measured"), rows)


def sums_of(outcome: Outcome, operation: str) -> Figures:
    return figures(calls_of(outcome, operation), span_of(outcome), outcome.seconds)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    if not values:
        return "-"
    least, most = text(min(values)), text(max(values))
    return text(statistics.median(values)) + (f" ({least} - {most})" if least != most else "")


def calls_table(results: Results, faults: Sequence[Fault], settings: Sequence[Setting]) -> Table:
    """What callers saw: medians of the repeats."""
    rows = []
    for fault in faults:
        for setting in settings:
            outcomes = results.of(fault.name, setting.name)
            for operation in OPERATIONS if fault.calls and fault.reads else ("put",):
                sums = [sums_of(outcome, operation) for outcome in outcomes]
                if not sums or not sums[0].calls:
                    continue
                row = [f"{fault.name}, {setting.name}, {operation}"]
                row.append(_spread([each.calls for each in sums], "{:.0f}".format))
                row.append(_spread([each.failed for each in sums], "{:.0f}".format))
                row.append(_spread([each.slow for each in sums], "{:.0f}".format))
                row.append(_spread([each.longest_gap_ms for each in sums], milliseconds))
                for phase in PHASES:
                    parts = [each.latency[phase] for each in sums]
                    medians = (
                        _median([part.p50_ms for part in parts]),
                        _median([part.p99_ms for part in parts]),
                        _median([part.max_ms for part in parts]),
                    )
                    row.append(" / ".join(map(milliseconds, medians)))
                rows.append(row)
    return Table(
        "What callers saw",
        (
            "fault, policy, operation",
            "calls",
            "failed",
            "> 250 ms",
            "longest gap",
            *(f"p50 / p99 / max {phase}" for phase in PHASES),
        ),
        rows,
        "Longest gap: no call of that kind succeeded. Before, during, after: calls that began "
        "before the fault, while it lasted, and from then on; those that succeeded.",
    )


def rest_table(results: Results, faults: Sequence[Fault], settings: Sequence[Setting]) -> Table:
    """What else was counted: sockets, retries, writes, events, leases."""
    rows = []
    for fault in faults:
        for setting in settings:
            outcomes = results.of(fault.name, setting.name)
            if not outcomes:
                continue
            audits = [audit(outcome.recording) for outcome in outcomes]
            row = [f"{fault.name}, {setting.name}"]
            for measure in COUNTED:
                values = [measure.of(outcome) for outcome in outcomes]
                row.append(_spread([v for v in values if v is not None], measure.text))
            row += [
                str(sum(each.lost for each in audits)),
                str(sum(each.twice for each in audits)),
                str(sum(each.unacknowledged_applied for each in audits)),
                str(sum(each.stale_reads for each in audits)),
                *_streams(fault, outcomes),
            ]
            rows.append(row)
    return Table(
        "Sockets, retries, and the audit",
        (
            "fault, policy",
            "sockets before",
            "after the switch",
            "first success elsewhere takes",
            "answered by the struck member meanwhile",
            "attempts repeated",
            "writes lost",
            "applied twice",
            "failed but applied",
            "stale reads",
            "events lost / twice / out of order",
            "leases lost",
        ),
        rows,
        "The audit's counts are of all repeats together.",
    )


def _streams(fault: Fault, outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """What became of watches and leases, where there were any."""
    if not fault.streams:
        return "-", "-"
    events = [audit_events(outcome.recording) for outcome in outcomes]
    counts = (
        sum(each.lost for each in events),
        sum(each.twice for each in events),
        sum(each.reordered for each in events),
    )
    lost = sum(outcome.recording.lease.lost_at is not None for outcome in outcomes)
    return " / ".join(map(str, counts)), f"{lost} of {len(outcomes)}"


def missing_table(results: Results) -> Table:
    """Who brought nothing back, and why; and whose load could not keep its pace."""
    rows = [(f"{each.fault}, {each.setting}", each.reason) for each in results.missing]
    rows += [
        (
            f"{each.fault}, {each.setting}",
            f"calls began up to {each.recording.latest_start:.1f} s late: the machine was too busy",
        )
        for each in results.outcomes
        if each.recording.latest_start > LATE_SECONDS
    ]
    return Table("Runs that failed, or that mean little", ("run", "reason"), rows)
