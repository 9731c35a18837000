"""A rule that a run broke."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant that does not hold; ``rule`` is its short name."""

    def __init__(self, rule: str, story: str) -> None:
        super().__init__(f"{rule}: {story}")
        self.rule = rule


def demand(holds: object, rule: str, story: str) -> None:
    """Raise :class:`Violation` unless something holds."""
    if not holds:
        raise Violation(rule, story)
