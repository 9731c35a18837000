"""What a client may add to the load of members that do not answer: retry throttling, as in gRPC."""

from __future__ import annotations

from typing import Final

CREDIT: Final = 3.0
"""What may go without an answer before a client holds back. A fleet has that once for each client,
so it is little; one that calls rarely still finds out about a dead member with it."""
SHARE: Final = 0.1
"""What each answer gives back: so what is added is no more than so much of what succeeds."""


class Budget:
    """A token bucket that answers fill and missing answers empty (gRFC A6), without a clock.

    When hardly anything is answered any more, hardly anything is added, so that an overload ends
    when its cause does. Not locked: with several threads a count may be lost, which does no harm.

    Invariant: 0 <= spent <= CREDIT.
    """

    __slots__ = ("spent",)

    def __init__(self) -> None:
        self.spent = 0.0
        """How many tokens are missing. While there are none, nobody needs to earn."""

    @property
    def exhausted(self) -> bool:
        """Whether less than a token is left."""
        return self.spent > CREDIT - 1.0

    def spend(self) -> None:
        """Take in that a call or a probe was not answered in time."""
        self.spent = min(self.spent + 1.0, CREDIT)

    def earn(self, tokens: float = SHARE) -> None:
        """Take in that one was answered."""
        self.spent = max(self.spent - tokens, 0.0)
