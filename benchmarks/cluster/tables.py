"""The samples laid out: what is done a second, what it costs whom, and how that grows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.cluster.run import (
    CROWD,
    GROWTH,
    GROWTH_WATCHERS,
    LEADER,
    Load,
    Plan,
    fanout_row,
    growth_row,
)
from benchmarks.cluster.samples import Samples
from benchmarks.cluster.sides import ETCD, OURS
from benchmarks.report import Goal, Table

PUT_LIMIT, GET_LIMIT = 0.5, 0.35
"""Our calls a second at least, as a share of etcd's."""
FOLLOWER_LIMIT = 0.5
"""What a put costs a follower at most, as a share of what it costs the leader."""
CROWD_PUTS = Load("put", CROWD, LEADER)
CROWD_GETS = Load("get", CROWD, LEADER)


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def speed_table(title: str, samples: Samples, rows: Sequence[str]) -> Table:
    def cells(row: str) -> Iterator[str]:
        yield row
        for side in (ETCD, OURS):
            yield number(samples.median(side, row, "rate"), ",.0f")
            yield number(samples.median(side, row, "p50_ms"), ".2f")
            yield number(samples.median(side, row, "p99_ms"), ".1f")
        yield number(samples.ratio(row, "rate", OURS, ETCD), ".2f")

    header = (
        "",
        "etcd: a second",
        "p50 ms",
        "p99 ms",
        "ours: a second",
        "p50 ms",
        "p99 ms",
        "ratio",
    )
    note = "Ratio: our calls a second to etcd's, within a round."
    return Table(title, header, [list(cells(row)) for row in rows], note)


def cost_table(title: str, samples: Samples, rows: Sequence[str]) -> Table:
    header = ("", "etcd: leader us", "follower us", "ours: leader us", "follower us")
    note = "CPU time of a process, in microseconds a call; of the followers, the mean."
    return Table(title, header, [_of_each(samples, row, "us") for row in rows], note)


def memory_table(samples: Samples, plan: Plan) -> Table:
    header = ("", "etcd: leader MB", "follower MB", "ours: leader MB", "follower MB")
    rows = [
        [f"{size:,} keys", *_of_each(samples, growth_row(size, CROWD_PUTS.row), "mb")[1:]]
        for size in plan.sizes
    ]
    return Table("Memory", header, rows, "Resident in a process; of the followers, the mean.")


def _of_each(samples: Samples, row: str, unit: str) -> list[str]:
    """What it is at a leader and at a follower, for both sides."""
    return [
        row,
        *(
            number(samples.median(side, row, f"{member}_{unit}"), ",.0f")
            for side in (ETCD, OURS)
            for member in ("leader", "follower")
        ),
    ]


def fanout_table(samples: Samples, plan: Plan) -> Table:
    names = [fanout_row(watchers) for watchers in plan.watchers]
    names += [growth_row(size, fanout_row(GROWTH_WATCHERS)) for size in plan.sizes]
    rows = [
        [
            name,
            *(number(samples.median(side, name, "all_ms"), ".2f") for side in (ETCD, OURS)),
            number(samples.ratio(name, "all_ms", OURS, ETCD), ".2f"),
        ]
        for name in names
    ]
    note = (
        "Milliseconds from a put at the leader until every watcher, all at a follower and on one "
        "stream, has its event. The watching client is the same Python process for both."
    )
    return Table("Watch fan-out", ("", "etcd", "ours", "ratio"), rows, note)


def tables(samples: Samples, plan: Plan) -> list[Table]:
    """All that a run shows."""
    rows = [load.row for load in plan.loads]
    grown = [growth_row(size, load.row) for size in plan.sizes for load in GROWTH]
    return [
        speed_table("Calls", samples, rows),
        cost_table("What a call costs whom", samples, rows),
        fanout_table(samples, plan),
        speed_table("Calls with more keys", samples, grown),
        cost_table("What a call costs whom with more keys", samples, grown),
        memory_table(samples, plan),
    ]


def goals(samples: Samples) -> list[Goal]:
    """Hold the numbers against what this project wants of them."""
    puts, gets = CROWD_PUTS.row, CROWD_GETS.row
    follower = samples.derived(OURS, puts, lambda each: each["follower_us"] / each["leader_us"])
    return [
        Goal(f"{puts} : etcd's", samples.ratio(puts, "rate", OURS, ETCD), at_least=PUT_LIMIT),
        Goal(f"{gets} : etcd's", samples.ratio(gets, "rate", OURS, ETCD), at_least=GET_LIMIT),
        Goal("CPU of a put, a follower's : the leader's", follower, at_most=FOLLOWER_LIMIT),
    ]
