"""What elections survive: broken connections, compactions and restarts, on both servers.

Each complaint about other clients that touches them is a test that cites its number: python-etcd3's
unless another repository is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from etcd_pinwheel import CallError, Client, WaitTimedOut
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
SOON = 30.0
SHORT = 0.3
TTL = 60


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Do something on another thread, while the test goes on."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def candidates(client: Any, count: int) -> None:
    """Wait until so many stand."""
    with client.watch("job/", prefix=True) as watch:
        while client.count("job/", prefix=True) != count:
            watch.next_event(SOON)


@contextmanager
def reign(client: Any, value: str) -> Iterator[Any]:
    with client.election("job").campaign(value, ttl=TTL) as leadership:
        yield leadership


def test_an_observer_misses_no_reign_over_broken_connections(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    expected: list[bytes | None] = [None]
    with connect([proxy.endpoint]).election("job").observe() as leaders:
        for number in range(6):
            with reign(direct, f"{number} a") as leadership:
                proxy.cut()
                leadership.proclaim(f"{number} b")
            expected += [f"{number} a".encode(), f"{number} b".encode(), None]
        seen = [leaders.next_leader(SOON) for _ in expected]
        assert [leader and leader.value for leader in seen] == expected
        with pytest.raises(WaitTimedOut):
            leaders.next_leader(SHORT)


def test_an_observer_that_is_overtaken_by_a_compaction_goes_on(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    """#134: an endless loop, or silence."""
    client = connect([proxy.endpoint])
    with client.election("job").observe() as leaders:
        assert leaders.next_leader(SOON) is None
        proxy.refuse()
        with reign(direct, "unseen"):
            pass
        with reign(direct, "seen"):
            direct.compact(direct.put("k", "v").revision)
            proxy.heal()
            assert leaders.next_leader(SOON).value == b"seen"
        assert leaders.next_leader(SOON) is None


def test_a_leader_and_a_candidate_are_overtaken_by_a_compaction(
    proxy: FaultProxy, connect: Connect, direct: Client, beside: Any
) -> None:
    client = connect([proxy.endpoint], reconnect_backoff_max=0.2)
    with client.election("job").campaign("a", ttl=TTL) as leadership:
        waiting = beside(client.election("job").campaign("b", ttl=TTL).open)
        candidates(direct, 2)
        for _ in range(3):
            proxy.refuse()
            direct.compact(direct.put("k", "v").revision)
            proxy.heal()
            client.put("k", "w", timeout=SOON, retry="at_least_once")
        assert not leadership.lost.is_set()
        assert not waiting.done()
        leadership.resign()
        waiting.result(SOON).resign()


def test_a_lead_that_cannot_be_resigned_is_resigned_when_it_can(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    client = connect([proxy.endpoint], reconnect_backoff_max=0.2)
    with client.lease(ttl=TTL) as lease:
        leadership = client.election("job").campaign("a", lease=getattr(lease, "_inner", lease))
        leadership.open()
        proxy.refuse()
        with pytest.raises(CallError):
            leadership.resign(timeout=SHORT)
        proxy.heal()
        candidates(direct, 0)
        assert not lease.lost.is_set()


def test_closing_the_client_ends_what_goes_on_in_the_background(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    client = connect([proxy.endpoint], timeout=2.0)
    lease = client.lease(ttl=TTL)
    lease.open()
    leadership = client.election("job").campaign("a", lease=getattr(lease, "_inner", lease))
    with pytest.raises(CallError), leadership:
        proxy.refuse()
    client.close()
    assert direct.count("job/", prefix=True) == 1, "as the lease lives on"


def test_a_restarted_server_costs_neither_the_lead_nor_the_place_in_line(
    own_server: LocalMember, connect: Connect, beside: Any
) -> None:
    """microsoft/etcd3#176: two leaders, or none, after a restart."""
    client = connect([own_server.endpoint], reconnect_backoff_max=0.2)
    with client.election("job").observe() as leaders:
        assert leaders.next_leader(SOON) is None
        with client.election("job").campaign("a", ttl=TTL) as leadership:
            assert leaders.next_leader(SOON).value == b"a"
            waiting = beside(client.election("job").campaign("b", ttl=TTL).open)
            candidates(client, 2)
            own_server.kill()
            own_server.restart()
            leadership.proclaim("still a", timeout=SOON)
            assert leaders.next_leader(SOON).value == b"still a"
            assert not leadership.lost.is_set()
            assert not waiting.done()
        successor = waiting.result(SOON)
        assert leaders.next_leader(SOON).value == b"b"
        successor.resign()
        assert leaders.next_leader(SOON) is None
