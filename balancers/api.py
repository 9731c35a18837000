"""The treaty between a balancer and whoever drives it.

Rule 1: a balancer decides and never waits. It is told what happened (an :data:`Event`) and answers
with what it wants done (:data:`Action`); it holds no socket, thread or timer, reads no clock
(``now`` is an argument, in seconds of one monotonic clock) and draws from the ``random.Random`` it
was built with. So the same object serves threads, asyncio and a simulation of ten thousand clients.

Rule 2: one driver at a time. The driver calls a balancer under its own lock, never across a wait.

Rule 3: a pick is paid back. Every endpoint that :meth:`Balancer.pick` returns is handed back once
to :meth:`Balancer.done`, when the call (or the opening of the stream) has ended, however it ended.

Rule 4: actions are wishes about connections, carried out in order; their effect comes back as an
event. ``Connect`` for an endpoint that is connected or connecting changes nothing.

A call's life, as the driver sees it::

    endpoint = balancer.pick(need, now)      # None: nobody can serve this now; wait for an event
    ... send the call to endpoint ...
    actions = balancer.done(endpoint, failure, seconds, now)
    actions = balancer.update(FailedOver(endpoint), now)     # only when the error handler said so

What the four generations need of it: ``pinned_multi`` lives on Connected and Disconnected alone
(and ``done``, if asked to move on errors); ``pinned_single`` also on FailedOver, Probe (may I pin
this one?) and WakeAt (its unhealthy list expires); ``round_robin`` on Connected and Disconnected,
with a rotation; ``health_aware`` on everything, with ``done`` feeding latencies and ejections,
Probe feeding health, and Drain moving streams off a member that left the rotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

Endpoint: TypeAlias = str
"""One member's client address in its normal form, e.g. ``http://10.0.0.1:2379``. Opaque here."""


class Need(Enum):
    """What a call needs of the member that serves it."""

    QUORUM = auto()
    """A member in touch with its leader: writes, linearizable reads, watches, leases."""
    ANY_MEMBER = auto()
    """Whatever answers, a learner included: serializable reads and Status."""


class Failure(Enum):
    """How a call on an endpoint went wrong, as far as a balancer cares."""

    NOT_SENT = auto()
    """It never left: no connection."""
    BROKEN = auto()
    """The connection was lost with the call under way."""
    TIMED_OUT = auto()
    """No answer within the attempt's deadline, or the member itself said "request timed out"."""
    UNAVAILABLE = auto()
    """The member answered that it cannot serve now: no leader, stopping, a learner."""
    REFUSED = auto()
    """The member answered with a refusal that says nothing about its health."""
    CANCELLED = auto()
    """The caller gave up; says nothing about the member."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe found out about a member."""

    serving: bool
    """grpc.health.v1 says SERVING, or the member has no such service; False without an answer."""
    has_leader: bool = True
    learner: bool = False
    corrupt: bool = False
    raft_term: int = 0
    applied_index: int = 0
    reason: str = ""
    """For people, when it is not well."""
    answered: bool = True
    """Whether there was an answer at all."""
    leads: bool | None = None
    """Whether it is the leader; None: it was not asked."""


# What happened: driver -> balancer


@dataclass(frozen=True, slots=True)
class EndpointsChanged:
    """These are the endpoints from now on; the first event of all, and never empty.

    Whoever is gone should be disconnected. The driver takes leave of it in any case: calls there
    end as they would have, streams move, and Disconnected is told if it was to be connected.
    """

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to the endpoint is ready for calls."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The endpoint's connection went down or could not be made, or was closed as wished."""

    endpoint: Endpoint
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """The answer to a :class:`Probe`."""

    endpoint: Endpoint
    health: Health


@dataclass(frozen=True, slots=True)
class FailedOver:
    """The error handler's verdict on a call: this endpoint should not serve the next one."""

    endpoint: Endpoint
    failure: Failure


@dataclass(frozen=True, slots=True)
class Woken:
    """The time of a :class:`WakeAt` has come."""


Event: TypeAlias = EndpointsChanged | Connected | Disconnected | Probed | FailedOver | Woken


# What to do: balancer -> driver


@dataclass(frozen=True, slots=True)
class Connect:
    """Have a connection to the endpoint, and make it again whenever it breaks."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the endpoint's connection, with whatever is on it, and make no new one."""

    endpoint: Endpoint
    graceful: bool = False
    """Let the calls and streams that are on it end first. No new ones get on it; Disconnected is
    told at once all the same, and a Connect afterwards makes another connection at once."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Move long-lived streams (watch, keep-alive) off the endpoint; leave its calls alone."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the member how it is, over its own connection or a fresh one; answered by Probed."""

    endpoint: Endpoint
    timeout_seconds: float
    fresh_connection: bool = False
    linearizable: bool = False
    """Ask for a linearizable read too: a member that answers it is in touch with a quorum now, and
    not only has not noticed yet that it is not."""
    brief: bool = False
    """Ask for that read and nothing else. It tells all but whether the member wants to be spared,
    for a third of the price: thousands of clients may ask a member that has just come back."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send :class:`Woken` at this time; a later WakeAt takes the place of an earlier one."""

    time: float


Action: TypeAlias = Connect | Disconnect | Drain | Probe | WakeAt


@dataclass(frozen=True, slots=True)
class Standing:
    """How a balancer sees one endpoint; for people and metrics, never for decisions elsewhere."""

    connected: bool
    eligible: bool
    """Whether the next call that needs a quorum may go there."""
    pinned: bool = False
    ejected_until: float | None = None
    latency_seconds: float | None = None
    reason: str = ""
    ejections: int = 0
    """How often it was ejected since it became an endpoint."""


class Balancer(Protocol):
    """Decides which endpoint answers the next call, and which connections to keep for that."""

    def update(self, event: Event, now: float) -> Sequence[Action]:
        """Take in what happened; return what to do about it, in order. Never raises."""
        ...

    def pick(self, need: Need, now: float, tried: Sequence[Endpoint] = ()) -> Endpoint | None:
        """Choose who serves a call; None when nobody can now.

        ``tried`` are endpoints on which this very call has failed already, latest last. A policy
        may avoid them, but must not strand the call when nothing else is left.
        """
        ...

    def done(
        self, endpoint: Endpoint, failure: Failure | None, seconds: float, now: float
    ) -> Sequence[Action]:
        """Take a pick back: how it ended and how long it took. Cheap, for it is on every call."""
        ...

    def standings(self, now: float) -> Mapping[Endpoint, Standing]:
        """Report how every endpoint stands."""
        ...
