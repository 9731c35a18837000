"""What the transport needs of the member it carries for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from ..cluster import ClusterMember
from ..raft.messages import Message


class PeerUnreachable(Exception):
    """Nobody answered: not connected, or the connection broke, or time ran out.

    Whether a question was heard is not known.
    """


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A cluster as one of its members describes it to somebody who has no id in it yet."""

    cluster_id: int
    members: tuple[ClusterMember, ...]

    def to_json(self) -> bytes:
        """Encode for the wire."""
        members = [json.loads(each.to_json()) for each in self.members]
        return json.dumps({"clusterID": self.cluster_id, "members": members}).encode()

    @classmethod
    def from_json(cls, encoded: bytes) -> Self:
        """Decode; raises ValueError."""
        try:
            fields = json.loads(encoded)
            members = [ClusterMember.from_json(json.dumps(m).encode()) for m in fields["members"]]
            return cls(int(fields["clusterID"]), tuple(members))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a description of a cluster: {encoded[:100]!r}") from error


class Receiver(Protocol):
    """A member, as its transport sees it. All of it is called on the loop's thread.

    None of the plain methods may raise; they return at once.
    """

    def step(self, message: Message) -> None:
        """Take a message; its sender is the member that the connection belongs to."""
        ...

    def unreachable(self, member_id: int) -> None:
        """Learn that messages to a member were lost."""
        ...

    def snapshot_status(self, member_id: int, ok: bool) -> None:
        """Learn how a snapshot sent to a member ended: ``ok`` when it was taken."""
        ...

    async def answer(self, sender: int, kind: str, payload: bytes) -> bytes:
        """Answer a question of another member. ``Refused`` travels to the asking side."""
        ...

    def needs_snapshot(self, message: Message) -> bool:
        """Tell whether the file of this snapshot is needed.

        If not, ``step`` gets the message alone. So it must be while a file of the same index, taken
        over before, is still in use: another one would take its place.
        """
        ...

    async def snapshot_arrived(self, message: Message, path: Path) -> None:
        """Take over a received snapshot: ``path`` is whole, checked and durable.

        The sender is told of success when this returns. The file is the receiver's; it is deleted
        when this raises.
        """
        ...

    def is_removed(self, member_id: int) -> bool:
        """Tell whether a member was removed from the cluster for good."""
        ...

    def removed(self) -> None:
        """Learn from a peer that this member was removed. Called once."""
        ...

    def cluster_info(self) -> ClusterInfo:
        """Describe the cluster to somebody who wants to join it."""
        ...
