"""How long until three members take their first put?

Each start has a fresh interpreter, whose clock begins before anything of the server is imported;
ours in one process, ours as processes, and etcd's own, in turn:

    python -m benchmarks.startup [--runs 5] [--write-docs]

The goals: under 0.6 s in one process, under 2 s as processes. The client that puts is loaded
before the clock begins.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from benchmarks import report
from benchmarks.real_etcd import etcd_binary
from benchmarks.report import Goal, Table

SIZE = 3
KINDS: Mapping[str, Mapping[str, Any]] = {
    "one process": {},
    "processes": {"processes": True},
    "etcd": {"binary": etcd_binary()},
}
GOALS = {"one process": 0.6, "processes": 2.0}
PUT_SECONDS = 20.0


def start_once(kind: str) -> dict[str, float]:
    """Start a cluster, put a key; return what took how long, in seconds."""
    from etcd_pinwheel.protos.etcdserverpb import PutRequest
    from etcd_pinwheel.protos.rpcs import KV_PUT

    began, cpu = time.perf_counter(), cpu_seconds()
    from etcd_pinwheel.server_stub.local import LocalCluster

    with LocalCluster(size=SIZE, **KINDS[kind]) as cluster:
        ready = time.perf_counter()
        with grpc.insecure_channel(cluster.endpoints[0]) as channel:
            put = channel.unary_unary(
                KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
            )
            put(PutRequest(key=b"k", value=b"v"), timeout=PUT_SECONDS)
        taken = time.perf_counter()
    ended = time.perf_counter()
    times = {"ready_s": ready - began, "put_s": taken - began, "close_s": ended - taken}
    return {**times, "cpu_s": cpu_seconds() - cpu}


def cpu_seconds() -> float:
    """Return what this process and those that it started and has seen end have used so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def start_fresh(kind: str, compiled: str) -> dict[str, float]:
    """Do the same in an interpreter of its own, with all modules compiled, as pip installs them."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "benchmarks.startup", "--one", kind]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=report.ROOT, env=environ
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def start_in_turn(runs: int) -> dict[str, list[dict[str, float]]]:
    """Start each kind so often, after once in which everything is compiled."""
    measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as compiled:
        for kind in KINDS:
            start_fresh(kind, compiled)
        for _ in range(runs):
            for kind, found in measured.items():
                found.append(start_fresh(kind, compiled))
    return measured


def tables(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Table]:
    """Lay the numbers out."""
    rows = []
    for kind, runs in measured.items():
        put, cpu, close = ([run[name] for run in runs] for name in ("put_s", "cpu_s", "close_s"))
        cells = (*map(statistics.median, (put, cpu, close)), max(put))
        rows.append((kind, *(f"{cell:.2f} s" for cell in cells)))
    header = ("three members", "first put", "CPU of all", "end", "slowest first put")
    note = "Medians, but for the slowest; CPU from the start to the end of all."
    return [Table("From nothing to the first put", header, rows, note)]


def goals(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Goal]:
    """Return how fast a local cluster should be."""
    return [
        Goal(
            f"first put, {kind}, s",
            statistics.median(run["put_s"] for run in measured[kind]),
            at_most=limit,
        )
        for kind, limit in GOALS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write-docs", action="store_true", help="into docs/testing.md")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(start_once(options.one)))
        return
    facts = report.machine()
    measured = start_in_turn(options.runs)
    console = report.console()
    sections = [*tables(measured), report.goals_table(goals(measured))]
    report.show(console, sections)
    console.print(f"numbers: {report.save_json('startup', {'machine': facts, **measured})}")
    if options.write_docs:
        console.print(f"page: {report.write_page('testing', facts, sections)}")


if __name__ == "__main__":
    main()
