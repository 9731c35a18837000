"""What a run is like: sizes, speeds and troubles, all drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from random import Random

from .network import Weather


@dataclass(slots=True)
class Profile:
    """The circumstances of one run; times in virtual seconds."""

    voters: int = 3
    tick_seconds: float = 0.1
    election_ticks: int = 5
    pre_vote: bool = True
    trouble_seconds: float = 8.0
    """How long things go wrong before all is mended."""
    fault_interval_seconds: float = 0.6
    faults: dict[str, int] = field(default_factory=dict)
    """Names in :mod:`.nemesis`, and how often each comes relative to the others."""
    churn_seconds: float = 0.0
    """How often the membership is to change; 0: never."""
    changes: dict[str, int] = field(default_factory=dict)
    """The same for changes of the membership."""
    weather: Weather = field(default_factory=Weather)
    disk_seconds: float = 0.002
    """What a sync takes."""
    apply_seconds: float = 0.0
    """How long committed entries wait to be applied, at most."""
    value_bytes: int = 10
    max_inflight_messages: int = 64
    max_message_bytes: int = 1 << 16
    snapshot_every: int = 30
    catch_up_entries: int = 5
    segment_bytes: int = 16_384
    backend_commit_seconds: float = 0.3
    clients: int = 3
    think_seconds: float = 0.1
    keys: int = 3
    compacts: bool = True
    leases: bool = True
    through_wire: bool = False
    """Whether messages are encoded and decoded as between processes."""

    def __str__(self) -> str:
        default = Profile()
        told = [f"voters={self.voters}"]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if value != getattr(default, each.name):
                told.append(f"{each.name}={value}")
        return " ".join(told)


FAULTS = {
    "crash": 3,
    "crash_at_step": 6,
    "power_cut_for_all": 1,
    "partition": 3,
    "one_way": 2,
    "partial": 2,
    "flap": 2,
    "isolate_leader": 3,
    "mend": 4,
    "pause": 3,
    "skew": 1,
    "slow_disk": 2,
    "failing_disk": 1,
    "storm": 2,
    "transfer": 2,
    "campaign": 1,
    "wipe": 1,
}
"""Every fault there is, and its weight."""

CHANGES = {"add_learner": 2, "add_voter": 2, "promote": 4, "remove": 3}
"""The changes of the membership, likewise."""


def draw(random: Random) -> Profile:
    """Draw the circumstances of a run."""
    profile = Profile(
        voters=random.choice((1, 2, 2, 3, 3, 3, 3, 4, 5)),
        election_ticks=random.randint(3, 8),
        pre_vote=random.random() < 0.85,
        trouble_seconds=random.uniform(3.0, 9.0),
        fault_interval_seconds=random.uniform(0.2, 1.5),
        weather=draw_weather(random),
        disk_seconds=random.choice((0.0005, 0.003, 0.02)),
        apply_seconds=random.choice((0.0, 0.0, 0.03, 0.4)),
        value_bytes=random.choice((10, 10, 300, 2000)),
        max_inflight_messages=random.choice((1, 2, 4, 64)),
        max_message_bytes=random.choice((0, 200, 1000, 1 << 16)),
        snapshot_every=random.choice((5, 10, 20, 50, 1000)),
        catch_up_entries=random.choice((0, 1, 5, 20)),
        segment_bytes=random.choice((2048, 8192, 65536)),
        backend_commit_seconds=random.choice((0.05, 0.3, 1.5)),
        clients=random.choice((1, 3, 5, 8)),
        think_seconds=random.choice((0.03, 0.1, 0.2)),
        keys=random.choice((1, 3, 8)),
        compacts=random.random() < 0.6,
        leases=random.random() < 0.4,
        through_wire=random.random() < 0.2,
    )
    kinds = [each for each in FAULTS if random.random() < 0.4] or ["crash"]
    profile.faults = {each: FAULTS[each] for each in kinds}
    if "wipe" not in kinds and random.random() < 0.6:
        profile.churn_seconds = random.uniform(0.1, 0.5)
        changes = [each for each in CHANGES if random.random() < 0.8] or ["add_voter"]
        profile.changes = {each: CHANGES[each] for each in changes}
    return profile


def draw_weather(random: Random) -> Weather:
    """Draw what the network is like all the time."""
    return Weather(
        drop=random.choice((0.0, 0.0, 0.02, 0.15)),
        duplicate=random.choice((0.0, 0.0, 0.05, 0.2)),
        delay=random.choice((0.0, 0.0, 0.05, 0.2)),
        slowest_seconds=random.choice((0.05, 0.3, 1.0)),
        reorder=random.random() < 0.4,
    )
