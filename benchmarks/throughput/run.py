"""The order of play: who takes which turn when, and what was left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product

from benchmarks.peers import PeerUnavailable
from benchmarks.throughput import servers
from benchmarks.throughput.contenders import (
    BARE_AIO,
    TASKS,
    THREADS,
    WIRE,
    Contender,
    Worker,
    WorkerFailed,
    World,
    working,
)
from benchmarks.throughput.servers import ECHO, Server
from benchmarks.throughput.turn import Cell, Turn
from benchmarks.throughput.worker import KEYS
from etcd_pinwheel.server_stub.local import LocalMemberError

CLIENTS, SERVERS = "clients", "servers"
"""The two comparisons: many clients on one server, one load on many servers."""
CROWD = 128
"""Callers where servers are compared."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. A round has every cell once."""

    rounds: int
    seconds: float
    """Of one turn."""
    warm_up_seconds: float
    callers: Sequence[int] = (1, 32, CROWD)
    operations: Sequence[str] = ("put", "get")
    servers: Sequence[str] = (servers.ETCD, servers.OURS)
    worlds: Sequence[World] = (THREADS, TASKS)

    @property
    def rows(self) -> Sequence[tuple[str, int]]:
        """Operation and number of callers, in the order of a table."""
        return list(product(self.operations, self.callers))

    @property
    def contenders(self) -> Sequence[Contender]:
        return [contender for world in self.worlds for contender in world.contenders]

    def cells(self, number: int) -> Iterator[Cell]:
        """Yield a round's turns in order; who begins moves on with every round."""
        for (operation, callers), server in product(self.rows, self.servers):
            for contender in rotated(self.contenders, number):
                yield Cell(CLIENTS, server, contender.name, operation, callers)
        for operation in (*self.operations, "echo"):
            yield from self.crowds(operation)

    def crowds(self, operation: str) -> Iterator[Cell]:
        """Yield the turns that compare servers: the same load, one right after the other."""
        for load in (WIRE, BARE_AIO):
            for server in (ECHO,) if operation == "echo" else self.servers:
                yield Cell(SERVERS, server, load.name, operation, CROWD)

    @property
    def turns(self) -> int:
        return self.rounds * sum(1 for _ in self.cells(0))


def rotated(contenders: Sequence[Contender], by: int) -> Sequence[Contender]:
    at = by % len(contenders)
    return (*contenders[at:], *contenders[:at])


@dataclass(slots=True)
class Bench:
    """The servers and workers of a run, all of them started, none of them busy."""

    servers: dict[str, Server] = field(default_factory=dict)
    workers: dict[tuple[str, str], Worker] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Who could not be measured, and why."""

    def start(self, plan: Plan, stack: ExitStack) -> None:
        """Start everything; ``stack`` stops it. What fails to start is left out."""
        for name in (*plan.servers, ECHO):
            try:
                server = stack.enter_context(servers.START[name]())
            except (OSError, ValueError, LocalMemberError) as error:
                self.left_out[name] = str(error).strip() or repr(error)
                continue
            self.servers[name] = server
            clients = (BARE_AIO,) if server.name == ECHO else plan.contenders
            for contender in (*clients, WIRE):
                self._employ(contender, server, stack)
            if server.name != ECHO:
                # One put of every key, so that gets find something.
                self.workers[server.name, WIRE.name].turn("put", len(KEYS), 0.0)

    def _employ(self, contender: Contender, server: Server, stack: ExitStack) -> None:
        try:
            worker = stack.enter_context(working(contender, server.target))
        except (PeerUnavailable, WorkerFailed) as error:
            self.left_out[f"{contender.name} on {server.name}"] = str(error)
        else:
            self.workers[server.name, contender.name] = worker

    def play(self, plan: Plan, done: Callable[[], None]) -> Iterator[Turn]:
        """Take every turn of the plan; ``done`` is called after each, taken or not."""
        for number in range(plan.rounds):
            for cell in plan.cells(number):
                if turn := self._turn(cell, number, plan):
                    yield turn
                done()

    def _turn(self, cell: Cell, number: int, plan: Plan) -> Turn | None:
        worker = self.workers.get((cell.server, cell.contender))
        if worker is None:
            return None
        server = self.servers[cell.server]
        try:
            worker.turn(cell.operation, cell.callers, plan.warm_up_seconds)
            server_began, machine_began = server.cpu_seconds(), servers.machine_cpu_seconds()
            began = time.monotonic()
            tally = worker.turn(cell.operation, cell.callers, plan.seconds)
            seconds = time.monotonic() - began
            machine_cpu = servers.machine_cpu_seconds() - machine_began
            server_cpu = server.cpu_seconds() - server_began
        except WorkerFailed as error:
            self.left_out[f"{cell.contender} on {cell.server}"] = str(error)
            del self.workers[cell.server, cell.contender]
            return None
        return Turn(
            cell=cell,
            round=number,
            calls=tally["calls"],
            failed=tally["failed"],
            seconds=tally["seconds"],
            cpu_seconds=tally["cpu_seconds"],
            server_cpu_seconds=server_cpu,
            others_cores=max(0.0, machine_cpu - server_cpu - tally["cpu_seconds"]) / seconds,
            error=tally["error"],
        )

    @property
    def releases(self) -> Mapping[str, Mapping[str, str]]:
        """Tell which grpcio and protobuf each contender runs on."""
        return {name: worker.releases for (_, name), worker in self.workers.items()}
