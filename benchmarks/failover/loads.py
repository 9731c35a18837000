"""The processes that make the load, seen from their parent: bounded in time, gone in the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.failover.job import AUDIT, BEGIN, DONE, READY, STOP, Job
from benchmarks.failover.record import Recording
from benchmarks.report import ROOT

START_SECONDS = 60.0
PATIENCE_SECONDS = 25.0
"""Given to a load on top of its time before it counts as hung."""
AUDIT_SECONDS = 60.0


class LoadFailed(Exception):
    """A load died or hung; the text says which, and carries the end of what it said."""


class LoadProcess:
    """One load; after the first failure everything else raises the same."""

    def __init__(self, name: str, job: Job, folder: Path, command: Sequence[str] = ()) -> None:
        self.name = name
        self.prefix = job.prefix
        self.is_stranger = bool(command)
        """Whether it is somebody else's client, which leaves the audit to us."""
        self._recording = Path(job.recording)
        self._failure: LoadFailed | None = None
        self._seconds = job.seconds
        file = folder / f"{name}.job.json"
        job.save(file)
        self._errors = folder / f"{name}.errors"
        module = [sys.executable, "-m", "benchmarks.failover.load"]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*(command or module), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def failure(self) -> LoadFailed | None:
        """Why there will be no recording."""
        return self._failure

    def wait_until_ready(self) -> None:
        self._expect(READY, START_SECONDS)

    def begin(self, at: float) -> None:
        """Have it begin at a time of the monotonic clock."""
        self._tell(f"{BEGIN} {at!r}")

    def stop(self) -> None:
        """Have it start no more calls."""
        self._tell(STOP)

    def wait_until_done(self) -> None:
        """Wait until all calls have been answered."""
        self._expect(DONE, self._seconds + PATIENCE_SECONDS)

    def audit(self) -> None:
        """Have it look at the store, now that the cluster is whole."""
        self._tell(AUDIT)

    def recording(self) -> Recording | None:
        """Wait for what it has seen; None if it failed."""
        if self._failure is None:
            try:
                code = self._process.wait(AUDIT_SECONDS)
                if code:
                    self._fail(f"ended with exit code {code}")
            except subprocess.TimeoutExpired:
                self._fail("hung while it read back what it had written")
        return None if self._failure else Recording.load(self._recording)

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            self._fail("has ended")

    def _expect(self, word: str, seconds: float) -> None:
        if self._failure is not None:
            return
        assert self._process.stdout is not None
        hung = threading.Event()

        def end() -> None:
            hung.set()
            self._process.kill()

        watchdog = threading.Timer(seconds, end)
        watchdog.start()
        try:
            line = self._process.stdout.readline().strip()
        finally:
            watchdog.cancel()
        if line != word:
            self._fail(f"hung before it was {word}" if hung.is_set() else f"died before {word}")

    def _fail(self, what: str) -> None:
        if self._failure is not None:
            return
        self._process.kill()
        self._process.wait()
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        self._failure = LoadFailed(f"{self.name}: {what}{f'; {lines[-1]}' if lines else ''}")
