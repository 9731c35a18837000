"""The simulated world: a virtual clock, and members that serve, queue, and fail."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

SERVICE_SECONDS = 0.0003
"""What one call takes of a member, which serves one after the other: 3,300 a second at most."""
HANDSHAKE_SECONDS = 0.0005
"""What a new connection takes of it: TLS, mostly."""
ROUND_TRIP_SECONDS = 0.001
UNNOTICED_SECONDS = 1.5
"""How long a member that is cut off from its peers believes that it has a leader."""


class Clock:
    """Virtual time: events in order, and nothing in between."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, time: float, event: Callable[..., None], *arguments: Any) -> None:
        """Have something happen at a time, which is not past."""
        heapq.heappush(self._events, (time, next(self._numbers), event, arguments))

    def run(self, until: float) -> None:
        """Let everything happen that is due until then."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, event, arguments = heapq.heappop(events)
            event(*arguments)
        self.now = until


@dataclass(eq=False)
class Member:
    """A server, as far as clients notice, and what they did to it, second by second."""

    name: str
    running: bool = True
    reachable: bool = True
    """Whether what clients send arrives; if not, they are told nothing."""
    cut_off_at: float | None = None
    """Since when it does not reach its peers."""
    connections: int = 0
    picks: Counter[int] = field(default_factory=Counter)
    dials: Counter[int] = field(default_factory=Counter)
    probes: Counter[int] = field(default_factory=Counter)
    held: dict[int, int] = field(default_factory=dict)
    """How many connections there were at the end of each second."""
    _busy_until: float = 0.0

    def seconds_to_answer(self, now: float, work_seconds: float) -> float:
        """Queue some work; return when the answer to it is back."""
        self._busy_until = max(now, self._busy_until) + work_seconds
        return self._busy_until - now + ROUND_TRIP_SECONDS

    @property
    def answers(self) -> bool:
        return self.running and self.reachable

    def knows_a_leader(self, now: float) -> bool:
        return self.cut_off_at is None or now - self.cut_off_at < UNNOTICED_SECONDS
