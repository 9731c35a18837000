"""Clusters whose members come and go, and what they do about it by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = pytest.mark.process

PATIENCE_SECONDS = 60.0
"""For what must happen soon; only a failing test waits that long."""
PROMPT = ("--learner-promote-healthy=1s",)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def voters(etcd: Client) -> set[str]:
    """The names of those that vote."""
    return {member.name for member in etcd.members.list() if not member.learner}


def learners(etcd: Client) -> set[str]:
    return {member.name for member in etcd.members.list() if member.learner}


def value(etcd: Client, key: str) -> bytes | None:
    found = etcd.get(key)
    return found.value if found is not None else None


def follower(cluster: LocalCluster) -> AnyMember:
    leader = cluster.wait_for_leader()
    return next(member for member in cluster if member is not leader)


def test_a_learner_joins_is_promoted_and_leads() -> None:
    with LocalCluster("--strict-reconfig-check=false", size=1) as cluster:
        with Client(cluster[0].endpoint) as etcd:
            etcd.put("before", "1")
            learner = cluster.add_learner()
            assert (voters(etcd), learners(etcd)) == ({"m1"}, {"m2"})
            etcd.put("between", "2")
            cluster.promote(learner)
            assert voters(etcd) == {"m1", "m2"}
            etcd.maintenance.move_leader(learner.status().member_id)
        with Client(learner.endpoint) as etcd:
            assert value(etcd, "between") == b"2"
            cluster.remove(cluster[0])
            assert voters(etcd) == {"m2"}
            etcd.put("after", "3")
            assert value(etcd, "before") == b"1"


def test_learners_are_the_default_if_told_so() -> None:
    flags = ("--strict-reconfig-check=false", "--learner-by-default")
    with LocalCluster(*flags, size=1) as cluster, Client(cluster[0].endpoint) as etcd:
        cluster.add_member()
        assert (voters(etcd), learners(etcd)) == ({"m1"}, {"m2"})


def test_a_learner_that_keeps_up_is_promoted_by_itself() -> None:
    flags = ("--strict-reconfig-check=false", "--learner-auto-promote", *PROMPT)
    with LocalCluster(*flags, size=1) as cluster, Client(cluster[0].endpoint) as etcd:
        began = time.monotonic()
        learner = cluster.add_learner()
        until(lambda: voters(etcd) == {"m1", "m2"})
        assert time.monotonic() - began >= 1.0
        cluster.add_learner(start=False)  # one that is never there is never promoted
        time.sleep(2.0)
        assert voters(etcd) == {"m1", "m2"}
        assert not learner.status().is_learner


@pytest.mark.slow
def test_a_dead_voter_is_replaced_by_the_learner_in_reserve() -> None:
    """Then another voter may fail; and the dead one is in reserve when it comes back."""
    flags = ("--strict-reconfig-check=false", "--standby-failover=2s", *PROMPT)
    with LocalCluster(*flags, size=3) as cluster:
        standby = cluster.add_learner()
        dead = follower(cluster)
        leader = cluster.wait_for_leader()
        with Client(leader.endpoint) as etcd:
            time.sleep(3.0)
            assert learners(etcd) == {standby.name}, "nobody is dead"
            dead.kill()
            until(lambda: learners(etcd) == {dead.name})
            assert voters(etcd) == {member.name for member in cluster} - {dead.name}
        second = next(each for each in cluster if each not in (dead, leader, standby))
        second.kill()
        with Client(standby.endpoint, timeout=PATIENCE_SECONDS) as etcd:
            etcd.put("still", "there")
            dead.launch()  # becomes ready once it has heard who it is now
            dead.wait_until_ready()
            until(lambda: learners(etcd) == {second.name})
            assert dead.name in voters(etcd), "it was the next in reserve"


@pytest.mark.slow
def test_without_a_quorum_nobody_is_replaced() -> None:
    flags = ("--strict-reconfig-check=false", "--standby-failover=2s", *PROMPT)
    with LocalCluster(*flags, size=2) as cluster:
        standby = cluster.add_learner()
        leader = cluster.wait_for_leader()
        dead = follower(cluster)
        time.sleep(1.5)
        dead.kill()
        time.sleep(4.0)
        assert standby.status().is_learner
        assert leader.is_alive
        dead.start()
        with Client(leader.endpoint, timeout=PATIENCE_SECONDS) as etcd:
            assert learners(etcd) == {standby.name}, "nothing had been proposed either"


def test_one_goes_on_alone_when_the_others_are_lost() -> None:
    with LocalCluster(size=3) as cluster:
        with Client(cluster[0].endpoint) as etcd:
            etcd.put("kept", "1")
            cluster_id = etcd.maintenance.status(cluster[0].endpoint).header.cluster_id
        survivor, *lost = cluster
        for member in cluster:
            member.kill()
        flags, survivor.flags = survivor.flags, (*survivor.flags, "--force-new-cluster")
        survivor.start()
        with Client(survivor.endpoint) as etcd:
            assert voters(etcd) == {survivor.name}
            assert value(etcd, "kept") == b"1"
            etcd.put("more", "2")
            status = etcd.maintenance.status(survivor.endpoint)
            assert status.header.cluster_id == cluster_id
        survivor.flags = flags
        survivor.restart()
        cluster.members[1:] = []
        with Client(survivor.endpoint) as etcd:
            assert value(etcd, "more") == b"2"
            cluster.promote(cluster.add_learner())
            assert len(voters(etcd)) == 2
        for member in lost:
            member.close()


@pytest.mark.slow
def test_voters_that_hang_are_replaced() -> None:
    """A follower, then the leader: each comes back as a learner, and disturbs nobody."""
    flags = ("--strict-reconfig-check=false", "--standby-failover=2s", *PROMPT)
    with LocalCluster(*flags, size=3, processes=True) as cluster:
        cluster.add_learner()
        time.sleep(1.5)
        for hangs in (follower(cluster), cluster.wait_for_leader()):
            hangs.pause()
            leader = cluster.wait_for_leader(other_than=hangs)
            with Client(leader.endpoint, timeout=PATIENCE_SECONDS) as etcd:
                until_only_learner(etcd, hangs)
                term = leader.status().term
                hangs.resume()
                until_learned(hangs)
                time.sleep(1.5)  # more than an election timeout
                assert leader.status().term == term
                assert len(voters(etcd)) == 3


def until_only_learner(etcd: Client, member: AnyMember) -> None:
    until(lambda: learners(etcd) == {member.name})


def until_learned(member: AnyMember) -> None:
    """Wait until a member has heard itself that it votes no more."""
    until(lambda: member.status().is_learner)
