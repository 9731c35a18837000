"""What the server uses of what it is told, typed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .values import Url

DEFAULT_QUOTA_BYTES: Final = 2 << 30
DEFAULT_BATCH_INTERVAL_SECONDS: Final = 0.1
DEFAULT_BATCH_LIMIT: Final = 10_000
DEFAULT_SNAPSHOT_COUNT: Final = 10_000
DEFAULT_CATCHUP_ENTRIES: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How the client port does TLS: paths of PEM files."""

    cert_file: Path
    key_file: Path
    trusted_ca_file: Path | None = None
    client_cert_auth: bool = False
    min_version: str = "TLS1.2"
    max_version: str = ""
    """Empty: the newest there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTlsSettings:
    """How members speak TLS with each other: paths of PEM files.

    The same certificate is shown when listening and when calling.
    """

    cert_file: Path | None = None
    """None: this member listens in clear text, and calls others without a certificate."""
    key_file: Path | None = None
    trusted_ca_file: Path | None = None
    """Who signs the others' certificates. None: the system's authorities."""
    client_cert_auth: bool = False
    """Whether those who call must show a certificate of ``trusted_ca_file``."""
    allowed_cn: str = ""
    """The common name that a caller's certificate must have. Empty: any."""
    min_version: str = "TLS1.2"
    max_version: str = ""
    """Empty: the newest there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server uses; the defaults are etcd's. Durations in seconds, sizes in bytes."""

    name: str = "default"
    data_dir: Path = Path("default.etcd")
    wal_dir: Path | None = None
    """None: inside the data directory."""

    listen_client_urls: tuple[Url, ...] = (Url("http", "localhost", 2379, "http://localhost:2379"),)
    listen_metrics_urls: tuple[Url, ...] = ()
    advertise_client_urls: tuple[str, ...] = ("http://localhost:2379",)
    initial_advertise_peer_urls: tuple[str, ...] = ("http://localhost:2380",)
    tls: TlsSettings | None = None

    listen_peer_urls: tuple[Url, ...] = ()
    """Empty: nobody but this member (the flag's default is etcd's)."""
    initial_cluster: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names and peer URLs of the members that a cluster starts with. Empty: this one alone."""
    initial_cluster_state: str = "new"
    """"new" or "existing"; like the two around it, read on the first start only."""
    initial_cluster_token: str = "etcd-cluster"
    force_new_cluster: bool = False
    strict_reconfig_check: bool = True
    max_learners: int = 1
    peer_tls: PeerTlsSettings | None = None

    election_timeout_ms: int = 1000
    heartbeat_interval_ms: int = 100
    initial_election_tick_advance: bool = True
    pre_vote: bool = True
    snapshot_count: int = DEFAULT_SNAPSHOT_COUNT
    snapshot_catchup_entries: int = DEFAULT_CATCHUP_ENTRIES
    max_snapshots: int = 5
    """0: keep all."""
    max_wals: int = 5
    """0: keep all."""
    unsafe_no_fsync: bool = False

    quota_backend_bytes: int = DEFAULT_QUOTA_BYTES
    """0: no quota."""
    backend_batch_interval_seconds: float = DEFAULT_BATCH_INTERVAL_SECONDS
    backend_batch_limit: int = DEFAULT_BATCH_LIMIT
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864
    max_concurrent_streams: int = 2**32 - 1
    grpc_keepalive_min_time_seconds: float = 5.0
    grpc_keepalive_interval_seconds: float = 7200.0
    """0: the server does not ping."""
    grpc_keepalive_timeout_seconds: float = 20.0

    auto_compaction_mode: str = "periodic"
    auto_compaction_period_seconds: float = 0.0
    """In periodic mode, how much history to keep; 0: all."""
    auto_compaction_revisions: int = 0
    """In revision mode, how many revisions to keep; 0: all."""
    compaction_sleep_interval_seconds: float = 0.01
    watch_progress_notify_interval_seconds: float = 600.0

    lease_checkpoints: bool = False
    """Whether a new leader goes on with what was left of long leases, not with their whole TTL."""

    learner_by_default: bool = False
    learner_auto_promote: bool = False
    learner_promote_max_lag: int = 1000
    """In entries behind the leader's log."""
    learner_promote_healthy_seconds: float = 10.0
    standby_failover_seconds: float = 0.0
    """0: never."""
    learner_reads: str = "none"
    """"none" (as etcd), "stale" or "linearizable" (and stale)."""

    log_outputs: tuple[str, ...] = ("default",)
    log_level: str = "info"
    log_format: str = "json"

    notices: tuple[str, ...] = ()
    """What was set and has no effect, one sentence each, to be logged at the start."""

    @property
    def wal_path(self) -> Path:
        """The directory of the write-ahead log."""
        return self.wal_dir if self.wal_dir is not None else self.data_dir / "member" / "wal"

    @property
    def snap_path(self) -> Path:
        """The directory of the snapshots and of the store."""
        return self.data_dir / "member" / "snap"

    @property
    def request_timeout_seconds(self) -> float:
        """How long a request may wait to be applied."""
        return 5.0 + 2 * self.election_timeout_ms / 1000
