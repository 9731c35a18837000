"""How long to wait before a call is tried again."""

from __future__ import annotations

from random import Random

from tenacity import RetryCallState, Retrying, wait_exponential

_ENGINE = Retrying()
"""tenacity wants to know whose state it is; the waits we use do not ask it anything."""


class Backoff:
    """Exponential growth by tenacity, with jitter of our own: seeded, so that tests repeat it."""

    def __init__(
        self,
        random: Random,
        *,
        first_seconds: float = 0.025,
        most_seconds: float = 1.0,
        jitter: float = 0.1,
    ) -> None:
        self._random = random
        self._jitter = jitter
        self._wait = wait_exponential(multiplier=first_seconds, max=most_seconds)

    def seconds(self, round_: int) -> float:
        """Say how long the wait number ``round_`` is; the first has number 1."""
        state = RetryCallState(_ENGINE, None, (), {})
        state.attempt_number = min(round_, 1000)
        return self._wait(state) * (1 + self._jitter * self._random.uniform(-1, 1))


class QuorumBackoff:
    """clientv3's pace since 3.4: as many attempts as make a quorum at once, then a wait.

    There the wait is always 25 ms and the budget a count of 100 attempts, which an election
    outlasts; here the wait grows and the budget is the call's deadline.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff

    def seconds_before_retry(self, failures: int, endpoints: int) -> float:
        quorum = endpoints // 2 + 1
        round_, rest = divmod(failures, quorum)
        return 0.0 if rest else self._backoff.seconds(round_)


class NoBackoff:
    """clientv3's pace before 3.4: again at once, for as long as the call may take.

    What keeps it from spinning is only that a call waits while nobody is connected; a member that
    answers with errors is asked as fast as it answers.
    """

    def __init__(self, backoff: Backoff) -> None:
        pass

    def seconds_before_retry(self, failures: int, endpoints: int) -> float:
        return 0.0
