"""Runs of the simulator from the command line: many seeds, one seed in full, or a hunt."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice

from .hunting import find
from .run import Outcome, run


def main() -> int:
    """Run what the command line asks for; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many; 0: until interrupted")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one, with all of its trace")
    parser.add_argument("--find", nargs="*", metavar="MUTANT", help="find seeds that catch bugs")
    arguments = parser.parse_args()
    if arguments.find is not None:
        return int(bool(find(arguments.find, arguments.seeds, arguments.processes)))
    if arguments.replay is not None:
        return _replay(arguments.replay)
    return _soak(
        arguments.first, arguments.seeds, arguments.processes, keep_going=arguments.keep_going
    )


def _replay(seed: int) -> int:
    outcome = run(seed, show=print)
    print(outcome if outcome.failed else f"{outcome}, trace {outcome.trace_hash:08x}")
    print(f"profile: {outcome.profile}")
    return int(outcome.failed)


def _soak(first: int, seeds: int, processes: int, *, keep_going: bool) -> int:
    """Run seeds in parallel; print progress and failures."""
    began, done, failures = time.perf_counter(), 0, 0
    counts: Counter[str] = Counter()
    numbers = islice(count(first), seeds or None)
    with ProcessPoolExecutor(processes) as pool:
        try:
            while batch := list(islice(numbers, 64 * processes)):
                for outcome in pool.map(run, batch, chunksize=4):
                    done += 1
                    counts.update(outcome.counts)
                    failures += _report(outcome)
                    if outcome.failed and not keep_going:
                        pool.shutdown(cancel_futures=True)
                        return 1
                rate = done / (time.perf_counter() - began)
                print(f"{done} seeds, {failures} failures, {rate:.1f} a second", file=sys.stderr)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    for name, total in sorted(counts.items()):
        print(f"{total:10d} {name}")
    return int(failures > 0)


def _report(outcome: Outcome) -> bool:
    if outcome.failed:
        print(outcome, flush=True)
    return outcome.failed


if __name__ == "__main__":
    sys.exit(main())
