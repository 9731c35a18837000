"""One copy of the cluster's state: the consensus and what its log does, without disk or network.

What a driver must do around it (see :mod:`.consensus`), in this order: send what ``raft.messages``
gives; save what ``raft.ready`` gives and say so by ``raft.saved``; then :meth:`Replica.apply`.
Everything that is decided about a replica is decided here or in the core, so that a simulator
that replaces disks, sockets and the clock runs the very same decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from ..protos import raftpb
from ..protos.errors import Refused
from ..protos.etcdserverpb import InternalRaftRequest
from .apply.applier import Applier
from .mvcc.restoring import Restored

if TYPE_CHECKING:
    from .raft.core import Raft


@dataclass(slots=True)
class Applied:
    """What applying one entry came to."""

    entry: raftpb.Entry
    request: InternalRaftRequest | None = None
    """What the entry asked for; None for a leader's first entry, and for a change."""
    change: raftpb.ConfChange | None = None
    """The change of the membership that it asked for."""
    reply: Message | None = None
    refused: Refused | None = None
    """Why it was not carried out; every member refuses it alike."""


class Replica:
    """The consensus of one member, and the state that its log makes.

    Invariant: the applier's index is that of the last committed entry that the core handed out.
    """

    def __init__(
        self, raft: Raft, applier: Applier, *, snapshot_every: int, catch_up_entries: int
    ) -> None:
        """``snapshot_every``: applied entries between snapshots (``--snapshot-count``).

        ``catch_up_entries``: entries behind a snapshot that the log keeps in memory for followers
        that lag (``--snapshot-catchup-entries``).
        """
        self.raft = raft
        self.applier = applier
        self.request_of: Callable[[bytes], InternalRaftRequest | None] = parse_request
        """Reads the data of an entry; whoever still has the request can spare itself the work."""
        self._snapshot_every = snapshot_every
        self._catch_up_entries = catch_up_entries
        self._transfers = 0
        self._snapshot_index: int = raft.log.first_index - 1

    # Applying

    def apply(self, limit: int, now: float) -> list[Applied]:
        """Apply up to `limit` entries that are committed and saved; return what came of each.

        Raises what the backend raises, which leaves the state in doubt: the replica is over then.
        """
        entries = self.raft.committed(limit)
        if not entries:
            return []
        done = [
            self._apply_request(entry, now)
            if entry.Type == raftpb.EntryNormal
            else self._apply_change(entry)
            for entry in entries
        ]
        self.raft.applied(self.applier.index)
        return done

    def _apply_request(self, entry: raftpb.Entry, now: float) -> Applied:
        data = entry.Data
        applied = Applied(entry, self.request_of(data) if data else None)
        try:
            applied.reply = self.applier.apply(entry.Index, entry.Term, applied.request, now)
        except Refused as refused:
            applied.refused = refused
        return applied

    def _apply_change(self, entry: raftpb.Entry) -> Applied:
        """Change the membership, in the core and in the state, or in neither.

        What is refused here was valid when it was proposed, and is not after the changes before it.
        What is admitted the core must be able to carry out: an entry that it cannot is one at which
        every member stops, now and at every start.
        """
        if entry.Type == raftpb.EntryConfChangeV2:
            return self._apply_joint(entry)
        change = raftpb.ConfChange.FromString(entry.Data)
        applied = Applied(entry, change=change)
        try:
            self.applier.membership.validate(change)
        except Refused as refused:
            applied.refused = refused
            self.raft.apply_change(raftpb.ConfChange(type=change.type, id=change.id))
            self.applier.pass_over(entry.Index, entry.Term)
        else:
            conf_state = self.raft.apply_change(change)
            self.applier.apply_change(entry.Index, entry.Term, change, conf_state)
        return applied

    def _apply_joint(self, entry: raftpb.Entry) -> Applied:
        """Carry out a step of a joint change; the membership of the state has no part in those."""
        conf_state = self.raft.apply_change(raftpb.ConfChangeV2.FromString(entry.Data))
        self.applier.pass_over(entry.Index, entry.Term, conf_state)
        return Applied(entry)

    # Snapshots

    def snapshot(self) -> raftpb.Snapshot:
        """Describe the state as it is now: index, term and configuration. It has no data."""
        applier = self.applier
        metadata = raftpb.SnapshotMetadata(
            conf_state=self.raft.config_state(), index=applier.index, term=applier.term
        )
        return raftpb.Snapshot(metadata=metadata)

    @property
    def is_snapshot_due(self) -> bool:
        """Whether enough was applied since the last snapshot for another one."""
        return self.applier.index - self._snapshot_index > self._snapshot_every

    def due_snapshot(self) -> raftpb.Snapshot | None:
        """Return the snapshot to be saved now, if enough was applied since the one before.

        Once the backend is durable up to there and the snapshot is on record, it is for the driver
        to say so by :meth:`snapshot_saved`.
        """
        if not self.is_snapshot_due:
            return None
        self._snapshot_index = self.applier.index
        return self.snapshot()

    def snapshot_saved(self, snapshot: raftpb.Snapshot) -> None:
        """Drop from memory the entries for which a snapshot now stands, but for the youngest.

        Not while another member is being sent the state: it will need the entries that follow it.
        """
        compactable = snapshot.metadata.index - self._catch_up_entries
        if not self._transfers and compactable >= self.raft.log.first_index:
            self.raft.log.compact(compactable)

    def begin_transfer(self) -> None:
        """Keep the log from now on: a copy of the state is on its way to another member."""
        self._transfers += 1

    def end_transfer(self) -> None:
        """Let the log be compacted again; one call for each :meth:`begin_transfer`."""
        self._transfers -= 1

    def installed(self, restored: Restored | None = None) -> None:
        """Go on from the state of another member, which now stands in the backend.

        To be called once the backend is that of the snapshot that ``raft.ready`` gave, and before
        ``raft.saved``. Store, leases, alarms and membership are read again; watchers stay.
        ``restored`` is what was read of the new state before, if anything was.
        """
        self.applier.reload(restored)
        self._snapshot_index = self.applier.index


def parse_request(data: bytes) -> InternalRaftRequest:
    """Read the request in the data of an entry."""
    return InternalRaftRequest.FromString(data)
