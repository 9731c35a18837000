"""``pinned_single``: one connection, to the endpoint that answered first, and a list of bad ones.

Models clientv3 on grpc 1.7 (etcd 3.2.10 to 3.3.13)::

                  the first that may be pinned comes up: close the others
      NO PIN  ------------------------------------------------------------>  PINNED
    (all live <------------------------------------------------------------
    endpoints    the connection goes down, or the error handler says so:
    dialled)     the pin is unhealthy from now on, the live ones are dialled

An endpoint is *live* if it is not on the unhealthy list; all are, if all are on it. An entry is
dropped by a tick every :attr:`PinnedSingle.hold_seconds`, once it is that old. What is wrong with
it is modelled too: a member that is back at once is refused for the hold time all the same, and
one that is cut off from its peers stays the pin until a call fails on it. (etcd's client design
notes, "clientv3-grpc1.7", and the code of its releases.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    Standing,
    WakeAt,
    Woken,
)

LEAST_HOLD_SECONDS: Final = 3.0
"""How long an endpoint stays on the unhealthy list at least."""

CHECK_SECONDS: Final = 1.0
"""How long a health check may take."""


class PinnedSingle:
    """The policy's state: the pin, or who is being dialled; and who is unhealthy since when.

    ``dial_timeout_seconds`` is clientv3's DialTimeout, here for the hold time alone.
    """

    def __init__(self, *, dial_timeout_seconds: Any = 0.0) -> None:
        self.hold_seconds = max(_seconds(dial_timeout_seconds), LEAST_HOLD_SECONDS)
        """The time between ticks, and how old an entry must be to be dropped."""
        self._endpoints: tuple[Endpoint, ...] = ()
        self._offered: tuple[Endpoint, ...] = ()
        """Who shall be connected. Invariant: the pin alone, if there is one."""
        self._up: set[Endpoint] = set()
        """Who is connected. Invariant: a subset of the offered."""
        self._pin: Endpoint | None = None
        self._unhealthy: dict[Endpoint, float] = {}
        """When each of them failed last. Invariant: a subset of the endpoints."""
        self._times_noted: dict[Endpoint, int] = {}
        """How often each was put on that list. Invariant: a subset of the endpoints."""
        self._checked: set[Endpoint] = set()
        """Who is being asked how it is."""
        self._began: float | None = None
        self._alarm: float | None = None
        """When the next tick is due; None: nothing would come of it."""

    def update(self, event: Event, now: float) -> Sequence[Action]:
        actions = self._take_in(event, now)
        return [*actions, *self._set_alarm(now)]

    def pick(self, need: Need, now: float, tried: Sequence[Endpoint] = ()) -> Endpoint | None:
        return self._pin

    def done(
        self, endpoint: Endpoint, failure: Failure | None, seconds: float, now: float
    ) -> Sequence[Action]:
        return ()

    def standings(self, now: float) -> Mapping[Endpoint, Standing]:
        return {endpoint: self._standing(endpoint) for endpoint in self._endpoints}

    def _standing(self, endpoint: Endpoint) -> Standing:
        failed_at = self._unhealthy.get(endpoint)
        return Standing(
            connected=endpoint in self._up,
            eligible=endpoint == self._pin,
            pinned=endpoint == self._pin,
            ejected_until=None if failed_at is None else failed_at + self.hold_seconds,
            reason="" if failed_at is None else "unhealthy",
            ejections=self._times_noted.get(endpoint, 0),
        )

    def _take_in(self, event: Event, now: float) -> Sequence[Action]:
        match event:
            case EndpointsChanged(endpoints):
                return self._change(endpoints, now)
            case Connected(endpoint):
                return self._came_up(endpoint, now)
            case Disconnected(endpoint):
                return self._went_down(endpoint, now)
            case FailedOver(endpoint):
                return self._failed(endpoint, now)
            case Probed(endpoint, health):
                return self._check(endpoint, health, now)
            case Woken():
                return self._tick(now)

    def _change(self, endpoints: tuple[Endpoint, ...], now: float) -> Sequence[Action]:
        """Forget who was unhealthy; dial anew unless the pin is still there."""
        if self._began is None:
            self._began = now
        changed = set(endpoints) != set(self._endpoints)
        self._endpoints = endpoints
        if not changed:
            return ()
        self._unhealthy.clear()
        self._times_noted = {e: n for e, n in self._times_noted.items() if e in endpoints}
        self._checked.clear()
        return () if self._pin in endpoints else self._next()

    def _came_up(self, endpoint: Endpoint, now: float) -> Sequence[Action]:
        if endpoint not in self._offered:  # its closing is under way
            return ()
        self._up.add(endpoint)
        failed_at = self._unhealthy.get(endpoint)
        if failed_at is None or len(self._unhealthy) == len(self._endpoints):
            return self._make_pin(endpoint)
        if now - failed_at < self.hold_seconds:
            return ()
        self._checked.add(endpoint)
        return [Probe(endpoint, CHECK_SECONDS, fresh_connection=True)]

    def _went_down(self, endpoint: Endpoint, now: float) -> Sequence[Action]:
        self._up.discard(endpoint)
        if endpoint != self._pin:
            return ()
        self._pin = None
        self._note(endpoint, now)
        return self._offer()

    def _failed(self, endpoint: Endpoint, now: float) -> Sequence[Action]:
        """Switch, if it is the pin that failed: of all calls that fail with it, the first does."""
        if endpoint not in self._endpoints:
            return ()
        self._note(endpoint, now)
        return self._next() if endpoint == self._pin else ()

    def _check(self, endpoint: Endpoint, health: Health, now: float) -> Sequence[Action]:
        """Pin it if it serves. Whether it has a leader is not asked: the known weakness."""
        if endpoint not in self._checked:
            return ()
        self._checked.discard(endpoint)
        if not health.serving:
            self._note(endpoint, now)
            return ()
        self._unhealthy.pop(endpoint, None)
        return self._make_pin(endpoint) if endpoint in self._up else ()

    def _note(self, endpoint: Endpoint, now: float) -> None:
        """Put it on the unhealthy list."""
        if endpoint not in self._unhealthy:
            self._times_noted[endpoint] = self._times_noted.get(endpoint, 0) + 1
        self._unhealthy[endpoint] = now

    def _tick(self, now: float) -> Sequence[Action]:
        self._alarm = None
        oldest = now - self.hold_seconds
        self._unhealthy = {e: since for e, since in self._unhealthy.items() if since > oldest}
        return self._next() if self._pin is None or self._pin in self._unhealthy else ()

    def _make_pin(self, endpoint: Endpoint) -> Sequence[Action]:
        """Pin it, and close all others."""
        self._pin = endpoint
        others = [each for each in self._offered if each != endpoint]
        self._offered = (endpoint,)
        self._up = {endpoint}
        return _close(others)

    def _next(self) -> Sequence[Action]:
        """Take every connection down, and dial anew whoever is live."""
        closed, self._offered = self._offered, ()
        self._up.clear()
        self._pin = None
        dialled = self._offer()
        again = [each for each in closed if each in self._offered]
        others = [each for each in closed if each not in self._offered]
        return [*_close(again), *dialled, *_close(others)]

    def _offer(self) -> Sequence[Action]:
        """Dial whoever is live, and then stop dialling the others: closing may take its time."""
        live = tuple(e for e in self._endpoints if e not in self._unhealthy) or self._endpoints
        others = [each for each in self._offered if each not in live]
        self._offered = live
        return [*map(Connect, live), *_close(others)]

    def _set_alarm(self, now: float) -> Sequence[Action]:
        """Wish for the next tick if anything can come of it."""
        idle = self._pin is not None and not self._unhealthy
        if idle or self._alarm is not None or self._began is None:
            return ()
        ticks = math.floor((now - self._began) / self.hold_seconds) + 1
        alarm = self._began + ticks * self.hold_seconds
        if alarm - now < 1e-6 * self.hold_seconds:  # by rounding, the tick that has just been
            alarm += self.hold_seconds
        self._alarm = alarm
        return [WakeAt(alarm)]


def _close(endpoints: Sequence[Endpoint]) -> Sequence[Action]:
    return [Disconnect(each, graceful=True) for each in endpoints]


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"dial_timeout_seconds: a number of seconds is needed, not {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"dial_timeout_seconds: 0 or more seconds are needed, not {value!r}")
    return float(value)
