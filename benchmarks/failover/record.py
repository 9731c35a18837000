"""What the load saw: its calls and streams, and the store afterwards. Written by one process, read
by another; so small that a whole campaign fits in one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Call:
    """One call; times are in seconds since the load began."""

    operation: str
    number: int
    due: float
    """When it had to start: what a caller waits counts from here, however late we are."""
    ended: float
    error: str = ""
    """The kind of error; empty: it succeeded."""
    member: str = ""
    """Who answered: the member's id as its answer gives it; of a failed call, the endpoint."""
    stale: bool = False
    """A read that missed a write acknowledged before it began."""

    @property
    def seconds(self) -> float:
        return self.ended - self.due


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of the watch."""

    at: float
    number: int
    """Of the put that made it."""
    revision: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted at a moment, by member; only changes are kept."""

    at: float
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class News:
    """Something that the client reported of itself: a structlog event."""

    at: float
    event: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What the client's balancer thought of a member from then on."""

    at: float
    endpoint: str
    pinned: bool
    eligible: bool
    reason: str
    """Why it is on an unhealthy list or out of the rotation; empty: it is not."""


@dataclass(frozen=True, slots=True)
class LeaseStory:
    """What became of the lease that was kept alive."""

    ttl: int = 0
    """0: it could not be granted."""
    lost_at: float | None = None
    reason: str = ""
    """Why it was lost, or could not be granted."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A key of the load's, in the store at the end."""

    version: int
    revision: int


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything one run of the load brought back."""

    calls: Sequence[Call] = ()
    began: float = 0.0
    """On the clock of ``time.monotonic()``, which all processes of a machine share."""
    stored: Mapping[int, Stored] = field(default_factory=dict)
    """By number of the put; a put that is not there is missing."""
    watched: Sequence[WatchEvent] = ()
    watch_error: str = ""
    """Why there was no watch, or why it ended."""
    lease: LeaseStory = LeaseStory()
    sockets: Sequence[Sample] = ()
    """TCP connections of the load's process, by the port or name that they lead to."""
    news: Sequence[News] = ()
    standings: Sequence[Standing] = ()
    latest_start: float = 0.0
    """By how much a call was late to start, at most: the machine was too busy, not the cluster."""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Recording:
        fields = json.loads(path.read_text())
        return cls(
            calls=[Call(**call) for call in fields["calls"]],
            began=fields["began"],
            stored={int(number): Stored(**each) for number, each in fields["stored"].items()},
            watched=[WatchEvent(**event) for event in fields["watched"]],
            watch_error=fields["watch_error"],
            lease=LeaseStory(**fields["lease"]),
            sockets=[Sample(**sample) for sample in fields["sockets"]],
            news=[News(**news) for news in fields["news"]],
            standings=[Standing(**standing) for standing in fields["standings"]],
            latest_start=fields["latest_start"],
        )

    def renamed(self, name: Callable[[str], str]) -> Recording:
        """Call members by their names, rather than by ids and addresses."""
        return replace(
            self,
            calls=[replace(call, member=name(call.member)) for call in self.calls],
            sockets=[
                replace(each, counts={name(port): n for port, n in each.counts.items()})
                for each in self.sockets
            ],
            news=[replace(each, endpoint=name(each.endpoint)) for each in self.news],
            standings=[replace(each, endpoint=name(each.endpoint)) for each in self.standings],
        )
