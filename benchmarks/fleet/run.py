"""One run: a fleet, a fault that strikes one member and is undone, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.fleet.client import SimulatedClient, Tally
from benchmarks.fleet.world import Clock, Member
from etcd_pinwheel.client.backoff import Backoff
from etcd_pinwheel.client.generations import generation

PING_SECONDS, PING_TIMEOUT_SECONDS = 10.0, 5.0
"""The client's own keepalive, with which it finds out that a connection is dead."""
START_SECONDS = 12.0
"""Within what time all clients have started."""
EVEN_WITHIN = 0.1
EVEN_SECONDS = 3
"""The load is even when every member has its share of picks, within so much, for so long."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the first member, and for how long."""

    name: str
    strike: Callable[[Run], None]
    undo: Callable[[Run], None]
    lasts_seconds: float


@dataclass(frozen=True)
class Fleet:
    """How large everything is."""

    clients: int = 10_000
    members: int = 5
    calls_per_second: float = 0.5
    """Of each client."""
    struck_at: float = 20.0
    seconds_after: float = 25.0
    """How long the world goes on after the fault is undone."""
    seed: int = 1

    @property
    def even_picks(self) -> float:
        """Each member's share of the calls a second."""
        return self.clients * self.calls_per_second / self.members


class Run:
    """A fleet under one policy and one fault."""

    def __init__(self, policy: str, fault: Fault, fleet: Fleet) -> None:
        self.policy, self.fault, self.fleet = policy, fault, fleet
        self.random = Random(fleet.seed)
        self.clock = Clock()
        self.members = [Member(f"http://m{number}:2379") for number in range(fleet.members)]
        self.tally = Tally()
        chosen = generation(policy)
        retry_rule = chosen.retry_rule(Backoff(self.random))
        self.clients = [
            SimulatedClient(
                self.clock,
                self.random,
                self.members,
                chosen,
                retry_rule,
                self.tally,
                fleet.calls_per_second,
            )
            for _ in range(fleet.clients)
        ]

    @property
    def struck(self) -> Member:
        return self.members[0]

    @property
    def undone_at(self) -> float:
        return self.fleet.struck_at + self.fault.lasts_seconds

    @property
    def seconds(self) -> int:
        return int(self.undone_at + self.fleet.seconds_after)

    def play(self) -> Outcome:
        """Run it from start to end."""
        for client in self.clients:
            self.clock.at(self.random.uniform(0.0, START_SECONDS), client.start)
        self.clock.at(self.fleet.struck_at, self.fault.strike, self)
        self.clock.at(self.undone_at, self.fault.undo, self)
        for second in range(self.seconds):
            self.clock.run(second + 1 - 1e-9)
            for member in self.members:
                member.held[second] = member.connections
        return Outcome.of(self)


@dataclass(frozen=True)
class Outcome:
    """A run in numbers. Lists are by second; those of members in the members' order."""

    policy: str
    fault: str
    fleet: Fleet
    struck_at: float
    undone_at: float
    picks: list[list[int]]
    dials: list[list[int]]
    held: list[list[int]]
    probes: list[list[int]]
    retries: list[int]
    calls: int
    failed: int
    slow: int

    @classmethod
    def of(cls, run: Run) -> Outcome:
        seconds = range(run.seconds)
        return cls(
            policy=run.policy,
            fault=run.fault.name,
            fleet=run.fleet,
            struck_at=run.fleet.struck_at,
            undone_at=run.undone_at,
            picks=[[member.picks[second] for second in seconds] for member in run.members],
            dials=[[member.dials[second] for second in seconds] for member in run.members],
            held=[[member.held[second] for second in seconds] for member in run.members],
            probes=[[member.probes[second] for second in seconds] for member in run.members],
            retries=[run.tally.retries[second] for second in seconds],
            calls=run.tally.calls,
            failed=run.tally.failed,
            slow=run.tally.slow,
        )

    @property
    def connections_before(self) -> int:
        """How many connections the cluster holds before the fault."""
        return sum(held[int(self.struck_at) - 1] for held in self.held)

    @property
    def most_picks(self) -> float:
        """The most picks of one member in a second from the fault on, in shares of an even load."""
        from_then = int(self.struck_at)
        return max(max(picks[from_then:]) for picks in self.picks) / self.fleet.even_picks

    @property
    def most_dials_once_back(self) -> int:
        """The most attempts to connect to the struck member in a second after it is back."""
        return max(self.dials[0][int(self.undone_at) :])

    @property
    def most_dials_elsewhere(self) -> int:
        """The most attempts to connect to another member in a second from the fault on."""
        return max(max(dials[int(self.struck_at) :]) for dials in self.dials[1:])

    @property
    def most_retries(self) -> int:
        return max(self.retries)

    @property
    def most_probes_once_back(self) -> int:
        """The most probes of the struck member in a second after it is back."""
        return max(self.probes[0][int(self.undone_at) :])

    @property
    def probes_before(self) -> float:
        """Probes of all members a second, in the quiet time before the fault."""
        quiet = range(int(self.struck_at) - 5, int(self.struck_at))
        return sum(probes[second] for probes in self.probes for second in quiet) / len(quiet)

    @property
    def seconds_until_even(self) -> float | None:
        """How long after the fault is undone the load is even again; None: not in this run."""
        first = int(self.undone_at)
        for second in range(first, len(self.retries) - EVEN_SECONDS + 1):
            if all(self._is_even(second + more) for more in range(EVEN_SECONDS)):
                return second - first
        return None

    def _is_even(self, second: int) -> bool:
        picks = [each[second] for each in self.picks]
        even = sum(picks) / len(picks)
        allowed = max(EVEN_WITHIN * even, 4.0 * math.sqrt(even))  # the latter is mere chance
        return all(abs(each - even) <= allowed for each in picks)


def _stop(run: Run) -> None:
    run.struck.running = False
    for client in run.clients:
        client.broken(run.struck.name)


def _start(run: Run) -> None:
    run.struck.running = True


def _hide(run: Run) -> None:
    """Drop what clients send; their pings find out, each in its own rhythm."""
    run.struck.reachable = False
    for client in run.clients:
        found_out = run.random.uniform(0.0, PING_SECONDS) + PING_TIMEOUT_SECONDS
        run.clock.at(run.clock.now + found_out, _ping_lost, run, client)


def _ping_lost(run: Run, client: SimulatedClient) -> None:
    if not run.struck.reachable:
        client.broken(run.struck.name)


def _show(run: Run) -> None:
    run.struck.reachable = True


def _cut_off(run: Run) -> None:
    run.struck.cut_off_at = run.clock.now


def _rejoin(run: Run) -> None:
    run.struck.cut_off_at = None


FAULTS = (
    Fault("restart", _stop, _start, 5.0),
    Fault("partition from clients", _hide, _show, 25.0),
    Fault("partition from peers", _cut_off, _rejoin, 15.0),
)
