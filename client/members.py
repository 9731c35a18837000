"""Who is in the cluster, and how that changes.

The safe way to grow a cluster is :func:`add_learner`, start the new member, and :func:`promote`
it once it has caught up: a voter that has nothing yet raises the quorum from its first moment on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ..balancers.api import Need
from ..protos import etcdserverpb as pb
from ..protos import rpcs
from .call import Call
from .errors import InvalidArgument, raise_as_misuse
from .flow import Flow


@dataclass(frozen=True, slots=True)
class Member:
    """One member, as the cluster knows it."""

    id: int
    name: str
    """Empty until it has started for the first time."""
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool

    @classmethod
    def of(cls, member: pb.Member) -> Member:
        return cls(
            id=member.ID,
            name=member.name,
            peer_urls=tuple(member.peerURLs),
            client_urls=tuple(member.clientURLs),
            learner=member.isLearner,
        )


def list_(
    call: Call, *, serializable: bool = False, timeout: float | None = None
) -> Flow[tuple[Member, ...]]:
    """List the members. ``serializable``: as the member that answers knows them, maybe late."""
    request = pb.MemberListRequest(linearizable=not serializable)
    need = Need.ANY_MEMBER if serializable else Need.QUORUM
    reply = yield from call(rpcs.CLUSTER_MEMBER_LIST, request, timeout, need=need)
    return _members_of(reply.members)


MemberLike: TypeAlias = Member | int
"""A member, or its id."""


def add(
    call: Call, peer_urls: Iterable[str] | str, *, timeout: float | None = None
) -> Flow[Member]:
    """Add a member that votes; it is to be started with ``--initial-cluster-state existing``.

    The quorum counts it at once, started or not: of a single member it makes a cluster that
    stands still until the second one runs. ``add_learner`` has no such danger. ``peer_urls``: where
    other members will reach it. Raises Refused (an id or URL is taken, the cluster is not well
    enough) or OutcomeUnknown.
    """
    return _add(call, peer_urls, False, timeout)


def add_learner(
    call: Call, peer_urls: Iterable[str] | str, *, timeout: float | None = None
) -> Flow[Member]:
    """Add a member that receives everything and does not vote; ``promote`` makes it a voter.

    Raises what ``add`` does; etcd takes one learner at a time unless ``--max-learners`` says more.
    """
    return _add(call, peer_urls, True, timeout)


def promote(
    call: Call, member: MemberLike, *, timeout: float | None = None
) -> Flow[tuple[Member, ...]]:
    """Make a learner a voter; returns all members.

    Raises Refused while the learner has not caught up with the leader, MemberNotFound.
    """
    request = pb.MemberPromoteRequest(ID=id_of(member))
    reply = yield from call(rpcs.CLUSTER_MEMBER_PROMOTE, request, timeout)
    return _members_of(reply.members)


def remove(
    call: Call, member: MemberLike, *, timeout: float | None = None
) -> Flow[tuple[Member, ...]]:
    """Remove a member for good; returns those left. Raises MemberNotFound.

    Its id never comes back: the same machine joins again as a new member with an empty directory.
    """
    request = pb.MemberRemoveRequest(ID=id_of(member))
    reply = yield from call(rpcs.CLUSTER_MEMBER_REMOVE, request, timeout)
    return _members_of(reply.members)


def update(
    call: Call,
    member: MemberLike,
    peer_urls: Iterable[str] | str,
    *,
    timeout: float | None = None,
) -> Flow[tuple[Member, ...]]:
    """Change where other members reach one; returns all. Raises MemberNotFound."""
    request = pb.MemberUpdateRequest(ID=id_of(member), peerURLs=_urls(peer_urls))
    reply = yield from call(rpcs.CLUSTER_MEMBER_UPDATE, request, timeout)
    return _members_of(reply.members)


def _add(
    call: Call, peer_urls: Iterable[str] | str, learner: bool, timeout: float | None
) -> Flow[Member]:
    request = pb.MemberAddRequest(peerURLs=_urls(peer_urls), isLearner=learner)
    reply = yield from call(rpcs.CLUSTER_MEMBER_ADD, request, timeout)
    return Member.of(reply.member)


def _urls(given: Iterable[str] | str) -> list[str]:
    urls = [given] if isinstance(given, str) else list(given)
    if not urls:
        raise InvalidArgument("peer_urls: at least one URL is needed")
    return urls


def id_of(member: MemberLike) -> int:
    """The id, which must fit into 64 bits; raises InvalidArgument."""
    member_id = member.id if isinstance(member, Member) else member
    try:
        return pb.MemberRemoveRequest(ID=member_id).ID
    except (TypeError, ValueError) as error:
        raise_as_misuse(error)


def _members_of(members: Iterable[pb.Member]) -> tuple[Member, ...]:
    return tuple(map(Member.of, members))
