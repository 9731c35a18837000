"""How long something takes, for a histogram that somebody may ask for later."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

DISK_BOUNDS_SECONDS: Final = tuple(0.001 * 2**n for n in range(14))
"""etcd's: from 1 ms to 8 s."""


class Latencies:
    """Counts by bounds. One thread observes; any may read."""

    def __init__(self, bounds_seconds: Sequence[float]) -> None:
        self._bounds = bounds_seconds
        self._counts = [0] * (len(bounds_seconds) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Note how long it took this time."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total_seconds += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound with how many were within it, as Prometheus wants them."""
        bounds = (*map(str, self._bounds), "+Inf")
        return list(zip(bounds, accumulate(self._counts), strict=True))
