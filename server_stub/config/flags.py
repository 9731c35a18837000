"""Every flag of etcd, and a few of our own, as data.

A flag is served, or accepted although it changes nothing (the reason is logged when it is set), or
refused because what it asks for does not exist here (yet). None is ignored in silence.
"""

from __future__ import annotations

from typing import Final

from . import values as read
from .flag import Flag, idle, refused

_NO_DISCOVERY = "discovery of other members comes later"
_NO_V2 = "the v2 API is not served"
_NO_TRACING = "distributed tracing is not served"
_NO_SLOW_LOG = "slow requests are not logged yet"
_NO_AUTH = "authentication comes later"
_GO_ONLY = "it tunes the Go implementation"

MEMBER: Final = (
    Flag("name", "default", read.text, "name of this member"),
    Flag("data-dir", "", read.text, "directory of the data; '' is <name>.etcd"),
    Flag("wal-dir", "", read.text, "directory of the write-ahead log; '' is <data-dir>/member/wal"),
    Flag("snapshot-count", "10000", read.unsigned, "applied entries between snapshots (0: 10000)"),
    Flag(
        "snapshot-catchup-entries",
        "5000",
        read.unsigned,
        "entries kept behind a snapshot for slow members (0: 5000)",
        old_name="experimental-snapshot-catchup-entries",
    ),
    Flag("heartbeat-interval", "100", read.between(1, 50_000), "milliseconds"),
    Flag("election-timeout", "1000", read.between(1, 50_000), "milliseconds"),
    Flag(
        "initial-election-tick-advance",
        "true",
        read.boolean,
        "fast-forward the first election",
    ),
    Flag(
        "listen-peer-urls",
        "http://localhost:2380",
        read.required_bind_urls,
        "where to listen for other members",
    ),
    Flag(
        "listen-client-urls",
        "http://localhost:2379",
        read.required_bind_urls,
        "where to listen for clients",
    ),
    refused("listen-client-http-urls", "", read.urls, "gRPC and HTTP share the client URLs"),
    Flag("max-snapshots", "5", read.unsigned, "snapshot files to keep (0: all)"),
    Flag("max-wals", "5", read.unsigned, "files of the write-ahead log to keep (0: all)"),
    Flag(
        "quota-backend-bytes",
        "0",
        read.integer,
        "size of the store that raises the NOSPACE alarm (0: 2 GiB, negative: none)",
    ),
    idle("backend-bbolt-freelist-type", "map", read.text, "bbolt's freelist", _GO_ONLY),
    Flag("backend-batch-interval", "0s", read.duration, "longest wait for a commit (0: 100ms)"),
    Flag("backend-batch-limit", "0", read.unsigned, "most operations in a commit (0: 10000)"),
    Flag("max-txn-ops", "128", read.unsigned, "most operations in one transaction"),
    Flag(
        "max-request-bytes",
        "1572864",
        read.unsigned,
        "largest request; above 63 MiB the same on every member",
    ),
    Flag(
        "max-concurrent-streams",
        "4294967295",
        read.between(1, 2**32 - 1),
        "most streams of one client connection",
    ),
    Flag("grpc-keepalive-min-time", "5s", read.duration, "least time between a client's pings"),
    Flag("grpc-keepalive-interval", "2h", read.duration, "time between our pings (0: 2h)"),
    Flag("grpc-keepalive-timeout", "20s", read.duration, "time to answer our ping (0: 20s)"),
    refused("socket-reuse-port", "false", read.boolean, "sharing a port is not served"),
    idle("socket-reuse-address", "false", read.boolean, "SO_REUSEADDR", "it is always set"),
    idle(
        "memory-mlock",
        "false",
        read.boolean,
        "lock the store's pages in memory",
        "pages are not locked",
        "experimental-memory-mlock",
    ),
)

CLUSTERING: Final = (
    Flag(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        read.required_urls,
        "this member's peer URLs; its id is made of them",
    ),
    Flag("initial-cluster", "", read.initial_cluster, "members at the start: name=peer-url,..."),
    Flag("initial-cluster-state", "new", read.one_of("new", "existing"), "new or existing"),
    Flag("initial-cluster-token", "etcd-cluster", read.text, "goes into the ids"),
    Flag(
        "advertise-client-urls",
        "http://localhost:2379",
        read.required_urls,
        "where clients find this member",
    ),
    refused("discovery", "", read.text, _NO_DISCOVERY),
    refused("discovery-fallback", "proxy", read.text, _NO_DISCOVERY),
    refused("discovery-proxy", "", read.text, _NO_DISCOVERY),
    refused("discovery-srv", "", read.text, _NO_DISCOVERY),
    refused("discovery-srv-name", "", read.text, _NO_DISCOVERY),
    refused("discovery-token", "", read.text, _NO_DISCOVERY),
    refused("discovery-endpoints", "", read.words, _NO_DISCOVERY),
    refused("discovery-dial-timeout", "2s", read.duration, _NO_DISCOVERY),
    refused("discovery-request-timeout", "5s", read.duration, _NO_DISCOVERY),
    refused("discovery-keepalive-time", "2s", read.duration, _NO_DISCOVERY),
    refused("discovery-keepalive-timeout", "6s", read.duration, _NO_DISCOVERY),
    refused("discovery-insecure-transport", "true", read.boolean, _NO_DISCOVERY),
    refused("discovery-insecure-skip-tls-verify", "false", read.boolean, _NO_DISCOVERY),
    refused("discovery-cert", "", read.text, _NO_DISCOVERY),
    refused("discovery-key", "", read.text, _NO_DISCOVERY),
    refused("discovery-cacert", "", read.text, _NO_DISCOVERY),
    refused("discovery-user", "", read.text, _NO_DISCOVERY),
    refused("discovery-password", "", read.text, _NO_DISCOVERY),
    Flag(
        "strict-reconfig-check",
        "true",
        read.boolean,
        "refuse a change of the membership that would lose the quorum",
    ),
    Flag("pre-vote", "true", read.boolean, "ask before an election whether it could be won"),
    Flag(
        "max-learners",
        "1",
        read.unsigned,
        "most learners in the cluster; the same on every member",
        old_name="experimental-max-learners",
    ),
    Flag(
        "auto-compaction-mode",
        "periodic",
        read.one_of("periodic", "revision"),
        "what the retention counts",
    ),
    Flag(
        "auto-compaction-retention",
        "0",
        read.text,
        "history to keep: a duration or hours (periodic), a number (revision); 0: all",
    ),
    idle("enable-v2", "false", read.boolean, "etcd's v2 API", _NO_V2),
    refused("experimental-enable-v2v3", "", read.text, _NO_V2),
    idle("v2-deprecation", "not-yet", read.text, "phase of the v2 store", _NO_V2),
    refused("proxy", "off", read.text, "the v2 proxy is not served"),
    idle("proxy-failure-wait", "5000", read.unsigned, "v2 proxy", _NO_V2),
    idle("proxy-refresh-interval", "30000", read.unsigned, "v2 proxy", _NO_V2),
    idle("proxy-dial-timeout", "1000", read.unsigned, "v2 proxy", _NO_V2),
    idle("proxy-write-timeout", "5000", read.unsigned, "v2 proxy", _NO_V2),
    idle("proxy-read-timeout", "0", read.unsigned, "v2 proxy", _NO_V2),
)

SECURITY: Final = (
    Flag("cert-file", "", read.text, "certificate of the client port (PEM)"),
    Flag("key-file", "", read.text, "its key (PEM)"),
    Flag("client-cert-auth", "false", read.boolean, "clients must show a certificate"),
    Flag("trusted-ca-file", "", read.text, "who signs the clients' certificates (PEM)"),
    refused("client-crl-file", "", read.text, "revocation lists come later"),
    refused("client-cert-allowed-hostname", "", read.text, "limits on names come later"),
    refused("client-cert-file", "", read.text, "a certificate for our own calls comes later"),
    refused("client-key-file", "", read.text, "a certificate for our own calls comes later"),
    refused("auto-tls", "false", read.boolean, "self-signed certificates come later"),
    refused("self-signed-cert-validity", "1", read.unsigned, "self-signed ones come later"),
    Flag("peer-cert-file", "", read.text, "certificate of the peer port (PEM)"),
    Flag("peer-key-file", "", read.text, "its key (PEM)"),
    Flag("peer-client-cert-auth", "false", read.boolean, "peers must show a certificate"),
    Flag("peer-trusted-ca-file", "", read.text, "who signs the peers' certificates (PEM)"),
    Flag("peer-cert-allowed-cn", "", read.text, "common name that peers' certificates must have"),
    refused("peer-client-cert-file", "", read.text, "peers are called with the certificate above"),
    refused("peer-client-key-file", "", read.text, "peers are called with the certificate above"),
    refused("peer-cert-allowed-hostname", "", read.text, "limits on names come later"),
    refused("peer-auto-tls", "false", read.boolean, "self-signed certificates come later"),
    refused("peer-crl-file", "", read.text, "revocation lists come later"),
    refused(
        "peer-skip-client-san-verification",
        "false",
        read.boolean,
        "the names in peers' certificates are not looked at in the first place",
        "experimental-peer-skip-client-san-verification",
    ),
    refused("cipher-suites", "", read.words, "Python's own choice of ciphers is used"),
    Flag("tls-min-version", "TLS1.2", read.one_of("TLS1.2", "TLS1.3"), "oldest TLS accepted"),
    Flag("tls-max-version", "", read.one_of("", "TLS1.2", "TLS1.3"), "newest ('': any)"),
    refused("cors", "*", read.text, "limits on origins come later, with the JSON gateway"),
    refused("host-whitelist", "*", read.text, "limits on host names come later"),
)

AUTH: Final = (
    Flag("auth-token", "simple", read.auth_token, "kind of token"),
    idle("auth-token-ttl", "300", read.unsigned, "seconds a simple token lives unused", _NO_AUTH),
    idle("bcrypt-cost", "10", read.between(4, 31), "cost of hashing a password", _NO_AUTH),
)

MONITORING: Final = (
    refused("enable-pprof", "false", read.boolean, "Go's profiler has no counterpart here"),
    idle(
        "metrics",
        "basic",
        read.one_of("basic", "extensive"),
        "how much /metrics tells",
        'the histograms of "extensive" come later',
    ),
    Flag("listen-metrics-urls", "", read.bind_urls, "further addresses of /metrics and /health"),
    idle("enable-grpc-gateway", "true", read.boolean, "JSON gateway", "it comes later"),
    refused(
        "enable-distributed-tracing",
        "false",
        read.boolean,
        _NO_TRACING,
        "experimental-enable-distributed-tracing",
    ),
    idle(
        "distributed-tracing-address",
        "localhost:4317",
        read.text,
        "collector",
        _NO_TRACING,
        "experimental-distributed-tracing-address",
    ),
    idle(
        "distributed-tracing-service-name",
        "etcd",
        read.text,
        "service name",
        _NO_TRACING,
        "experimental-distributed-tracing-service-name",
    ),
    idle(
        "distributed-tracing-instance-id",
        "",
        read.text,
        "instance id",
        _NO_TRACING,
        "experimental-distributed-tracing-instance-id",
    ),
    idle(
        "distributed-tracing-sampling-rate",
        "0",
        read.unsigned,
        "samples per million",
        _NO_TRACING,
        "experimental-distributed-tracing-sampling-rate",
    ),
)

LOGGING: Final = (
    Flag("logger", "zap", read.one_of("zap"), "etcd's only value; the logs are structlog's"),
    Flag(
        "log-outputs",
        "default",
        read.words,
        "default (stderr), stderr, stdout or files, comma-separated",
    ),
    Flag(
        "log-level",
        "info",
        read.one_of("debug", "info", "warn", "error", "dpanic", "panic", "fatal"),
        "least severe level that is written",
    ),
    Flag("log-format", "json", read.one_of("json", "console"), "json or console"),
    refused("enable-log-rotation", "false", read.boolean, "rotation is left to the platform"),
    idle(
        "log-rotation-config-json",
        '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
        read.text,
        "rotation",
        "there is no rotation to configure",
    ),
)

TUNING: Final = (
    idle(
        "compaction-batch-limit",
        "1000",
        read.between(1, 2**31),
        "revisions deleted in one batch of a compaction",
        "a batch is 1000 revisions",
        "experimental-compaction-batch-limit",
    ),
    Flag(
        "compaction-sleep-interval",
        "10ms",
        read.duration,
        "pause between batches of a compaction",
        old_name="experimental-compaction-sleep-interval",
    ),
    Flag(
        "watch-progress-notify-interval",
        "10m",
        read.duration,
        "time between progress notifications of an idle watch",
        old_name="experimental-watch-progress-notify-interval",
    ),
    idle(
        "warning-apply-duration",
        "100ms",
        read.duration,
        "slower applies are logged",
        _NO_SLOW_LOG,
        "experimental-warning-apply-duration",
    ),
    idle(
        "warning-unary-request-duration",
        "300ms",
        read.duration,
        "slower requests are logged",
        _NO_SLOW_LOG,
        "experimental-warning-unary-request-duration",
    ),
    refused(
        "initial-corrupt-check",
        "false",
        read.boolean,
        "members do not compare their stores yet",
        "experimental-initial-corrupt-check",
    ),
    refused(
        "corrupt-check-time",
        "0s",
        read.duration,
        "members do not compare their stores yet",
        "experimental-corrupt-check-time",
    ),
    refused(
        "compact-hash-check-enabled",
        "false",
        read.boolean,
        "members do not compare their stores yet",
        "experimental-compact-hash-check-enabled",
    ),
    idle(
        "compact-hash-check-time",
        "1m",
        read.duration,
        "time between comparisons",
        "members do not compare their stores yet",
        "experimental-compact-hash-check-time",
    ),
    idle(
        "downgrade-check-time",
        "5s",
        read.duration,
        "time between looks at a downgrade",
        "there are no downgrades yet",
        "experimental-downgrade-check-time",
    ),
    Flag(
        "enable-lease-checkpoint",
        "false",
        read.boolean,
        "keep what is left of long leases through a change of leader",
        old_name="experimental-enable-lease-checkpoint",
    ),
    idle(
        "enable-lease-checkpoint-persist",
        "false",
        read.boolean,
        "keep checkpoints of leases through a restart",
        "checkpoints are kept on disk always",
        "experimental-enable-lease-checkpoint-persist",
    ),
    idle(
        "txn-mode-write-with-shared-buffer",
        "true",
        read.boolean,
        "how transactions check",
        _GO_ONLY,
        "experimental-txn-mode-write-with-shared-buffer",
    ),
    idle(
        "bootstrap-defrag-threshold-megabytes",
        "0",
        read.unsigned,
        "defragment at the start",
        "the store reuses its free pages; defragment it by request",
        "experimental-bootstrap-defrag-threshold-megabytes",
    ),
    refused(
        "stop-grpc-service-on-defrag",
        "false",
        read.boolean,
        "this feature gate comes later",
        "experimental-stop-grpc-service-on-defrag",
    ),
    Flag(
        "feature-gates",
        "",
        read.feature_gates,
        "Gate=true,Gate=false; LeaseCheckpoint alone can be other than its default",
    ),
)

UNSAFE: Final = (
    Flag(
        "force-new-cluster",
        "false",
        read.boolean,
        "keep the data, drop every other member: for a quorum that is lost for good",
    ),
    Flag("unsafe-no-fsync", "false", read.boolean, "do not wait for the disk: loses data"),
)

BEYOND_ETCD: Final = (
    Flag(
        "learner-by-default",
        "false",
        read.boolean,
        "a member that is added becomes a learner, also when a voter was asked for",
    ),
    Flag(
        "learner-auto-promote",
        "false",
        read.boolean,
        "the leader promotes a learner that keeps up",
    ),
    Flag(
        "learner-promote-max-lag",
        "1000",
        read.unsigned,
        "entries a learner may be behind the leader and still keep up",
    ),
    Flag("learner-promote-healthy", "10s", read.duration, "how long it must have kept up"),
    Flag(
        "standby-failover",
        "0s",
        read.duration,
        "put a learner that keeps up in the place of a voter unreachable for so long (0: never)",
    ),
    Flag(
        "learner-reads",
        "none",
        read.one_of("none", "stale", "linearizable"),
        "reads that a learner answers beside etcd's: of its own state, or up to date too",
    ),
)

CONFIG_FILE: Final = refused(
    "config-file", "", read.text, "YAML files are not read; use flags or ETCD_* variables"
)

SECTIONS: Final = {
    "Member": MEMBER,
    "Clustering": CLUSTERING,
    "Security": SECURITY,
    "Auth": AUTH,
    "Profiling and Monitoring": MONITORING,
    "Logging": LOGGING,
    "Tuning": TUNING,
    "Unsafe": UNSAFE,
    "Beyond etcd": BEYOND_ETCD,
    "Configuration file": (CONFIG_FILE,),
}

FLAGS: Final = {flag.name: flag for section in SECTIONS.values() for flag in section}
BY_ANY_NAME: Final = {name: flag for flag in FLAGS.values() for name in flag.names}
