"""What a watch guarantees, held against the history that explains what everybody else saw.

Ordered, unique, atomic, and reliable: every revision that changed a watched key comes once, in
order, as a whole, with nothing left out between two that came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consistency.history import Forgotten, Seen, Timeline, Violation
from consistency.model import Change


def check_watch(
    name: str,
    told: Sequence[Seen | Forgotten],
    timeline: Timeline,
    start_revision: int,
    compacted: int = 0,
) -> None:
    """Raise ``Violation`` unless `told` is what a watch of every key must tell from the start on.

    It may end early: a watch that was closed, or that is still catching up. It may leave out what
    was compacted before it could be told, if it says so, and what was there before a change if
    that was before `compacted`, the highest revision at which the history was ever compacted.
    """
    expected = start_revision
    for seen in told:
        if isinstance(seen, Forgotten):
            if seen.until <= expected:
                raise Violation(f"{name}: {expected} is not compacted at {seen.until}")
            expected = seen.until
            continue
        if seen.revision < expected:
            raise Violation(f"{name}: revision {seen.revision} after {expected - 1} was told")
        if seen.revision > expected:
            raise Violation(f"{name}: {expected} was left out before {seen.revision}")
        changes = timeline.changed(seen.revision)
        if seen.changes != changes and not (
            seen.revision <= compacted and _is_told_in_part(seen.changes, changes)
        ):
            raise Violation(f"{name}: {seen.revision} was told as {seen.changes}, not {changes}")
        expected += 1


def _is_told_in_part(told: Sequence[Change], changes: Sequence[Change]) -> bool:
    """Whether nothing is missing but what was there before."""
    return len(told) == len(changes) and all(
        one in (change, replace(change, before=None))
        for one, change in zip(told, changes, strict=True)
    )
