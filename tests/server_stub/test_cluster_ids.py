"""Ids as etcd computes them, members as etcd stores them."""

from __future__ import annotations

import json

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.etcdserverpb import Metadata
from etcd_pinwheel.server_stub import cluster as members
from etcd_pinwheel.server_stub.cluster import Cluster, ClusterMember, cluster_id, member_id
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend


def test_the_ids_of_etcds_default_configuration() -> None:
    cluster = Cluster.initial(Settings())
    assert f"{cluster.members[0].id:x}" == "8e9e05c52164694d"
    assert f"{cluster.id:x}" == "cdf818194e3a8c32"


def test_ids_seen_from_a_real_etcd() -> None:
    """etcd 3.5.1 with --initial-advertise-peer-urls http://127.0.0.1:25380."""
    own = member_id(["http://127.0.0.1:25380"], "etcd-cluster")
    assert own == 9368506742490709939
    assert cluster_id([own]) == 2375181864447732657


def test_a_cluster_of_three_seen_from_a_real_etcd() -> None:
    """etcd 3.5.1, three members with --initial-cluster-token tok."""
    ports = {"a": 39297, "b": 59335, "c": 34595}
    three = tuple((name, (f"http://127.0.0.1:{port}",)) for name, port in ports.items())
    cluster = Cluster.initial(Settings(initial_cluster=three, initial_cluster_token="tok"))
    assert cluster.id == 12544269114336213302
    assert [(member.name, member.id) for member in cluster.members] == [
        ("a", 1196360464035785269),
        ("c", 9736163296037343197),
        ("b", 13054751954847887037),
    ]
    assert cluster.named("c") == cluster.members[1]
    assert cluster.named("d") is None


def test_ids_depend_on_no_order() -> None:
    urls = ["http://b:1", "http://a:1"]
    assert member_id(urls, "t") == member_id(reversed(urls), "t")
    assert cluster_id([1, 2, 3]) == cluster_id([3, 1, 2])


def test_ids_depend_on_token_and_time() -> None:
    ids = {
        member_id(["http://a:1"], "t"),
        member_id(["http://a:1"], "u"),
        member_id(["http://a:1"], "t", 1),
        member_id(["http://a:1"], "t", 2),
        member_id(["http://a:2"], "t"),
    }
    assert len(ids) == 5


LEARNER = ClusterMember(5, ("http://a:1",), is_learner=True)
STARTED = ClusterMember(3, ("http://b:1", "http://c:1"), "n", ("http://b:2",))


@pytest.mark.parametrize("member", [LEARNER, STARTED], ids=["learner", "started"])
def test_a_member_as_json(member: ClusterMember) -> None:
    assert ClusterMember.from_json(member.to_json()) == member


def test_the_json_is_etcds() -> None:
    assert json.loads(STARTED.to_json()) == {
        "id": 3,
        "peerURLs": ["http://b:1", "http://c:1"],
        "name": "n",
        "clientURLs": ["http://b:2"],
    }
    own = Cluster.initial(Settings(initial_advertise_peer_urls=("http://127.0.0.1:25380",)))
    assert own.members[0].to_json() == (
        b'{"id":9368506742490709939,"peerURLs":["http://127.0.0.1:25380"],"name":"default"}'
    )


@pytest.mark.parametrize("encoded", [b"", b"{}", b"[]", b"null", b'{"id":"x"}', b"\xff"])
def test_what_is_not_a_member(encoded: bytes) -> None:
    with pytest.raises(ValueError):
        ClusterMember.from_json(encoded)


def test_members_are_ordered_by_id() -> None:
    cluster = Cluster(1, ()).with_member(LEARNER).with_member(STARTED)
    assert cluster.members == (STARTED, LEARNER)
    promoted = ClusterMember(5, LEARNER.peer_urls)
    assert cluster.with_member(promoted).member(5) == promoted
    assert len(cluster.with_member(promoted).members) == 2
    assert cluster.without_member(3).members == (LEARNER,)
    assert cluster.member(9) is None
    assert cluster.conf_state() == raftpb.ConfState(voters=[3], learners=[5])


def test_the_head_and_the_first_entries_of_a_log() -> None:
    cluster = Cluster.initial(Settings())
    own = cluster.members[0]
    assert Metadata.FromString(cluster.metadata(own.id)) == Metadata(
        NodeID=own.id, ClusterID=cluster.id
    )
    (first,) = cluster.bootstrap_entries()
    assert (first.Index, first.Term, first.Type) == (1, 1, raftpb.EntryConfChange)
    change = raftpb.ConfChange.FromString(first.Data)
    assert (change.type, change.node_id) == (raftpb.ConfChangeAddNode, own.id)
    assert ClusterMember.from_json(change.context) == own


def test_members_in_the_store() -> None:
    backend = MemoryBackend()
    members.save_members(backend, [LEARNER, STARTED])
    assert members.load_members(backend) == (STARTED, LEARNER)
    members.remove_member(backend, 3)
    assert members.load_members(backend) == (LEARNER,)
    assert members.removed_members(backend) == {3}
