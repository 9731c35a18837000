"""What becomes of leases in a cluster: renewed and looked up at the leader, revoked by it.

Why a lease cannot be lost by a change of leader. A member that was the leader, and does not know
yet that it is not, may believe that a lease has run out which its successor has renewed since. Its
revocation is appended to its own log, in the turn of the loop in which it was still the leader
(:meth:`LeaseDuties._revoke`), and never forwarded: so it carries the old term. Either the successor
was elected with it, and then it is applied before the successor takes office and renews anything;
or without it, and then it is overwritten.

Why a client is not told of a renewal that does not hold. A successor gives every lease an election
timeout on top of its span when it takes office. A leader renews only within an election timeout
after it asked a question by whose answer it was proved to be one, and nobody succeeds it before
that question (:class:`.leadership.Proof`). And where a successor would go on with what a checkpoint
says was left, the log clears that before the client is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from ..protos.errors import (
    LEASE_NOT_FOUND,
    TIMEOUT,
    TIMEOUT_APPLIED_INDEX,
    Refused,
)
from ..protos.etcdserverpb import (
    InternalRaftRequest,
    LeaseCheckpoint,
    LeaseCheckpointRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from .answers import Answers
from .leadership import Leadership
from .lease.lessor import Lessor
from .peers.receiver import PeerUnreachable

log = logging.getLogger(__name__)

RENEW: Final = "lease-renew"
TIME_TO_LIVE: Final = "lease-time-to-live"
"""Kinds of questions between members, with the messages of the public API."""
EXPIRY_SCAN_SECONDS: Final = 0.5
CONCURRENT_REVOKES: Final = 16
CATCH_UP_SECONDS: Final = 1.0
"""How long a leader waits for its applier before it says that a lease is not there."""
_ASK_AGAIN_SECONDS: Final = 0.05
_CATCH_UP_POLL_SECONDS: Final = 0.01
EXPIRED_OR_REVOKED: Final = -1
"""The time to live of a lease that is gone."""

Ask = Callable[[int, str, bytes, float], Awaitable[bytes]]
"""Asks another member: (its id, kind, request, timeout in seconds) -> reply."""
Propose = Callable[[InternalRaftRequest], Awaitable[Any]]


class Core(Protocol):
    """What leases need to see of consensus."""

    @property
    def commit_index(self) -> int: ...


class Applied(Protocol):
    """What leases need to see of the applier."""

    @property
    def index(self) -> int:
        """Of the last entry that was applied."""
        raise NotImplementedError


class LeaseDuties:
    """The leases of a cluster, as one member serves and keeps them; belongs to one event loop."""

    def __init__(
        self,
        lessor: Lessor,
        leadership: Leadership,
        core: Core,
        applier: Applied,
        clock: Callable[[], float],
        *,
        ask: Ask,
        propose: Propose,
        timeout_seconds: float,
    ) -> None:
        """``timeout_seconds``: how long a request looks for a leader that answers it."""
        self._lessor = lessor
        self._leadership = leadership
        self._tenure = leadership.tenure
        self._core = core
        self._applier = applier
        self._clock = clock
        self._ask = ask
        self._propose = propose
        self._timeout_seconds = timeout_seconds
        self._until_gone: dict[int, asyncio.Future[None]] = {}

    def answer_others(self, answers: Answers) -> None:
        """Answer the members that are asked for what only the leader knows."""
        answers.add(RENEW, self._answer_renew)
        answers.add(TIME_TO_LIVE, self._answer_time_to_live)

    def applied(self) -> None:
        """See who waits for a lease to be gone; to be called after each batch of entries."""
        if self._until_gone:
            lessor, now = self._lessor, self._clock()
            for lease_id in list(self._until_gone):
                if not (lessor.exists(lease_id) and lessor.has_expired(lease_id, now)):
                    self._until_gone.pop(lease_id).set_result(None)

    # What clients ask of any member

    async def renew(self, lease_id: int) -> int:
        """Renew a lease, here or at the leader; return its TTL in seconds.

        Raises ``Refused``: LEASE_NOT_FOUND, LEADER_CHANGED, NO_LEADER, TIMEOUT,
        TIMEOUT_APPLIED_INDEX; and as :meth:`.proposals.Proposals.propose` does, for a lease with a
        checkpoint.
        """
        if self._tenure.is_in_office:
            return await self._renew_here(lease_id)
        request = LeaseKeepAliveRequest(ID=lease_id).SerializeToString()
        payload = await self._at_the_leader(RENEW, request)
        if payload is None:
            return await self._renew_here(lease_id)
        ttl_seconds: int = LeaseKeepAliveResponse.FromString(payload).TTL
        if ttl_seconds <= 0:
            raise Refused(LEASE_NOT_FOUND)
        return ttl_seconds

    async def time_to_live(self, request: LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse:
        """Tell how long a lease has left, as the leader sees it; -1 if it is gone.

        The header of the reply is empty. Raises ``Refused``: LEADER_CHANGED, NO_LEADER, TIMEOUT,
        TIMEOUT_APPLIED_INDEX.
        """
        if self._tenure.is_in_office:
            return await self._time_to_live_here(request)
        payload = await self._at_the_leader(TIME_TO_LIVE, request.SerializeToString())
        if payload is None:
            return await self._time_to_live_here(request)
        return LeaseTimeToLiveResponse.FromString(payload)

    async def _at_the_leader(self, kind: str, payload: bytes) -> bytes | None:
        """Return what the leader answers; None: this member has taken office meanwhile."""
        deadline = self._clock() + self._timeout_seconds
        while not self._tenure.is_in_office:
            leader = await self._leadership.some_leader(deadline)
            left_seconds = deadline - self._clock()
            if left_seconds <= 0:
                raise Refused(TIMEOUT)
            if not self._tenure.leads:
                try:
                    return await self._ask(leader, kind, payload, left_seconds)
                except (PeerUnreachable, Refused) as error:  # a leader will be found, or time ends
                    log.debug(
                        "asked the leader in vain", extra={"kind": kind, "reason": str(error)}
                    )
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return None

    # What the leader answers

    async def _renew_here(self, lease_id: int) -> int:
        """Renew a lease.

        One that has run out is answered for only once it is really gone, so that whoever hears of
        its end finds its keys deleted. One with a checkpoint is renewed once the log has cleared
        that, so that the next leader knows of the renewal.
        """
        lessor = self._lessor
        await self._leadership.prove()
        if not lessor.exists(lease_id):
            await self._catch_up()
            await self._leadership.prove()
        while lessor.exists(lease_id):
            if lessor.has_expired(lease_id, self._clock()):
                gone = self._until_gone.setdefault(lease_id, asyncio.Future())
                await asyncio.shield(gone)
            elif lessor.must_clear_checkpoint(lease_id, self._clock()):
                await self._propose(_checkpoint_request([(lease_id, 0)]))
            else:
                break
            await self._leadership.prove()  # much may have happened meanwhile
        return lessor.renew(lease_id, self._clock())

    async def _time_to_live_here(self, request: LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse:
        await self._leadership.prove()
        await self._catch_up()
        lessor, reply = self._lessor, LeaseTimeToLiveResponse(ID=request.ID)
        if not lessor.exists(request.ID):
            reply.TTL = EXPIRED_OR_REVOKED
            return reply
        lease = lessor.lease(request.ID)
        reply.TTL = lessor.time_to_live(request.ID, self._clock())
        reply.grantedTTL = lease.ttl_seconds
        if request.keys:
            reply.keys.extend(sorted(lease.keys))
        return reply

    async def _answer_renew(self, sender: int, payload: bytes) -> bytes:
        request = LeaseKeepAliveRequest.FromString(payload)
        reply = LeaseKeepAliveResponse(ID=request.ID)
        try:
            reply.TTL = await self._renew_here(request.ID)
        except Refused as refused:
            if refused.refusal is not LEASE_NOT_FOUND:
                raise
        return reply.SerializeToString()

    async def _answer_time_to_live(self, sender: int, payload: bytes) -> bytes:
        reply = await self._time_to_live_here(LeaseTimeToLiveRequest.FromString(payload))
        return reply.SerializeToString()

    async def _catch_up(self) -> None:
        """Apply what is committed by now: a lease that was granted to somebody must be found."""
        wanted, deadline = self._core.commit_index, self._clock() + CATCH_UP_SECONDS
        while self._applier.index < wanted:
            if self._clock() >= deadline:
                raise Refused(TIMEOUT_APPLIED_INDEX)
            await asyncio.sleep(_CATCH_UP_POLL_SECONDS)

    # What the leader does by itself

    async def run(self) -> None:
        """Revoke what has run out, and checkpoint what has long to go, while this member leads."""
        while True:
            await asyncio.sleep(EXPIRY_SCAN_SECONDS)
            self.applied()  # a demotion ends waits too
            if not (self._tenure.is_in_office and self._lessor.has_due(self._clock())):
                continue
            try:
                await self._leadership.prove()
            except Refused as refused:
                log.warning("did not look for expired leases", extra={"reason": str(refused)})
                continue
            await self._revoke_expired()
            checkpoints = self._lessor.due_checkpoints(self._clock())
            if checkpoints:
                await self._checkpoint_due(checkpoints)

    async def _revoke_expired(self) -> None:
        expired = self._lessor.expired(self._clock())
        if expired:
            slots = asyncio.Semaphore(CONCURRENT_REVOKES)
            await asyncio.gather(*(self._revoke(lease_id, slots) for lease_id in expired))

    async def _revoke(self, lease_id: int, slots: asyncio.Semaphore) -> None:
        """Revoke a lease, unless leadership or the lease came to an end while waiting."""
        async with slots:
            lessor = self._lessor
            self._leadership.look()
            if not (lessor.exists(lease_id) and lessor.has_expired(lease_id, self._clock())):
                return
            request = InternalRaftRequest(lease_revoke=LeaseRevokeRequest(ID=lease_id))
            try:
                await self._propose(request)
            except Refused as refused:  # the lessor names it again if it is still there
                if refused.refusal is not LEASE_NOT_FOUND:
                    log.warning(
                        "failed to revoke an expired lease",
                        extra={"lease_id": f"{lease_id:016x}", "reason": str(refused)},
                    )

    async def _checkpoint_due(self, checkpoints: list[tuple[int, int]]) -> None:
        """Tell the followers how much is left of some leases, in case one of them leads next."""
        try:
            await self._propose(_checkpoint_request(checkpoints))
        except Refused as refused:  # until it is done, they would let these leases last longer
            log.warning("failed to checkpoint leases", extra={"reason": str(refused)})
            lease_ids = [lease_id for lease_id, _ in checkpoints]
            self._lessor.checkpoints_failed(lease_ids, self._clock())


def _checkpoint_request(checkpoints: list[tuple[int, int]]) -> InternalRaftRequest:
    """Say how many seconds are left of leases; 0: the whole TTL."""
    request = LeaseCheckpointRequest(
        checkpoints=[
            LeaseCheckpoint(ID=lease_id, remaining_TTL=remaining_seconds)
            for lease_id, remaining_seconds in checkpoints
        ]
    )
    return InternalRaftRequest(lease_checkpoint=request)
