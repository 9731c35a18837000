"""What follows, within a member, from what consensus tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protos import raftpb
from .raft.core import ReadState
from .raft.messages import NOBODY
from .replica import Applied

if TYPE_CHECKING:
    from .member import Member


class Aftermath:
    """Tells the parts of a member what each must know: a :class:`.consensus.Listener`."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._leader = NOBODY

    def before_turn(self) -> None:
        """Hand over what waited for a leader, and ask for those who read."""
        self._member.proposals.hand_over()
        self._member.reads.before_turn()

    def ticked(self) -> None:
        """Note that this member is awake."""
        self._member.leadership.ticked()

    def state_changed(self) -> None:
        """Tell who leads."""
        member = self._member
        member.leadership.look()
        leader = member.core.leader
        if leader != self._leader:
            self._leader = leader
            if leader != NOBODY:
                member.timings.leader_since = member.clock()
            for hook in member.on_leader_change:
                hook()

    def applied(self, done: list[Applied]) -> None:
        """Answer callers; look after what waits for a change, now that there was one."""
        member = self._member
        member.proposals.applied(done)
        for applied in done:
            if applied.change is not None and applied.refused is None:
                self._membership_changed(applied.change)
        member.leadership.applied()
        member.reads.applied()
        member.lease_duties.applied()
        member.chores.note_applied()

    def read_indexes(self, answers: list[ReadState]) -> None:
        """Let readers go on."""
        self._member.reads.answered([(answer.index, answer.context) for answer in answers])

    def installed(self) -> None:
        """Go on with another state: other members, and news for every watcher."""
        member = self._member
        member.membership_changed()
        if member.id in member.applier.membership.removed:
            member.leave()
        member.leadership.applied()
        member.reads.applied()
        member.lease_duties.applied()
        member.nudge_watchers()

    def failed(self, error: BaseException) -> None:
        """Keep what may be half of an entry from the disk, and send callers away."""
        member = self._member
        member.backend.abandon()
        member.proposals.give_up()
        member.reads.stop()

    def _membership_changed(self, change: raftpb.ConfChange) -> None:
        member = self._member
        member.membership_changed()
        if change.type == raftpb.ConfChangeRemoveNode and change.node_id == member.id:
            member.leave()
