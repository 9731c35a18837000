"""The failover benchmark's claims: what is expected of whom, and how verdicts come about."""

from __future__ import annotations

import pytest

from benchmarks.failover import faults, measures, reasons, tables
from benchmarks.failover.claims import (
    CLAIMS,
    NEVER,
    Claim,
    Finding,
    Row,
    Verdict,
    at_most,
    exactly,
    findings,
    values_of,
)
from benchmarks.failover.numbers import GO, goals
from benchmarks.failover.run import Results
from benchmarks.failover.settings import (
    ALL,
    EXACTLY_ONCE,
    HEALTH_AWARE,
    PINNED_MULTI,
    PINNED_SINGLE,
    ROUND_ROBIN,
    Setting,
)
from tests.benchmarks.failover_runs import outcome, put, steady

ROW = Row((faults.HANG,), measures.FAILED, {ROUND_ROBIN: exactly(1)})
CLAIM = Claim(1, "a claim", (ROW,))


def finding(*values: float, row: Row = ROW, setting: Setting = ROUND_ROBIN) -> Finding:
    return Finding(CLAIM, row, setting, values)


def test_a_verdict_is_on_the_median_unless_every_repeat_counts() -> None:
    assert finding(1, 1, 7).verdict is Verdict.SEEN
    assert finding(1, 7, 7).verdict is Verdict.NOT_SEEN
    strict = Row((faults.HANG,), measures.FAILED, {ROUND_ROBIN: NEVER})
    assert finding(0, 0, 7, row=strict).verdict is Verdict.NOT_SEEN
    assert finding(0, 0, 0, row=strict).verdict is Verdict.SEEN


def test_what_was_not_measured_is_said_to_be_so() -> None:
    assert finding().verdict is Verdict.NOT_MEASURED
    assert finding().seen == "-"
    assert finding(setting=HEALTH_AWARE).verdict is Verdict.NO_CLAIM
    assert finding(7, setting=HEALTH_AWARE).verdict is Verdict.NO_CLAIM


def test_the_spread_is_told_where_there_is_one() -> None:
    assert finding(1, 1, 1).seen == "1"
    assert finding(1, 4, 2).seen == "2 (1 - 4)"


def test_values_are_added_up_over_a_rows_faults_repeat_by_repeat() -> None:
    row = Row((faults.HANG, faults.PARTITION), measures.FAILED, {})
    results = Results(
        [
            outcome(steady(10, 1), fault="hang", repeat=0),
            outcome(steady(10, 2), fault="partition", repeat=0),
            outcome(steady(10, 5), fault="hang", repeat=1),
            outcome(steady(10, 9), fault="kill-leader", repeat=0),
            outcome(steady(10, 9), fault="hang", setting="health_aware"),
        ]
    )
    assert values_of(results, row, ROUND_ROBIN) == [3, 5]


def test_there_are_the_fourteen_claims_of_the_design() -> None:
    assert [claim.number for claim in CLAIMS] == list(range(1, 15))
    named = {setting for claim in CLAIMS for row in claim.rows for setting in row.expected}
    assert named == set(ALL)
    assert all(row.expected for claim in CLAIMS for row in claim.rows)
    looked_at = {fault for claim in CLAIMS for row in claim.rows for fault in row.faults}
    assert looked_at == set(faults.FAULTS)


def judge(number: int, measure: measures.Measure, setting: Setting, *values: float) -> Verdict:
    """Hold values against what a claim expects."""
    claim = CLAIMS[number - 1]
    row = next(each for each in claim.rows if each.measure is measure and setting in each.expected)
    return Finding(claim, row, setting, values).verdict


@pytest.mark.parametrize(
    ("number", "measure", "setting", "good", "bad"),
    [
        (1, measures.SOCKETS_BEFORE, PINNED_MULTI, 3, 1),
        (1, measures.FIRST_ELSEWHERE, PINNED_MULTI, 8, 40),
        (2, measures.BAD_SHARE_DURING, PINNED_MULTI, 98, 33),
        (3, measures.SOCKETS_BEFORE, PINNED_SINGLE, 1, 3),
        (3, measures.DIALLED, PINNED_SINGLE, 2, 0),
        (4, measures.WATCH_SILENCE, PINNED_SINGLE, 7.5, 12),
        (5, measures.WATCH_SILENCE, PINNED_SINGLE, 8, 0.1),
        (6, measures.AVOIDED, PINNED_SINGLE, 2.5, 0),
        (6, measures.AVOIDED, HEALTH_AWARE, 0.3, 3),
        (7, measures.UNEVENNESS, ROUND_ROBIN, 1.01, 2),
        (7, measures.FAILED_GETS, ROUND_ROBIN, 0, 1),
        (8, measures.BAD_SHARE_DURING, ROUND_ROBIN, 33, 1),
        (9, measures.DOUBLED_WRITES, EXACTLY_ONCE, 0, 1),
        (9, measures.LOST_WRITES, PINNED_MULTI, 0, 1),
        (10, measures.BAD_SHARE, HEALTH_AWARE, 0.7, 1.2),
        (10, measures.FAILED_PUTS, HEALTH_AWARE, 0, 2),
        (10, measures.BAD_AFTER_DETECTION, HEALTH_AWARE, 0, 2),
        (11, measures.WRONG_EVENTS, ROUND_ROBIN, 0, 1),
        (11, measures.LEASES_LOST, HEALTH_AWARE, 0, 1),
        (12, measures.FAILED_SHARE, HEALTH_AWARE, 0, 1),
        (12, measures.FAILED_SHARE, ROUND_ROBIN, 25, 0),
        (12, measures.AT_VICTIM, HEALTH_AWARE, 0, 5),
        (13, measures.BEYOND_ELECTION, ROUND_ROBIN, 100, 1500),
        (13, measures.FAILED_PUTS, EXACTLY_ONCE, 0, 1),
        (13, measures.STALE_READS, PINNED_SINGLE, 0, 1),
        (14, measures.FAILED, HEALTH_AWARE, 0, 1),
    ],
)
def test_what_claims_expect(
    number: int, measure: measures.Measure, setting: Setting, good: float, bad: float
) -> None:
    assert judge(number, measure, setting, good) is Verdict.SEEN
    assert judge(number, measure, setting, bad) is Verdict.NOT_SEEN


def test_only_what_the_faults_played_decide_is_judged() -> None:
    results = Results([outcome(steady(100, 33), fault="hang", setting=each.name) for each in ALL])
    found = findings(results, ALL, [faults.HANG])
    assert {each.claim.number for each in found} == {2, 8, 9, 10, 11}
    third = [each for each in found if each.claim.number == 8]
    assert {each.setting for each in third if each.verdict is Verdict.SEEN} == {ROUND_ROBIN}


def test_only_verdicts_that_differ_are_explained() -> None:
    learner = next(row for row in CLAIMS[11].rows if row.measure is measures.FAILED_SHARE)
    seen = Finding(CLAIMS[11], learner, ROUND_ROBIN, (25.0,))
    not_seen = Finding(CLAIMS[11], learner, ROUND_ROBIN, (0.0,))
    assert list(reasons.explanations([seen])) == []
    ((explained, text),) = reasons.explanations([seen, not_seen])
    assert explained is not_seen
    assert "3.5.14" in text


def test_what_nobody_can_explain_is_an_open_question() -> None:
    ((_, text),) = reasons.explanations([finding(5)])
    assert text == reasons.UNEXPLAINED


def test_reasons_are_of_things_that_are_expected() -> None:
    claimed = {
        (claim.number, row.measure, setting)
        for claim in CLAIMS
        for row in claim.rows
        for setting in row.expected
    }
    assert set(reasons.REASONS) <= claimed


def test_the_table_puts_policies_side_by_side() -> None:
    row = Row((faults.HANG,), measures.FAILED, {ROUND_ROBIN: at_most(1, "<= 1")})
    claim = Claim(1, "a claim", (row,))
    found = [
        Finding(claim, row, ROUND_ROBIN, (0.0,)),
        Finding(claim, row, HEALTH_AWARE, (3.0,)),
    ]
    table = tables.claims_table(found)
    assert table.header[2:4] == ("round_robin", "health_aware")
    assert list(table.rows[1][1:]) == ["round_robin: <= 1", "0 ✓", "3", "as expected"]


def test_goals_are_not_met_by_what_was_not_measured() -> None:
    results = Results([outcome([put(0, 1.0)], fault="hang-16s", setting="health_aware")])
    verdicts = {goal.text: goal.verdict for goal in goals(results)}
    assert verdicts["health_aware, SIGSTOP a follower: failed puts"] == "met"
    assert verdicts["exactly_once, kill -9 the leader: failed puts"] == "not measured"


def test_the_model_fails_for_as_large_a_share_as_go() -> None:
    """Of 1,500 puts Go failed for 344."""
    text = "round_robin, SIGSTOP a follower: share of failed puts : Go's"
    for failed, verdict in ((23, "met"), (20, "missed"), (26, "missed")):
        puts = [put(number, 1.0, error="TimedOut" * (number < failed)) for number in range(100)]
        results = Results([outcome(puts, fault="hang-16s", setting="round_robin")])
        assert {goal.text: goal.verdict for goal in goals(results)}[text] == verdict


def test_go_is_compared_with_on_every_fault() -> None:
    assert set(GO) == {fault.name for fault in faults.NUMBERS}
