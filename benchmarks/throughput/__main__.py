"""Measure what a call costs: ``python -m benchmarks.throughput [--quick] [--write-docs]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from statistics import median

from rich.console import Console
from rich.progress import Progress

from benchmarks import report
from benchmarks.report import Table
from benchmarks.throughput import overhead, servers, tables
from benchmarks.throughput.contenders import TASKS, THREADS
from benchmarks.throughput.run import Bench, Plan
from benchmarks.throughput.turn import Turn, Turns
from etcd_pinwheel.client.generations import BUILT_IN

FULL = Plan(rounds=5, seconds=0.6, warm_up_seconds=0.1)
QUICK = Plan(rounds=1, seconds=0.2, warm_up_seconds=0.05)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: under a minute")
    parser.add_argument("--rounds", type=int, help="how often everyone takes a turn")
    parser.add_argument("--seconds", type=float, help="length of a turn")
    parser.add_argument("--callers", type=int, nargs="+", help="how many call at a time")
    parser.add_argument("--servers", nargs="+", choices=[servers.ETCD, servers.OURS])
    parser.add_argument("--worlds", nargs="+", choices=[THREADS.name, TASKS.name])
    parser.add_argument(
        "--policies",
        nargs="+",
        choices=list(BUILT_IN),
        default=["round_robin", "health_aware"],
        help="of our client; the first is held against the peers",
    )
    parser.add_argument("--no-peers", action="store_true", help="leave out the other clients")
    parser.add_argument(
        "--write-docs", action="store_true", help="bring docs/throughput.md up to date"
    )
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the full or the quick plan, with what the command line says otherwise."""
    plan = QUICK if options.quick else FULL
    first, *others = options.policies
    worlds = {
        world.name: replace(
            world,
            ours=world.ours.under(first),
            variants=tuple(world.ours.under(policy) for policy in others),
            rivals=() if options.no_peers else world.rivals,
        )
        for world in plan.worlds
    }
    return Plan(
        rounds=options.rounds or plan.rounds,
        seconds=options.seconds or plan.seconds,
        warm_up_seconds=plan.warm_up_seconds,
        callers=options.callers or plan.callers,
        servers=options.servers or plan.servers,
        worlds=[worlds[name] for name in options.worlds or worlds],
    )


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    plan = plan_of(options)
    console = report.console()
    facts = report.machine()
    bench, turns = measure(plan, console)
    facts["cores busy with other things during a turn"] = disturbance(turns)
    picks = overhead.picks_us(plan.rounds)
    goals = [*tables.goals(Turns(turns), plan), *overhead.picks_goals(picks)]
    sections = [
        *lay_out(Turns(turns), plan, bench),
        overhead.picks_table(picks),
        report.goals_table(goals),
    ]
    report.show(console, sections)
    console.print("; ".join(f"{name}: {value}" for name, value in facts.items()))
    for who, why in bench.left_out.items():
        console.print(f"left out: {who}: {why}")
    for turn in turns:
        if not turn.valid:
            console.print(
                f"not counted: {turn.cell}, round {turn.round}: {turn.error or 'no calls'}"
            )
    numbers = {
        "machine": facts,
        "releases": bench.releases,
        "left out": bench.left_out,
        "goals": [asdict(goal) | {"verdict": goal.verdict} for goal in goals],
        "turns": [asdict(turn) for turn in turns],
    }
    console.print(f"numbers: {report.save_json('throughput', numbers)}")
    if options.write_docs:
        console.print(f"page: {report.write_page('throughput', facts, sections)}")
    return 1 if bench.left_out else 0


def measure(plan: Plan, console: Console) -> tuple[Bench, list[Turn]]:
    """Start everything, let everyone take their turns, stop everything."""
    bench = Bench()
    with ExitStack() as stack:
        with console.status("starting servers and clients (the first time, installing them)"):
            bench.start(plan, stack)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("turns", total=plan.turns)
            turns = list(bench.play(plan, lambda: progress.advance(task)))
    return bench, turns


def disturbance(turns: Sequence[Turn]) -> str:
    """Say how calm the machine was: the median turn, and the worst of ten."""
    busy = sorted(turn.others_cores for turn in turns)
    if not busy:
        return "nothing measured"
    return f"{median(busy):.2f} (median), {busy[len(busy) * 9 // 10]:.2f} (1 in 10 was worse)"


def lay_out(turns: Turns, plan: Plan, bench: Bench) -> list[Table]:
    """Make the tables of the turns."""
    clients = [
        tables.clients_table(turns, server, world, plan)
        for world in plan.worlds
        for server in plan.servers
        if server in bench.servers
    ]
    return [*clients, tables.servers_table(turns, plan)]


if __name__ == "__main__":
    raise SystemExit(main())
