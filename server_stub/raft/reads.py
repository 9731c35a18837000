"""Read index: from which index on a read is linearizable (thesis 6.4).

The leader notes its commit index, and answers with it once a quorum has answered a heartbeat that
was sent later: nobody else led when the question came. All questions between two rounds share one.
Rounds are numbered by the leader itself; a questioner that repeats itself cannot be taken for its
earlier question (etcd#20418). An answer to a round confirms all rounds before it.
"""

from __future__ import annotations

from ...protos import raftpb
from .messages import NOBODY, Message
from .node import Node, PendingRead, ReadState, Role
from .progress import Progress


def read_index(node: Node, context: bytes) -> None:
    """Ask on this member's own behalf."""
    if node.role is Role.LEADER:
        request(node, node.id, context)
    elif node.leader != NOBODY:
        node.send(Message(raftpb.MsgReadIndex, node.leader, node.id, context=context))


def request(node: Node, sender: int, context: bytes) -> None:
    """Answer as the leader, at once or later."""
    if not node.committed_in_term:
        # A new leader does not know yet what is committed (etcd#7331); that holds for one that is
        # alone as well: it may have forgotten its commit index in a crash.
        node.waiting_reads.append((sender, context))
    elif node.is_sole_voter or (node.config.lease_reads and node.transferee == NOBODY):
        answer(node, sender, context, node.log.committed)
    else:
        read = PendingRead(node.round + 1, sender, context, node.log.committed)
        node.pending_reads.append(read)
        node.wants_round = True


def release(node: Node) -> None:
    """Answer what has waited for the first commit of the term."""
    waiting, node.waiting_reads = node.waiting_reads, []
    for sender, context in waiting:
        request(node, sender, context)


def answer(node: Node, sender: int, context: bytes, index: int) -> None:
    """Hand the index to whoever asked."""
    if sender == node.id:
        node.read_states.append(ReadState(index, context))
    else:
        node.send(
            Message(
                raftpb.MsgReadIndexResp, sender, node.id, node.term, index=index, context=context
            )
        )


def next_context(node: Node) -> bytes:
    """Return the context for heartbeats sent now: the newest round, or nothing to confirm."""
    if node.wants_round:
        node.wants_round = False
        node.round += 1
    return node.round.to_bytes(8, "big") if node.pending_reads else b""


def confirm(node: Node, progress: Progress, context: bytes) -> None:
    """Note that a member answered the round of `context`; answer the reads thereby confirmed."""
    progress.read_position = max(progress.read_position, int.from_bytes(context, "big"))
    pending = node.pending_reads
    if not pending:
        return
    members = node.progress

    def answered(member: int) -> int:
        return node.round if member == node.id else members[member].read_position

    confirmed = node.configuration.voters.committed_index(answered)
    while pending and pending[0].round <= confirmed:
        read = pending.popleft()
        answer(node, read.sender, read.context, read.index)
