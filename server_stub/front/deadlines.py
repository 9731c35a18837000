"""One timer for the deadlines of all calls."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Protocol

_TICKS_PER_SECOND: Final = 100
_HORIZON_SECONDS: Final = 60.0
"""What is due later is looked at again by then, so that there are only so many ticks."""


class Expirable(Protocol):
    """What has a deadline."""

    deadline: float | None
    tick: int
    """Where :class:`Deadlines` keeps it, and nobody else's business."""

    def expire(self) -> None:
        """Learn that the deadline has passed."""


class Deadlines:
    """Calls by the hundredth of a second in which they are due.

    Nearly all calls end long before their deadline, so entering and leaving must cost next to
    nothing; in return one may be told up to 20 ms late, never early.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ticks: dict[int, set[Expirable]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, due: Expirable) -> None:
        """Watch a deadline until it has passed or is discarded."""
        assert due.deadline is not None
        horizon = self._clock() + _HORIZON_SECONDS
        due.tick = tick = int(min(due.deadline, horizon) * _TICKS_PER_SECOND) + 1
        calls = self._ticks.get(tick)
        if calls is None:
            self._ticks[tick] = {due}
            heapq.heappush(self._order, tick)
            if self._order[0] == tick:
                self._arm()
        else:
            calls.add(due)

    def discard(self, due: Expirable) -> None:
        """Stop watching what was added, wherever it has moved since."""
        calls = self._ticks.get(due.tick)
        if calls is not None:
            calls.discard(due)

    def expire(self) -> None:
        """Tell all whose deadline has passed."""
        now = self._clock()
        while self._order and self._order[0] <= now * _TICKS_PER_SECOND:
            for due in self._ticks.pop(heapq.heappop(self._order)):
                if due.deadline is not None and due.deadline > now:
                    self.add(due)
                else:
                    due.expire()
        self._timer = None
        self._arm()

    def close(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        if self._order:
            delay = self._order[0] / _TICKS_PER_SECOND - self._clock()
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self.expire)
