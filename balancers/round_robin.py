"""``round_robin``: rotation over the connected endpoints, from a random start.

Models clientv3 on grpc 1.23 and later: one connection per endpoint, each call to the next one that
is connected, and nothing else counts: no latency, health or leader, and a failed call changes
nothing. (etcd's client design notes, "clientv3-grpc1.23"; grpc-go's balancer/roundrobin.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from .api import (
    Action,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Endpoint,
    EndpointsChanged,
    Event,
    Failure,
    Need,
    Standing,
)


class RoundRobin:
    """The policy's state: who there is, and who of them is in the rotation."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._endpoints: tuple[Endpoint, ...] = ()
        self._ready: list[Endpoint] = []
        """The rotation. Invariant: a subset of the endpoints, in their order."""
        self._next = 0

    def update(self, event: Event, now: float) -> Sequence[Action]:
        match event:
            case EndpointsChanged(endpoints):
                gone = [e for e in self._endpoints if e not in endpoints]
                self._endpoints = endpoints
                self._rotate_over(set(self._ready))
                return [*map(Connect, endpoints), *(Disconnect(e, graceful=True) for e in gone)]
            case Connected(endpoint):
                self._rotate_over({*self._ready, endpoint})
            case Disconnected(endpoint):
                self._rotate_over({*self._ready} - {endpoint})
            case _:
                pass
        return ()

    def pick(self, need: Need, now: float, tried: Sequence[Endpoint] = ()) -> Endpoint | None:
        if not self._ready:
            return None
        self._next += 1
        return self._ready[self._next % len(self._ready)]

    def done(
        self, endpoint: Endpoint, failure: Failure | None, seconds: float, now: float
    ) -> Sequence[Action]:
        return ()

    def standings(self, now: float) -> Mapping[Endpoint, Standing]:
        return {
            endpoint: Standing(connected=endpoint in self._ready, eligible=endpoint in self._ready)
            for endpoint in self._endpoints
        }

    def _rotate_over(self, ready: set[Endpoint]) -> None:
        """Start a new rotation, at random as grpc-go does, so that clients do not march in step."""
        rotation = [endpoint for endpoint in self._endpoints if endpoint in ready]
        if rotation != self._ready:
            self._ready = rotation
            self._next = self._random.randrange(len(rotation)) if rotation else 0
