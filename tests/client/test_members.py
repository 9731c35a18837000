"""Changing who is in a cluster, from either face of the client, on either server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from etcd_pinwheel import InvalidArgument, MemberNotFound, Refused
from etcd_pinwheel.client.errors import EtcdError
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster, LocalMember, ReservedPorts

from .conftest import BINARIES, QUICK

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
PATIENCE_SECONDS = 20.0


@pytest.fixture
def trio(make: str) -> Iterator[LocalCluster]:
    """Three members, with the 5 seconds that etcd waits before it lets anybody in set aside."""
    with LocalCluster(QUICK, "--strict-reconfig-check=false", binary=BINARIES[make]) as cluster:
        yield cluster


def peer_url_of(ports: ReservedPorts) -> str:
    return f"http://127.0.0.1:{ports.numbers[1]}"


def newcomer(make: str, cluster: LocalCluster, ports: ReservedPorts) -> AnyMember:
    """A member that was announced at those ports, ready to be started."""
    known = ",".join(f"{each.name}={each.peer_url}" for each in cluster)
    return LocalMember(
        QUICK,
        binary=BINARIES[make],
        name="newcomer",
        ports=ports,
        cluster=f"{known},newcomer={peer_url_of(ports)}",
        cluster_state="existing",
    )


def test_a_learner_joins_is_promoted_and_leaves(
    make: str, trio: LocalCluster, connect: Connect
) -> None:
    leader = trio.wait_for_leader()  # etcd 3.5's followers make "not in sync" a timeout
    etcd = connect([leader.endpoint], timeout=PATIENCE_SECONDS)
    etcd.put("before", "1")
    ports = ReservedPorts(2)
    url = peer_url_of(ports)
    added = etcd.members.add_learner(url)
    assert (added.peer_urls, added.learner, added.name) == ((url,), True, "")
    with pytest.raises(Refused, match="in sync with leader"):
        etcd.members.promote(added)
    with newcomer(make, trio, ports) as member:
        promoted = until_promoted(etcd, added.id)
        assert [each.learner for each in promoted] == [False] * 4
        fourth = connect([member.endpoint])
        assert fourth.get("before").value == b"1"
        left = etcd.members.remove(added.id)
        assert sorted(each.name for each in left) == ["m1", "m2", "m3"]
    with pytest.raises(MemberNotFound):
        etcd.members.promote(added.id)


def until_promoted(etcd: Any, member_id: int) -> Any:
    """Promote it; a learner that has just started needs a moment to catch up."""
    while True:
        try:
            return etcd.members.promote(member_id)
        except Refused as refused:
            if "in sync with leader" not in refused.text:
                raise


def test_where_a_member_is_reached_changes(trio: LocalCluster, connect: Connect) -> None:
    etcd = connect(trio.endpoints)
    nobody, nobody_either = ReservedPorts(2), ReservedPorts(2)
    added = etcd.members.add(peer_url_of(nobody))
    url = peer_url_of(nobody_either)
    updated = etcd.members.update(added, [url])
    assert {each.peer_urls for each in updated if each.id == added.id} == {(url,)}
    with pytest.raises(Refused, match="Peer URLs already exists"):
        etcd.members.add([url])
    etcd.members.remove(added)


def test_leadership_is_handed_over(trio: LocalCluster, connect: Connect) -> None:
    etcd = connect(trio.endpoints)
    leader = etcd.maintenance.status(trio.wait_for_leader().endpoint).leader
    other = next(each for each in etcd.members.list() if each.id != leader)
    etcd.maintenance.move_leader(other)
    assert etcd.maintenance.status(trio.wait_for_leader().endpoint).leader == other.id
    with pytest.raises(Refused, match="bad leader transferee"):
        etcd.maintenance.move_leader(0xBAD)


def test_only_the_leader_hands_over(trio: LocalCluster, connect: Connect) -> None:
    leader = trio.wait_for_leader()
    follower = next(each for each in trio if each is not leader)
    etcd = connect(trio.endpoints)
    target = etcd.maintenance.status(follower.endpoint).header.member_id
    with pytest.raises(Refused, match="not leader"):
        etcd.maintenance.move_leader(target, endpoint=follower.endpoint)


@pytest.mark.parametrize("urls", [[], [""], ["10.0.0.1:2380"], ["http://10.0.0.1:2380/path"]])
def test_what_is_no_url_is_refused(trio: LocalCluster, connect: Connect, urls: list[str]) -> None:
    etcd = connect(trio.endpoints)
    with pytest.raises((InvalidArgument, Refused)):
        etcd.members.add(urls)
    assert len(etcd.members.list()) == 3


def test_an_id_that_cannot_be_one_is_misuse(connect: Connect) -> None:
    etcd = connect(["127.0.0.1:1"])
    with pytest.raises(InvalidArgument):
        etcd.members.remove(-1)
    with pytest.raises(EtcdError):
        etcd.members.remove(1)
