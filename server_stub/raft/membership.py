"""Changes of the membership: they take effect when they are applied.

That is safe by three rules (etcd#7625): the leader appends a change only when all earlier ones are
applied (`pending_conf_index`); nobody campaigns with a committed change not applied
(`election.has_unapplied_change`); and a change is committed before it is applied, so that a later
one implies that a quorum has the earlier ones.
"""

from __future__ import annotations

from ...protos import raftpb
from . import replication
from .confchange import AnyChange, Configuration, changed, leaves_joint
from .log import Log
from .messages import NOBODY, Message
from .node import Node, Role


def implied_commit(log: Log) -> int:
    """Return up to where the log itself says that it is committed, after a restart; 0: nowhere.

    A change behind another one proves that the other one had been applied. Not to know that, for
    the commit index was lost in a crash, would be to campaign in a configuration from before both.
    """
    changes = [
        entry.Index
        for entry in log.slice(max(log.applied + 1, log.first_index), log.last_index + 1)
        if entry.Type != raftpb.EntryNormal
    ]
    return changes[-2] if len(changes) > 1 else 0


def refusal(node: Node, change: AnyChange) -> str | None:
    """Return why the leader cannot append `change` now, if it cannot."""
    if node.pending_conf_index > node.log.applied:
        return (
            f"an earlier membership change may be unapplied (up to {node.pending_conf_index}, "
            f"applied is {node.log.applied})"
        )
    joint, leaves = node.configuration.is_joint, leaves_joint(change)
    if joint and not leaves:
        return "the cluster must leave its joint configuration first"
    if leaves and not joint:
        return "the cluster is not in a joint configuration"
    return None


def append_change(node: Node, data: bytes, type_: int) -> None:
    """Append a change to the leader's log; no other follows before it is applied."""
    replication.append_entry(node, data, type_)
    node.pending_conf_index = node.log.last_index


def apply_change(node: Node, change: AnyChange) -> None:
    """Switch to the membership that a change makes."""
    switch(node, changed(node.configuration, change))


def switch(node: Node, configuration: Configuration) -> None:
    """Make `configuration` the one in force."""
    node.configuration = configuration
    node.members = configuration.members()
    if node.role is not Role.LEADER:
        return
    _update_progress(node)
    if node.id not in configuration.voters and node.config.step_down_on_removal:
        node.become_follower(node.term, NOBODY)
        return
    if node.transferee not in configuration.voters:
        node.transferee = NOBODY
    if not replication.maybe_commit(node):  # a smaller quorum may have it already
        node.wants_appends = True  # for the newcomers


def _update_progress(node: Node) -> None:
    """Have a progress for exactly the members, keeping those that stay (also if promoted)."""
    for member in [member for member in node.progress if member not in node.members]:
        del node.progress[member]
    for member in sorted(node.members):
        progress = node.progress.get(member)
        if progress is None:
            next_index = max(node.log.last_index, 1)
            progress = node.new_progress(member, match=0, next_index=next_index)
            # Or the next look at the quorum could depose the leader before it can have answered.
            progress.recent_active = True
            node.progress[member] = progress
        progress.is_learner = member in node.configuration.learners


def on_applied(node: Node, index: int) -> None:
    """Note what is applied; a leader then leaves a joint configuration that is to be left so."""
    log = node.log
    log.applied = max(log.applied, index)
    if (
        node.configuration.auto_leave
        and node.role is Role.LEADER
        and log.applied >= node.pending_conf_index
    ):
        append_change(node, b"", raftpb.EntryConfChangeV2)


def on_snapshot(node: Node, message: Message) -> None:
    """Take a snapshot in place of the log, unless the log has all of it, or it is not for us."""
    answer = Message(raftpb.MsgAppResp, message.sender, node.id, node.term)
    snapshot = message.snapshot
    if snapshot is None:
        node.refused += 1
        return
    answer.index = node.log.last_index if _restore(node, snapshot) else node.log.committed
    node.send_saved(answer)


def _restore(node: Node, snapshot: raftpb.Snapshot) -> bool:
    log, metadata = node.log, snapshot.metadata
    if metadata.index <= log.committed:
        return False
    configuration = Configuration.from_conf_state(metadata.conf_state)
    if node.id not in configuration.members():
        return False
    if log.matches(metadata.index, metadata.term):
        log.commit_to(metadata.index)
        return False
    log.restore(snapshot)
    switch(node, configuration)
    return True
