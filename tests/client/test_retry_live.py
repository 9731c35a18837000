"""Each way to retry, against real servers: the leader is killed under a load of writes, and after
that the store says how often each was carried out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from etcd_pinwheel import Client, EtcdError, OutcomeUnknown, Txn, delete, get, put, version
from etcd_pinwheel.client.flow import CallFailed
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.server_stub.local import LocalCluster, LocalMember

from .conftest import BINARIES, Blocked

Connect = Callable[..., Any]
EVERY_SECONDS = 0.02
TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 20.0


class Writes:
    """Writes that start on time whether or not earlier ones have ended; each has its own key."""

    def __init__(self, client: Any, retry: str) -> None:
        self._client = client
        self._retry = retry
        self._pool = ThreadPoolExecutor(256)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.calls: dict[str, Future[Any]] = {}

    def __enter__(self) -> Writes:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._pool.shutdown()

    def wait_for(self, more: int) -> None:
        goal = len(self.calls) + more
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.calls) < goal or not self._has_one_ended(goal):
            assert time.monotonic() < deadline, "the writes do not go on"
            time.sleep(EVERY_SECONDS)

    def _has_one_ended(self, goal: int) -> bool:
        return any(
            call.done() and not call.exception() for call in list(self.calls.values())[-goal:]
        )

    def _run(self) -> None:
        due = time.monotonic()
        for number in count():
            if self._ended.wait(max(0.0, due - time.monotonic())):
                return
            due += EVERY_SECONDS
            key = f"w/{number:05}"
            write = self._put if number % 2 else self._commit
            self.calls[key] = self._pool.submit(write, key)

    def _put(self, key: str) -> Any:
        return self._client.put(key, "v", retry=self._retry)

    def _commit(self, key: str) -> Any:
        wish = Txn().when(version(key) == 0).then(put(key, "1")).otherwise(put(key, "2"))
        return self._client.commit(wish, retry=self._retry)


@pytest.fixture
def cluster(make: str) -> Iterator[LocalCluster]:
    with LocalCluster("--unsafe-no-fsync", processes=True, binary=BINARIES[make]) as made:
        yield made


def audit(cluster: LocalCluster, writes: Writes) -> dict[str, int]:
    """Ask the survivors how often each write was carried out."""
    living = [member.endpoint for member in cluster if member.is_alive]
    with Client(living, balancer="health_aware", timeout=TIMEOUT_SECONDS) as reader:
        found = {kv.key.decode(): kv.version for kv in reader.get_prefix("w/")}
    return {key: found.get(key, 0) for key in writes.calls}


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("retry", ["safe", "at_least_once", "exactly_once"])
def test_the_leader_is_killed(retry: str, cluster: LocalCluster, connect: Connect) -> None:
    leader = cluster.wait_for_leader()
    assert isinstance(leader, LocalMember)
    client = connect(cluster.endpoints, balancer="health_aware", timeout=TIMEOUT_SECONDS)
    with Writes(client, retry) as writes:
        writes.wait_for(50)
        leader.kill()
        cluster.wait_for_leader(other_than=leader)
        writes.wait_for(50)
    errors = {key: call.exception() for key, call in writes.calls.items()}
    failed = {key: error for key, error in errors.items() if error is not None}
    counted = audit(cluster, writes)
    assert all(isinstance(error, EtcdError) for error in failed.values()), failed
    lost = [key for key in writes.calls if key not in failed and counted[key] == 0]
    assert lost == []
    if retry != "at_least_once":
        assert [key for key, times in counted.items() if times > 1] == []
    refused = [key for key, error in failed.items() if not isinstance(error, OutcomeUnknown)]
    assert [key for key in refused if counted[key]] == []
    if retry != "safe":
        assert failed == {}


# What a repeat is told


def lose_answers(client: Any, lost: int) -> None:
    """Let the next transactions be carried out, and their answers get lost."""
    is_async = isinstance(client, Blocked)
    inner = client._inner if is_async else client
    (url,) = inner.endpoints
    link = inner._call.connections.link(url)
    real = link.callable(rpcs.KV_TXN)
    left = iter(range(lost))

    def lose() -> None:
        if next(left, None) is not None:
            raise CallFailed(Code.UNAVAILABLE, "Socket closed")

    def call(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        lose()
        return answer

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        answer = await real(*args, **kwargs)
        lose()
        return answer

    link.callables[rpcs.KV_TXN] = awaited if is_async else call


@pytest.mark.process
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_repeat_is_told_what_the_first_attempt_did(lost: int, etcd: Any) -> None:
    def told(write: Callable[..., Any], *args: Any, **how: Any) -> Any:
        lose_answers(etcd, lost)
        return write(*args, retry="exactly_once", **how)

    etcd.put("warm", "up", retry="exactly_once")
    first = told(etcd.put, "k", "1")
    second = told(etcd.put, "k", "2", prev_kv=True)
    assert second.prev_kv.value == b"1"
    assert second.revision == second.header.revision == first.revision + 1
    assert etcd.get("k").version == 2
    told(etcd.put, "l", "3")
    wish = Txn().when(version("k") == 2)
    wish = wish.then(get("k", "z"), put("k", "4", prev_kv=True), delete("l", "z", prev_kv=True))
    wish = wish.then(get("k", "z"), get("nothing"), put("a", "5"))
    done = told(etcd.commit, wish)
    before, written, deleted, after, nothing, _ = done.responses
    assert done.succeeded
    assert [(kv.key, kv.value) for kv in before.kvs] == [
        (b"k", b"2"),
        (b"l", b"3"),
        (b"warm", b"up"),
    ]
    assert written.prev_kv.value == b"2"
    assert (deleted.deleted, [kv.value for kv in deleted.prev_kvs]) == (2, [b"3", b"up"])
    assert [(kv.key, kv.value) for kv in after.kvs] == [(b"k", b"4")]
    assert nothing.count == 0
    revisions = [response.revision for response in done.responses]
    assert revisions == [done.revision - 1, *[done.revision] * 5]
    refused = told(etcd.commit, wish.otherwise(put("a", "6")))
    assert not refused.succeeded
    assert etcd.get("a").value == b"6"
    gone = told(etcd.delete_prefix, "", prev_kv=True)
    assert [(kv.key, kv.value) for kv in gone.prev_kvs] == [(b"a", b"6"), (b"k", b"4")]
    assert gone.revision == refused.revision + 1


@pytest.mark.process
def test_what_it_leaves_behind_is_on_one_lease(etcd: Any) -> None:
    for number in range(5):
        etcd.put(f"k/{number}", "v", retry="exactly_once")
    assert etcd.count("__etcd_pinwheel/", prefix=True) == 1
    slot = etcd.get_prefix("__etcd_pinwheel/")[0]
    assert etcd.leases.time_to_live(slot.lease).granted_ttl == 60
    etcd.leases.revoke(slot.lease)
    etcd.put("k/5", "v", retry="exactly_once")
    assert etcd.get("k/5").version == 1
