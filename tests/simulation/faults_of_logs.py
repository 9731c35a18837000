"""Bugs in replication, in the log, and in what becomes of it on disk."""

from __future__ import annotations

from typing import Any

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.raft import core, membership, replication
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.raft.node import Node
from etcd_pinwheel.server_stub.raft.progress import Progress, State
from etcd_pinwheel.server_stub.storage import wal_reader
from etcd_pinwheel.server_stub.storage.wal import Wal

from .planting import Plant


def older_terms_committed_by_counting(plant: Plant) -> None:
    """5: a leader commits an entry of an older term because a quorum has it (PySyncObj#169)."""

    def maybe_commit(node: Node, news: Progress | None = None) -> bool:
        log, members = node.log, node.progress
        index = node.configuration.voters.committed_index(lambda each: members[each].match)
        if index <= log.committed or log.term(index) is None:
            return False
        log.commit_to(index)
        node.wants_appends = True
        return True

    plant(replication, "maybe_commit", maybe_commit)


def commit_index_regresses(plant: Plant) -> None:
    """6: a late message takes the commit index back (PySyncObj#166)."""

    def commit_to(log: Log, index: int) -> None:
        log.committed = min(index, log.last_index)

    plant(Log, "commit_to", commit_to)


def match_index_regresses(plant: Plant) -> None:
    """6b: a late acknowledgement takes the match index back (PySyncObj#167, raftos#25)."""

    def acknowledged(progress: Progress, index: int) -> bool:
        news = index > progress.match
        progress.match = index
        progress.next = max(progress.next, index + 1)
        progress.paused = False
        return news

    plant(Progress, "acknowledged", acknowledged)


def truncates_without_conflict(plant: Plant) -> None:
    """7: a follower cuts off whatever stands behind an append, also a late one (raftos#26)."""
    append = Log.append

    def append_and_cut(log: Log, previous: tuple[int, int], entries: Any) -> bool:
        index = previous[0] + len(entries)
        taken = append(log, previous, entries)
        if taken and log.committed <= index < log.last_index:
            log._cut(index + 1)
        return taken

    plant(Log, "append", append_and_cut)


def acknowledged_before_it_is_saved(plant: Plant) -> None:
    """8: a follower acknowledges entries that are still on their way to the disk."""
    hold = Node.send_saved

    def send(node: Node, message: Message) -> None:
        (Node.send if message.type == raftpb.MsgAppResp else hold)(node, message)

    plant(Node, "send_saved", send)


def leader_counts_what_it_has_not_saved(plant: Plant) -> None:
    """8b: a leader, alone or not, counts its own entries before they are synced (etcd#14370)."""
    flush = replication.flush

    def flush_and_count(node: Node) -> None:
        own = node.progress.get(node.id)
        if own is not None and own.acknowledged(node.log.last_index):
            replication.maybe_commit(node, own)
        flush(node)

    plant(replication, "flush", flush_and_count)


def learners_count_for_commits(plant: Plant) -> None:
    """12c: what a learner has saved counts like what a voter has."""

    def maybe_commit(node: Node, news: Progress | None = None) -> bool:
        log = node.log
        matches = sorted(progress.match for progress in node.progress.values())
        index = matches[(len(matches) - 1) // 2] if matches else 0
        if index <= log.committed or log.term(index) != node.term:
            return False
        log.commit_to(index)
        node.wants_appends = True
        return True

    plant(replication, "maybe_commit", maybe_commit)


def heartbeats_carry_the_whole_commit_index(plant: Plant) -> None:
    """6c: a heartbeat tells a commit index beyond what its receiver is known to have."""

    def send_heartbeats(node: Node) -> None:
        context = replication.reads.next_context(node)
        for member in node.progress:
            if member != node.id:
                beat = Message(raftpb.MsgHeartbeat, member, node.id, node.term, context=context)
                beat.commit = node.log.committed
                node.send(beat)

    def on_heartbeat(node: Node, message: Message) -> None:
        node.log.commit_to(min(message.commit, node.log.last_index))
        answer = Message(raftpb.MsgHeartbeatResp, message.sender, node.id, node.term)
        answer.context = message.context
        node.send(answer)

    plant(replication, "send_heartbeats", send_heartbeats)
    plant(replication, "on_heartbeat", on_heartbeat)


def next_not_behind_match(plant: Plant) -> None:
    """19b: an acknowledgement moves match beyond next (raft PR#149)."""

    def acknowledged(progress: Progress, index: int) -> bool:
        if index <= progress.match:
            return False
        progress.match = index
        progress.paused = False
        return True

    plant(Progress, "acknowledged", acknowledged)


def full_window_never_probed(plant: Plant) -> None:
    """19: a follower whose whole window was lost is never sent anything again (PR#14633)."""

    def on_heartbeat_response(node: Node, message: Message) -> None:
        progress = node.progress[message.sender]
        progress.recent_active = True
        full = progress.state is State.REPLICATE and progress.inflights.full
        if not full:
            progress.paused = False
            if progress.match < node.log.last_index or progress.state is State.PROBE:
                replication.send_append(node, message.sender, progress, even_if_empty=True)
        if message.context:
            replication.reads.confirm(node, progress, message.context)

    plant(replication, "on_heartbeat_response", on_heartbeat_response)


def older_snapshot_leaves_member_waiting(plant: Plant) -> None:
    """20: only the very snapshot that was sent ends the wait for it (etcd#10308)."""
    acknowledge = replication._on_acknowledgement

    def wait(node: Node, progress: Progress, member: int, index: int) -> None:
        if progress.state is State.SNAPSHOT and index < progress.pending_snapshot:
            return
        acknowledge(node, progress, member, index)

    plant(replication, "_on_acknowledgement", wait)
    plant(replication, "on_snapshot_status", lambda progress, ok: None)


def commit_index_saved_before_its_entries(plant: Plant) -> None:
    """23b: the commit index is saved together with the entries that it covers."""
    ready = core.Raft.ready

    def eager(raft: core.Raft) -> core.Ready | None:
        saved, raft.log.saved = raft.log.saved, raft.log.last_index
        state_only = raft._saving is None and raft.log.snapshot is None
        raft.log.saved = saved
        batch = ready(raft)
        if batch is not None and state_only and batch.hard_state is not None:
            batch.hard_state.commit = raft.log.committed
        return batch

    plant(core.Raft, "ready", eager)


def torn_tail_refused(plant: Plant) -> None:
    """23: a log that ends in the middle of a write is taken for damaged (etcd#5230)."""

    def judge(path: Any, file: Any, size: int, bad: Any, replay: Any, *, last: bool) -> None:
        raise wal_reader.WalCorrupt(path, bad.offset, bad.reason)

    plant(wal_reader, "_judge", judge)


def opened_log_not_synced(plant: Plant) -> None:
    """23c: what a killed process had only written is relied on, and lost in a power cut."""
    plant(Wal, "open", _without_sync(Wal.open))


def _without_sync(opening: Any) -> Any:
    def open_log(cls: type[Wal], *arguments: Any, **options: Any) -> Any:
        wal, contents = opening.__func__(cls, *arguments, fsync=False, **options)
        wal._fsync = True
        return wal, contents

    return classmethod(open_log)


def index_not_in_the_batch_of_its_data(plant: Plant) -> None:
    """24: the index of an entry reaches the disk after what the entry did (etcd#13766)."""
    is_new = Applier._is_new

    def late(applier: Applier, index: int, term: int) -> bool:
        if index <= applier.index:
            return False
        known, applier.index = applier.index, 0
        is_new(applier, known, applier.term)
        applier.index, applier.term = index, term
        return True

    plant(Applier, "_is_new", late)


def snapshot_without_configuration(plant: Plant) -> None:
    """9b: a member that is sent the state keeps the configuration that it had."""
    restore = membership._restore

    def keep(node: Node, snapshot: raftpb.Snapshot) -> bool:
        configuration = node.configuration
        restored = restore(node, snapshot)
        if restored:
            node.configuration, node.members = configuration, configuration.members()
        return restored

    plant(membership, "_restore", keep)
