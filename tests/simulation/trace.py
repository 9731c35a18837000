"""What happened in a run: a hash of all of it, and the last lines for a reader."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable

from .clock import Clock

KEPT_LINES = 60


class Trace:
    """The lines of a run. Two runs of a seed have the same hash, or something is not seeded."""

    def __init__(self, clock: Clock, show: Callable[[str], None] | None = None) -> None:
        """``show`` is given every line as it comes."""
        self.hash = 0
        self.lines = 0
        self._clock = clock
        self._show = show
        self._tail: deque[tuple[float, str, str]] = deque(maxlen=KEPT_LINES)

    def note(self, who: str, what: str) -> None:
        """Add a line: who does what, now."""
        now = self._clock.now
        self.hash = zlib.crc32(f"{now:.6f}{who}{what}".encode(), self.hash)
        self.lines += 1
        self._tail.append((now, who, what))
        if self._show is not None:
            self._show(_line(now, who, what))

    def tail(self) -> str:
        """The last lines, as text."""
        return "\n".join(_line(*line) for line in self._tail)


def _line(now: float, who: str, what: str) -> str:
    return f"{now:9.4f} {who:>4} {what}"
