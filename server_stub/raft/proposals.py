"""Proposals: the leader appends them, a follower hands them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    """Send the leader what was handed on since: many small proposals make one message."""
    entries, node.forwards = node.forwards, []
    if node.leader not in (NOBODY, node.id):
        _forward(node, entries)


def _hand_on(node: Node, entry: raftpb.Entry) -> None:
    if node.leader == NOBODY:
        raise ProposalDropped("nobody leads")
    node.forwards.append(entry)


def _forward(node: Node, entries: Sequence[raftpb.Entry]) -> None:
    """Send entries to the leader, no more in one message than in an append.

    After a while without a leader it may be a lot that was kept, and whoever carries messages
    drops one that is too large as a whole.
    """
    for portion in _portions(entries, node.config.max_message_bytes):
        node.send(Message(raftpb.MsgProp, node.leader, node.id, entries=portion))


def _portions(entries: Sequence[raftpb.Entry], max_bytes: int) -> Iterator[list[raftpb.Entry]]:
    """Divide entries, in their order, into portions of so much payload, or of a single entry."""
    portion: list[raftpb.Entry] = []
    size = 0
    for entry in entries:
        if portion and size + len(entry.Data) > max_bytes:
            yield portion
            portion, size = [], 0
        portion.append(entry)
        size += len(entry.Data)
    if portion:
        yield portion


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
