"""The samples laid out: what is done a second, what it costs whom, and how that grows."""

from __future__ import annotations

from benchmarks.cluster.run import CROWD, GROWTH, LEADER, Load, Plan, fanout_row, growth_row
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


def speed_table(samples: Samples, plan: Plan) -> Table:
    rows = []
    for load in plan.loads:
        row = [load.row]
        for side in (ETCD, OURS):
            row.append(number(samples.median(side, load.row, "rate"), ",.0f"))
            row.append(number(samples.median(side, load.row, "p50_ms"), ".2f"))
            row.append(number(samples.median(side, load.row, "p99_ms"), ".1f"))
        row.append(number(samples.ratio(load.row, "rate", OURS, ETCD), ".2f"))
        rows.append(row)
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
    return Table("Calls", header, rows, "Ratio: our calls a second to etcd's, within a round.")


def cost_table(samples: Samples, plan: Plan) -> Table:
    rows = []
    for load in plan.loads:
        row = [load.row]
        for side in (ETCD, OURS):
            row.append(number(samples.median(side, load.row, "leader_us"), ",.0f"))
            row.append(number(samples.median(side, load.row, "follower_us"), ",.0f"))
        rows.append(row)
    header = ("", "etcd: leader us", "follower us", "ours: leader us", "follower us")
    note = "CPU time of a process, in microseconds a call; of the followers, the mean."
    return Table("What a call costs whom", header, rows, note)


def fanout_table(samples: Samples, plan: Plan) -> Table:
    rows = [
        [
            fanout_row(watchers),
            *(
                number(samples.median(side, fanout_row(watchers), "all_ms"), ".2f")
                for side in (ETCD, OURS)
            ),
            number(samples.ratio(fanout_row(watchers), "all_ms", OURS, ETCD), ".2f"),
        ]
        for watchers in plan.watchers
    ]
    note = (
        "Milliseconds from a put at the leader until every watcher, all at a follower and on one "
        "stream, has its event. The watching client is the same Python process for both."
    )
    return Table("Watch fan-out", ("", "etcd", "ours", "ratio"), rows, note)


def growth_table(samples: Samples, plan: Plan) -> Table:
    rows = []
    for size in plan.sizes:
        for load in GROWTH:
            key = growth_row(size, load)
            row = [key]
            for side in (ETCD, OURS):
                row.append(number(samples.median(side, key, "rate"), ",.0f"))
                row.append(number(samples.median(side, key, "resident_mb"), ",.0f"))
            rows.append([*row, number(samples.ratio(key, "rate", OURS, ETCD), ".2f")])
    header = ("", "etcd: a second", "MB", "ours: a second", "MB", "ratio")
    return Table("With more keys", header, rows, "MB: resident in the leader's process.")


def goals(samples: Samples) -> list[Goal]:
    """Hold the numbers against what this project wants of them."""
    puts, gets = CROWD_PUTS.row, CROWD_GETS.row
    follower = samples.derived(OURS, puts, lambda each: each["follower_us"] / each["leader_us"])
    return [
        Goal(f"{puts} : etcd's", samples.ratio(puts, "rate", OURS, ETCD), at_least=PUT_LIMIT),
        Goal(f"{gets} : etcd's", samples.ratio(gets, "rate", OURS, ETCD), at_least=GET_LIMIT),
        Goal("CPU of a put, a follower's : the leader's", follower, at_most=FOLLOWER_LIMIT),
    ]
