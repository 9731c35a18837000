"""What a member's metrics are read from, under etcd's names."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Final, NamedTuple

from ..member import Member
from ..peers.traffic import Traffic


class Reading(NamedTuple):
    """A number under etcd's name, and where it is read."""

    name: str
    help: str
    read: Callable[[Member], float]


GAUGES: Final = (
    Reading("etcd_server_has_leader", "Whether a leader exists.", lambda m: m.has_leader),
    Reading("etcd_server_is_leader", "Whether this member is leader.", lambda m: m.is_leader),
    Reading("etcd_server_is_learner", "Whether this member is a learner.", lambda m: m.is_learner),
    Reading(
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        lambda m: m.core.commit_index,
    ),
    Reading(
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        lambda m: m.applier.index,
    ),
    Reading(
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        lambda m: m.proposals.pending,
    ),
    Reading(
        "etcd_server_snapshot_apply_in_progress_total",
        "1 if the server is applying the incoming snapshot. 0 if none.",
        lambda m: m.consensus.is_installing,
    ),
    Reading(
        "etcd_server_learner_promote_successes",
        "The total number of successful learner promotions while this member is leader.",
        lambda m: m.reconfiguration.promoted,
    ),
    Reading(
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        lambda m: m.applier.quota.limit_bytes,
    ),
    Reading(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        lambda m: m.backend.size_bytes,
    ),
    Reading(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        lambda m: m.backend.size_in_use_bytes,
    ),
    Reading("etcd_debugging_mvcc_keys_total", "Total number of keys.", lambda m: m.store.key_count),
    Reading(
        "etcd_debugging_mvcc_current_revision",
        "The current revision of store.",
        lambda m: m.store.revision,
    ),
    Reading(
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        lambda m: m.store.compacted_revision,
    ),
    Reading(
        "etcd_debugging_mvcc_watcher_total",
        "Total number of watchers.",
        lambda m: m.store.watcher_count,
    ),
    Reading(
        "etcd_debugging_mvcc_watch_stream_total",
        "Total number of watch streams.",
        lambda m: m.store.stream_count,
    ),
    Reading(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Total number of unsynced slow watchers.",
        lambda m: m.store.slow_watcher_count,
    ),
    Reading("etcd_debugging_auth_revision", "The current revision of auth store.", lambda m: 1),
    Reading(
        "etcd_disk_wal_write_bytes_total",
        "Total number of bytes written in WAL.",
        lambda m: m.wal.written_bytes,
    ),
    Reading(
        "os_fd_limit",
        "The file descriptor limit.",
        lambda m: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    ),
)
COUNTERS: Final = (
    Reading(
        "etcd_server_proposals_failed_total",
        "The total number of failed proposals seen.",
        lambda m: m.proposals.failed,
    ),
    Reading(
        "etcd_server_leader_changes_seen_total",
        "The number of leader changes seen.",
        lambda m: m.leadership.tenure.changes,
    ),
    Reading(
        "etcd_server_heartbeat_send_failures_total",
        "The total number of leader heartbeat send failures.",
        lambda m: m.leadership.late_heartbeats,
    ),
    Reading(
        "etcd_server_read_indexes_failed_total",
        "The total number of failed read indexes seen.",
        lambda m: m.reads.timed_out,
    ),
    Reading(
        "etcd_server_slow_read_indexes_total",
        "The total number of pending read indexes not in sync with leader's.",
        lambda m: m.reads.slow,
    ),
    Reading(
        "etcd_mvcc_put_total",
        "Total number of puts seen by this member.",
        lambda m: m.store.counters.puts,
    ),
    Reading(
        "etcd_mvcc_delete_total",
        "Total number of deletes seen by this member.",
        lambda m: m.store.counters.deletes,
    ),
    Reading(
        "etcd_mvcc_range_total",
        "Total number of ranges seen by this member.",
        lambda m: m.store.counters.ranges,
    ),
    Reading(
        "etcd_debugging_mvcc_range_total",
        "Total number of ranges seen by this member.",
        lambda m: m.store.counters.ranges,
    ),
    Reading(
        "etcd_mvcc_txn_total",
        "Total number of txns seen by this member.",
        lambda m: m.store.counters.txns,
    ),
    Reading(
        "etcd_debugging_mvcc_events_total",
        "Total number of events sent by this member.",
        lambda m: m.store.events_sent,
    ),
    Reading(
        "etcd_debugging_lease_granted_total",
        "The total number of granted leases.",
        lambda m: m.lessor.counters.granted,
    ),
    Reading(
        "etcd_debugging_lease_revoked_total",
        "The total number of revoked leases.",
        lambda m: m.lessor.counters.revoked,
    ),
    Reading(
        "etcd_debugging_lease_renewed_total",
        "The number of renewed leases seen by the leader.",
        lambda m: m.lessor.counters.renewed,
    ),
    Reading(
        "etcd_debugging_server_lease_expired_total",
        "The total number of expired leases.",
        lambda m: m.lessor.counters.expired,
    ),
)


class PeerReading(NamedTuple):
    """A number for each other member, by its id in the label."""

    name: str
    help: str
    label: str
    read: Callable[[Traffic], float]


PEER_COUNTERS: Final = (
    PeerReading(
        "etcd_network_peer_sent_bytes_total",
        "The total number of bytes sent to peers.",
        "To",
        lambda t: t.sent_bytes,
    ),
    PeerReading(
        "etcd_network_peer_received_bytes_total",
        "The total number of bytes received from peers.",
        "From",
        lambda t: t.received_bytes,
    ),
    PeerReading(
        "etcd_network_peer_sent_failures_total",
        "The total number of send failures from peers.",
        "To",
        lambda t: t.dropped_messages + t.connection_failures,
    ),
    PeerReading(
        "etcd_network_snapshot_send_success",
        "Total number of successful snapshot sends.",
        "To",
        lambda t: t.sent_snapshots,
    ),
    PeerReading(
        "etcd_network_snapshot_send_failures",
        "Total number of snapshot send failures.",
        "To",
        lambda t: t.snapshot_send_failures,
    ),
    PeerReading(
        "etcd_network_snapshot_receive_success",
        "Total number of successful snapshot receives.",
        "From",
        lambda t: t.received_snapshots,
    ),
    PeerReading(
        "etcd_network_snapshot_receive_failures",
        "Total number of snapshot receive failures.",
        "From",
        lambda t: t.snapshot_receive_failures,
    ),
    PeerReading(
        "etcd_network_disconnected_peers_total",
        "The total number of disconnected peers.",
        "Remote",
        lambda t: max(t.connections - 1, 0),
    ),
)
