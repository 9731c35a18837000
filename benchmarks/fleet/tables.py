"""What is printed of the runs, and written to the page."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.fleet.run import Outcome
from benchmarks.report import Table


def callers_table(outcomes: Sequence[Outcome]) -> Table:
    """What callers saw, from beginning to end."""
    return Table(
        "What callers saw",
        ("", "calls", "failed", "failed %", "slow %", "retries", "most retries/s"),
        [
            (
                title(each),
                f"{each.calls:,}",
                f"{each.failed:,}",
                f"{100 * each.failed / each.calls:.2f}",
                f"{100 * each.slow / each.calls:.2f}",
                f"{sum(each.retries):,}",
                f"{each.most_retries:,}",
            )
            for each in outcomes
        ],
        "Slow: answered, after more than 250 ms.",
    )


def members_table(outcomes: Sequence[Outcome]) -> Table:
    """What the members went through."""
    return Table(
        "What the members saw",
        (
            "",
            "connections",
            "probes/s",
            "most picks/s",
            "most dials/s, struck",
            "most dials/s, others",
            "most probes/s, struck",
            "s until even",
        ),
        [
            (
                title(each),
                f"{each.connections_before:,}",
                f"{each.probes_before:,.0f}",
                f"{each.most_picks:.2f} x even",
                f"{each.most_dials_once_back:,}",
                f"{each.most_dials_elsewhere:,}",
                f"{each.most_probes_once_back:,}",
                "never" if each.seconds_until_even is None else f"{each.seconds_until_even:g}",
            )
            for each in outcomes
        ],
        "Connections and probes: of all members together, before the fault. Most picks: of one "
        "member in a second, from the fault on, in shares of an even load. Most dials: attempts to "
        "connect in a second, to the struck member once it is back, and to any other from the "
        "fault on. Most probes: of the struck member in a second, once it is back. Until even: "
        "after the fault is undone, until each member has its share within 10 % for 3 s; never: "
        "not within the run.",
    )


def title(outcome: Outcome) -> str:
    return f"{outcome.fault}: {outcome.policy}"
