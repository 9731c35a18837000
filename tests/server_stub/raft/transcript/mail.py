"""How transcripts write messages."""

from __future__ import annotations

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.messages import Message

NAMES = {
    raftpb.MsgProp: "prop",
    raftpb.MsgApp: "app",
    raftpb.MsgAppResp: "app-resp",
    raftpb.MsgVote: "vote",
    raftpb.MsgVoteResp: "vote-resp",
    raftpb.MsgPreVote: "pre-vote",
    raftpb.MsgPreVoteResp: "pre-vote-resp",
    raftpb.MsgSnap: "snap",
    raftpb.MsgHeartbeat: "heartbeat",
    raftpb.MsgHeartbeatResp: "heartbeat-resp",
    raftpb.MsgTransferLeader: "transfer",
    raftpb.MsgTimeoutNow: "timeout-now",
    raftpb.MsgReadIndex: "read",
    raftpb.MsgReadIndexResp: "read-resp",
}


def name_of(message: Message) -> str:
    """Return the kind of a message; a rejection ends in an exclamation mark."""
    return NAMES[message.type] + "!" * message.reject


def shown(message: Message) -> str:
    """Write a message with the index that matters for its kind, if there is one.

    ``app(5+2)`` has two entries that follow entry 5; ``app-resp(7)`` acknowledges 7;
    ``heartbeat(3)`` says that 3 is committed; ``snap(9)`` has the state of entry 9.
    """
    name = name_of(message)
    match message.type:
        case raftpb.MsgApp:
            return f"{name}({message.index}+{len(message.entries)})"
        case raftpb.MsgHeartbeat:
            return f"{name}({message.commit})"
        case raftpb.MsgSnap:
            assert message.snapshot is not None
            return f"{name}({message.snapshot.metadata.index})"
        case raftpb.MsgAppResp | raftpb.MsgReadIndexResp:
            return f"{name}({message.index})"
    return name


def agrees(expected: str, message: Message) -> bool:
    """Whether a message is the one expected: by its kind, or by that and its index."""
    return expected in (name_of(message), shown(message))
