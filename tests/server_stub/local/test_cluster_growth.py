"""How clusters change their members: in one process, in several, on etcd."""

from __future__ import annotations

import pytest
from local.driving import CUT_OFF_SECONDS, Start, follower, has, has_itself, in_the_end, put

from etcd_pinwheel.server_stub.local import CallFailed

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_a_learner_joins_and_is_promoted(start: Start) -> None:
    cluster = start(partitions=True)
    put(cluster[0], b"before")
    learner = cluster.add_learner()
    assert cluster.members[-1] is learner
    assert learner.status().is_learner
    assert in_the_end(lambda: has_itself(learner, b"before"))
    leader = cluster.wait_for_leader()
    assert cluster.bytes_sent(leader, learner) > 0
    for each in (learner, other := follower(cluster)):  # a dead learner is no missing vote
        each.kill()
    assert cluster.leader() is leader
    other.restart()
    learner.restart()
    cluster.promote(learner)
    assert in_the_end(lambda: not learner.status().is_learner)
    assert in_the_end(lambda: put(learner, b"after"))
    old = cluster[0]
    cluster.remove(old)
    assert not old.is_alive
    assert not old.data_dir.exists()
    assert [member.name for member in cluster] == ["m2", "m3", "m4"]
    assert in_the_end(lambda: has(learner, b"after"))


def test_a_voter_joins_one_that_was_alone(start: Start) -> None:
    cluster = start(size=1)
    put(cluster[0], b"before")
    added = cluster.add_member()
    assert in_the_end(lambda: has(added, b"before"))
    assert len({member.status().leader_id for member in cluster}) == 1
    cluster[0].kill()
    with pytest.raises(CallFailed):
        put(added, b"without a quorum", timeout_seconds=CUT_OFF_SECONDS)
    assert cluster.leader() is None


def test_a_refused_change_raises(start: Start) -> None:
    cluster = start("--strict-reconfig-check=false")
    cluster.add_learner(start=False)
    assert not cluster[-1].is_alive
    with pytest.raises(CallFailed, match="too many learner members") as caught:
        cluster.add_learner()
    assert caught.value.code == "FAILED_PRECONDITION"
    assert len(cluster) == 4
    with pytest.raises(CallFailed, match="in sync with leader"):
        cluster.promote(cluster[-1], timeout_seconds=0.1)
