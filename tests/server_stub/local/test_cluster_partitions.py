"""Who reaches whom in a cluster: in one process, in several, on etcd."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from local.driving import CUT_OFF_SECONDS, Start, follower, has, has_itself, in_the_end, put

from etcd_pinwheel.server_stub.local import CallFailed, LocalCluster, LocalMemberError

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.mark.parametrize("resets", [False, True], ids=["stall", "reset"])
def test_an_isolated_leader_is_replaced(start: Start, resets: bool) -> None:
    cluster = start(partitions=True)
    leader = cluster.wait_for_leader()
    cluster.isolate(leader, resets=resets)
    successor = cluster.wait_for_leader(other_than=leader)
    assert in_the_end(lambda: put(successor, b"k"))
    with pytest.raises(CallFailed):
        put(leader, b"lost", timeout_seconds=CUT_OFF_SECONDS)
    assert not has_itself(leader, b"k")
    cluster.heal()
    assert in_the_end(lambda: has(leader, b"k"))
    assert leader.status().leader_id == cluster.wait_for_leader().status().member_id


def test_only_a_majority_goes_on(start: Start) -> None:
    cluster = start(partitions=True)
    first, second, third = cluster
    cluster.partition([first], [second, third])
    assert in_the_end(lambda: cluster.leader() in (second, third))
    assert in_the_end(lambda: put(second, b"majority"))
    cluster.partition([second])
    with pytest.raises(CallFailed):
        put(third, b"nobody", timeout_seconds=CUT_OFF_SECONDS)
    in_the_end(lambda: cluster.leader() is None)
    cluster.heal()
    cluster.wait_for_leader()
    assert in_the_end(lambda: has(first, b"majority"))


def test_a_follower_that_hears_nothing_still_speaks(start: Start) -> None:
    """The way to it is cut, the way from it is not."""
    cluster = start(partitions=True)
    leader = cluster.wait_for_leader()
    deaf = follower(cluster)
    other = next(each for each in cluster if each not in (leader, deaf))
    for each in (leader, other):
        cluster.cut(each, deaf)
    time_before = cluster.bytes_sent(leader, deaf)
    in_the_end(lambda: deaf.status().leader_id == 0)
    in_the_end(lambda: put(cluster.wait_for_leader(), b"k"))
    assert not has_itself(deaf, b"k")
    assert cluster.bytes_sent(leader, deaf) == time_before
    cluster.heal()
    assert in_the_end(lambda: has(deaf, b"k"))


def test_partitions_have_to_be_asked_for(start: Start) -> None:
    cluster = start(size=1)
    with pytest.raises(LocalMemberError, match="partitions=True"):
        cluster.isolate(cluster[0])


@pytest.mark.differential
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a connection is")
def test_members_that_speak_tls_can_be_parted(etcd_binary: Path) -> None:
    with LocalCluster(
        "--peer-auto-tls", binary=etcd_binary, partitions=True, peer_scheme="https"
    ) as cluster:
        leader = cluster.wait_for_leader()
        cluster.isolate(leader)
        successor = cluster.wait_for_leader(other_than=leader)
        assert in_the_end(lambda: put(successor, b"k"))
        assert not has_itself(leader, b"k")
        cluster.heal()
        assert in_the_end(lambda: has(leader, b"k"))
