"""``pinned_multi``: a connection to every endpoint, and all calls on one of them, the pin.

Models clientv3 on grpc 1.0 (etcd 3.1): the first connection that comes up is pinned, and nothing
but the end of that connection moves the pin, to another connected endpoint at random. A pin that
hangs, is cut off from its peers or only fails stays the pin. (etcd's client design notes,
"clientv3-grpc1.0", and the code of its releases, which say different things about errors; see
``on_error``.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

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

ON_ERROR: Final = ("stay", "switch")

_SAYS_NOTHING: Final = frozenset({Failure.REFUSED, Failure.CANCELLED})
"""Failures that are no error of the endpoint's."""


class PinnedMulti:
    """The policy's state: who is up, and which of them is the pin.

    ``on_error``: what a failed call does to the pin. ``"stay"``, as in the code of etcd 3.1: it
    changes nothing. ``"switch"``, as in etcd's design notes ("when the client receives an error,
    it randomly picks another"): another connected endpoint becomes the pin, if there is one.
    """

    def __init__(self, random: Random, *, on_error: Any = "stay") -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error is one of {', '.join(ON_ERROR)}, not {on_error!r}")
        self._random = random
        self._switches = on_error == "switch"
        self._endpoints: tuple[Endpoint, ...] = ()
        self._up: list[Endpoint] = []
        """Who is connected, in the order in which they came up."""
        self._pin: Endpoint | None = None
        """Invariant: None if nobody is up, else one of those who are."""

    def update(self, event: Event, now: float) -> Sequence[Action]:
        match event:
            case EndpointsChanged(endpoints):
                gone = [e for e in self._endpoints if e not in endpoints]
                self._endpoints = endpoints
                for endpoint in gone:
                    self._take_down(endpoint)
                return [*map(Connect, endpoints), *(Disconnect(e, graceful=True) for e in gone)]
            case Connected(endpoint):
                if endpoint in self._endpoints and endpoint not in self._up:
                    self._up.append(endpoint)
                    self._pin = self._pin or endpoint
            case Disconnected(endpoint):
                self._take_down(endpoint)
            case _:
                pass
        return ()

    def pick(self, need: Need, now: float, tried: Sequence[Endpoint] = ()) -> Endpoint | None:
        return self._pin

    def done(
        self, endpoint: Endpoint, failure: Failure | None, seconds: float, now: float
    ) -> Sequence[Action]:
        if self._switches and failure is not None and failure not in _SAYS_NOTHING:
            self._move_from(endpoint)
        return ()

    def standings(self, now: float) -> Mapping[Endpoint, Standing]:
        return {
            endpoint: Standing(
                connected=endpoint in self._up,
                eligible=endpoint == self._pin,
                pinned=endpoint == self._pin,
            )
            for endpoint in self._endpoints
        }

    def _take_down(self, endpoint: Endpoint) -> None:
        if endpoint in self._up:
            self._up.remove(endpoint)
        if endpoint == self._pin:
            self._pin = self._random.choice(self._up) if self._up else None

    def _move_from(self, endpoint: Endpoint) -> None:
        """Pin another, unless this one is no longer the pin: one error moves it once."""
        others = [each for each in self._up if each != endpoint]
        if endpoint == self._pin and others:
            self._pin = self._random.choice(others)
