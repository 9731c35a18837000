"""How a member begins to take part in its cluster: it is elected soon, and tells who it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from ..protos import membershippb
from ..protos.errors import STOPPED, Refused
from ..protos.etcdserverpb import InternalRaftRequest
from .raft.messages import NOBODY
from .version import CLUSTER_VERSION

if TYPE_CHECKING:
    from .member import Member

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

RETRY_SECONDS: Final = 0.1
"""Between two tries to tell who this is; a member that is behind is refused at once."""
VERSION_SECONDS: Final = 4.0
"""Between two looks whether the cluster has a version, as in etcd (``monitorVersionInterval``)."""
_POLL_SECONDS: Final = 0.005


async def campaign_early(member: Member, *, is_founding: bool) -> None:
    """Spare a start the wait for an election timeout, where that cannot disturb anybody.

    A sole voter needs nobody. Founders need no timeout to find out that nobody leads: the one with
    the lowest id campaigns once it can win. After a restart of several members most of the timeout
    is passed over as soon as another member is there, as in etcd: a leader, if there is one, is
    heard of within the rest.
    """
    core = member.core
    others = [each.id for each in member.other_voters()]
    if core.is_sole_voter:
        core.campaign()
    elif is_founding and member.id < min(others):
        await _connected(member, others, (len(others) + 1) // 2)
        if core.leader == NOBODY:
            core.campaign()
    elif not is_founding and others and member.settings.initial_election_tick_advance:
        await _connected(member, others, 1)
        if core.leader == NOBODY:
            for _ in range(core.config.election_ticks - 2):
                core.tick()
    member.consensus.wake()


async def _connected(member: Member, others: list[int], wanted: int) -> None:
    """Wait until some of the others can be talked to."""

    def connected() -> int:
        return sum(member.peers.connected_since(each) is not None for each in others)

    while connected() < wanted:  # noqa: ASYNC110 (there is nothing to be woken by)
        await asyncio.sleep(_POLL_SECONDS)


async def publish(member: Member, sleep: Sleep = asyncio.sleep) -> None:
    """Tell the cluster a member's name and URLs; try until it is applied.

    `sleep` waits between two tries. Raises ``Refused(STOPPED)``.
    """
    attributes = membershippb.Attributes(
        name=member.settings.name, client_urls=member.settings.advertise_client_urls
    )
    told = membershippb.ClusterMemberAttrSetRequest(
        member_ID=member.id, member_attributes=attributes
    )
    while True:
        try:
            await member.propose(InternalRaftRequest(cluster_member_attr_set=told))
            return
        except Refused as refused:
            if refused.refusal is STOPPED:
                raise
            log.warning("cannot tell the cluster who this is: %s; trying again", refused)
        await sleep(RETRY_SECONDS)  # a refusal may come without any wait: let the log be applied


async def set_cluster_version(member: Member) -> None:
    """Let the cluster have a version, if this member leads and there is none yet.

    What is refused is logged: :func:`see_to_cluster_version` tries again.
    """
    if not member.is_leader or member.applier.membership.version:
        return
    version = membershippb.ClusterVersionSetRequest(ver=CLUSTER_VERSION)
    try:
        await member.propose(InternalRaftRequest(cluster_version_set=version))
    except Refused as refused:
        log.warning("cannot set the cluster's version yet: %s", refused)


async def see_to_cluster_version(member: Member, sleep: Sleep = asyncio.sleep) -> None:
    """Set the cluster's version whenever this member leads, until there is one.

    Whoever led when the members started may have lost the lead, or its quorum, before it could.
    """
    while not member.applier.membership.version:
        await sleep(VERSION_SECONDS)
        await set_cluster_version(member)
