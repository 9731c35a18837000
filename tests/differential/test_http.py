"""What the client port says over HTTP/1.1."""

from __future__ import annotations

import pytest
from lockstep.comparison import Delta, between
from lockstep.pages import both, differing_metrics
from lockstep.pair import Disagreement, Pair

from etcd_pinwheel.protos import rpcs


def compare(pair: Pair, what: str, found: list[Delta]) -> None:
    left = list(pair.excuses.unexplained("http", found))
    if left:
        raise Disagreement(what, left)


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/health?serializable=true",
        "/health?serializable=false",
        "/health?exclude=NOSPACE",
        "/health?exclude=NOSPACE&exclude=CORRUPT",
        "/health?exclude=nonsense",
        "/version",
        "/nothing",
        "/",
        "/health/",
        "/healthy",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_pages(pair: Pair, method: str, path: str) -> None:
    etcd, ours = both(pair, path, method)
    found = list(between(vars(etcd) | {"body": ""}, vars(ours) | {"body": ""}, path))
    if etcd.body.startswith("{") and ours.body.startswith("{"):
        found += between(etcd.document, ours.document, f"{path}.body")
    elif etcd.body != ours.body:
        found.append(Delta(f"{path}.body", etcd.body, ours.body))
    compare(pair, f"{method} {path}", found)


@pytest.mark.parametrize("alarm", [1, 2])
@pytest.mark.parametrize(
    "path", ["/health", "/health?exclude=NOSPACE", "/health?exclude=CORRUPT&exclude=NOSPACE"]
)
def test_health_under_an_alarm(pair: Pair, alarm: int, path: str) -> None:
    pair.call(rpcs.MAINTENANCE_ALARM, action=1, memberID=7, alarm=alarm)
    etcd, ours = both(pair, path)
    pair.call(rpcs.MAINTENANCE_ALARM, action=2, memberID=7, alarm=alarm)
    compare(pair, path, list(between(vars(etcd), vars(ours), path)))


def test_metrics(pair: Pair) -> None:
    """Ours has each metric of etcd's that is not about how etcd is built, of the same type."""
    compare(pair, "/metrics", differing_metrics(pair))


COUNTED = (
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_txn_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_server_has_leader",
    "etcd_server_is_leader",
)


def values(page: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_metrics_count_alike(pair: Pair) -> None:
    before = both(pair, "/metrics")
    for key in (b"a", b"b", b"a"):
        pair.call(rpcs.KV_PUT, key=key)
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=1, TTL=100)
    pair.call(rpcs.KV_DELETE_RANGE, key=b"a", range_end=b"c")
    pair.call(rpcs.KV_TXN, success=[{"request_put": {"key": b"c"}}])
    pair.call(rpcs.KV_COMPACT, revision=pair.revision, physical=True)
    after = both(pair, "/metrics")
    grown: list[dict[str, float]] = []
    for earlier, later in zip(before, after, strict=True):
        start, end = values(earlier.body), values(later.body)
        grown.append({name: end[name] - start[name] for name in COUNTED if name in start})
    etcd, ours = grown
    compare(pair, "/metrics", list(between(etcd, ours, "/metrics")))
