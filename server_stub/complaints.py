"""Log lines about peers that misbehave: clear, and not too many of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

_MAX_KEYS: Final = 256


class Complaints:
    """Says the same thing once in a while, and how often it was left unsaid in between."""

    def __init__(self, log: logging.Logger, every_seconds: float, now: Callable[[], float]) -> None:
        self._log = log
        self._every_seconds = every_seconds
        self._now = now
        self._said: dict[object, tuple[float, int]] = {}

    def say(self, key: object, text: str, *args: object, level: int = logging.WARNING) -> None:
        """Log a line unless one with this ``key`` was logged a short while ago."""
        now = self._now()
        last, unsaid = self._said.get(key, (None, 0))
        if last is not None and now - last < self._every_seconds:
            self._said[key] = last, unsaid + 1
            return
        if unsaid:
            text += f" (and {unsaid} times more since the last such line)"
        self._said.pop(key, None)
        while len(self._said) >= _MAX_KEYS:  # strangers choose some of the keys
            del self._said[next(iter(self._said))]
        self._said[key] = now, 0
        self._log.log(level, text, *args)
