"""A campaign as JSON: everything that was seen, to compare with later, and to draw from again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.failover.campaign import Campaign
from benchmarks.failover.claims import Finding
from benchmarks.failover.figures import answered_by, audit, audit_events
from benchmarks.failover.measures import calls_of, span_of
from benchmarks.failover.run import Outcome
from benchmarks.failover.tables import OPERATIONS, sums_of

COLUMNS = ("operation", "due_ms", "took_ms", "error", "member")


def as_json(campaign: Campaign, found: Sequence[Finding]) -> dict[str, Any]:
    """Return all of it, single calls included."""
    return {
        "machine": campaign.facts,
        "server": campaign.server,
        "repeats": campaign.repeats,
        "every_ms": campaign.every_ms,
        "claims": [_finding(each) for each in found],
        "missing": [asdict(each) for each in campaign.results.missing],
        "call_columns": COLUMNS,
        "runs": [_outcome(outcome) for outcome in campaign.results.outcomes],
    }


def _finding(finding: Finding) -> Mapping[str, Any]:
    return {
        "claim": finding.claim.number,
        "text": finding.claim.text,
        "where": finding.row.where,
        "faults": [fault.name for fault in finding.row.faults],
        "measure": finding.row.measure.name,
        "unit": finding.row.measure.unit,
        "policy": finding.setting.name,
        "expected": finding.expectation.words if finding.expectation else None,
        "values": list(finding.values),
        "verdict": finding.verdict.value,
    }


def _outcome(outcome: Outcome) -> Mapping[str, Any]:
    recording = outcome.recording
    return {
        "fault": outcome.fault,
        "policy": outcome.setting,
        "repeat": outcome.repeat,
        "struck": outcome.struck,
        "undone": outcome.undone,
        "seconds": outcome.seconds,
        "victim": outcome.victim,
        "led_after": outcome.led_after,
        "latest_start": recording.latest_start,
        "operations": {name: asdict(sums_of(outcome, name)) for name in OPERATIONS},
        "answered": answered_by(calls_of(outcome), span_of(outcome)),
        "audit": asdict(audit(recording)),
        "events": asdict(audit_events(recording)),
        "watch_error": recording.watch_error,
        "lease": asdict(recording.lease),
        "sockets": [[round(each.at, 3), dict(each.counts)] for each in recording.sockets],
        "news": [[round(each.at, 4), each.event, each.endpoint] for each in recording.news],
        "standings": [
            [round(each.at, 3), each.endpoint, each.pinned, each.eligible, each.reason]
            for each in recording.standings
        ],
        "calls": [
            [
                call.operation,
                round(call.due * 1000),
                round(call.seconds * 1000, 1),
                call.error,
                call.member,
            ]
            for call in recording.calls
        ],
        "watched": [round(event.at, 3) for event in recording.watched],
    }
