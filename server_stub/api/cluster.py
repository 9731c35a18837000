"""The Cluster service."""

from __future__ import annotations

from ...protos import rpcs
from ...protos.etcdserverpb import (
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
)
from ..member import Member
from .call import Call, Method

_Reply = (
    MemberAddResponse
    | MemberListResponse
    | MemberPromoteResponse
    | MemberRemoveResponse
    | MemberUpdateResponse
)


class Cluster:
    """Who the members are, and changes of that.

    Headers have no revision: the members are not in the store. What is refused is refused by
    :class:`..reconfiguration.Reconfiguration`.
    """

    def __init__(self, member: Member) -> None:
        self._member = member

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the service."""
        return (
            Method(rpcs.CLUSTER_MEMBER_LIST, self.MemberList),
            Method(rpcs.CLUSTER_MEMBER_ADD, self.MemberAdd),
            Method(rpcs.CLUSTER_MEMBER_REMOVE, self.MemberRemove),
            Method(rpcs.CLUSTER_MEMBER_UPDATE, self.MemberUpdate),
            Method(rpcs.CLUSTER_MEMBER_PROMOTE, self.MemberPromote),
        )

    async def MemberList(self, request: MemberListRequest, call: Call) -> MemberListResponse:
        """List the members."""
        if request.linearizable:
            await self._member.read_barrier()
        reply = MemberListResponse()
        self._fill(reply)
        return reply

    async def MemberAdd(self, request: MemberAddRequest, call: Call) -> MemberAddResponse:
        """Add a voter or a learner."""
        added = await self._member.reconfiguration.add(
            request.peerURLs, is_learner=request.isLearner
        )
        reply = MemberAddResponse(member=added.to_proto())
        self._fill(reply)
        return reply

    async def MemberRemove(self, request: MemberRemoveRequest, call: Call) -> MemberRemoveResponse:
        """Remove a member."""
        await self._member.reconfiguration.remove(request.ID)
        reply = MemberRemoveResponse()
        self._fill(reply)
        return reply

    async def MemberUpdate(self, request: MemberUpdateRequest, call: Call) -> MemberUpdateResponse:
        """Change the peer URLs of a member."""
        await self._member.reconfiguration.update(request.ID, request.peerURLs)
        reply = MemberUpdateResponse()
        self._fill(reply)
        return reply

    async def MemberPromote(
        self, request: MemberPromoteRequest, call: Call
    ) -> MemberPromoteResponse:
        """Make a learner a voter; the members are as the leader knows them."""
        members = await self._member.reconfiguration.promote(request.ID)
        reply = MemberPromoteResponse(members=[member.to_proto() for member in members])
        self._fill_header(reply)
        return reply

    def _fill(self, reply: _Reply) -> None:
        """Put the header and the members into a reply."""
        members = self._member.applier.membership.cluster.members
        reply.members.extend(member.to_proto() for member in members)
        self._fill_header(reply)

    def _fill_header(self, reply: _Reply) -> None:
        self._member.fill_header(reply.header)
        reply.header.revision = 0
