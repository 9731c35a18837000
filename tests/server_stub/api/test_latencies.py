"""Latencies are counted as Prometheus' histograms want them."""

from __future__ import annotations

from etcd_pinwheel.server_stub.api.latencies import DISK_BOUNDS_SECONDS, Latencies


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    latencies = Latencies((0.5, 1.0))
    for seconds in (0.25, 0.5, 0.75, 1.0, 4.0):
        latencies.observe(seconds)
    assert latencies.buckets() == [("0.5", 2), ("1.0", 4), ("+Inf", 5)]
    assert latencies.total_seconds == 6.5


def test_the_bounds_are_etcd_s() -> None:
    names = [name for name, _ in Latencies(DISK_BOUNDS_SECONDS).buckets()]
    assert names[:4] == ["0.001", "0.002", "0.004", "0.008"]
    assert names[-2:] == ["8.192", "+Inf"]
