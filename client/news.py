"""What is new about how a balancer sees its endpoints, found by comparing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, TypeAlias

from ..balancers.api import (
    Connected,
    Disconnected,
    EndpointsChanged,
    Event,
    FailedOver,
    Failure,
    Health,
    Probed,
    Standing,
)
from .events import Changes

News: TypeAlias = Callable[[], None]
"""Reports one piece of news, when called."""

_UNKNOWN: Final = Standing(connected=False, eligible=False)


class Newsroom:
    """The news of one client: gathered under its lock, and published without."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changes = Changes(clock)
        self._seen: Mapping[str, Standing] = {}
        self._unpublished: deque[News] = deque()
        self._publishing = threading.Lock()

    def compare(self, standings: Mapping[str, Standing], cause: str) -> None:
        """Take in how endpoints stand now, which is so because of that."""
        self._unpublished += differences(self._seen, standings, cause, self.changes)
        self._seen = standings

    def publish(self) -> None:
        """Report what has been gathered, in that order: one thread does, for all that come."""
        while self._unpublished and self._publishing.acquire(blocking=False):
            try:
                while self._unpublished:
                    self._unpublished.popleft()()
            finally:
                self._publishing.release()


def differences(
    before: Mapping[str, Standing], after: Mapping[str, Standing], cause: str, tell: Changes
) -> Iterator[News]:
    """Find what has changed: the pin, who was ejected, who came back."""
    old, new = _pin(before), _pin(after)
    if old != new:
        yield partial(tell.pin, old, new, cause)
    for url, standing in after.items():
        was_out = _is_out(before.get(url, _UNKNOWN))
        if _is_out(standing) and not was_out:
            why = ": ".join(filter(None, [standing.reason, cause]))
            yield partial(tell.ejected, url, why)
        elif was_out and not _is_out(standing):
            yield partial(tell.came_back, url, cause)


def _pin(standings: Mapping[str, Standing]) -> str | None:
    return next((url for url, standing in standings.items() if standing.pinned), None)


def _is_out(standing: Standing) -> bool:
    """Whether it is kept from calls for another reason than its connection."""
    return bool(standing.reason) or standing.ejected_until is not None


def cause_of(event: Event) -> str:
    """Say, for people, what has happened."""
    match event:
        case EndpointsChanged():
            return "the endpoints have changed"
        case Connected(endpoint):
            return f"{endpoint} is connected"
        case Disconnected(endpoint, reason):
            return f"{endpoint} is disconnected" + (f": {reason}" if reason else "")
        case FailedOver(endpoint, failure):
            return f"a call on {endpoint} failed: {said(failure)}"
        case Probed(endpoint, health):
            return f"{endpoint} was asked" + (f": {health.reason}" if health.reason else "")
        case _:
            return "it was time"


def said(failure: Failure | None) -> str:
    """Name a failure for people."""
    return "answered" if failure is None else failure.name.lower().replace("_", " ")


def is_news(before: Health | None, health: Health) -> bool:
    """Whether a probe found something else than the last one; the first, whether it is not well."""
    return _told(before or Health(serving=True)) != _told(health)


def _told(health: Health) -> tuple[bool, ...]:
    return health.answered, health.serving, health.has_leader, health.learner, health.corrupt
