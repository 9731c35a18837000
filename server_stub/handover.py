"""Giving the lead to another member, because somebody wants that or because this one stops."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from ..protos.errors import (
    BAD_LEADER_TRANSFEREE,
    LEADER_TRANSFER_TIMEOUT,
    NOT_LEADER,
    Refused,
)

if TYPE_CHECKING:
    from .member import Member

log = logging.getLogger(__name__)

LINGERING_SECONDS: Final = 0.03
"""How long a former leader still hands on proposals of those that have not heard of the new one."""
_POLL_SECONDS: Final = 0.005


async def hand_over(member: Member, target: int, timeout_seconds: float) -> None:
    """Have another voter lead; return when `member` knows that it does.

    Raises ``Refused``: BAD_LEADER_TRANSFEREE, NOT_LEADER, LEADER_TRANSFER_TIMEOUT.
    """
    known = member.applier.membership.cluster.member(target)
    if known is None or known.is_learner:
        raise Refused(BAD_LEADER_TRANSFEREE)
    if not member.is_leader:
        raise Refused(NOT_LEADER)
    member.core.transfer_leader(target)
    member.consensus.wake()
    deadline = member.clock() + timeout_seconds
    while member.core.leader != target:
        if member.clock() >= deadline:
            raise Refused(LEADER_TRANSFER_TIMEOUT)
        await asyncio.sleep(_POLL_SECONDS)


async def hand_over_before_stop(member: Member) -> None:
    """Spare the others an election: have the voter lead that was connected the longest, as etcd.

    Takes an election timeout at most, and nothing where nobody could take over.
    """
    if not member.is_leader:
        return
    others = [each.id for each in member.other_voters()]
    since = {voter: member.peers.connected_since(voter) for voter in others}
    connected = [(at, voter) for voter, at in since.items() if at is not None]
    if not connected:
        return
    _, target = min(connected)
    handing = asyncio.ensure_future(
        hand_over(member, target, member.settings.election_timeout_ms / 1000)
    )
    while not handing.done() and member.peers.connected_since(target) is not None:
        await asyncio.wait({handing}, timeout=_POLL_SECONDS)
    handing.cancel()  # if not done: whoever was to lead is stopping, too
    await asyncio.wait({handing})
    if handing.cancelled() or handing.exception() is not None:
        log.warning("could not hand the lead over", extra={"to": f"{target:x}"})
    else:
        log.info("handed the lead over", extra={"to": f"{target:x}"})
        await asyncio.sleep(LINGERING_SECONDS)
