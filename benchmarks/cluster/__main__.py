"""Measure a cluster of three: ``python -m benchmarks.cluster [--quick] [--write-docs]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace

from rich.console import Console
from rich.progress import Progress

from benchmarks import report
from benchmarks.cluster import tables
from benchmarks.cluster.run import Bench, Plan
from benchmarks.cluster.samples import Sample, Samples
from benchmarks.cluster.sides import ETCD, OURS, side

FULL = Plan(rounds=5, seconds=1.0, fanout_puts=20, sizes=(1_000, 10_000, 100_000, 1_000_000))
QUICK = Plan(rounds=1, seconds=0.3, fanout_puts=5, sizes=(1_000, 10_000))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: under a minute")
    parser.add_argument("--rounds", type=int, help="how often both take a turn")
    parser.add_argument("--seconds", type=float, help="length of a turn")
    parser.add_argument("--sizes", type=int, nargs="*", help="keys in the store, for its growth")
    parser.add_argument(
        "--write-docs", action="store_true", help="bring docs/cluster.md up to date"
    )
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the full or the quick plan, with what the command line says otherwise."""
    plan = QUICK if options.quick else FULL
    return replace(
        plan,
        rounds=options.rounds or plan.rounds,
        seconds=options.seconds or plan.seconds,
        sizes=plan.sizes if options.sizes is None else options.sizes,
    )


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    plan = plan_of(options)
    console = report.console()
    facts = report.machine()
    taken = measure(plan, console)
    samples = Samples(taken)
    goals = tables.goals(samples)
    sections = [*tables.tables(samples, plan), report.goals_table(goals)]
    report.show(console, sections)
    failed = [sample for sample in taken if sample.error]
    for sample in failed:
        console.print(f"not counted: {sample.row}, round {sample.round}: {sample.error}")
    numbers = {
        "machine": facts,
        "goals": [asdict(goal) | {"verdict": goal.verdict} for goal in goals],
        "samples": [asdict(sample) for sample in taken],
    }
    console.print(f"numbers: {report.save_json('cluster', numbers)}")
    if options.write_docs:
        console.print(f"page: {report.write_page('cluster', facts, sections)}")
    return 1 if failed else 0


def measure(plan: Plan, console: Console) -> list[Sample]:
    """Start both clusters, let them take their turns, stop them."""
    with ExitStack() as stack:
        with console.status("starting two clusters of three"):
            sides = {name: stack.enter_context(side(name)) for name in (ETCD, OURS)}
            bench = Bench(plan, sides, stack)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("turns", total=2 * plan.steps)
            return list(bench.play(lambda: progress.advance(task)))


if __name__ == "__main__":
    raise SystemExit(main())
