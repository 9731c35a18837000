"""Who is measured, and the process that each of them lives in."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.report import ROOT

WORKER = Path(__file__).with_name("worker.py")
PATIENCE_SECONDS = 30.0
"""Given to a worker on top of its turn before it counts as hung."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A client to measure, or one of the two yardsticks (``bare``, ``wire``)."""

    name: str
    """What ``worker.py`` calls it; of ours, with the policy after a colon."""
    title: str
    """What tables call it."""
    peer: Peer | None = None
    """Somebody else's client lives in an environment of its own."""

    def under(self, policy: str) -> Contender:
        """Our client, with another policy."""
        return Contender(f"{self.name.partition(':')[0]}:{policy}", f"etcd-pinwheel, {policy}")

    def command(self, target: str) -> list[str]:
        """Return how to start it; raises ``PeerUnavailable``."""
        if self is WIRE:
            return [sys.executable, "-m", "benchmarks.throughput.wire", target]
        python = peers.interpreter(self.peer) if self.peer else Path(sys.executable)
        # -P: or else our file names would stand before those of the libraries that it imports.
        name, _, policy = self.name.partition(":")
        return [str(python), "-P", str(WORKER), name, target, *([policy] if policy else [])]


BARE = Contender("bare", "bare grpc stub")
OURS = Contender("pinwheel", "etcd-pinwheel").under("round_robin")
BARE_AIO = Contender("bare-aio", "bare grpc.aio stub")
OURS_AIO = Contender("pinwheel-aio", "etcd-pinwheel").under("round_robin")
WIRE = Contender("wire", "light load")


@dataclass(frozen=True, slots=True)
class World:
    """Contenders that wait in the same way, and so compare with the same floor."""

    name: str
    floor: Contender
    ours: Contender
    rivals: tuple[Contender, ...]
    variants: tuple[Contender, ...] = ()
    """Our client with other policies."""

    @property
    def contenders(self) -> tuple[Contender, ...]:
        return (self.floor, self.ours, *self.variants, *self.rivals)


THREADS = World(
    "threads",
    floor=BARE,
    ours=OURS,
    variants=(OURS.under("health_aware"),),
    rivals=(Contender("python-etcd3", "python-etcd3", peers.PYTHON_ETCD3),),
)
TASKS = World(
    "asyncio",
    floor=BARE_AIO,
    ours=OURS_AIO,
    variants=(OURS_AIO.under("health_aware"),),
    rivals=(
        Contender("aetcd", "aetcd", peers.AETCD),
        Contender("etcd3aio", "etcd3aio", peers.ETCD3AIO),
    ),
)


class WorkerFailed(Exception):
    """A worker could not start, died or hung; the text carries the end of what it said."""


class Worker:
    """A contender's process, connected to one server and waiting for turns."""

    def __init__(self, contender: Contender, process: subprocess.Popen[str], errors: Path) -> None:
        self.contender = contender
        self.releases: dict[str, str] = {}
        self._process = process
        self._errors = errors

    def turn(self, operation: str, callers: int, seconds: float) -> dict[str, Any]:
        """Let it take a turn; return the fields of its tally. Raises :class:`WorkerFailed`."""
        assert self._process.stdin is not None
        line = json.dumps({"operation": operation, "callers": callers, "seconds": seconds})
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._failed() from error
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        """Wait for its next line; a worker that takes much too long is killed."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(seconds + PATIENCE_SECONDS, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise self._failed()
        fields: dict[str, Any] = json.loads(line)
        return fields

    def _failed(self) -> WorkerFailed:
        self._process.kill()
        self._process.wait()
        said = self._errors.read_text(errors="replace").strip().splitlines()
        return WorkerFailed(f"{self.contender.name}: {said[-1] if said else 'died or hung'}")


@contextmanager
def working(contender: Contender, target: str) -> Iterator[Worker]:
    """Have a worker for as long as the block lasts. Raises WorkerFailed or PeerUnavailable."""
    command = contender.command(target)
    with tempfile.NamedTemporaryFile(prefix="worker-", suffix=".log") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
        )
        try:
            worker = Worker(contender, process, Path(errors.name))
            worker.releases = worker.answer(PATIENCE_SECONDS)["releases"]
            yield worker
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """End a worker: by the end of its stdin, or else by force."""
    if process.stdin is not None:
        # It may be dead already, with something unsent in the pipe.
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
