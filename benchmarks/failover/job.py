"""What a load is told to do, as a file that its process reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT_PREFIX = "benchmark/failover/"

READY, BEGIN, DONE, STOP, AUDIT = "ready", "begin", "done", "stop", "audit"
"""The words that a load and its parent exchange, a line each: the load says that it is ready, is
told when to begin (on the monotonic clock) and, perhaps, to stop early, says that all calls have
been answered, and is told to audit the store when the cluster is whole again."""


@dataclass(frozen=True, slots=True)
class Job:
    """A load: how much, through which client, and where the recording goes."""

    config: str
    """The client's settings, a TOML file as a user has one."""
    endpoints: Sequence[str]
    first: str
    """The endpoint that the client knows at the beginning, so that it is the pin; empty: all."""
    recording: str
    prefix: str
    """Of the keys that are put."""
    watch_prefix: str
    """Of the keys that are watched; empty: no watch."""
    lease_ttl: int
    """Of the lease that is kept alive; 0: none."""
    require_leader: bool
    """Whether the watch wants to leave a member without a leader: clientv3 has to be asked to."""
    seconds: float
    every_ms: float
    """Between two puts, and between two reads; 0: no calls."""
    reads: bool = True

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text()))
