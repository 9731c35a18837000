"""Starts that must not go on, seen from outside: exit code 1, and a line that says why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import LocalCluster, LocalMember

pytestmark = [pytest.mark.process, pytest.mark.slow]

FAILED = 1
STOPPED = 0


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster("--strict-reconfig-check=false", size=3, processes=True) as cluster:
        yield cluster


def lose_data(member: LocalMember) -> None:
    """Kill it and delete its directory."""
    member.kill()
    shutil.rmtree(member.data_dir / "data")


def refusal(member: LocalMember) -> str:
    """Start it, wait for its end, and return what it said."""
    member.launch()
    assert member.wait() == FAILED
    assert "Traceback" not in member.output
    return member.output


def process(member: object) -> LocalMember:
    assert isinstance(member, LocalMember)
    return member


def test_members_that_forgot_are_refused(cluster: LocalCluster) -> None:
    """A founder and one that joined, each under its old id with an empty directory."""
    joined = process(cluster.add_learner())
    for member in (process(cluster[2]), joined):
        lose_data(member)
        said = refusal(member)
        assert f"member {cluster_id_of(cluster, member):x} has already been bootstrapped" in said
    assert cluster.statuses(), "the others go on"


def test_one_that_forgot_is_refused_when_all_start_at_once(cluster: LocalCluster) -> None:
    """There is nobody to ask when it starts; those that come tell it."""
    own_id = cluster_id_of(cluster, process(cluster[2]))
    for member in cluster:
        member.kill()
    forgetful = process(cluster[2])
    lose_data(forgetful)
    forgetful.launch()
    time.sleep(1.5)
    assert forgetful.is_alive, "alone, it does not know"
    forgetful.kill()
    for member in cluster:
        member.launch()
    assert forgetful.wait() == FAILED
    assert f"member {own_id:x} has already been bootstrapped" in forgetful.output
    cluster[0].wait_until_ready()


def cluster_id_of(cluster: LocalCluster, member: LocalMember) -> int:
    with Client(cluster[0].endpoint) as etcd:
        (found,) = [each for each in etcd.members.list() if each.name == member.name]
    return found.id


def test_a_removed_member_stops_and_stays_out(cluster: LocalCluster) -> None:
    """By its own log, by what others say, and with an empty directory."""
    told, untold = process(cluster[1]), process(cluster[2])
    with Client(cluster[0].endpoint) as etcd:
        etcd.members.remove(cluster_id_of(cluster, told))
        assert told.wait() == STOPPED
        assert "permanently removed" in refusal(told)
        lose_data(told)
        assert "permanently removed" in refusal(told)
        cluster.members.remove(told)
        cluster.promote(cluster.add_learner())
        untold.kill()
        etcd.members.remove(cluster_id_of(cluster, untold))
    assert "permanently removed" in refusal(untold)
    told.close()


def test_a_member_that_was_not_added(cluster: LocalCluster) -> None:
    known = ",".join(f"{member.name}={member.peer_url}" for member in cluster)
    with ExitStack() as closing:
        stranger = LocalMember(name="x", cluster_state="existing")
        closing.callback(stranger.close)
        stranger.flags = (f"--initial-cluster={known},x={stranger.peer_url}",)
        assert "member count is unequal" in refusal(stranger)
        stranger.flags = (f"--initial-cluster={cluster[0].name}={cluster[0].peer_url}",)
        assert "couldn't find local name" in refusal(stranger)
        stranger.flags = (*stranger.flags, f"--name={cluster[0].name}")
        assert "cannot fetch cluster info" in refusal(stranger), "there is nobody else to ask"
        stranger.flags = (
            f"--initial-cluster={known},x={stranger.peer_url}",
            "--initial-cluster-state=new",
        )
        assert "cluster ID mismatch" in refusal(stranger)


def test_founders_that_contradict_themselves() -> None:
    with ExitStack() as closing:
        member = LocalMember(name="a")
        closing.callback(member.close)
        member.flags = ("--initial-cluster=b=http://127.0.0.1:1",)
        assert "couldn't find local name" in refusal(member)
        member.flags = ("--initial-cluster=a=http://127.0.0.1:1",)
        assert "missing from --initial-advertise-peer-urls" in refusal(member)
        member.flags = ()
        member.start()
        member.flags = ("--initial-cluster=a=http://127.0.0.1:1",)
        member.restart()  # only the first start looks
