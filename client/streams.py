"""A client's streams: one for all its leases, and one for all watches of a kind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from ..protos.errors import Code
from ..protos.rpc import Rpc
from ..protos.rpcs import LEASE_LEASE_KEEP_ALIVE, WATCH_WATCH
from .call import Call
from .errors import CallError, EtcdError, NotSent, TimedOut
from .flow import REQUIRE_LEADER, Flow, Metadata, T, dress
from .keep_alive import KeepAliveMachine
from .pump import Pump, Spawner
from .stream import Phase, StreamMachine
from .watch_machine import WatchMachine

P = ParamSpec("P")
X = TypeVar("X")
M = TypeVar("M")
AnyPump = TypeVar("AnyPump", bound=Pump[Any, Any])


class Beginner(Spawner, Protocol):
    """The part of a world that starts connecting, and runs flows in the background."""

    def begin(self) -> None: ...


class Streams(Generic[AnyPump]):
    """Machines and their pumps, made when they are first needed."""

    def __init__(self, world: Beginner, call: Call) -> None:
        self.call = call
        self._beginner = world
        self._lock = threading.Lock()
        self._watching: dict[Metadata, tuple[WatchMachine, AnyPump]] = {}
        self._keeping: tuple[KeepAliveMachine, AnyPump] | None = None
        self.claims: dict[bytes, object] = {}
        """Who claims what on which lease, by the claim's key."""

    def begin(self) -> None:
        """Start connecting. Raises ClientClosed."""
        if closed := self.call.connections.closed:
            raise closed
        self._beginner.begin()

    def spawn(self, flow: Flow[T], then: Callable[[T], None]) -> None:
        """Run a flow, which must not raise, in the background."""
        self._beginner.spawn(flow, then)

    def watching(self, *, require_leader: bool) -> tuple[WatchMachine, AnyPump]:
        """The machine of the watches that share a stream, and its pump."""
        metadata = REQUIRE_LEADER if require_leader else ()
        with self._lock:
            if metadata not in self._watching:
                machine = WatchMachine(Random(), has_password=self.call.credentials is not None)
                self._watching[metadata] = machine, self._pump(WATCH_WATCH, machine, metadata)
            return self._watching[metadata]

    def keeping(self) -> tuple[KeepAliveMachine, AnyPump]:
        """The machine of the leases that are kept alive, and its pump."""
        with self._lock:
            if self._keeping is None:
                machine = KeepAliveMachine(Random())
                pump = self._pump(LEASE_LEASE_KEEP_ALIVE, machine, REQUIRE_LEADER)
                self._keeping = machine, pump
            return self._keeping

    def close(self, error: EtcdError) -> None:
        """End all streams; whoever waits on them is told ``error``."""
        for pump in self._pumps():
            pump.close(error)

    def unanswered(
        self,
        machine: StreamMachine[Any, Any],
        rpc: Rpc[Any, Any],
        waited_seconds: float,
        attempts: int,
    ) -> CallError:
        """Make the error for who has waited in vain for a first answer on a stream.

        ``attempts``: how many times the server may have taken the question from one; where the
        machine is at the moment says nothing about that.
        """
        kind: type[CallError]
        if attempts:
            kind, code = TimedOut, Code.DEADLINE_EXCEEDED
            text = f"not answered within {waited_seconds} s"
        else:
            kind, code = NotSent, Code.UNAVAILABLE
            text = "nothing was sent: no endpoint served the stream"
        if isinstance(machine.last_error, CallError):  # e.g. that the only endpoint is a learner
            text = f"{text}; it ended last with: {machine.last_error.text}"
        error = kind(
            text,
            code=code,
            rpc=rpc.path,
            attempts=attempts,
            elapsed_seconds=waited_seconds,
            reasons={} if machine.phase is Phase.OPEN else self.call.connections.reasons(),
        )
        error.__cause__ = machine.last_error
        return error

    def _pump(
        self, rpc: Rpc[Any, Any], machine: StreamMachine[Any, Any], metadata: Metadata
    ) -> AnyPump:
        raise NotImplementedError

    def _pumps(self) -> list[AnyPump]:
        with self._lock:
            kept = [self._keeping] if self._keeping else []
            return [pump for _, pump in [*self._watching.values(), *kept]]


def streaming(
    operation: Callable[Concatenate[Call, P], X], make: Callable[[Any, X], M]
) -> Callable[Concatenate[Any, P], M]:
    """Make a method that returns, unopened, what ``make`` makes of the operation."""

    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> M:
        streams = self._streams
        return make(streams, operation(streams.call, *args, **kwargs))

    made = make.func if isinstance(make, partial) else make
    return dress(method, operation, made.__name__)
