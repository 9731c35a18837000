"""Configurations of a cluster, and the changes that lead from one to the next.

A simple change moves at most one voter, so that the quorums before and after it overlap. Any other
change goes through a joint configuration, where decisions need a majority of the old voters
(outgoing) and one of the new voters (incoming). A voter that becomes a learner in a joint change
stays a voter until the joint configuration is left, and waits in `learners_next` until then.

What a change *does* is decided here; *when* it takes effect (once it is applied) is the core's.

Source: Raft thesis, chapter 4; etcd's raft library for what each kind of change means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from ...protos import raftpb
from .quorum import NOBODY, Joint

AnyChange: TypeAlias = raftpb.ConfChange | raftpb.ConfChangeV2


class ChangeRefused(Exception):
    """A change (or a stored configuration) that would break an invariant."""


class Change(NamedTuple):
    """One step of a change; `node_id` 0: the applier has vetoed it, and nothing happens."""

    type: int
    node_id: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who votes, who learns, and whether a change of voters is under way.

    A configuration of nobody is valid: a member that has yet to hear who its peers are.
    """

    voters: Joint = NOBODY
    learners: frozenset[int] = frozenset()
    """Invariant: nobody votes and learns at once."""
    learners_next: frozenset[int] = frozenset()
    """Learners to be, once the joint configuration is left. Invariant: they are in `outgoing`."""
    auto_leave: bool = False
    """The leader leaves the joint configuration by itself. Invariant: only when joint."""

    @classmethod
    def from_conf_state(cls, state: raftpb.ConfState) -> Configuration:
        """Read a stored configuration; raises :class:`ChangeRefused` if it breaks an invariant."""
        return checked(
            cls(
                Joint.of(frozenset(state.voters), frozenset(state.voters_outgoing)),
                frozenset(state.learners),
                frozenset(state.learners_next),
                state.auto_leave,
            )
        )

    def to_conf_state(self) -> raftpb.ConfState:
        """Return the configuration as snapshots and the store keep it."""
        return raftpb.ConfState(
            voters=sorted(self.voters.incoming.voters),
            voters_outgoing=sorted(self.voters.outgoing.voters),
            learners=sorted(self.learners),
            learners_next=sorted(self.learners_next),
            auto_leave=self.auto_leave,
        )

    @property
    def is_joint(self) -> bool:
        """Whether a change of voters is under way."""
        return self.voters.is_joint

    def members(self) -> frozenset[int]:
        """Return everybody: the voters of both halves and the learners."""
        return self.voters.ids | self.learners

    def violation(self) -> str | None:
        """Return the invariant that does not hold, if there is one."""
        incoming, outgoing = self.voters.incoming.voters, self.voters.outgoing.voters
        if 0 in self.members():
            return "0 is nobody's id"
        if both := self.learners & self.voters.ids:
            return f"{min(both)} is in Learners and Voters"
        if stray := self.learners_next - outgoing:
            return f"{min(stray)} is in LearnersNext, but not in Voters[1]"
        if both := self.learners_next & incoming:
            return f"{min(both)} is in LearnersNext and Voters[0]"
        if self.auto_leave and not outgoing:
            return "AutoLeave must be false when not joint"
        if not incoming and self.members():
            return "no voters"
        return None


def checked(configuration: Configuration) -> Configuration:
    """Return `configuration`, or raise :class:`ChangeRefused` if it breaks an invariant."""
    if violation := configuration.violation():
        raise ChangeRefused(violation)
    return configuration


def simple(configuration: Configuration, changes: Iterable[Change]) -> Configuration:
    """Apply changes that move at most one voter between them; the result is not joint."""
    if configuration.is_joint:
        raise ChangeRefused("can't apply simple config change in joint config")
    after = _with(configuration, changes)
    if len(after.voters.incoming.voters ^ configuration.voters.incoming.voters) > 1:
        raise ChangeRefused("more than one voter changed without entering joint config")
    return checked(after)


def enter_joint(
    configuration: Configuration, changes: Iterable[Change], auto_leave: bool
) -> Configuration:
    """Apply any changes; decisions then need the voters of before as well as those of after."""
    if configuration.is_joint:
        raise ChangeRefused("config is already joint")
    before = configuration.voters.incoming.voters
    if not before:
        raise ChangeRefused("can't make a zero-voter config joint")
    joint = replace(configuration, voters=Joint.of(before, before), auto_leave=auto_leave)
    return checked(_with(joint, changes))


def leave_joint(configuration: Configuration) -> Configuration:
    """Let the incoming voters decide alone, and make learners of those who were to become one."""
    if not configuration.is_joint:
        raise ChangeRefused("can't leave a non-joint config")
    return checked(
        Configuration(
            Joint.of(configuration.voters.incoming.voters),
            configuration.learners | configuration.learners_next,
        )
    )


def _with(configuration: Configuration, changes: Iterable[Change]) -> Configuration:
    """Return `configuration` after each change in turn, whatever number of voters that moves."""
    for change in changes:
        if change.node_id != 0:
            configuration = _with_one(configuration, change)
    if not configuration.voters.incoming.voters:
        raise ChangeRefused("removed all voters")
    return configuration


def _with_one(configuration: Configuration, change: Change) -> Configuration:
    node = frozenset({change.node_id})
    match change.type:
        case raftpb.ConfChangeAddNode:
            return _placed(configuration, node, voters=node)
        case raftpb.ConfChangeAddLearnerNode if node <= configuration.voters.outgoing.voters:
            return _placed(configuration, node, learners_next=node)
        case raftpb.ConfChangeAddLearnerNode:
            return _placed(configuration, node, learners=node)
        case raftpb.ConfChangeRemoveNode:
            return _placed(configuration, node)
        case raftpb.ConfChangeUpdateNode:  # of its URLs, which are not consensus' concern
            return configuration
    raise ChangeRefused(f"unexpected conf type {change.type}")


def _placed(
    configuration: Configuration,
    node: frozenset[int],
    *,
    voters: frozenset[int] = frozenset(),
    learners: frozenset[int] = frozenset(),
    learners_next: frozenset[int] = frozenset(),
) -> Configuration:
    """Move `node` from wherever it is to the sets given; the outgoing voters stay as they are."""
    incoming, outgoing = configuration.voters.incoming.voters, configuration.voters.outgoing.voters
    return Configuration(
        Joint.of(incoming - node | voters, outgoing),
        configuration.learners - node | learners,
        configuration.learners_next - node | learners_next,
        configuration.auto_leave,
    )


def changes_of(change: AnyChange) -> tuple[Change, ...]:
    """Return the steps of a change of either version."""
    singles = (change,) if isinstance(change, raftpb.ConfChange) else change.changes
    return tuple(Change(single.type, single.node_id) for single in singles)


def leaves_joint(change: AnyChange) -> bool:
    """Return whether this is the empty change, which asks to leave the joint configuration."""
    return (
        isinstance(change, raftpb.ConfChangeV2)
        and not change.changes
        and change.transition == raftpb.ConfChangeTransitionAuto
    )


def enters_joint(change: AnyChange) -> bool:
    """Return whether a change goes through a joint configuration.

    It does when it has several steps or asks for it. Several steps that together move one voter
    would not need it, but that depends on the configuration, and the proposer shall know before.
    """
    return isinstance(change, raftpb.ConfChangeV2) and (
        len(change.changes) > 1 or change.transition != raftpb.ConfChangeTransitionAuto
    )


def is_vetoed(change: AnyChange) -> bool:
    """Return whether every step of a change was vetoed when it was to be applied."""
    steps = changes_of(change)
    return bool(steps) and all(step.node_id == 0 for step in steps)


def changed(configuration: Configuration, change: AnyChange) -> Configuration:
    """Return the configuration that a committed change leads to; raises :class:`ChangeRefused`."""
    if leaves_joint(change):
        return leave_joint(configuration)
    if is_vetoed(change):
        return configuration
    if isinstance(change, raftpb.ConfChangeV2) and enters_joint(change):
        explicit = change.transition == raftpb.ConfChangeTransitionJointExplicit
        return enter_joint(configuration, changes_of(change), auto_leave=not explicit)
    return simple(configuration, changes_of(change))


def decode_change(entry: raftpb.Entry) -> AnyChange:
    """Return the change that a log entry of one of the two conf-change types carries."""
    if entry.Type == raftpb.EntryConfChangeV2:
        return raftpb.ConfChangeV2.FromString(entry.Data)
    return raftpb.ConfChange.FromString(entry.Data)
