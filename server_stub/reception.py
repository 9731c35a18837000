"""What a member does with what other members send it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .peers.receiver import ClusterInfo
from .raft.messages import Message

if TYPE_CHECKING:
    from .member import Member


class Reception:
    """The member, as its transport sees it: a :class:`.peers.receiver.Receiver`."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def step(self, message: Message) -> None:
        """Give the core a message."""
        self._member.consensus.step(message)

    def unreachable(self, member_id: int) -> None:
        """Tell the core that messages were lost."""
        self._member.core.report_unreachable(member_id)

    def snapshot_status(self, member_id: int, ok: bool) -> None:
        """Tell the core how the sending of a snapshot has ended."""
        self._member.core.report_snapshot(member_id, ok)
        self._member.consensus.wake()

    async def answer(self, sender: int, kind: str, payload: bytes) -> bytes:
        """Answer what the member was made to know."""
        return await self._member.answers.answer(sender, kind, payload)

    def needs_snapshot(self, message: Message) -> bool:
        """Tell whether the state could be of use to the core."""
        return self._member.state_transfer.needs(message)

    async def snapshot_arrived(self, message: Message, path: Path) -> None:
        """Offer the core a state that is on the disk."""
        await self._member.state_transfer.arrived(message, path)

    def is_removed(self, member_id: int) -> bool:
        """Tell whether a member was removed from the cluster for good."""
        return member_id in self._member.applier.membership.removed

    def removed(self) -> None:
        """Leave: the cluster has removed this member, and it did not get to apply that."""
        self._member.leave()

    def cluster_info(self) -> ClusterInfo:
        """Describe the cluster as far as this member has applied the log."""
        cluster = self._member.applier.membership.cluster
        return ClusterInfo(cluster.id, cluster.members)
