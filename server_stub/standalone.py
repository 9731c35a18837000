"""``--force-new-cluster``: one member goes on alone, when the quorum is lost for good.

It keeps its data and what it knows to be committed, gives up what is not, and expels everybody
else. Whatever the others have acknowledged that this member never heard of is lost: that is what
"force" means. The cluster's id stays, and the ids of the expelled are remembered as removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..protos import raftpb
from .cluster import is_demotion, is_promotion, promoting, removing


class NotAMember(Exception):
    """A member that was removed cannot go on alone: its id never comes back."""


@dataclass(frozen=True, slots=True)
class Standalone:
    """A log after which its member is the only one."""

    kept: list[raftpb.Entry]
    """What was committed."""
    added: list[raftpb.Entry]
    """What follows it, committed too: the others leave, one by one."""
    hard_state: raftpb.HardState
    """To be saved after the added entries."""


def standalone(
    own_id: int,
    conf_state: raftpb.ConfState,
    applied_index: int,
    entries: Sequence[raftpb.Entry],
    hard_state: raftpb.HardState,
) -> Standalone:
    """Decide what is to become of a log so that `own_id` is alone after it.

    ``conf_state`` is the configuration as of ``applied_index``; ``entries`` is what the log has,
    from there or from before. A commit index on disk may be older than what was applied. Raises
    ``NotAMember``.
    """
    commit = max(hard_state.commit, applied_index)
    voters, learners = set(conf_state.voters), set(conf_state.learners)
    kept: list[raftpb.Entry] = []
    for entry in entries:
        if entry.Index > commit:
            if voters != {own_id}:
                break
            commit = entry.Index  # what the only voter has saved is committed
        kept.append(entry)
        if entry.Type == raftpb.EntryConfChange and entry.Index > applied_index:
            _follow(raftpb.ConfChange.FromString(entry.Data), voters, learners)
    if own_id not in voters | learners:
        raise NotAMember(f"member {own_id:x} is not in the cluster that its log tells of")
    changes = [removing(other) for other in sorted(voters | learners) if other != own_id]
    if own_id in learners:  # while there are voters: a cluster never is without one
        changes.insert(0, promoting(own_id))
    added = [
        raftpb.Entry(
            Type=raftpb.EntryConfChange,
            Term=hard_state.term,
            Index=commit + position,
            Data=change.SerializeToString(),
        )
        for position, change in enumerate(changes, start=1)
    ]
    state = raftpb.HardState(term=hard_state.term, vote=hard_state.vote, commit=commit + len(added))
    return Standalone(kept, added, state)


def _follow(change: raftpb.ConfChange, voters: set[int], learners: set[int]) -> None:
    """Carry out a change; one that will be refused when applied adds an id too many, no more."""
    if voters == {change.node_id} and (
        change.type == raftpb.ConfChangeRemoveNode or is_demotion(change)
    ):
        return  # refused when applied: the last voter stays
    if change.type == raftpb.ConfChangeRemoveNode:
        voters.discard(change.node_id)
        learners.discard(change.node_id)
    elif is_demotion(change):
        learners.update({change.node_id} & voters)
        voters.discard(change.node_id)
    elif change.type == raftpb.ConfChangeAddLearnerNode:
        learners.update({change.node_id} - voters)
    elif is_promotion(change):
        voters.update({change.node_id} & learners)
        learners.discard(change.node_id)
    elif change.type == raftpb.ConfChangeAddNode:
        voters.update({change.node_id} - learners)
