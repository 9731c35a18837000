"""Replication: the leader feeds every member's log, a follower takes what fits (paper 5.3)."""

from __future__ import annotations

from ...protos import raftpb
from . import reads
from .messages import Message
from .node import Node
from .progress import Progress, State

# The leader's side: sending.


def append_entry(node: Node, data: bytes, type_: int = raftpb.EntryNormal) -> None:
    """Append to the leader's own log; the members hear of it with the next messages."""
    entry = raftpb.Entry(Term=node.term, Index=node.log.last_index + 1, Data=data)
    if type_ != raftpb.EntryNormal:
        entry.Type = type_  # type: ignore[assignment]  # an int where the stub has an enum
    node.log.extend((entry,))
    node.wants_appends = True


def flush(node: Node) -> None:
    """Send the members what they are to hear of: many proposals make one append."""
    if node.wants_appends:
        node.wants_appends = False
        committed = node.log.committed
        for member, progress in node.progress.items():
            if member != node.id:
                news = progress.can_bump_commit(committed)
                send_append(node, member, progress, even_if_empty=news)
                send_appends(node, member, progress)
    if node.wants_heartbeats or node.wants_round:
        node.wants_heartbeats = False
        send_heartbeats(node)


def send_heartbeats(node: Node) -> None:
    """Tell every member that this one leads, and as much of the commit index as it can have."""
    context = reads.next_context(node)
    for member, progress in node.progress.items():
        if member != node.id:
            commit = min(progress.match, node.log.committed)
            progress.sent_commit = max(progress.sent_commit, commit)
            node.send(
                Message(
                    raftpb.MsgHeartbeat,
                    member,
                    node.id,
                    node.term,
                    commit=commit,
                    context=context,
                )
            )


def send_appends(node: Node, member: int, progress: Progress) -> None:
    """Send entries as long as there are some and the window is open."""
    last_index = node.log.last_index
    while progress.next <= last_index and send_append(node, member, progress, even_if_empty=False):
        pass


def send_append(node: Node, member: int, progress: Progress, *, even_if_empty: bool) -> bool:
    """Send one append, or the snapshot that must come before it; False if nothing was sent."""
    if progress.is_paused:
        return False
    log, low = node.log, progress.next
    term = log.term(low - 1)
    if term is None:
        return send_snapshot(node, member, progress)
    window_full = progress.state is State.REPLICATE and progress.inflights.full
    entries = (
        ()
        if window_full or low > log.last_index
        else log.slice(low, log.last_index + 1, node.config.max_message_bytes)
    )
    if not entries and not even_if_empty:
        return False
    node.send(
        Message(
            raftpb.MsgApp,
            member,
            node.id,
            node.term,
            log_term=term,
            index=low - 1,
            entries=entries,
            commit=log.committed,
        )
    )
    progress.sent(len(entries), log.size(low, low + len(entries)))
    progress.sent_commit = log.committed
    return True


def send_snapshot(node: Node, member: int, progress: Progress) -> bool:
    """Send a snapshot to a member that is there to take it; False if there is none just now."""
    if not progress.recent_active:
        return False
    snapshot = node.snapshot()
    if snapshot is None or snapshot.metadata.index + 1 < node.log.first_index:
        return False
    progress.become_snapshot(snapshot.metadata.index)
    node.send(Message(raftpb.MsgSnap, member, node.id, node.term, snapshot=snapshot))
    return True


# The leader's side: answers.


def on_append_response(node: Node, message: Message) -> None:
    """Take a member's answer to an append or a snapshot."""
    progress = node.progress[message.sender]
    progress.heard(node.ticks)
    if message.index > node.log.last_index:
        node.refused += 1  # of what was never sent
    elif message.reject:
        _on_rejection(node, progress, message)
    elif progress.acknowledged(message.index) or (
        progress.match == message.index and progress.state is State.PROBE
    ):
        _on_acknowledgement(node, progress, message.sender, message.index)


def _on_rejection(node: Node, progress: Progress, message: Message) -> None:
    """Try again where both logs can agree: at most one probe per term (paper 5.3)."""
    hint = message.reject_hint
    if message.log_term:
        hint, _ = node.log.agreement(hint, message.log_term)
    if progress.rejected(message.index, hint):
        if progress.state is State.REPLICATE:
            progress.become_probe()
        send_append(node, message.sender, progress, even_if_empty=True)


def _on_acknowledgement(node: Node, progress: Progress, member: int, index: int) -> None:
    log = node.log
    if progress.state is State.REPLICATE:
        progress.inflights.free_to(index)
    elif progress.state is State.PROBE or progress.match + 1 >= log.first_index:
        # Whatever snapshot it took, also an older one than it was sent (etcd#10308).
        progress.become_replicate()
    if not maybe_commit(node, progress) and progress.can_bump_commit(log.committed):
        send_append(node, member, progress, even_if_empty=True)
    send_appends(node, member, progress)
    if member == node.transferee and progress.match == log.last_index:
        send_timeout_now(node, member)


def send_timeout_now(node: Node, member: int) -> None:
    """Have a member that has the whole log campaign at once (thesis 3.10)."""
    node.send(Message(raftpb.MsgTimeoutNow, member, node.id, node.term))


def acknowledge_own(node: Node) -> None:
    """Count what this leader has saved itself, and not before (etcd#14370)."""
    progress = node.progress.get(node.id)
    if progress is not None and progress.acknowledged(node.log.saved):
        maybe_commit(node, progress)


def maybe_commit(node: Node, news: Progress | None = None) -> bool:
    """Commit what a quorum has saved, if it is of this term (paper 5.4.2); True if that is news.

    ``news``: whose progress was made, if nothing else has changed.
    """
    log, members = node.log, node.progress
    if news is not None and news.match <= log.committed:
        return False
    index = node.configuration.voters.committed_index(lambda member: members[member].match)
    if index <= log.committed or log.term(index) != node.term:
        return False
    log.commit_to(index)
    node.wants_appends = True
    if node.waiting_reads:
        reads.release(node)
    return True


def on_heartbeat_response(node: Node, message: Message) -> None:
    """Take a sign of life; feed the member again if it lacks something or was lost sight of."""
    progress = node.progress[message.sender]
    progress.heard(node.ticks)
    progress.paused = False
    if progress.match < node.log.last_index or progress.state is State.PROBE:
        # With the window full this append is empty; if all in the window was lost, its rejection
        # is what gets the member going again.
        send_append(node, message.sender, progress, even_if_empty=True)
    if message.context:
        reads.confirm(node, progress, message.context)


def on_unreachable(progress: Progress) -> None:
    """Stop sending ahead to a member that an append was probably lost on its way to."""
    if progress.state is State.REPLICATE:
        progress.become_probe()


def on_snapshot_status(progress: Progress, ok: bool) -> None:
    """Go on behind a snapshot that has arrived, or before one that has not.

    Not at once: the next append waits for the snapshot's answer, or for a heartbeat's.
    """
    if progress.state is State.SNAPSHOT:
        if not ok:
            progress.pending_snapshot = 0
        progress.become_probe()
        progress.paused = True


# The follower's side.


def on_append(node: Node, message: Message) -> None:
    """Take entries that fit this log, or say where it may agree with the leader's."""
    log, previous, entries = node.log, message.index, message.entries
    if entries and entries[-1].Index != previous + len(entries):
        node.refused += 1
        return
    answer = Message(raftpb.MsgAppResp, message.sender, node.id, node.term)
    if previous < log.committed:
        answer.index = log.committed
    elif log.append((previous, message.log_term), entries):
        answer.index = previous + len(entries)
        log.commit_to(min(message.commit, answer.index))
    else:
        answer.index, answer.reject = previous, True
        answer.reject_hint, answer.log_term = log.agreement(previous, message.log_term)
    node.send_saved(answer)


def on_heartbeat(node: Node, message: Message) -> None:
    """Take the commit index; raises :class:`LogLost` if this log must have had it and has not."""
    node.log.commit_to(message.commit)
    node.send(
        Message(
            raftpb.MsgHeartbeatResp,
            message.sender,
            node.id,
            node.term,
            context=message.context,
        )
    )
