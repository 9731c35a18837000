"""The metrics of a member, under etcd's names.

Nothing is counted for their sake on the way of a request: whoever does the work keeps plain
numbers, which are read here when somebody asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ..member import Member
from ..peers.traffic import ROUND_TRIP_BUCKETS_SECONDS
from ..version import SERVER_VERSION
from .latencies import Latencies
from .readings import COUNTERS, GAUGES, PEER_COUNTERS


class Metrics:
    """The registry of one member; nothing of it is global."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, member: Member, syncs: Latencies, commits: Latencies) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_MemberCollector(member, syncs, commits))
        ProcessCollector(registry=self._registry)
        # Gauges, for the client library would have a counter's name end in _total.
        self._health: dict[bool, Gauge] = {
            ok: Gauge(name, text, registry=self._registry)
            for ok, name, text in (
                (
                    True,
                    "etcd_server_health_success",
                    "The total number of successful health checks.",
                ),
                (False, "etcd_server_health_failures", "The total number of failed health checks."),
            )
        }
        self._check = Gauge(
            "etcd_server_healthcheck",
            "The result of each kind of healthcheck.",
            ["type", "name"],
            registry=self._registry,
        )
        self._checks = Counter(
            "etcd_server_healthchecks_total",
            "The total number of each kind of healthcheck.",
            ["type", "name", "status"],
            registry=self._registry,
        )
        self._state(member)

    def expose(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def count_health_check(self, *, ok: bool) -> None:
        """Note what ``/health`` has answered."""
        self._health[ok].inc()

    def count_check(self, probe: str, name: str, ok: bool) -> None:
        """Note what one check of a probe has found."""
        self._check.labels(probe, name).set(ok)
        self._checks.labels(probe, name, "success" if ok else "error").inc()

    def _state(self, member: Member) -> None:
        """Set what never changes."""
        version = Gauge(
            "etcd_server_version",
            "Which version is running.",
            ["server_version"],
            registry=self._registry,
        )
        version.labels(SERVER_VERSION).set(1)
        server_id = Gauge(
            "etcd_server_id",
            "Server or member ID in hexadecimal format.",
            ["server_id"],
            registry=self._registry,
        )
        server_id.labels(f"{member.id:x}").set(1)


class _MemberCollector(Collector):
    """Reads the member's numbers."""

    def __init__(self, member: Member, syncs: Latencies, commits: Latencies) -> None:
        self._member = member
        self._syncs = syncs
        self._commits = commits

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for gauge in GAUGES:
            yield GaugeMetricFamily(gauge.name, gauge.help, value=float(gauge.read(self._member)))
        for counter in COUNTERS:
            value = float(counter.read(self._member))
            yield CounterMetricFamily(counter.name, counter.help, value=value)
        yield from self._of_the_disk()
        yield from self._of_peers()
        yield self._refused_promotions()
        version = GaugeMetricFamily(
            "etcd_cluster_version", "Which version is running.", labels=["cluster_version"]
        )
        version.add_metric([self._member.applier.membership.version[:3]], 1.0)
        yield version
        yield GaugeMetricFamily(
            "os_fd_used",
            "The number of used file descriptors.",
            value=float(len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0),
        )

    def _of_the_disk(self) -> Iterator[Metric]:
        for name, text, latencies in (
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
                self._syncs,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
                self._commits,
            ),
        ):
            yield HistogramMetricFamily(
                name, text, buckets=latencies.buckets(), sum_value=latencies.total_seconds
            )

    def _of_peers(self) -> Iterator[Metric]:
        """What was exchanged with each other member, and who is connected."""
        member = self._member
        for reading in PEER_COUNTERS:
            counts = reading.name.endswith("_total")
            family = (CounterMetricFamily if counts else GaugeMetricFamily)(
                reading.name, reading.help, labels=[reading.label]
            )
            for peer_id, traffic in member.peers.traffic.items():
                family.add_metric([f"{peer_id:x}"], float(reading.read(traffic)))
            yield family
        yield self._round_trips()
        both_ends = ["Local", "Remote"]
        known = GaugeMetricFamily(
            "etcd_network_known_peers", "The current number of known peers.", labels=both_ends
        )
        active = GaugeMetricFamily(
            "etcd_network_active_peers",
            "The current number of active peer connections.",
            labels=both_ends,
        )
        for other in member.applier.membership.cluster.members:
            if other.id != member.id:
                ends = [f"{member.id:x}", f"{other.id:x}"]
                known.add_metric(ends, 1.0)
                active.add_metric(ends, float(member.peers.connected_since(other.id) is not None))
        yield known
        yield active

    def _round_trips(self) -> Metric:
        family = HistogramMetricFamily(
            "etcd_network_peer_round_trip_time_seconds",
            "Round-Trip-Time histogram between peers.",
            labels=["To"],
        )
        bounds = [*map(str, ROUND_TRIP_BUCKETS_SECONDS), "+Inf"]
        for peer_id, traffic in self._member.peers.traffic.items():
            buckets = list(zip(bounds, accumulate(traffic.round_trips), strict=True))
            family.add_metric([f"{peer_id:x}"], buckets, traffic.round_trips_seconds)
        return family

    def _refused_promotions(self) -> Metric:
        family = GaugeMetricFamily(
            "etcd_server_learner_promote_failures",
            "The total number of failed learner promotions (likely learner not ready) "
            "while this member is leader.",
            labels=["Reason"],
        )
        for reason, count in self._member.reconfiguration.not_promoted.items():
            family.add_metric([reason], float(count))
        return family
