"""Majorities: which index is committed, and who has won a vote.

Pure functions of a set of voters. A learner appears in no quorum, so nothing that it acknowledges
or grants is ever counted here.

Source: Raft thesis, chapters 3 and 4.3 (joint consensus).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Acknowledged: TypeAlias = Callable[[int], int | None]
"""The last log index that a voter has acknowledged as durable; None: nothing yet."""

UNBOUNDED: Final = 2**64 - 1
"""What a majority of nobody has committed: it never holds back the other half of a joint quorum."""


class Vote(enum.Enum):
    """How a vote stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Majority:
    """A quorum of more than half of the voters; of nobody, it agrees to everything."""

    voters: frozenset[int] = frozenset()

    def committed_index(self, acknowledged: Acknowledged) -> int:
        """Return the largest index that more than half of the voters have acknowledged."""
        if not self.voters:
            return UNBOUNDED
        indexes = sorted(acknowledged(voter) or 0 for voter in self.voters)
        return indexes[(len(indexes) - 1) // 2]

    def vote_result(self, votes: Mapping[int, bool]) -> Vote:
        """Count `votes`; those of others than the voters are ignored."""
        granted = sum(votes.get(voter, False) for voter in self.voters)
        missing = sum(voter not in votes for voter in self.voters)
        needed = len(self.voters) // 2 + 1 if self.voters else 0
        if granted >= needed:
            return Vote.WON
        return Vote.PENDING if granted + missing >= needed else Vote.LOST


@dataclass(frozen=True, slots=True)
class Joint:
    """Two majorities that must both agree; with nobody in `outgoing`, just the incoming one.

    Invariant: `ids` is the union of both halves.
    """

    incoming: Majority = Majority()
    outgoing: Majority = Majority()
    ids: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", self.incoming.voters | self.outgoing.voters)

    @classmethod
    def of(cls, incoming: frozenset[int], outgoing: frozenset[int] = frozenset()) -> Joint:
        """Return the joint quorum of two sets of voters."""
        return cls(Majority(incoming), Majority(outgoing))

    @property
    def is_joint(self) -> bool:
        """Whether a change of voters is under way."""
        return bool(self.outgoing.voters)

    def __contains__(self, member: int) -> bool:
        return member in self.ids

    def __iter__(self) -> Iterator[int]:
        """Iterate over the voters of both halves, in ascending order."""
        return iter(sorted(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def committed_index(self, acknowledged: Acknowledged) -> int:
        """Return the largest index that both majorities have committed."""
        if not self.is_joint:
            return self.incoming.committed_index(acknowledged)
        return min(
            self.incoming.committed_index(acknowledged),
            self.outgoing.committed_index(acknowledged),
        )

    def vote_result(self, votes: Mapping[int, bool]) -> Vote:
        """Count `votes`: won when both halves grant it, lost as soon as one half refuses it."""
        results = {self.incoming.vote_result(votes), self.outgoing.vote_result(votes)}
        if results == {Vote.WON}:
            return Vote.WON
        return Vote.LOST if Vote.LOST in results else Vote.PENDING


NOBODY: Final = Joint()
