"""Proposals: the leader appends them, a follower hands them on."""

from __future__ import annotations

from collections.abc import Sequence

from ...protos import raftpb
from . import membership, replication
from .confchange import AnyChange, decode_change
from .messages import NOBODY, Message
from .node import Node, ProposalDropped, Role


def propose(node: Node, data: bytes) -> None:
    """Append an ordinary entry, or send it to the leader."""
    if node.role is not Role.LEADER:
        _hand_on(node, raftpb.Entry(Data=data))
        return
    _admit(node, len(data))
    replication.append_entry(node, data)


def propose_change(node: Node, change: AnyChange) -> None:
    """Append a change of the membership, or send it to the leader."""
    version_1 = isinstance(change, raftpb.ConfChange)
    type_ = raftpb.EntryConfChange if version_1 else raftpb.EntryConfChangeV2
    data = change.SerializeToString()
    if node.role is not Role.LEADER:
        _hand_on(node, raftpb.Entry(Type=type_, Data=data))
        return
    _admit(node, len(data))
    if reason := membership.refusal(node, change):
        raise ProposalDropped(reason)
    membership.append_change(node, data, type_)


def on_proposals(node: Node, message: Message) -> None:
    """Take what another member hands on; nobody is told of what is dropped, it will time out."""
    if node.role is not Role.LEADER:
        if node.leader in (NOBODY, message.sender):
            node.dropped += len(message.entries)
        else:  # it leads no more, and knows who does
            _forward(node, message.entries)
        return
    for entry in message.entries:
        try:
            if entry.Type == raftpb.EntryNormal:
                propose(node, entry.Data)
            else:
                propose_change(node, decode_change(entry))
        except ProposalDropped:
            node.dropped += 1


def flush(node: Node) -> None:
    """Send the leader what was handed on since: many proposals make one message."""
    entries, node.forwards = node.forwards, []
    if node.leader not in (NOBODY, node.id):
        _forward(node, entries)


def _hand_on(node: Node, entry: raftpb.Entry) -> None:
    if node.leader == NOBODY:
        raise ProposalDropped("nobody leads")
    node.forwards.append(entry)


def _forward(node: Node, entries: Sequence[raftpb.Entry]) -> None:
    node.send(Message(raftpb.MsgProp, node.leader, node.id, entries=entries))


def _admit(node: Node, size: int) -> None:
    """Refuse what the leader does not take now."""
    if node.id not in node.progress:
        raise ProposalDropped("this leader is not a member any more")
    if node.transferee != NOBODY:
        raise ProposalDropped("the lead is being handed over")
    log = node.log
    uncommitted = log.size(log.committed + 1, log.last_index + 1)
    if size and uncommitted and uncommitted + size > node.config.max_uncommitted_bytes:
        raise ProposalDropped(f"{uncommitted} bytes of proposals are not committed yet")
