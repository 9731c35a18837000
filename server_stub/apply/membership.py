"""Who is in the cluster and which version it runs at, as the log says."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...protos import raftpb
from ...protos.errors import (
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NOT_A_LEARNER,
    NOT_ENOUGH_STARTED,
    PEER_URLS_EXIST,
    TOO_MANY_LEARNERS,
    Code,
    Refusal,
    Refused,
)
from ...protos.membershippb import ClusterMemberAttrSetRequest
from ..cluster import (
    CLUSTER_VERSION_KEY,
    Cluster,
    ClusterMember,
    is_demotion,
    is_promotion,
    load_members,
    remove_member,
    removed_members,
    save_member,
)
from ..mvcc.backend import Backend, Bucket

NOT_A_VOTER: Final = Refusal(
    Code.FAILED_PRECONDITION, "etcdserver: can only demote a voter that is not the last one"
)
"""Not of etcd, which demotes nobody; no client is ever told."""
MAX_LEARNERS: Final = 1
"""What ``--max-learners`` is when nobody says otherwise."""
_ADDITIONS: Final = (raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode)


class Membership:
    """The cluster as far as this member has applied the log; kept in the backend.

    Invariant: no id is both of a member and removed; no peer URL belongs to two members.
    """

    def __init__(self, backend: Backend, cluster_id: int, max_learners: int = MAX_LEARNERS) -> None:
        """``max_learners`` must be the same on every member: it decides what is applied."""
        self._backend = backend
        self._max_learners = max_learners
        self.cluster = Cluster(cluster_id, ())
        self.removed: frozenset[int] = frozenset()
        """Ids of members that were removed. They never come back."""
        self.version: str = ""
        """The cluster's version, as 3.7.0; empty until the first leader has set it."""
        self.reload()

    def reload(self) -> None:
        """Take over what the backend has, at the start and after a snapshot was installed."""
        self.cluster = Cluster(self.cluster.id, load_members(self._backend))
        self.removed = removed_members(self._backend)
        stored = self._backend.get(Bucket.CLUSTER, CLUSTER_VERSION_KEY)
        self.version = stored.decode() if stored else ""

    def validate(self, change: raftpb.ConfChange) -> None:
        """Raise ``Refused`` for a change that the cluster as it is does not admit.

        The rules and their order are etcd's, but for one: the last voter stays. There is no
        cluster without one; etcd's members die of such an entry, again at every start. Every
        member judges alike: it goes by nothing but what the log has said before.
        """
        if change.node_id in self.removed:
            raise Refused(MEMBER_NOT_FOUND)
        if change.type in _ADDITIONS and not (is_promotion(change) or is_demotion(change)):
            self._validate_addition(change)
            return
        member = self.cluster.member(change.node_id)
        if member is None:
            raise Refused(MEMBER_NOT_FOUND)
        if change.type == raftpb.ConfChangeRemoveNode:
            if self._is_last_voter(member):
                raise Refused(NOT_ENOUGH_STARTED)
        elif change.type == raftpb.ConfChangeUpdateNode:
            self._refuse_known_urls(ClusterMember.from_json(change.context))
        elif change.type == raftpb.ConfChangeAddNode and not member.is_learner:
            raise Refused(NOT_A_LEARNER)
        elif change.type == raftpb.ConfChangeAddLearnerNode and (
            member.is_learner or self._is_last_voter(member)
        ):
            raise Refused(NOT_A_VOTER)

    def _is_last_voter(self, member: ClusterMember) -> bool:
        return [each for each in self.cluster.members if not each.is_learner] == [member]

    def _validate_addition(self, change: raftpb.ConfChange) -> None:
        if self.cluster.member(change.node_id) is not None:
            raise Refused(MEMBER_EXISTS)
        added = ClusterMember.from_json(change.context)
        self._refuse_known_urls(added)
        learners = sum(member.is_learner for member in self.cluster.members)
        if added.is_learner and learners >= self._max_learners:
            raise Refused(TOO_MANY_LEARNERS)

    def _refuse_known_urls(self, member: ClusterMember) -> None:
        """Raise if another member has one of this one's peer URLs."""
        for other in self.cluster.members:
            if other.id != member.id and not set(other.peer_urls).isdisjoint(member.peer_urls):
                raise Refused(PEER_URLS_EXIST)

    def change(self, change: raftpb.ConfChange) -> None:
        """Carry out a change that :meth:`validate` admits."""
        member = self.cluster.member(change.node_id)
        if change.type == raftpb.ConfChangeRemoveNode:
            self._remove(change.node_id)
        elif member is None:
            self._store(ClusterMember.from_json(change.context))
        elif change.type == raftpb.ConfChangeUpdateNode:
            told = ClusterMember.from_json(change.context)
            self._store(replace(member, peer_urls=told.peer_urls))
        else:
            self._store(replace(member, is_learner=is_demotion(change)))

    def set_attributes(self, request: ClusterMemberAttrSetRequest) -> None:
        """Note the name and the client URLs that a member tells when it starts."""
        member = self.cluster.member(request.member_ID)
        if member is not None:
            told = request.member_attributes
            self._store(replace(member, name=told.name, client_urls=tuple(told.client_urls)))

    def set_version(self, version: str) -> None:
        """Note the version that the leader decided on."""
        self.version = version
        self._backend.put(Bucket.CLUSTER, CLUSTER_VERSION_KEY, version.encode())

    def _store(self, member: ClusterMember) -> None:
        self.cluster = self.cluster.with_member(member)
        save_member(self._backend, member)

    def _remove(self, removed: int) -> None:
        self.cluster = self.cluster.without_member(removed)
        self.removed |= {removed}
        remove_member(self._backend, removed)
