"""One run: a cluster, a client under load, a fault that strikes one member and is undone."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from benchmarks.failover.figures import Fault
from benchmarks.failover.record import Recording
from benchmarks.real_etcd import etcd_binary
from benchmarks.report import ROOT
from etcd_pinwheel.server_stub.local import LocalCluster, LocalMember

DEADLINE_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
"""Given to the load on top of its time before it counts as hung."""


@dataclass(frozen=True, slots=True)
class Means:
    """A way to do harm to a member, and to undo it."""

    name: str
    strike: Callable[[LocalMember], object]
    undo: Callable[[LocalMember], object]


KILL = Means("kill -9", LocalMember.kill, LocalMember.restart)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is tried: a policy, a fault, whom it strikes, and how long each part takes."""

    policy: str
    means: Means
    victim: str
    """``leader`` or ``follower``."""
    seconds: float = 16.0
    struck_at: float = 5.0
    undone_at: float = 10.0
    every_ms: float = 10.0
    """Between two puts, and between two reads."""

    @property
    def title(self) -> str:
        return f"{self.policy}, {self.means.name} {self.victim}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run brought back."""

    scenario: Scenario
    recording: Recording
    fault: Fault
    victim: str
    """The name of the member that was struck."""
    members: Mapping[str, str]
    """Every name that a member goes by in a recording, to its own: its id, its endpoint."""


def run(scenario: Scenario, size: int = 3) -> Outcome:
    """Play a scenario on a fresh cluster of the real etcd; everything started is stopped."""
    with (
        tempfile.TemporaryDirectory(prefix="failover-") as folder,
        LocalCluster(binary=etcd_binary(), size=size) as cluster,
    ):
        return play(scenario, cluster.members, Path(folder))


def play(scenario: Scenario, members: Sequence[LocalMember], folder: Path) -> Outcome:
    standings = {member.name: standing(member) for member in members}
    leads = scenario.victim == "leader"
    victim = next(each for each in members if standings[each.name].leads is leads)
    recording = folder / "recording.json"
    load = start_load(scenario, members, folder / "client.toml", recording)
    try:
        began = begin(load)
        sleep_until(began + scenario.struck_at)
        struck = time.monotonic() - began
        scenario.means.strike(victim)
        sleep_until(began + scenario.undone_at)
        undone = time.monotonic() - began
        scenario.means.undo(victim)
        if load.wait(timeout=scenario.seconds + PATIENCE_SECONDS):
            raise RuntimeError(f"the load failed with exit code {load.returncode}")
    finally:
        load.kill()
        load.communicate()
    names = {standings[member.name].member_id: member.name for member in members}
    for member in members:
        names |= {member.endpoint: member.name, f"http://{member.endpoint}": member.name}
    return Outcome(scenario, Recording.load(recording), Fault(struck, undone), victim.name, names)


def start_load(
    scenario: Scenario, members: Sequence[LocalMember], config: Path, recording: Path
) -> subprocess.Popen[str]:
    """Start the load's process, with the client's settings in a file as a user has them."""
    config.write_text(client_toml(scenario.policy, [member.endpoint for member in members]))
    how_much = (str(scenario.seconds), str(scenario.every_ms))
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.failover.load", str(config), str(recording), *how_much],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def client_toml(policy: str, endpoints: Sequence[str]) -> str:
    """Write the client's configuration file."""
    listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    return f'endpoints = [{listed}]\nbalancer = "{policy}"\ntimeout = {DEADLINE_SECONDS}\n'


def begin(load: subprocess.Popen[str]) -> float:
    """Wait until the load begins; return when, on the monotonic clock."""
    assert load.stdout is not None
    line = load.stdout.readline()
    if not line:
        raise RuntimeError(f"the load could not begin, exit code {load.wait()}")
    return float(line)


def sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member says of itself."""

    member_id: str
    leads: bool


def standing(member: LocalMember) -> Standing:
    """Ask a member who it is and whether it leads, through its metrics.

    Not through gRPC: this process starts others while the load runs, and grpcio and fork do not
    go well together.
    """
    with urlopen(f"http://{member.endpoint}/metrics", timeout=5.0) as answer:
        metrics = answer.read().decode()
    member_id = re.search(r'^etcd_server_id\{server_id="(\w+)"\} 1', metrics, re.MULTILINE)
    leads = re.search(r"^etcd_server_is_leader (\d)", metrics, re.MULTILINE)
    if member_id is None or leads is None:
        raise RuntimeError(f"{member.endpoint} does not tell its id and role in /metrics")
    return Standing(member_id[1], leads[1] == "1")
