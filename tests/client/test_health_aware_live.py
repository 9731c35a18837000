"""health_aware on a real cluster of three: each fault the design page names, through both faces.

An open loop of calls, a put and a linearizable read in turn, goes on while one member is struck.
No read fails, and no write that began after the member was found out. How many writes are lost
until then is a matter of time: benchmarks/failover measures it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from etcd_pinwheel import EtcdError
from etcd_pinwheel.server_stub.local import AnyMember, FaultProxy, LocalCluster, LocalMember

pytestmark = [pytest.mark.process, pytest.mark.slow]

Connect = Callable[..., Any]
EVERY_SECONDS = 0.02
SETTLED_SECONDS = 20.0


class Load:
    """Calls that start on time whether or not earlier ones have been answered."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(96)
        self.puts: dict[int, Future[Any]] = {}
        self.gets: list[Future[Any]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._client.put("w/first", "-1")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        due = time.monotonic()
        number = 0
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due += EVERY_SECONDS
            self.puts[number] = self._pool.submit(self._client.put, f"w/{number:05}", str(number))
            self.gets.append(self._pool.submit(self._client.get, "w/first"))
            number += 1

    @property
    def acknowledged(self) -> set[int]:
        return {number for number, put in self.puts.items() if put.exception() is None}

    @property
    def failed_puts(self) -> dict[int, EtcdError]:
        """How puts failed, by their number; to be asked when all have ended."""
        errors = {number: put.exception() for number, put in self.puts.items()}
        assert all(error is None or isinstance(error, EtcdError) for error in errors.values())
        return {number: error for number, error in errors.items() if isinstance(error, EtcdError)}

    @property
    def failed_gets(self) -> list[str]:
        return [repr(error) for call in self.gets if (error := call.exception()) is not None]


def view(client: Any, endpoint: str) -> Any:
    return client.endpoints[f"http://{endpoint}"].standing


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("--unsafe-no-fsync", processes=True, partitions=True) as made:
        yield made


def follower(cluster: LocalCluster) -> LocalMember:
    leader = cluster.wait_for_leader()
    found = next(member for member in cluster if member is not leader)
    assert isinstance(found, LocalMember)
    return found


def play(
    client: Any, strike: Callable[[], object], undo: Callable[[], object], endpoint: str
) -> None:
    """Strike a member under load; wait until it is out, undo, and wait until it is back."""
    wait_until(lambda: all(each.standing.eligible for each in client.endpoints.values()), "ready")
    with client.watch("w/", prefix=True) as watch, Load(client) as load:
        wait_until(lambda: len(load.puts) > 25, "some calls before")
        strike()
        wait_until(lambda: not view(client, endpoint).eligible, "out of the rotation")
        found_out = len(load.puts)
        wait_until(lambda: len(load.puts) > found_out + 100, "calls go on")
        undo()
        wait_until(lambda: view(client, endpoint).eligible, "back in the rotation")
        load.__exit__()
        seen = []
        expected = load.acknowledged
        while not expected <= set(seen):
            event = watch.next_event(10.0)
            assert event is not None, f"missed: {sorted(expected - set(seen))[:5]}"
            seen.append(int(event.value))
    assert len(seen) == len(set(seen)), "no event twice"
    assert load.failed_gets == []
    late = {number: error for number, error in load.failed_puts.items() if number >= found_out}
    assert late == {}


def settings() -> dict[str, Any]:
    return {"balancer": "health_aware", "timeout": 3.0, "reconnect_backoff_max": 0.5}


def test_a_killed_follower_costs_no_read(cluster: LocalCluster, connect: Connect) -> None:
    member = follower(cluster)
    client = connect(cluster.endpoints, **settings())
    play(client, member.kill, member.restart, member.endpoint)


def test_a_paused_member(cluster: LocalCluster, connect: Connect) -> None:
    member = follower(cluster)
    client = connect(cluster.endpoints, **settings())
    play(client, member.pause, member.resume, member.endpoint)


def test_a_member_cut_off_from_its_peers(cluster: LocalCluster, connect: Connect) -> None:
    """It answers still, and does not know for a while that it has no leader."""
    member = follower(cluster)
    client = connect(cluster.endpoints, **settings())
    play(client, lambda: cluster.isolate(member), cluster.heal, member.endpoint)


def test_a_member_behind_a_black_hole(cluster: LocalCluster, connect: Connect) -> None:
    cluster.wait_for_leader()
    with ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(each)) for each in cluster.endpoints]
        client = connect([proxy.endpoint for proxy in proxies], **settings())
        play(client, proxies[0].stall, proxies[0].heal, proxies[0].endpoint)
        client.close()


def test_a_learner_among_the_endpoints(cluster: LocalCluster, connect: Connect) -> None:
    cluster.wait_for_leader()
    learner: AnyMember = cluster.add_learner()
    client = connect(cluster.endpoints, **settings())
    with client.watch("w/", prefix=True) as watch:
        for number in range(30):
            client.put("w/x", str(number))
            client.get("w/x")
        assert [int(watch.next_event(10.0).value) for _ in range(30)] == list(range(30))
    wait_until(lambda: view(client, learner.endpoint).reason == "a learner", "known as learner")
    calls = client.endpoints[f"http://{learner.endpoint}"].calls
    for number in range(60):
        client.put("w/x", str(number))
    assert client.endpoints[f"http://{learner.endpoint}"].calls == calls
    wait_until(lambda: client.get("w/x", serializable=True).value == b"59", "read anywhere")
    for _ in range(60):
        client.get("w/x", serializable=True)
    assert client.endpoints[f"http://{learner.endpoint}"].calls > calls
    cluster.promote(learner)
    wait_until(lambda: view(client, learner.endpoint).eligible, "in the rotation once promoted")
