"""One run: a cluster, clients side by side under the same load, and a fault that strikes.

All policies go through the same fault on the same cluster at the same time, each in a process of
its own: what they see differs only by what they are.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.failover.faults import LEADER, Fault
from benchmarks.failover.job import ROOT_PREFIX, Job
from benchmarks.failover.loads import LoadProcess
from benchmarks.failover.record import Recording
from benchmarks.failover.settings import ROUND_ROBIN, Setting
from benchmarks.failover.stage import Stage, staged

LEASE_TTL_SECONDS = 5
AHEAD_SECONDS = 0.3
"""Between the word to begin and the beginning."""
AFTER_SECONDS = 1.5
"""Of load after a strike that undoes itself."""
WRITER_EVERY_MS = 20.0
ELECTION_SECONDS = 4.0
"""How long a new leader is waited for, at most."""
_WRITER = "writer"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client brought back from one run."""

    fault: str
    setting: str
    repeat: int
    struck: float
    undone: float
    """In seconds since the load began; the load's end, if it was undone only after that."""
    victim: str
    """The name of the member that was struck."""
    members: Sequence[str]
    recording: Recording
    led_after: float | None = None
    """Seconds from the strike until there was another leader, where it was the leader's turn."""
    seconds: float = 0.0
    """Of load."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no outcome."""

    fault: str
    setting: str
    repeat: int
    reason: str


@dataclass
class Results:
    """All outcomes so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def of(self, fault: str, setting: str) -> list[Outcome]:
        return [each for each in self.outcomes if (each.fault, each.setting) == (fault, setting)]

    def add(self, other: Results) -> None:
        self.outcomes += other.outcomes
        self.missing += other.missing


@dataclass(frozen=True, slots=True)
class Rider:
    """Somebody who takes part in a run: one of our settings, or another client's program."""

    name: str
    setting: Setting
    command: tuple[str, ...] = ()
    """How its load is started, if it is not ours."""
    unavailable: str = ""
    """Why it cannot take part."""


def riders_of(settings: Sequence[Setting]) -> list[Rider]:
    return [Rider(setting.name, setting) for setting in settings]


def play(
    fault: Fault,
    riders: Sequence[Rider],
    *,
    binary: Path | None,
    repeat: int = 0,
    every_ms: float = 10.0,
    tell: Callable[[str], object] = lambda _: None,
) -> Results:
    """Play a fault on a fresh cluster; everything started is stopped."""
    with tempfile.TemporaryDirectory(prefix="failover-") as folder:
        tell("starting a cluster")
        try:
            with staged(fault, binary) as stage:
                run = Run(fault, stage, Path(folder), every_ms, tell)
                return run.play(riders, repeat)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
            return without(fault, riders, repeat, reason)


def without(fault: Fault, riders: Sequence[Rider], repeat: int, reason: str) -> Results:
    """Tell that nobody brought anything back, and why."""
    return Results(missing=[Missing(fault.name, each.name, repeat, reason) for each in riders])


class Run:
    """A fault on its stage."""

    def __init__(
        self,
        fault: Fault,
        stage: Stage,
        folder: Path,
        every_ms: float,
        tell: Callable[[str], object],
    ) -> None:
        self._fault = fault
        self._stage = stage
        self._folder = folder
        self._every_ms = every_ms
        self._tell = tell
        self._led_after: float | None = None

    def play(self, riders: Sequence[Rider], repeat: int) -> Results:
        names = self._stage.names()
        with ExitStack() as stack:
            self._tell("starting the clients")
            loads = {}
            for rider in (each for each in riders if not each.unavailable):
                load = LoadProcess(rider.name, self._job(rider), self._folder, rider.command)
                stack.callback(load.close)
                loads[rider.name] = load
            writer = self._writer()
            if writer is not None:
                stack.callback(writer.close)
            everybody = [*loads.values(), *([writer] if writer else [])]
            struck, undone, ended = self._under_load(everybody)
            self._tell("auditing the store")
            if writer is not None:  # so that all that it wrote is there
                writer.audit()
                writer.recording()
            for load in loads.values():
                load.audit()
            results = Results()
            for name, load in loads.items():
                recording = load.recording()
                if recording is None:
                    reason = str(load.failure)
                    results.missing.append(Missing(self._fault.name, name, repeat, reason))
                    continue
                if load.is_stranger:
                    recording = replace(recording, stored=self._stage.stored(load.prefix))
                results.outcomes.append(
                    Outcome(
                        fault=self._fault.name,
                        setting=name,
                        repeat=repeat,
                        struck=struck,
                        undone=undone,
                        victim=self._stage.victim.name,
                        members=[member.name for member in self._stage.cluster],
                        recording=recording.renamed(lambda alias: names.get(alias, alias)),
                        led_after=self._led_after,
                        seconds=ended,
                    )
                )
            return results

    def _under_load(self, loads: Sequence[LoadProcess]) -> tuple[float, float, float]:
        """Have the fault strike and undone; return when, and for how long there was load."""
        fault, stage = self._fault, self._stage
        for load in loads:
            load.wait_until_ready()
        began = time.monotonic() + AHEAD_SECONDS
        for load in loads:
            load.begin(began)
        self._tell(fault.title)
        sleep_until(began + fault.struck_at)
        struck = time.monotonic() - began
        try:
            fault.strike(stage)
            if fault.victim == LEADER:
                self._led_after = stage.seconds_until_led(began + struck, ELECTION_SECONDS)
            undone = time.monotonic() - began
            if fault.until_done:
                sleep_until(began + undone + AFTER_SECONDS)
                for load in loads:
                    load.stop()
            elif fault.undone_at is not None:
                sleep_until(began + fault.undone_at)
                undone = time.monotonic() - began
                fault.undo(stage)
            seconds = undone + AFTER_SECONDS if fault.until_done else fault.seconds
            for load in loads:
                load.wait_until_done()
        finally:
            if fault.undone_late:
                fault.undo(stage)
        if fault.undone_late:
            undone = seconds
        stage.wait_until_well()
        return struck, undone, seconds

    def _job(self, rider: Rider) -> Job:
        fault, stage, setting = self._fault, self._stage, rider.setting
        config = self._folder / f"{rider.name}.toml"
        config.write_text(setting.toml(stage.endpoints))
        prefix = f"{ROOT_PREFIX}{rider.name}/"
        victim = stage.endpoint(stage.victim)
        endpoints = sorted(stage.endpoints, key=lambda each: each != victim)
        pinned = setting.policy.startswith("pinned")
        streams = fault.streams
        return Job(
            config=str(config),
            endpoints=endpoints,
            first=victim if pinned else "",
            recording=str(self._folder / f"{rider.name}.json"),
            prefix=prefix,
            watch_prefix="" if not streams else prefix if fault.calls else ROOT_PREFIX + _WRITER,
            lease_ttl=LEASE_TTL_SECONDS if streams else 0,
            require_leader=setting.require_leader,
            seconds=fault.seconds,
            every_ms=self._every_ms if fault.calls else 0.0,
            reads=fault.reads,
        )

    def _writer(self) -> LoadProcess | None:
        """Start somebody who writes what the watches see, where the clients only watch."""
        if self._fault.calls:
            return None
        stage = self._stage
        others = [stage.endpoint(each) for each in stage.cluster if each is not stage.victim]
        config = self._folder / f"{_WRITER}.toml"
        config.write_text(ROUND_ROBIN.toml(others))
        job = Job(
            config=str(config),
            endpoints=others,
            first="",
            recording=str(self._folder / f"{_WRITER}.json"),
            prefix=ROOT_PREFIX + _WRITER,
            watch_prefix="",
            lease_ttl=0,
            require_leader=False,
            seconds=self._fault.seconds,
            every_ms=WRITER_EVERY_MS,
            reads=False,
        )
        return LoadProcess(_WRITER, job, self._folder)


def sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
