"""Put the learner design page to the test: ``python -m benchmarks.membership [--etcd] [...]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress

from benchmarks import report
from benchmarks.membership.experiments import EXPERIMENTS, Experiment
from benchmarks.membership.pictures import draw
from benchmarks.membership.stage import Record, stage
from benchmarks.real_etcd import etcd_binary
from benchmarks.report import Table

UNCHECKED = ("--strict-reconfig-check=false",)
"""The check would keep us from seeing what it is there to prevent."""
VOTER, LEARNER, CHECKED = "voter", "learner", "voter, checked"
Runs = dict[tuple[str, str], Record]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.membership", description=__doc__)
    names = [each.name for each in EXPERIMENTS]
    parser.add_argument("--only", nargs="+", choices=names, help="some of the experiments")
    parser.add_argument("--etcd", action="store_true", help="on the real etcd instead of ours")
    parser.add_argument(
        "--write-docs", action="store_true", help="bring docs/membership.md up to date"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    console = report.console()
    binary = etcd_binary() if options.etcd else None
    chosen = [each for each in EXPERIMENTS if not options.only or each.name in options.only]
    facts = report.machine()
    runs: Runs = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("experiments", total=3 * len(chosen))
        for experiment in chosen:
            for kind in (VOTER, LEARNER, CHECKED):
                progress.update(task, description=f"{experiment.name}, {kind}")
                runs[experiment.name, kind] = run(experiment, kind, binary)
                progress.advance(task)
    section = table(chosen, runs)
    report.show(console, [section])
    numbers = {f"{name}, {kind}": asdict(record) for (name, kind), record in runs.items()}
    console.print(f"numbers: {report.save_json('membership', {'machine': facts, **numbers})}")
    picture = report.RESULTS / "membership.svg"
    if options.write_docs:
        picture = report.ROOT / "docs" / "membership.svg"
        console.print(f"page: {report.write_page('membership', facts, [section])}")
    draw_all(picture, chosen, runs, "etcd" if options.etcd else "etcd-pinwheel")
    console.print(f"picture: {picture}")
    return 0


def run(experiment: Experiment, kind: str, binary: Path | None) -> Record:
    """Play one experiment once."""
    flags = (*experiment.flags, *(() if kind == CHECKED else UNCHECKED))
    with stage(experiment.size, flags, as_learner=kind == LEARNER, binary=binary) as played:
        experiment.play(played)
    return played.record


def draw_all(path: Path, chosen: Sequence[Experiment], runs: Runs, server: str) -> None:
    rows = [
        (each.name, runs.get((each.name, VOTER)), runs.get((each.name, LEARNER))) for each in chosen
    ]
    draw(path, f"What a new member does to a cluster ({server})", rows)


def table(chosen: Sequence[Experiment], runs: Runs) -> Table:
    """Lay the runs out: a row for each experiment and kind of newcomer."""
    rows = []
    for experiment in chosen:
        for kind in (VOTER, LEARNER):
            record = runs[experiment.name, kind]
            rows.append(
                (
                    f"{experiment.name}: {kind}",
                    f"{record.seconds_without_leader:.1f}",
                    f"{record.seconds_without_write:.1f}",
                    f"{record.failed_writes} of {len(record.writes)}",
                    f"{record.slowest_ms:,.0f}",
                    str(record.elections),
                    f"{record.newcomer_bytes / 1e6:,.1f}",
                    record.undone or f"was refused: {record.refused}",
                    checked(runs[experiment.name, CHECKED]) if kind == VOTER else "",
                )
            )
    return Table(
        "A new member",
        (
            "",
            "s without a leader",
            "s without a write",
            "failed writes",
            "slowest ms",
            "elections",
            "MB to the newcomer",
            "can it be undone?",
            "with the strict check",
        ),
        rows,
        "Without a leader: no majority names one; a dead or cut-off leader is named until its "
        "followers have found out. Without a write: the longest time in which none succeeded. "
        "A write every 20 ms, with a timeout of one second. Bytes are those of the connections "
        "between members. Undone: the newcomer can be removed while the trouble lasts.",
    )


def checked(record: Record) -> str:
    """Say what --strict-reconfig-check, which is the default, made of it."""
    return f"refused: {record.refused}" if record.refused else "accepted"


if __name__ == "__main__":
    raise SystemExit(main())
