"""How clusters and their members start, end and come back: in one process, in several, on etcd."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from local.driving import Start, assert_nothing_is_left, follower, has, in_the_end, put

from etcd_pinwheel.server_stub.local import (
    CallFailed,
    LocalCluster,
    LocalMember,
    LocalMemberError,
)

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_all_members_take_writes_and_agree(start: Start) -> None:
    cluster = start()
    assert len(cluster) == len(set(cluster.endpoints)) == 3
    for member in cluster:
        assert put(member, member.name.encode())
    for member in cluster:
        assert all(has(member, other.name.encode()) for other in cluster)
    statuses = cluster.statuses()
    assert set(statuses) == {"m1", "m2", "m3"}
    assert len({status.member_id for status in statuses.values()}) == 3
    assert len({status.cluster_id for status in statuses.values()}) == 1
    leader = cluster.leader()
    assert leader is not None
    assert [name for name, status in statuses.items() if status.is_leader] == [leader.name]
    assert leader.status().is_leader


def test_a_killed_leader_is_replaced_and_comes_back(start: Start) -> None:
    cluster = start()
    leader = cluster.wait_for_leader()
    put(leader, b"before")
    leader.kill()
    assert not leader.is_alive
    with pytest.raises(CallFailed, match="UNAVAILABLE"):
        leader.status()
    successor = cluster.wait_for_leader()
    assert successor is not leader
    assert in_the_end(lambda: put(successor, b"meanwhile"))
    leader.restart()
    assert leader.is_alive
    assert in_the_end(lambda: has(leader, b"before") and has(leader, b"meanwhile"))


def test_a_member_stops_and_starts_again(start: Start) -> None:
    cluster = start()
    member = follower(cluster)
    endpoint = member.endpoint
    member.stop()
    assert not member.is_alive
    assert in_the_end(lambda: put(cluster.wait_for_leader(), b"meanwhile"))
    member.restart()
    assert member.endpoint == endpoint
    assert in_the_end(lambda: has(member, b"meanwhile"))
    with pytest.raises(LocalMemberError, match="runs already"):
        member.launch()


def test_a_whole_cluster_comes_back(start: Start) -> None:
    cluster = start()
    put(cluster[0], b"k")
    for member in cluster:
        member.kill()
    assert cluster.statuses() == {}
    assert cluster.leader() is None
    cluster.start()
    assert in_the_end(lambda: has(cluster[1], b"k"))


def test_a_paused_leader_is_replaced(start: Start, kind: str) -> None:
    cluster = start()
    leader = cluster.wait_for_leader()
    if kind == "one process":
        with pytest.raises(LocalMemberError, match="cannot be paused"):
            leader.pause()
        return
    leader.pause()
    assert leader.is_alive
    assert cluster.wait_for_leader(other_than=leader) is not leader
    with pytest.raises(CallFailed, match="DEADLINE"):
        leader.status(timeout_seconds=0.5)
    leader.resume()
    assert in_the_end(lambda: put(leader, b"k"))


def test_a_body_that_fails_leaves_nothing(kind: str, etcd_binary: Path) -> None:
    binary = etcd_binary if kind == "etcd" else None
    threads = threading.active_count()
    cluster = LocalCluster(size=2, binary=binary, processes=kind == "processes", partitions=True)
    with pytest.raises(KeyboardInterrupt), cluster:
        signal.raise_signal(signal.SIGINT)
    assert_nothing_is_left(cluster)
    assert threading.active_count() == threads


def test_a_start_that_fails_leaves_nothing_and_says_why(kind: str, etcd_binary: Path) -> None:
    binary = etcd_binary if kind == "etcd" else None
    threads = threading.active_count()
    cluster = LocalCluster(
        "--bogus", size=2, binary=binary, processes=kind == "processes", partitions=True
    )
    with pytest.raises(LocalMemberError, match="bogus"), cluster:
        pass
    assert_nothing_is_left(cluster)
    assert threading.active_count() == threads


def test_who_keeps_the_others_waiting_is_named(kind: str, etcd_binary: Path) -> None:
    """m2's port is taken, and m1, which has no quorum without it, would wait for long."""
    binary = etcd_binary if kind == "etcd" else None
    cluster = LocalCluster(size=2, binary=binary, processes=kind == "processes", partitions=True)
    taken = socket.create_server(("127.0.0.1", cluster[1].client_port))
    said = r"member m2 (?s:.*)(?i:address already in use)"
    with taken, pytest.raises(LocalMemberError, match=said), cluster:
        pass
    assert_nothing_is_left(cluster)


def test_an_interrupted_start_leaves_nothing(kind: str, etcd_binary: Path) -> None:
    """Two of three are not there, so that it waits when Ctrl-C comes."""
    binary = etcd_binary if kind == "etcd" else None
    cluster = LocalCluster(size=3, binary=binary, processes=kind == "processes")
    cluster[1].launch()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        cluster[1].wait_until_ready()
    timer.join()
    cluster.close()
    assert_nothing_is_left(cluster)


def test_only_processes_have_a_process(start: Start, kind: str) -> None:
    cluster = start(size=1)
    assert isinstance(cluster[0], LocalMember) is (kind != "one process")
