"""Whether a call may be repeated although it may have been carried out, and how many at once."""

from __future__ import annotations

import threading
from random import Random
from typing import Any, Final, Literal, TypeAlias, get_args

from ..balancers.budget import Budget
from .errors import ConfigError, InvalidArgument

Retry: TypeAlias = Literal["safe", "at_least_once", "exactly_once"]
"""What becomes of a write whose outcome is unknown.

``safe``: it is raised. ``at_least_once``: it is sent again, so it may be carried out twice.
``exactly_once``: it is sent again in a way that repeats do nothing (exactly_once.py).
"""

MAX_CONCURRENT_RETRIES: Final = 256
"""More than one client needs for an election, and few enough for a member that has just started."""

FIRST_LOOK_SECONDS: Final = 0.005
LAST_LOOK_SECONDS: Final = 0.1

RETRIES: Final[tuple[str, ...]] = get_args(Retry)


def check_retry_setting(value: Any) -> None:
    """Raise ConfigError unless it is a way to retry."""
    if value not in RETRIES:
        raise ConfigError("retry", f"one of {', '.join(RETRIES)} is needed, not {value!r}")


def check_retry(value: Any) -> None:
    """Raise InvalidArgument unless it is a way to retry."""
    if value not in RETRIES:
        raise InvalidArgument(f"retry: one of {', '.join(RETRIES)} is needed, not {value!r}")


COMMONLY: Final = 4.0
"""A read is not cut short before it has taken so many times as long as the last answer."""


class CutShort(Budget):
    """How long first attempts of reads get, so that there is time for a second one elsewhere.

    A second attempt of what is only late adds to the load that made it late. So there is none if
    calls without an answer have used up the budget, or the last answer took nearly as long: then
    the first attempt gets all the time of the call.
    """

    __slots__ = ("_share", "latest")

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share
        self.latest = 0.0
        """How long the last answer took, in seconds."""

    def seconds(self, left: float) -> float:
        """Say how long a first attempt may take of the time that is left."""
        if self.exhausted:
            return left
        return max(left * self._share, min(left, COMMONLY * self.latest))


class RetryTurns:
    """Who may make a repeated attempt now: so many calls of a client at once, and no more.

    When a member dies under many calls all of them want to be repeated at once, and elsewhere.
    Those beyond the limit look again later. A first attempt needs no turn.

    Invariant: 0 <= taken <= most.
    """

    def __init__(self, most: int, random: Random) -> None:
        self._most = most
        self._random = random
        self._lock = threading.Lock()
        self._taken = 0

    def take(self) -> bool:
        """Take a turn, if there is one left; it is given back when the attempt has ended."""
        with self._lock:
            if self._taken == self._most:
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            assert self._taken > 0
            self._taken -= 1

    def seconds_before_look(self, looks: int) -> float:
        """Say how long to wait after so many looks in vain; jitter spreads who looked at once."""
        most = min(FIRST_LOOK_SECONDS * 2.0 ** min(looks - 1, 30), LAST_LOOK_SECONDS)
        return most * self._random.uniform(0.5, 1.0)
