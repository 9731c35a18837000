"""Time as a list of things to happen: it passes only when the next one is due."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from .violation import demand

MOST_EVENTS = 100_000
"""Far more than any run needs, unless something goes on for ever without time passing."""


class Clock:
    """Virtual seconds, and what happens when; ties go to what was planned first."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        """How many things have happened."""
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Plan ``action(*arguments)``."""
        self._serial += 1
        heapq.heappush(self._planned, (self.now + seconds, self._serial, action, arguments))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is planned."""
        if not self._planned:
            return False
        self.now, _, action, arguments = heapq.heappop(self._planned)
        self.events += 1
        demand(
            self.events < MOST_EVENTS, "time passes", f"{self.events} events by {self.now:.4f} s"
        )
        action(*arguments)
        return True

    def run_until(self, at: float) -> None:
        """Let everything happen that is due before ``at``, and make it that late."""
        while self._planned and self._planned[0][0] <= at:
            self.step()
        self.now = max(self.now, at)
