"""What members of a cluster say to each other, and what is only ever said inside of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...protos import raftpb

NOBODY: Final = 0
"""The id that no member has; also the leader while there is none."""

LOCAL: Final = frozenset(
    {
        raftpb.MsgHup,
        raftpb.MsgBeat,
        raftpb.MsgUnreachable,
        raftpb.MsgSnapStatus,
        raftpb.MsgCheckQuorum,
        raftpb.MsgStorageAppend,
        raftpb.MsgStorageAppendResp,
        raftpb.MsgStorageApply,
        raftpb.MsgStorageApplyResp,
        raftpb.MsgForgetLeader,
    }
)
"""Types that must never arrive from the network; here most are methods of the core instead."""

RESPONSES: Final = frozenset(
    {
        raftpb.MsgAppResp,
        raftpb.MsgVoteResp,
        raftpb.MsgPreVoteResp,
        raftpb.MsgHeartbeatResp,
    }
)
"""Answers, which count for something: they are taken from members only."""

CAMPAIGN_TRANSFER: Final = b"CampaignTransfer"
"""Context of a vote request that the leader asked for: no lease stands against it."""


@dataclass(slots=True)
class Message:
    """One message from a member to another.

    Its entries and its snapshot are shared with the sender's log: nobody may change them.
    """

    type: int
    """One of ``raftpb.MsgApp`` and its like."""
    to: int
    sender: int
    term: int = 0
    """The sender's term; a pre-vote's: the term it would campaign in; 0: a request without one."""
    log_term: int = 0
    """Term of the entry at ``index`` (MsgApp), of the last entry (votes), of the hint (rejects)."""
    index: int = 0
    """MsgApp: before its entries; MsgAppResp: stored up to here, or what was rejected; votes: the
    candidate's last; MsgReadIndexResp: what must have been applied before reading."""
    entries: Sequence[raftpb.Entry] = ()
    commit: int = 0
    reject: bool = False
    reject_hint: int = 0
    """The last index of the rejecting log at which it may agree with the leader's."""
    vote: int = NOBODY
    """MsgTransferLeader: who shall lead."""
    context: bytes = b""
    snapshot: raftpb.Snapshot | None = None
