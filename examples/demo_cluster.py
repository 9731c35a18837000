"""A cluster of three processes loses its leader, and gets a learner that becomes a voter.

A client writes and another one watches all the while; in the end every write is accounted for.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from narration import say, show

from etcd_pinwheel import Client, OutcomeUnknown
from etcd_pinwheel.client.errors import CallError
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

PREFIX = "traffic/"
PUT_SECONDS = 1.0
"""A put that got lost with its leader is given up after that; the next one finds the new leader."""
PAUSE_SECONDS = 0.005
PATIENCE_SECONDS = 30.0


def walk(binary: str | None = None) -> None:
    started = time.monotonic()
    with LocalCluster(processes=True, binary=binary) as cluster:
        took = time.monotonic() - started
        say("a cluster", f"{len(cluster)} processes, {cluster.endpoints}, ready after {took:.1f} s")
        with Traffic(cluster.endpoints) as traffic:
            lose_the_leader(cluster, traffic)
            grow(cluster, traffic)
            traffic.stop()
            account(cluster, traffic)
    say("gone", f"after {time.monotonic() - started:.1f} s, all processes and directories")


class Traffic:
    """A client that puts one key after the other, and one that watches them."""

    def __init__(self, endpoints: list[str]) -> None:
        self.answered: list[tuple[float, str]] = []
        """Of each put that succeeded: when, and the key."""
        self.failed: Counter[str] = Counter()
        self.seen: list[str] = []
        self.stored: list[str] = []
        """What the cluster has in the end."""
        self._is_over = threading.Event()
        self._etcd = Client(endpoints, balancer="round_robin", timeout=PUT_SECONDS)
        self._watch = self._etcd.watch(PREFIX, prefix=True, timeout=PATIENCE_SECONDS)
        self._threads = [threading.Thread(target=each) for each in (self._write, self._follow)]

    def __enter__(self) -> Traffic:
        self._watch.open()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watch.close()
        for thread in self._threads:
            thread.join()
        self._etcd.close()

    def stop(self) -> None:
        """Write no more, and have every event come in."""
        self._is_over.set()
        self._threads[0].join()
        self.stored = [kv.key.decode() for kv in self._etcd.get_prefix(PREFIX).kvs]
        wait_until(lambda: len(self.seen) >= len(self.stored))

    def longest_pause(self, since: float) -> float:
        """The longest time between two puts that succeeded, in seconds."""
        times = [since, *(when for when, _ in self.answered if when > since)]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def _write(self) -> None:
        number = 0
        while not self._is_over.wait(PAUSE_SECONDS):
            key = f"{PREFIX}{number:06}"
            number += 1
            try:
                self._etcd.put(key, "x")
            except OutcomeUnknown as error:
                self.failed[f"outcome unknown ({type(error).__name__})"] += 1
            except CallError as error:
                self.failed[f"not carried out ({type(error).__name__})"] += 1
            else:
                self.answered.append((time.monotonic(), key))

    def _follow(self) -> None:
        for event in self._watch:
            self.seen.append(event.kv.key.decode())


def lose_the_leader(cluster: LocalCluster, traffic: Traffic) -> None:
    wait_until(lambda: len(traffic.answered) > 50)
    leader = cluster.wait_for_leader()
    say("failover", f"{leader.name} leads; it gets a SIGKILL")
    struck = time.monotonic()
    leader.kill()
    successor = cluster.wait_for_leader()
    show("leader.kill()", f"{since(struck)} without a leader, then {successor.name} leads")
    count = len(traffic.answered)
    wait_until(lambda: len(traffic.answered) > count + 50)
    show(
        "the client goes on",
        f"longest pause between two puts: {traffic.longest_pause(struck):.2f} s",
    )
    began = time.monotonic()
    leader.restart()
    wait_until(lambda: has_caught_up(leader, successor))
    show("leader.restart()", f"back as a follower, with all that it missed, after {since(began)}")


def grow(cluster: LocalCluster, traffic: Traffic) -> None:
    say("learner", "receives everything, does not vote: safe to add at any time")
    began = time.monotonic()
    learner = cluster.add_learner()
    show(
        "cluster.add_learner()",
        f"{learner.name} serves after {since(began)}; etcd wants all members connected for 5 s",
    )
    leader = cluster.wait_for_leader()
    wait_until(lambda: has_caught_up(learner, leader))
    status = learner.status()
    show("learner.status()", f"is_learner={status.is_learner}, revision {status.revision}")
    began = time.monotonic()
    cluster.promote(learner)
    show("cluster.promote(learner)", f"a voter after {since(began)}, one of {len(cluster)}")
    count = len(traffic.answered)
    wait_until(lambda: len(traffic.answered) > count + 50)
    show(
        "the client goes on",
        f"longest pause between two puts: {traffic.longest_pause(began):.2f} s",
    )


def account(cluster: LocalCluster, traffic: Traffic) -> None:
    say("account", "what became of every put, and what the watch saw of it")
    answered = [key for _, key in traffic.answered]
    lost = set(answered) - set(traffic.stored)
    show("puts answered", f"{len(answered)}, of which the cluster lost {len(lost)}")
    for reason, count in traffic.failed.items():
        show(f"puts that failed: {reason}", count)
    in_order = traffic.seen == sorted(set(traffic.seen))
    missing = len(set(traffic.stored) - set(traffic.seen))
    show(
        "events seen",
        f"{len(traffic.seen)} of {len(traffic.stored)}: {missing} missing,"
        f" {'in order, none twice' if in_order else 'NOT in order'}",
    )
    assert not lost
    assert not missing
    assert in_order


def has_caught_up(member: AnyMember, leader: AnyMember) -> bool:
    """Whether it has everything that the leader had when asked."""
    wanted = leader.status().revision
    return member.status().revision >= wanted


def since(moment: float) -> str:
    return f"{time.monotonic() - moment:.2f} s"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of it in {PATIENCE_SECONDS} s")
        time.sleep(0.01)
