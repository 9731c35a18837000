"""The order of play: the same load on the one cluster and the other, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.cluster.fanout import until_all_have_it_ms
from benchmarks.cluster.samples import Sample
from benchmarks.cluster.sides import ETCD, OURS, Side
from benchmarks.throughput.contenders import WIRE, WorkerFailed, working
from benchmarks.throughput.wire import SERIALIZABLE_GET
from benchmarks.throughput.worker import KEYS

LEADER, FOLLOWER = "the leader", "a follower"
CROWD = 128
MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Load:
    """One row of a table: so many callers who do one thing at one member."""

    operation: str
    callers: int
    at: str

    @property
    def row(self) -> str:
        some = "1 caller" if self.callers == 1 else f"{self.callers} callers"
        return f"{self.operation}, {some}, {self.at}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of one turn."""
    fanout_puts: int
    watchers: Sequence[int] = (1, 100, 1000)
    callers: Sequence[int] = (1, 32, CROWD)
    sizes: Sequence[int] = (1_000, 10_000, 100_000)
    """Keys in the store where growth is measured."""

    @property
    def loads(self) -> list[Load]:
        puts = [Load("put", callers, LEADER) for callers in self.callers]
        gets = [
            Load(operation, callers, at)
            for operation in ("get", SERIALIZABLE_GET)
            for at in (LEADER, FOLLOWER)
            for callers in (1, CROWD)
        ]
        return [*puts, Load("put", CROWD, FOLLOWER), *gets]

    @property
    def steps(self) -> int:
        """How many samples a run takes of each side."""
        growth = len(self.sizes) * (len(GROWTH) + 1)
        return self.rounds * (len(self.loads) + len(self.watchers) + growth)


GROWTH = (
    Load("put", CROWD, LEADER),
    Load("get", CROWD, LEADER),
    Load(SERIALIZABLE_GET, CROWD, FOLLOWER),
)
GROWTH_WATCHERS = 100


def fanout_row(watchers: int) -> str:
    return f"{watchers} watcher{'s' if watchers > 1 else ''}"


def growth_row(size: int, row: str) -> str:
    return f"{size:,} keys: {row}"


class Bench:
    """The two clusters with a load generator for each member that is asked."""

    def __init__(self, plan: Plan, sides: Mapping[str, Side], stack: ExitStack) -> None:
        self._plan = plan
        self._sides = sides
        self._stack = stack
        self._workers = {
            (side.name, member.endpoint): stack.enter_context(working(WIRE, member.endpoint))
            for side in sides.values()
            for member in side.members
        }

    def play(self, done: Callable[[], None]) -> Iterator[Sample]:
        """Take every sample; `done` is called after each."""
        for side in self._sides.values():
            self._turn(side, Load("put", len(KEYS), LEADER), 0.0)  # so that gets find something
        for number in range(self._plan.rounds):
            for load in self._plan.loads:
                yield from self._both(number, load.row, self._measured(load), done)
            for watchers in self._plan.watchers:
                measured = self._fanned_out(watchers)
                yield from self._both(number, fanout_row(watchers), measured, done)
        filled = 0
        for size in self._plan.sizes:
            for side in self._sides.values():
                side.fill(filled, size)
            filled = size
            for number in range(self._plan.rounds):
                for load in GROWTH:
                    row = growth_row(size, load.row)
                    yield from self._both(number, row, self._measured(load), done)
                row = growth_row(size, fanout_row(GROWTH_WATCHERS))
                yield from self._both(number, row, self._fanned_out(GROWTH_WATCHERS), done)

    def _both(
        self,
        number: int,
        row: str,
        measure: Callable[[Side], Mapping[str, float]],
        done: Callable[[], None],
    ) -> Iterator[Sample]:
        for name in (ETCD, OURS) if number % 2 else (OURS, ETCD):
            try:
                yield Sample(name, row, number, measure(self._sides[name]))
            except (WorkerFailed, OSError, AssertionError, TimeoutError) as error:
                yield Sample(name, row, number, {}, str(error) or repr(error))
            done()

    def _measured(self, load: Load) -> Callable[[Side], Mapping[str, float]]:
        def measure(side: Side) -> Mapping[str, float]:
            side.find_leader()
            self._turn(side, load, self._plan.seconds / 4)
            before = side.cpu_seconds()
            tally = self._turn(side, load, self._plan.seconds)
            used = [after - was for after, was in zip(side.cpu_seconds(), before, strict=True)]
            calls, resident = tally["calls"], side.resident_bytes()
            return {
                "rate": calls / tally["seconds"],
                "p50_ms": tally["p50_ms"],
                "p99_ms": tally["p99_ms"],
                "leader_us": used[0] / calls * 1e6,
                "follower_us": sum(used[1:]) / len(used[1:]) / calls * 1e6,
                "leader_mb": resident[0] / MEGABYTE,
                "follower_mb": sum(resident[1:]) / len(resident[1:]) / MEGABYTE,
            }

        return measure

    def _fanned_out(self, watchers: int) -> Callable[[Side], Mapping[str, float]]:
        def measure(side: Side) -> Mapping[str, float]:
            side.find_leader()
            leader, follower = side.leader.endpoint, side.followers[0].endpoint
            took_ms = until_all_have_it_ms(leader, follower, watchers, self._plan.fanout_puts)
            return {"all_ms": took_ms}

        return measure

    def _turn(self, side: Side, load: Load, seconds: float) -> dict[str, float]:
        member = side.leader if load.at == LEADER else side.followers[0]
        tally = self._workers[side.name, member.endpoint].turn(
            load.operation, load.callers, seconds
        )
        if tally["failed"]:
            raise WorkerFailed(f"{load.row} on {side.name}: {tally['error']}")
        return tally
