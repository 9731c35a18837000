"""Changes of the membership as every member applies them: etcd's checks, in etcd's order."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.errors import (
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NOT_A_LEARNER,
    NOT_ENOUGH_STARTED,
    PEER_URLS_EXIST,
    TOO_MANY_LEARNERS,
    Refusal,
    Refused,
)
from etcd_pinwheel.server_stub.apply.membership import NOT_A_VOTER, Membership
from etcd_pinwheel.server_stub.cluster import (
    ClusterMember,
    adding,
    demoting,
    is_demotion,
    is_promotion,
    promoting,
    removing,
    save_members,
    updating,
)
from etcd_pinwheel.server_stub.raft.confchange import Configuration, changed
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

VOTER = ClusterMember(1, ("http://a:1",), "a", ("http://a:2",))
SECOND = ClusterMember(2, ("http://b:1",), "b")
LEARNER = ClusterMember(3, ("http://c:1",), is_learner=True)
REMOVED = 9


@pytest.fixture
def membership() -> Membership:
    backend = MemoryBackend()
    save_members(backend, [VOTER, SECOND, LEARNER, ClusterMember(REMOVED, ("http://r:1",))])
    membership = Membership(backend, 7)
    membership.change(removing(REMOVED))
    return membership


def refusal(membership: Membership, change: raftpb.ConfChange) -> Refusal | None:
    try:
        membership.validate(change)
    except Refused as refused:
        return refused.refusal
    return None


def voter(own_id: int, *peer_urls: str) -> raftpb.ConfChange:
    return adding(ClusterMember(own_id, peer_urls))


def learner(own_id: int, *peer_urls: str) -> raftpb.ConfChange:
    return adding(ClusterMember(own_id, peer_urls, is_learner=True))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (voter(4, "http://d:1"), None),
        (voter(REMOVED, "http://a:1"), MEMBER_NOT_FOUND),  # before: the URL exists
        (voter(1, "http://a:1"), MEMBER_EXISTS),  # before: the URL exists
        (voter(4, "http://d:1", "http://b:1"), PEER_URLS_EXIST),
        (voter(4, "http://r:1"), None),  # a removed member gives its URLs free
        (learner(4, "http://b:1"), PEER_URLS_EXIST),  # before: too many learners
        (learner(4, "http://d:1"), TOO_MANY_LEARNERS),
        (promoting(3), None),
        (promoting(4), MEMBER_NOT_FOUND),
        (promoting(REMOVED), MEMBER_NOT_FOUND),
        (promoting(1), NOT_A_LEARNER),
        (demoting(VOTER), None),
        (demoting(LEARNER), NOT_A_VOTER),
        (demoting(ClusterMember(4, ())), MEMBER_NOT_FOUND),
        (demoting(ClusterMember(REMOVED, ())), MEMBER_NOT_FOUND),
        (removing(1), None),
        (removing(3), None),
        (removing(4), MEMBER_NOT_FOUND),
        (removing(REMOVED), MEMBER_NOT_FOUND),
        (updating(ClusterMember(1, ("http://d:1",))), None),
        (updating(ClusterMember(1, ("http://a:1",))), None),
        (updating(ClusterMember(4, ("http://a:1",))), MEMBER_NOT_FOUND),
        (updating(ClusterMember(1, ("http://c:1",))), PEER_URLS_EXIST),
    ],
)
def test_what_is_admitted(
    membership: Membership, change: raftpb.ConfChange, expected: Refusal | None
) -> None:
    assert refusal(membership, change) is expected


def test_more_learners_where_more_are_allowed() -> None:
    backend = MemoryBackend()
    save_members(backend, [VOTER, LEARNER])
    assert refusal(Membership(backend, 7, 2), learner(4, "http://d:1")) is None
    assert refusal(Membership(backend, 7, 0), learner(4, "http://d:1")) is TOO_MANY_LEARNERS


def test_a_life(membership: Membership) -> None:
    """Each step is what a restart finds."""

    def now() -> tuple[ClusterMember, ...]:
        again = Membership(membership._backend, 7)
        assert (again.cluster, again.removed) == (membership.cluster, membership.removed)
        return membership.cluster.members

    membership.change(removing(2))
    membership.change(voter(5, "http://e:1"))
    assert now() == (VOTER, LEARNER, ClusterMember(5, ("http://e:1",)))
    membership.change(updating(ClusterMember(1, ("http://z:1",))))
    moved = ClusterMember(1, ("http://z:1",), "a", ("http://a:2",))
    assert now()[0] == moved, "an update is of the peer URLs alone"
    membership.change(updating(ClusterMember(3, ("http://y:1",))))
    membership.change(promoting(3))
    assert now() == (moved, ClusterMember(3, ("http://y:1",)), ClusterMember(5, ("http://e:1",)))
    assert membership.removed == {2, REMOVED}
    membership.change(demoting(moved))
    assert now()[0] == replace(moved, is_learner=True)
    membership.change(promoting(1))
    assert now()[0] == moved


def test_the_last_voter_stays() -> None:
    backend = MemoryBackend()
    save_members(backend, [VOTER, LEARNER])
    membership = Membership(backend, 7)
    assert refusal(membership, demoting(VOTER)) is NOT_A_VOTER
    assert refusal(membership, removing(1)) is NOT_ENOUGH_STARTED
    assert refusal(membership, removing(3)) is None


@pytest.mark.parametrize("seed", range(20))
def test_what_is_admitted_is_possible(seed: int) -> None:
    """The core takes each change that is not refused here, and both know of the same voters."""
    chance = random.Random(seed)
    backend = MemoryBackend()
    save_members(backend, [VOTER, SECOND, LEARNER])
    membership = Membership(backend, 7, 2)
    core = Configuration.from_conf_state(membership.cluster.conf_state())
    makers = (
        lambda each: voter(each, f"http://{each}:1"),
        lambda each: learner(each, f"http://{each}:1"),
        promoting,
        lambda each: demoting(ClusterMember(each, ())),
        removing,
        removing,
        lambda each: updating(ClusterMember(each, (f"http://{each}:2",))),
    )
    for newcomer in range(10, 310):
        there = [member.id for member in membership.cluster.members]
        change = chance.choice(makers)(chance.choice([*there, REMOVED, newcomer]))
        if refusal(membership, change) is None:
            core = changed(core, change)
            membership.change(change)
        assert core.to_conf_state() == membership.cluster.conf_state()


def test_changes_are_etcds_json() -> None:
    assert json.loads(learner(4, "http://d:1").context) == {
        "id": 4,
        "peerURLs": ["http://d:1"],
        "isLearner": True,
        "isPromote": False,
    }
    assert json.loads(promoting(4).context) == {"id": 4, "peerURLs": [], "isPromote": True}
    types = [each.type for each in (voter(4), learner(4), promoting(4), updating(VOTER))]
    assert types == [
        raftpb.ConfChangeAddNode,
        raftpb.ConfChangeAddLearnerNode,
        raftpb.ConfChangeAddNode,
        raftpb.ConfChangeUpdateNode,
    ]
    assert is_demotion(demoting(VOTER))
    assert not any(is_demotion(each) for each in (learner(4), promoting(4), removing(4)))
    assert is_promotion(promoting(4))
    assert not is_promotion(voter(4))
    of_etcd = raftpb.ConfChange(
        type=raftpb.ConfChangeAddNode,
        node_id=4,
        context=b'{"id":4,"peerURLs":null,"isPromote":true}',
    )
    assert is_promotion(of_etcd)
