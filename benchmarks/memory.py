"""How much memory does a large store take, and how long does it take to open?

Fills a store in one process, starts a server on it and looks at that from outside, and opens the
store once more in a process of its own, to time what is done with it:

    python -m benchmarks.memory [--keys 1000000] [--key-bytes 64] [--value-bytes 64] [--write-docs]

The goals: at most 450 MB of resident memory and 20 s for 1,000,000 keys of 64 bytes with one
version each. Resident memory counts pages of the mapped file that the kernel may take back at any
time; "anonymous" is what the process itself holds.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import report
from benchmarks.report import Goal, Table
from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import LocalMember

MB = 1_000_000
KEYS_PER_COMMIT = 10_000


class NoLeases:
    """A lessor without leases."""

    def exists(self, lease_id: int) -> bool:
        """There is none."""
        return False

    def attach(self, lease_id: int, key: bytes) -> None:
        """Refuse."""
        raise KeyError(lease_id)

    def detach(self, key: bytes) -> None:
        """Do nothing."""

    def lease_of(self, key: bytes) -> int:
        """Return that of no lease."""
        return 0


def fill(path: Path, keys: int, key_bytes: int, value_bytes: int) -> dict[str, float]:
    """Put `keys` random keys, one revision each, as a server's applier does."""
    from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
    from etcd_pinwheel.server_stub.storage.backend import LmdbBackend

    backend = LmdbBackend(path)
    store = WatchableStore(backend, NoLeases())
    chance = random.Random(1)
    names = [chance.randbytes(key_bytes // 2).hex().encode() for _ in range(keys)]
    value = bytes(value_bytes)
    began, cpu = time.perf_counter(), time.process_time()
    for number, name in enumerate(names, 1):
        with store.write() as txn:
            txn.put(name, value)
        if number % KEYS_PER_COMMIT == 0:
            backend.hand_over()
    backend.commit()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    backend.close()
    return {"put_us": took / keys * 1e6, "put_cpu_us": cpu / keys * 1e6, "fill_s": took}


def resident() -> dict[str, float]:
    """Return this process's memory in MB: all of it, and the part that no file backs."""
    info = psutil.Process().memory_info()
    return {"rss_mb": info.rss / MB, "anonymous_mb": (info.rss - info.shared) / MB}


def reopen(path: Path, reads: int) -> dict[str, float]:
    """Open the store with everything loaded that a server loads, and read from it."""
    import etcd_pinwheel.server_stub.__main__  # noqa: F401
    from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
    from etcd_pinwheel.server_stub.storage.backend import LmdbBackend

    found = {f"before_{name}": value for name, value in resident().items()}
    began, cpu = time.perf_counter(), time.process_time()
    backend = LmdbBackend(path)
    store = WatchableStore(backend, NoLeases())
    found["restore_s"] = time.perf_counter() - began
    found["restore_cpu_s"] = time.process_time() - cpu
    gc.collect()
    gc.freeze()
    found |= {f"open_{name}": value for name, value in resident().items()}
    names = [kv.key for kv in store.range(b"\0", b"\0", limit=reads).kvs]
    random.Random(2).shuffle(names)
    began, cpu = time.perf_counter(), time.process_time()
    for name in names:
        store.range_stored(name, b"")
    found["get_us"] = (time.perf_counter() - began) / len(names) * 1e6
    found["get_cpu_us"] = (time.process_time() - cpu) / len(names) * 1e6
    began = time.perf_counter()
    found["hash"] = store.hash_by_revision().hash
    found["hashkv_s"] = time.perf_counter() - began
    began = time.perf_counter()
    found["count"] = store.range(b"\0", b"\0", count_only=True).count
    found["count_all_s"] = time.perf_counter() - began
    found |= {f"after_{name}": value for name, value in resident().items()}
    found["db_mb"] = backend.size_bytes / MB
    backend.close()
    return found


def serve(data_dir: Path, keys: int) -> dict[str, float]:
    """Start a server on the store; return how long it took and what it holds when it serves."""
    began = time.perf_counter()
    with LocalMember("--quota-backend-bytes=8589934592", data_dir=data_dir) as member:
        ready_s = time.perf_counter() - began
        info = psutil.Process(member.pid).memory_info()
        with Client([member.endpoint], timeout=30) as etcd:
            if (found := etcd.count("\0", from_key=True)) != keys:
                raise SystemExit(f"the server has {found} keys, not {keys}")
        return {
            "server_ready_s": ready_s,
            "server_rss_mb": info.rss / MB,
            "server_anonymous_mb": (info.rss - info.shared) / MB,
        }


def run_fresh(*arguments: str) -> dict[str, float]:
    """Run one phase in a process of its own; return what it measured."""
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=report.ROOT)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Run the phases, print the tables, write the JSON and, if asked, the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--key-bytes", type=int, default=64)
    parser.add_argument("--value-bytes", type=int, default=64)
    parser.add_argument("--write-docs", action="store_true", help="bring docs/memory.md up to date")
    parser.add_argument("--phase", choices=["fill", "reopen"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase == "fill":
        shape = (options.keys, options.key_bytes, options.value_bytes)
        print(json.dumps(fill(options.path, *shape)))
    elif options.phase == "reopen":
        print(json.dumps(reopen(options.path, min(options.keys, 100_000))))
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Measure in fresh processes and tell."""
    facts = report.machine()
    shape = {name: getattr(options, name) for name in ("keys", "key_bytes", "value_bytes")}
    flags = [
        part
        for name, value in shape.items()
        for part in (f"--{name}".replace("_", "-"), str(value))
    ]
    with tempfile.TemporaryDirectory() as directory:
        snap = Path(directory) / "data" / "member" / "snap"
        snap.mkdir(parents=True, mode=0o700)
        path = ["--path", str(snap / "db")]
        measured = run_fresh("--phase", "fill", *path, *flags)
        measured |= serve(Path(directory), options.keys)
        measured |= run_fresh("--phase", "reopen", *path, *flags)
    sections = [*tables(measured), report.goals_table(goals(measured))]
    console = report.console()
    report.show(console, sections)
    numbers = {"machine": facts, **shape, **measured}
    console.print(f"numbers: {report.save_json('memory', numbers)}")
    if options.write_docs:
        console.print(f"page: {report.write_page('memory', facts, sections)}")


def tables(measured: dict[str, float]) -> list[Table]:
    """Lay the numbers out."""

    def rows(*named: tuple[str, str, str]) -> list[tuple[str, str]]:
        return [(text, f"{measured[key]:,.1f} {unit}") for text, key, unit in named]

    server = rows(
        ("from its start to readiness", "server_ready_s", "s"),
        ("resident memory", "server_rss_mb", "MB"),
        ("of that anonymous", "server_anonymous_mb", "MB"),
        ("size of the file", "db_mb", "MB"),
    )
    store = rows(
        ("put, while filling (CPU)", "put_cpu_us", "us"),
        ("restore of the index", "restore_s", "s"),
        ("get of one key, still serialized (CPU)", "get_cpu_us", "us"),
        ("count of all keys", "count_all_s", "s"),
        ("HashKV of everything", "hashkv_s", "s"),
        ("resident memory after all that", "after_rss_mb", "MB"),
    )
    return [
        Table("A server on the store", ("what", "measured"), server),
        Table("The store alone", ("what", "measured"), store),
    ]


def goals(measured: dict[str, float]) -> list[Goal]:
    """Return what a store of a million keys should keep to."""
    return [
        Goal("resident memory of the server, MB", measured["server_rss_mb"], at_most=450),
        Goal("start of the server, s", measured["server_ready_s"], at_most=20),
    ]


if __name__ == "__main__":
    main()
