"""The Lease service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from ...protos import rpcs
from ...protos.errors import LEASE_NOT_FOUND, Refused
from ...protos.etcdserverpb import (
    InternalRaftRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from ..apply.quota import LEASE_COST_BYTES
from ..member import Member
from .call import Call, Method


class Lease:
    """Granting, renewing and looking at leases."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the service."""
        return (
            Method(rpcs.LEASE_LEASE_GRANT, self.LeaseGrant),
            Method(rpcs.LEASE_LEASE_REVOKE, self.LeaseRevoke),
            Method(rpcs.LEASE_LEASE_KEEP_ALIVE, self.LeaseKeepAlive),
            Method(rpcs.LEASE_LEASE_TIME_TO_LIVE, self.LeaseTimeToLive),
            Method(rpcs.LEASE_LEASE_LEASES, self.LeaseLeases),
        )

    async def LeaseGrant(self, request: LeaseGrantRequest, call: Call) -> LeaseGrantResponse:
        """Create a lease, under the ID asked for or a new one."""
        if not self._member.applier.quota.has_room_for(LEASE_COST_BYTES):
            await self._member.refuse_for_space()
        entry = InternalRaftRequest(lease_grant=request)
        while entry.lease_grant.ID == 0:
            entry.lease_grant.ID = self._member.ids.next_lease()
        reply = cast("LeaseGrantResponse", await self._member.propose(entry))
        self._member.fill_header(reply.header)
        return reply

    async def LeaseRevoke(self, request: LeaseRevokeRequest, call: Call) -> LeaseRevokeResponse:
        """Delete a lease and its keys."""
        entry = InternalRaftRequest(lease_revoke=request)
        reply = cast("LeaseRevokeResponse", await self._member.propose(entry))
        self._member.fill_header(reply.header)
        return reply

    async def LeaseKeepAlive(
        self, requests: AsyncIterator[LeaseKeepAliveRequest], call: Call
    ) -> AsyncIterator[LeaseKeepAliveResponse]:
        """Renew the lease each message names; a lease that is gone is answered with TTL 0.

        The header is filled before the lease is renewed, so that its revision is not behind it.
        """
        async for request in requests:
            reply = LeaseKeepAliveResponse(ID=request.ID)
            self._member.fill_header(reply.header)
            try:
                reply.TTL = await self._member.renew_lease(request.ID)
            except Refused as refused:
                if refused.refusal is not LEASE_NOT_FOUND:
                    raise
            yield reply

    async def LeaseTimeToLive(
        self, request: LeaseTimeToLiveRequest, call: Call
    ) -> LeaseTimeToLiveResponse:
        """Tell how long a lease has left; one that is gone is answered with TTL -1."""
        reply = await self._member.lease_duties.time_to_live(request)
        self._member.fill_header(reply.header)
        return reply

    async def LeaseLeases(self, request: LeaseLeasesRequest, call: Call) -> LeaseLeasesResponse:
        """List the leases, the one that expires first at the front."""
        leases = [LeaseStatus(ID=lease.id) for lease in self._member.lessor.leases()]
        reply = LeaseLeasesResponse(leases=leases)
        self._member.fill_header(reply.header)
        return reply
