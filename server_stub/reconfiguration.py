"""Carrying out changes of the membership: admit, propose, wait until they are applied.

Any member can be asked. Only the leader knows how far a learner has come, so a promotion is
handed on to it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from ..protos import raftpb
from ..protos.errors import (
    BAD_MEMBER_URLS,
    MEMBER_NOT_FOUND,
    NO_LEADER,
    NOT_LEADER,
    TIMEOUT,
    Refused,
)
from ..protos.etcdserverpb import MemberPromoteResponse
from .admission import (
    View,
    check_addition,
    check_promotion,
    check_readiness,
    check_removal,
)
from .answers import Answers
from .apply.membership import Membership
from .cluster import ClusterMember, adding, demoting, member_id, promoting, removing, updating
from .config import Settings
from .config.values import url
from .peers.receiver import PeerUnreachable

PROMOTE: Final = "promote"
"""The kind of question by which a member hands a promotion on to the leader."""
_ASK_AGAIN_SECONDS: Final = 0.05

Members = Sequence[ClusterMember]
Ask = Callable[[int, str, bytes, float], Awaitable[bytes]]
"""Asks another member: (its id, kind, request, timeout in seconds) -> reply."""
ProposeChange = Callable[[raftpb.ConfChange, Callable[[], None]], Awaitable[object]]
"""Has a change carried out; returns when this member has applied it. Raises ``Refused``.

So does what it is given to ask whether the change may be proposed, now and after every wait.
"""
Check = Callable[[View], None]
"""What admits a change, or raises ``Refused``."""


class Known(Protocol):
    """What the leader knows of one member's log."""

    @property
    def match(self) -> int: ...


class Core(Protocol):
    """What changes of the membership need to see of consensus."""

    @property
    def leader(self) -> int: ...
    @property
    def progress(self) -> Mapping[int, Known]:
        """Of every member, at the leader only."""
        raise NotImplementedError


class Reconfiguration:
    """The changes of the membership that one member is asked for."""

    def __init__(
        self,
        own_id: int,
        membership: Membership,
        core: Core,
        settings: Settings,
        clock: Callable[[], float],
        *,
        ask: Ask,
        propose_change: ProposeChange,
        connected_since: Callable[[int], float | None],
        answers: Answers,
    ) -> None:
        """``connected_since`` tells by ``clock``; ``answers`` learns the kind ``PROMOTE``."""
        self._own_id = own_id
        self._membership = membership
        self._core = core
        self._settings = settings
        self._clock = clock
        self._ask = ask
        self._propose_change = propose_change
        self._connected_since = connected_since
        self.promoted = 0
        """Learners that this member had promoted, for metrics."""
        self.not_promoted: Counter[str] = Counter()
        """Promotions that were refused here, by the text of the refusal."""
        answers.add(PROMOTE, self._answer_promotion)

    async def add(self, peer_urls: Sequence[str], *, is_learner: bool) -> ClusterMember:
        """Add a member that will be found at ``peer_urls``; return it with its new id.

        With ``--learner-by-default`` it is a learner even if a voter was asked for. Raises
        ``Refused``: BAD_MEMBER_URLS, what ``check_addition`` and what applying raises.
        """
        is_learner = is_learner or self._settings.learner_by_default
        urls = _checked(peer_urls)
        added = ClusterMember(self._new_id(urls), urls, is_learner=is_learner)
        await self._carry_out(adding(added), partial(check_addition, is_learner=is_learner))
        return added

    async def remove(self, removed: int) -> None:
        """Remove a member for good. Raises ``Refused``."""
        await self._carry_out(removing(removed), partial(check_removal, removed=removed))

    async def update(self, updated: int, peer_urls: Sequence[str]) -> None:
        """Change a member's peer URLs. Raises ``Refused``."""
        known = self._membership.cluster.member(updated)
        urls = _checked(peer_urls) if known is not None else tuple(peer_urls)
        await self._carry_out(updating(ClusterMember(updated, urls)))

    async def promote(self, learner: int) -> Members:
        """Make a learner a voter; return the members as of then.

        Raises ``Refused``: LEARNER_NOT_READY, NOT_ENOUGH_STARTED, NO_LEADER, TIMEOUT, and
        what applying raises.
        """
        deadline = self._clock() + self._settings.request_timeout_seconds
        while (left_seconds := deadline - self._clock()) > 0:
            try:
                if self._leads:
                    return await self.promote_as_leader(learner)
                if self._core.leader:
                    return await self._hand_on(learner, left_seconds)
            except PeerUnreachable:
                pass
            except Refused as refused:
                if refused.refusal.text != NOT_LEADER.text:
                    raise
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        raise Refused(TIMEOUT if self._core.leader else NO_LEADER)

    async def promote_as_leader(self, learner: int) -> Members:
        """Make a learner a voter if this member leads. Raises ``Refused``, NOT_LEADER too."""
        if not self._leads:
            raise Refused(NOT_LEADER)
        try:
            await self._promote(learner)
        except Refused as refused:
            self.not_promoted[str(refused)] += 1
            raise
        self.promoted += 1
        return self._membership.cluster.members

    async def _promote(self, learner: int) -> None:
        progress = self._core.progress
        known = progress.get(learner)
        check_readiness(known.match if known is not None else None, progress[self._own_id].match)
        await self._carry_out(promoting(learner), check_promotion)

    async def demote_as_leader(self, voter: int) -> None:
        """Make a voter a learner if this member leads. Raises ``Refused``, NOT_LEADER too."""
        member = self._membership.cluster.member(voter)
        if not self._leads:
            raise Refused(NOT_LEADER)
        if member is None:
            raise Refused(MEMBER_NOT_FOUND)
        await self._carry_out(demoting(member))

    async def _carry_out(self, change: raftpb.ConfChange, check: Check = lambda _: None) -> None:
        """Have a change carried out that ``--strict-reconfig-check`` admits.

        Of changes that are asked for together, each must be one that the cluster can afford after
        those before it.
        """

        def admit() -> None:
            if self._settings.strict_reconfig_check:
                check(self.view())

        await self._propose_change(change, admit)

    async def _hand_on(self, learner: int, timeout_seconds: float) -> Members:
        payload = learner.to_bytes(8, "big")
        answer = await self._ask(self._core.leader, PROMOTE, payload, timeout_seconds)
        reply = MemberPromoteResponse.FromString(answer)
        return [ClusterMember.from_proto(each) for each in reply.members]

    async def _answer_promotion(self, _: int, payload: bytes) -> bytes:
        members = await self.promote_as_leader(int.from_bytes(payload, "big"))
        reply = MemberPromoteResponse(members=[member.to_proto() for member in members])
        return reply.SerializeToString()

    def view(self) -> View:
        """The cluster as this member sees it now."""
        members = self._membership.cluster.members
        return View(self._own_id, members, self._connected_since, self._clock())

    @property
    def _leads(self) -> bool:
        return self._core.leader == self._own_id

    def _new_id(self, urls: tuple[str, ...]) -> int:
        """Compute an id as etcd does, but never that of a member removed within this second."""
        seconds = int(time.time())
        while (new := member_id(urls, "", seconds)) in self._membership.removed:
            seconds += 1
        return new


def _checked(peer_urls: Sequence[str]) -> tuple[str, ...]:
    """Put URLs in order; raises ``Refused(BAD_MEMBER_URLS)`` if one is none, or there is none."""
    stripped = sorted(text.strip() for text in peer_urls)
    try:
        for text in stripped:
            url(text)
    except ValueError:
        raise Refused(BAD_MEMBER_URLS) from None
    if not stripped:
        raise Refused(BAD_MEMBER_URLS)
    return tuple(stripped)
