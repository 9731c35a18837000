"""Raft's messages as bytes: a serialized ``raftpb.Message``, and back.

Most bytes are entries, and the same entries go to every follower: they are serialized once. That
works because two serialized messages, one after the other, are their union.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from ...protos import raftpb
from ..raft.messages import Message

MSG_SNAP: Final = int(raftpb.MsgSnap)


class BadMessage(Exception):
    """Bytes that are not a message, or one that may not stand where it stood."""


class Encoder:
    """Serializes messages; remembers the entries of the last one."""

    def __init__(self) -> None:
        self._entries: tuple[raftpb.Entry, ...] = ()
        self._encoded = b""

    def encode(self, message: Message) -> tuple[bytes, bytes]:
        """Serialize a message, in two parts that belong one after the other."""
        fields: dict[str, Any] = {
            "type": message.type,
            "to": message.to,
            "from": message.sender,
            "term": message.term,
            "logTerm": message.log_term,
            "index": message.index,
            "commit": message.commit,
            "vote": message.vote,
            "reject": message.reject,
            "rejectHint": message.reject_hint,
            "context": message.context,
            "snapshot": message.snapshot,
        }
        head = raftpb.Message(**fields).SerializeToString()
        return head, self._encode_entries(message) if message.entries else b""

    def _encode_entries(self, message: Message) -> bytes:
        entries = tuple(message.entries)
        if entries != self._entries:  # quick for the same objects
            self._entries = entries
            self._encoded = raftpb.Message(entries=entries).SerializeToString()
        return self._encoded


def decode(data: bytes) -> Message:
    """Read a message; raises ``BadMessage``."""
    try:
        read = raftpb.Message.FromString(data)
    except DecodeError:
        raise BadMessage("not a raft message") from None
    return Message(
        type=read.type,
        to=read.to,
        sender=getattr(read, "from"),
        term=read.term,
        log_term=read.logTerm,
        index=read.index,
        entries=list(read.entries) or (),
        commit=read.commit,
        vote=read.vote,
        reject=read.reject,
        reject_hint=read.rejectHint,
        context=read.context,
        snapshot=read.snapshot if read.HasField("snapshot") else None,
    )


def decode_from(data: bytes, sender: int, target: int) -> Message:
    """Read a message that ``sender`` may send to ``target``; raises ``BadMessage``."""
    message = decode(data)
    if message.sender != sender:
        raise BadMessage(f"a message in the name of member {message.sender:x}")
    if message.to != target:
        raise BadMessage(f"a message to member {message.to:x}")
    return message
