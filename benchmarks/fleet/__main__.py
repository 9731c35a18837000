"""Simulate thousands of clients: ``python -m benchmarks.fleet [--clients N] [--write-docs]``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict

from rich.progress import Progress

from benchmarks import report
from benchmarks.fleet.pictures import draw_added, draw_connections, draw_picks
from benchmarks.fleet.run import FAULTS, Fleet, Outcome, Run
from benchmarks.fleet.tables import callers_table, members_table, title
from etcd_pinwheel.client.generations import BUILT_IN

PICTURES = {
    "fleet-picks": draw_picks,
    "fleet-connections": draw_connections,
    "fleet-added": draw_added,
}


def play(policy: str, fault: int, fleet: Fleet) -> Outcome:
    """Play one run; in a process of its own, which takes the fault by its number."""
    return Run(policy, FAULTS[fault], fleet).play()


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--clients", type=int, default=Fleet.clients)
    parser.add_argument("--members", type=int, default=Fleet.members)
    parser.add_argument("--policy", nargs="+", choices=list(BUILT_IN), default=list(BUILT_IN))
    parser.add_argument(
        "--fault", nargs="+", choices=[fault.name for fault in FAULTS], help="some of the faults"
    )
    parser.add_argument("--seed", type=int, default=Fleet.seed, help="of all that is random")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="how many runs are simulated at a time"
    )
    parser.add_argument("--write-docs", action="store_true", help="bring docs/fleet.md up to date")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    console = report.console()
    facts = report.machine()
    fleet = Fleet(clients=options.clients, members=options.members, seed=options.seed)
    runs = [
        (policy, number, fleet)
        for number, fault in enumerate(FAULTS)
        if not options.fault or fault.name in options.fault
        for policy in options.policy
    ]
    with (
        Progress(console=console, transient=True) as progress,
        ProcessPoolExecutor(options.jobs) as pool,
    ):
        played = [pool.submit(play, *run) for run in runs]
        for _ in progress.track(as_completed(played), len(played), description="runs"):
            pass
    outcomes = [each.result() for each in played]
    sections = [callers_table(outcomes), members_table(outcomes)]
    report.show(console, sections)
    numbers = {title(each): asdict(each) for each in outcomes}
    saved = report.save_json("fleet", {"machine": facts, "seed": fleet.seed, **numbers})
    console.print(f"numbers: {saved}")
    folder = report.RESULTS
    if options.write_docs:
        folder = report.ROOT / "docs"
        world = {"clients": f"{fleet.clients:,}", "members": str(fleet.members)}
        about = {"date": facts["date"], **world, "seed": str(fleet.seed)}
        console.print(f"page: {report.write_page('fleet', about, sections)}")
    for name, draw in PICTURES.items():
        draw(folder / f"{name}.svg", outcomes)
        console.print(f"picture: {folder / name}.svg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
