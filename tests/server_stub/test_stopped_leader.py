"""A leader whose process is stopped for longer than an election takes, and then goes on.

It believes that no time has passed: that it leads, that its reads are up to date, and then, all at
once, that every lease has run out (etcd issues 12528, 15247, 20418, 21417).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from etcd_pinwheel import Client
from etcd_pinwheel.client.errors import EtcdError
from etcd_pinwheel.server_stub.local import LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

TTL_SECONDS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("--heartbeat-interval=50", "--election-timeout=500", processes=True) as made:
        yield made


def others_of(cluster: LocalCluster, member: object) -> list[str]:
    return [each.endpoint for each in cluster if each is not member]


@pytest.mark.parametrize("round_number", range(3))
def test_its_reads_are_up_to_date(cluster: LocalCluster, round_number: int) -> None:
    """The read is waiting in its socket when it wakes up."""
    stopped = cluster.wait_for_leader()
    with (
        Client([stopped.endpoint], timeout=30) as there,
        Client(others_of(cluster, stopped), timeout=30) as elsewhere,
    ):
        elsewhere.put("k", "old")
        assert there.get("k").value == b"old"
        stopped.pause()
        cluster.wait_for_leader(other_than=stopped)
        elsewhere.put("k", "new")
        seen: list[bytes | None] = []

        def read() -> None:
            try:
                seen.append(there.get("k").value)
            except EtcdError:
                seen.append(None)

        readers = [threading.Thread(target=read) for _ in range(8)]
        for reader in readers:
            reader.start()
        stopped.resume()
        for reader in readers:
            reader.join(60)
        assert len(seen) == len(readers)
        assert set(seen) <= {b"new", None}
        assert there.get("k").value == b"new"


def test_it_revokes_no_lease_that_its_successor_keeps_alive(cluster: LocalCluster) -> None:
    stopped = cluster.wait_for_leader()
    with (
        Client(others_of(cluster, stopped), timeout=30) as etcd,
        etcd.lease(ttl=TTL_SECONDS) as lease,
    ):
        etcd.put("k", "v", lease=lease)
        stopped.pause()
        cluster.wait_for_leader(other_than=stopped)
        assert not lease.lost.wait(2 * TTL_SECONDS)
        stopped.resume()
        assert not lease.lost.wait(TTL_SECONDS)
        assert etcd.get("k").value == b"v"
        with Client([stopped.endpoint], timeout=30) as there:
            assert there.get("k").value == b"v"
