"""etcd's own command line, run with the same words against both servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .comparison import Delta, between
from .differences import Excuses
from .pair import Disagreement, Pair
from .remote import Remote
from .servers import BINARIES

ETCDCTL = str(BINARIES / "etcdctl")
COMMAND_SECONDS = 30.0
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_"))}

MASKS = (
    # What differs between any two runs: times taken, ids that the server chose, what is left.
    (re.compile(r"took = [\d.]+[µnm]?s"), "took = SOME"),
    (re.compile(r"remaining\(\d+s\)"), "remaining(SOME)"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?(\+\d+)?"), "TIME"),
)
MASKED_JSON = {"took", "dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex"}


def _command(endpoint: str, *words: str) -> list[str]:
    return [ETCDCTL, "--endpoints", endpoint, *words]


def run_one(side: Remote, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run etcdctl against one server."""
    return subprocess.run(
        _command(side.endpoint, *words),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env=ENVIRONMENT,
        check=False,
    )


def told(side: Remote, ended: subprocess.CompletedProcess[str]) -> str:
    """What a command said, without what differs between any two runs."""
    lines = [f"exit {ended.returncode}", *ended.stdout.splitlines()]
    lines += [line for line in ended.stderr.splitlines() if not line.startswith('{"level"')]
    text = "\n".join(lines).replace(side.endpoint, "ENDPOINT")
    for pattern, word in MASKS:
        text = pattern.sub(word, text)
    return text


class Ctl:
    """Runs commands against both servers and holds what they say to be the same."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def __call__(self, *words: str, stdin: str = "") -> str:
        """Run a command on both; answer what both said."""
        return self.each(lambda _side: words, stdin=stdin)

    def each(self, words: Callable[[Remote], tuple[str, ...]], stdin: str = "") -> str:
        """Run a command whose words depend on the side (ids of leases do)."""
        etcd, ours = self.pair.on_each(
            lambda side: told(side, run_one(side, *words(side), stdin=stdin))
        )
        if etcd != ours:
            command = "etcdctl " + " ".join(words(self.pair.ours))
            raise Disagreement(f"{command}\n--- etcd\n{etcd}\n--- ours\n{ours}", [])
        return str(etcd)

    def json(self, *words: str) -> Any:
        """Run a command with JSON output on both; answer etcd's."""
        etcd, ours = self.pair.on_each(lambda side: self._json_of(side, words))
        left = unexplained_json(self.pair.excuses, etcd, ours)
        if left:
            raise Disagreement(f"etcdctl {' '.join(words)} -w json", left)
        return etcd

    def _json_of(self, side: Remote, words: tuple[str, ...]) -> Any:
        ended = run_one(side, *words, "-w", "json")
        assert ended.returncode == 0, (side.name, ended)
        return _masked(json.loads(ended.stdout.replace(side.endpoint, "ENDPOINT")))


def unexplained_json(excuses: Excuses, etcd: Any, ours: Any) -> list[Delta]:
    return list(excuses.unexplained("etcdctl", between(etcd, ours)))


def _masked(value: Any) -> Any:
    if isinstance(value, list):
        return [_masked(each) for each in value]
    if isinstance(value, dict):
        return {k: "some" if k in MASKED_JSON and v else _masked(v) for k, v in value.items()}
    return value


class Background:
    """An etcdctl that keeps running, such as a watch; ``stop`` it when done."""

    def __init__(self, side: Remote, *words: str) -> None:
        self._side = side
        self._process = subprocess.Popen(
            _command(side.endpoint, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def say(self, text: str) -> None:
        """Type a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def lines(self, count: int) -> list[str]:
        """Wait for so many lines and answer what came."""
        return self.until(lambda lines: len(lines) >= count)

    def until(
        self, enough: Callable[[list[str]], object], timeout_seconds: float = COMMAND_SECONDS
    ) -> list[str]:
        """Wait until it said enough (or the time is over) and answer all that it said."""
        with self._changed:
            self._changed.wait_for(lambda: enough(self._lines), timeout_seconds)
            return list(self._lines)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, timeout_seconds: float = COMMAND_SECONDS) -> int:
        """Wait until it ended; answer its exit code."""
        return self._process.wait(timeout_seconds)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def snapshot_to(side: Remote, directory: Path) -> Path:
    """Save a snapshot of one server with etcdctl, which checks its size and digest."""
    path = directory / f"{side.name}.db"
    ended = run_one(side, "snapshot", "save", str(path))
    assert ended.returncode == 0, ended
    return path
