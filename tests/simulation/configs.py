"""Who the members were, by the log: each change the same everywhere, and small."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcd_pinwheel.protos import raftpb

from .violation import demand

if TYPE_CHECKING:
    from .member import Member


@dataclass(frozen=True, slots=True)
class Configuration:
    """Voters and learners."""

    voters: frozenset[int]
    learners: frozenset[int]
    outgoing: frozenset[int]

    @classmethod
    def of(cls, state: raftpb.ConfState) -> Configuration:
        return cls(
            frozenset(state.voters), frozenset(state.learners), frozenset(state.voters_outgoing)
        )


class Configs:
    """All configurations of a run, by the entries that made them."""

    def __init__(self) -> None:
        self._indexes: list[int] = []
        self._by_index: dict[int, Configuration] = {}

    def __len__(self) -> int:
        """How many changes there were, the founders' own included."""
        return len(self._indexes)

    def newest(self) -> Configuration | None:
        """The last one that anybody has applied."""
        return self._by_index[self._indexes[-1]] if self._indexes else None

    def applied(self, member: Member, index: int) -> None:
        """A member has applied a change."""
        mine = Configuration.of(member.raft.config_state())
        known = self._by_index.get(index)
        if known is None:
            self._check_new(mine, index, member)
            self._indexes.append(index)
            self._by_index[index] = mine
            known = mine
        demand(
            mine == known,
            "same configuration everywhere",
            f"{member.name} at entry {index}: {mine}, not {known}",
        )
        self._check_listed(member, mine)

    def check(self, member: Member, index: int) -> None:
        """A member goes on from a state that ends at an entry."""
        position = bisect_right(self._indexes, index)
        if position:
            known = self._by_index[self._indexes[position - 1]]
            mine = Configuration.of(member.raft.config_state())
            demand(
                mine == known,
                "same configuration everywhere",
                f"{member.name} goes on from entry {index} with {mine}, not {known}",
            )

    def _check_new(self, mine: Configuration, index: int, member: Member) -> None:
        story = f"{member.name} at entry {index}: {mine}"
        demand(mine.voters, "never without voters", story)
        demand(not mine.voters & mine.learners, "a learner is no voter", story)
        before = self.newest()
        if before is not None:
            difference = before.voters ^ mine.voters
            demand(len(difference) <= 1, "one voter at a time", f"{story} after {before}")

    def _check_listed(self, member: Member, mine: Configuration) -> None:
        """The members that the state lists are those that the core counts."""
        listed = member.parts.membership.cluster.members
        voters = {each.id for each in listed if not each.is_learner}
        learners = {each.id for each in listed if each.is_learner}
        demand(
            voters == mine.voters and learners == mine.learners,
            "the list of members is the configuration",
            f"{member.name}: listed {voters} {learners}, in force {mine}",
        )
