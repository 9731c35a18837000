"""Who is in the cluster: ids as etcd computes them, the members as etcd stores them.

Ids are computed once, when a cluster is made or a member is added; afterwards they are what was
stored, whatever becomes of the URLs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ..protos import etcdserverpb, raftpb
from .mvcc.backend import Backend, Bucket

CLUSTER_VERSION_KEY = b"clusterVersion"
FOUNDING_TERM: Final = 1
"""The term of what a cluster starts with; the first election makes it more."""
_REMOVED = b"removed"
_IS_DEMOTION = "isDemotion"


def member_id(peer_urls: Iterable[str], token: str, added_at_seconds: int | None = None) -> int:
    """Compute the id of a member.

    ``added_at_seconds`` (since the epoch) is for a member added to a running cluster; those that
    a cluster starts with have none, so that all of them compute the same ids.
    """
    seed = "".join(sorted(peer_urls)) + token
    if added_at_seconds is not None:
        seed += str(added_at_seconds)
    return int.from_bytes(hashlib.sha1(seed.encode(), usedforsecurity=False).digest()[:8], "big")


def cluster_id(member_ids: Iterable[int]) -> int:
    """Compute the id of a cluster from those of the members it starts with."""
    seed = b"".join(each.to_bytes(8, "big") for each in sorted(member_ids))
    return int.from_bytes(hashlib.sha1(seed, usedforsecurity=False).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One member. One that never started has no name and no client URLs."""

    id: int
    peer_urls: tuple[str, ...]
    name: str = ""
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False

    def to_json(self) -> bytes:
        """Encode as etcd stores a member, and as a membership change carries one."""
        fields: dict[str, object] = {"id": self.id, "peerURLs": list(self.peer_urls)}
        if self.is_learner:
            fields["isLearner"] = True
        if self.name:
            fields["name"] = self.name
        if self.client_urls:
            fields["clientURLs"] = list(self.client_urls)
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, encoded: bytes) -> ClusterMember:
        """Decode what ``to_json`` and etcd write; raises ValueError when it is something else."""
        try:
            fields = json.loads(encoded)
            return cls(
                id=int(fields["id"]),
                peer_urls=tuple(fields.get("peerURLs") or ()),
                name=fields.get("name", ""),
                client_urls=tuple(fields.get("clientURLs") or ()),
                is_learner=bool(fields.get("isLearner", False)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a member: {encoded[:100]!r}") from error

    def to_proto(self) -> etcdserverpb.Member:
        """The member as the Cluster service answers it."""
        return etcdserverpb.Member(
            ID=self.id,
            name=self.name,
            peerURLs=self.peer_urls,
            clientURLs=self.client_urls,
            isLearner=self.is_learner,
        )

    @classmethod
    def from_proto(cls, member: etcdserverpb.Member) -> ClusterMember:
        """Take over a member as the Cluster service answers it."""
        return cls(
            id=member.ID,
            peer_urls=tuple(member.peerURLs),
            name=member.name,
            client_urls=tuple(member.clientURLs),
            is_learner=member.isLearner,
        )


class Founding(Protocol):
    """What a first start is told about the cluster; the server's ``Settings`` are one."""

    @property
    def name(self) -> str: ...
    @property
    def initial_advertise_peer_urls(self) -> Sequence[str]: ...
    @property
    def initial_cluster(self) -> Sequence[tuple[str, Sequence[str]]]: ...
    @property
    def initial_cluster_token(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as one of its members knows it: the members, ordered by id."""

    id: int
    members: tuple[ClusterMember, ...]

    @classmethod
    def initial(cls, founding: Founding) -> Cluster:
        """The cluster that a first start makes; who is to be in it must be the same everywhere.

        Client URLs are not told yet. Without an ``initial_cluster``, this member is alone.
        """
        alone = ((founding.name, founding.initial_advertise_peer_urls),)
        members = []
        for name, urls in founding.initial_cluster or alone:
            peer_urls = tuple(sorted(urls))
            own_id = member_id(peer_urls, founding.initial_cluster_token)
            members.append(ClusterMember(own_id, peer_urls, name))
        members.sort(key=lambda member: member.id)
        return cls(cluster_id(member.id for member in members), tuple(members))

    def named(self, name: str) -> ClusterMember | None:
        """The member of this name, among those a cluster starts with."""
        return next((each for each in self.members if each.name == name), None)

    def member(self, wanted: int) -> ClusterMember | None:
        """The member with this id."""
        return next((each for each in self.members if each.id == wanted), None)

    def with_member(self, member: ClusterMember) -> Cluster:
        """The cluster with ``member`` added, or in the place of the one with its id."""
        others = [each for each in self.members if each.id != member.id]
        return replace(self, members=tuple(sorted([*others, member], key=lambda each: each.id)))

    def without_member(self, removed: int) -> Cluster:
        """The cluster without the member of this id."""
        return replace(self, members=tuple(each for each in self.members if each.id != removed))

    def metadata(self, own_id: int) -> bytes:
        """What stands at the head of the log of the member with ``own_id``."""
        return etcdserverpb.Metadata(NodeID=own_id, ClusterID=self.id).SerializeToString()

    def bootstrap_entries(self) -> list[raftpb.Entry]:
        """The first entries of every member's log: the members join, one by one.

        They are of ``FOUNDING_TERM``, and count as committed from the start.
        """
        changes = (
            raftpb.ConfChange(
                type=raftpb.ConfChangeAddNode, node_id=each.id, context=each.to_json()
            )
            for each in self.members
        )
        return [
            raftpb.Entry(
                Type=raftpb.EntryConfChange,
                Term=FOUNDING_TERM,
                Index=index,
                Data=change.SerializeToString(),
            )
            for index, change in enumerate(changes, start=1)
        ]

    def conf_state(self) -> raftpb.ConfState:
        """Voters and learners."""
        return raftpb.ConfState(
            voters=[each.id for each in self.members if not each.is_learner],
            learners=[each.id for each in self.members if each.is_learner],
        )


# Changes of the membership, as they stand in the log: what they carry is etcd's JSON.


def adding(member: ClusterMember) -> raftpb.ConfChange:
    """The change that adds a member: a learner or a voter, as the member says."""
    kind = raftpb.ConfChangeAddLearnerNode if member.is_learner else raftpb.ConfChangeAddNode
    return raftpb.ConfChange(type=kind, node_id=member.id, context=_context(member, False))


def promoting(learner: int) -> raftpb.ConfChange:
    """The change that makes a learner a voter; it names the member, and tells nothing of it."""
    context = _context(ClusterMember(learner, ()), True)
    return raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=learner, context=context)


def demoting(voter: ClusterMember) -> raftpb.ConfChange:
    """The change that makes a voter a learner. etcd has none; ours, of a kind that it would refuse.

    It has the type of one that adds a learner, as a promotion has that of one that adds a voter.
    """
    learner = replace(voter, is_learner=True)
    fields = {**json.loads(learner.to_json()), "isPromote": False, _IS_DEMOTION: True}
    return raftpb.ConfChange(
        type=raftpb.ConfChangeAddLearnerNode,
        node_id=voter.id,
        context=json.dumps(fields, separators=(",", ":")).encode(),
    )


def updating(member: ClusterMember) -> raftpb.ConfChange:
    """The change of a member's peer URLs."""
    return raftpb.ConfChange(
        type=raftpb.ConfChangeUpdateNode, node_id=member.id, context=member.to_json()
    )


def removing(removed: int) -> raftpb.ConfChange:
    """The change that removes a member for good."""
    return raftpb.ConfChange(type=raftpb.ConfChangeRemoveNode, node_id=removed)


def is_promotion(change: raftpb.ConfChange) -> bool:
    """Whether a change makes a learner a voter; it has the type of one that adds a voter."""
    if change.type != raftpb.ConfChangeAddNode:
        return False
    return json.loads(change.context).get("isPromote") is True


def is_demotion(change: raftpb.ConfChange) -> bool:
    """Whether a change makes a voter a learner."""
    if change.type != raftpb.ConfChangeAddLearnerNode:
        return False
    return json.loads(change.context).get(_IS_DEMOTION) is True


def _context(member: ClusterMember, is_promotion: bool) -> bytes:
    fields = {**json.loads(member.to_json()), "isPromote": is_promotion}
    return json.dumps(fields, separators=(",", ":")).encode()


# The members in the store: one key a member, the id in hex.


def load_members(backend: Backend) -> tuple[ClusterMember, ...]:
    """The members in the store, ordered by id; raises ValueError on what is not a member."""
    stored = backend.range(Bucket.MEMBERS, b"", None)
    members = (ClusterMember.from_json(value) for _, value in stored)
    return tuple(sorted(members, key=lambda member: member.id))


def removed_members(backend: Backend) -> frozenset[int]:
    """The ids of members that were removed; they never come back."""
    stored = backend.range(Bucket.MEMBERS_REMOVED, b"", None)
    return frozenset(int(key, 16) for key, _ in stored)


def save_member(backend: Backend, member: ClusterMember) -> None:
    """Store a member, new or changed, with the batch that is open."""
    backend.put(Bucket.MEMBERS, b"%x" % member.id, member.to_json())


def remove_member(backend: Backend, removed: int) -> None:
    """Take a member out of the store, and remember that it was removed."""
    backend.delete(Bucket.MEMBERS, b"%x" % removed)
    backend.put(Bucket.MEMBERS_REMOVED, b"%x" % removed, _REMOVED)


def save_members(backend: Backend, members: Sequence[ClusterMember]) -> None:
    """Store every member of a new cluster."""
    for member in members:
        save_member(backend, member)
