"""What a member's first start does: found a cluster, join one, or refuse.

A member is its directory. One that starts with an empty directory under an id that has voted and
acknowledged before has forgotten both, and could make its cluster lose what was acknowledged; so
whoever can be reached of the other members is asked before an id is taken.

All of this is for the first start only; a restart knows from its directory who it is, and ignores
the flags, as in etcd.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .cluster import Cluster, ClusterMember
from .config import Settings
from .peers.receiver import ClusterInfo, PeerUnreachable

log = logging.getLogger(__name__)

FOUNDING_FETCH_SECONDS: Final = 1.0
"""How long a founder waits for the others to say whether the cluster exists; most are not there."""
JOINING_FETCH_SECONDS: Final = 10.0
ASK_AGAIN_SECONDS: Final = 0.5
REMOVED: Final = "the member has been permanently removed from the cluster"

Fetch = Callable[[Sequence[str], float], Awaitable[ClusterInfo]]
"""Ask whoever answers first at these peer URLs, within so many seconds, for its cluster.

Raises ``PeerUnreachable``.
"""
Resolve = Callable[[Iterable[str]], Awaitable[Mapping[str, str]]]
"""Give each URL with its host as an address, so that two ways to write it can be compared."""


class JoinRefused(Exception):
    """A start that must not go on; the text says why, and names the flag at fault."""


@dataclass(frozen=True, slots=True)
class FirstStart:
    """Who a member is from now on."""

    own_id: int
    cluster: Cluster
    """Whom it talks to until its log says more."""
    is_founding: bool
    """Whether the log begins with the cluster's ``bootstrap_entries``; if not it begins empty."""


async def first_start(settings: Settings, fetch: Fetch) -> FirstStart:
    """Decide what the first start of a member is. Raises ``JoinRefused``."""
    if settings.initial_cluster_state == "existing":
        return await _join(settings, fetch)
    return await _found(settings, fetch)


async def _found(settings: Settings, fetch: Fetch) -> FirstStart:
    own = await check_founding(settings, resolve)
    cluster = Cluster.initial(settings)
    others = [member.peer_urls for member in cluster.members if member != own]
    for info in await _ask(others, fetch, FOUNDING_FETCH_SECONDS):
        refuse_founding_twice(cluster, own, info)
    return FirstStart(own.id, cluster, is_founding=True)


async def _join(settings: Settings, fetch: Fetch) -> FirstStart:
    wanted = Cluster.initial(settings)
    own = _own(wanted, settings)
    _refuse_shared_urls(wanted)
    others = [member.peer_urls for member in wanted.members if member != own]
    infos = await _ask(others, fetch, JOINING_FETCH_SECONDS)
    if not infos:
        raise JoinRefused(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from"
            " the URLs given by --initial-cluster"
        )
    members = [*wanted.members, *(member for info in infos for member in info.members)]
    resolved = await resolve(url for member in members for url in member.peer_urls)
    return take_identity(wanted, own, infos, resolved)


async def find_cluster(settings: Settings, cluster_id: int, fetch: Fetch) -> Cluster:
    """Ask who is in a cluster that this member has joined, but has not heard anything of yet.

    For a restart right after the first start: the log is still empty, so that nothing in the
    directory tells whom to talk to. Asks until somebody answers. Raises ``JoinRefused``: there is
    nobody to ask.
    """
    others = [urls for name, urls in settings.initial_cluster if name != settings.name]
    if not others:
        raise JoinRefused(
            "the directory does not tell yet who is in the cluster: give --initial-cluster again"
        )
    while True:
        for info in await _ask(others, fetch, JOINING_FETCH_SECONDS):
            if info.cluster_id == cluster_id:
                return Cluster(info.cluster_id, info.members)
        log.warning("no member of --initial-cluster tells who is in the cluster; asking again")
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def confirm_founding(cluster: Cluster, own_id: int, fetch: Fetch) -> None:
    """Return once so many others have said that this member is new that they could elect one.

    At the first start there may have been nobody to ask, as when all members start at once, one of
    them with an empty directory because its disk was lost. Waiting costs nothing: fewer than a
    quorum can do nothing. Raises ``JoinRefused``.
    """
    own = cluster.member(own_id)
    assert own is not None, "a founder is in its own log"
    answers: asyncio.Queue[ClusterInfo] = asyncio.Queue()
    asking = [
        asyncio.create_task(_ask_until_answered(member.peer_urls, fetch, answers))
        for member in cluster.members
        if member.id != own_id
    ]
    try:
        for _ in range(len(cluster.members) // 2):
            refuse_founding_twice(cluster, own, await answers.get())
    finally:
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)


async def _ask_until_answered(
    urls: Sequence[str], fetch: Fetch, answers: asyncio.Queue[ClusterInfo]
) -> None:
    pause_seconds = ASK_AGAIN_SECONDS / 32
    while not (infos := await _ask([urls], fetch, FOUNDING_FETCH_SECONDS)):
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, ASK_AGAIN_SECONDS)
    answers.put_nowait(infos[0])


async def _ask(members: Sequence[Sequence[str]], fetch: Fetch, seconds: float) -> list[ClusterInfo]:
    """Ask every member, at the same time; return what was answered.

    One that has joined and not yet heard of anybody has nothing to say.
    """

    async def ask(urls: Sequence[str]) -> ClusterInfo | None:
        try:
            return await fetch(urls, seconds)
        except PeerUnreachable as error:
            log.debug("no answer from a peer", extra={"urls": urls, "reason": str(error)})
            return None

    answers = await asyncio.gather(*map(ask, members))
    return [info for info in answers if info is not None and info.members]


# Founding


async def check_founding(settings: Settings, resolve: Resolve) -> ClusterMember:
    """Hold ``--initial-cluster`` against the other flags; return this member's part of it.

    Raises ``JoinRefused``.
    """
    cluster = Cluster.initial(settings)
    own = _own(cluster, settings)
    _refuse_shared_urls(cluster)
    told, advertised = set(own.peer_urls), set(settings.initial_advertise_peer_urls)
    if told != advertised:
        resolved = await resolve(told | advertised)
        if {resolved[url] for url in told} != {resolved[url] for url in advertised}:
            raise JoinRefused(_mismatch(settings.name, told, advertised))
    return own


def _own(cluster: Cluster, settings: Settings) -> ClusterMember:
    own = cluster.named(settings.name)
    if own is None:
        raise JoinRefused(
            f'couldn\'t find local name "{settings.name}" in the initial cluster configuration'
            " (--name, --initial-cluster)"
        )
    return own


def _refuse_shared_urls(cluster: Cluster) -> None:
    urls = [url for member in cluster.members for url in member.peer_urls]
    if len(set(urls)) < len(urls):
        told = ",".join(f"{each.name}={url}" for each in cluster.members for url in each.peer_urls)
        raise JoinRefused(f"--initial-cluster {told} has duplicate url")


def _mismatch(name: str, told: set[str], advertised: set[str]) -> str:
    if told - advertised:
        missing = ",".join(f"{name}={url}" for url in sorted(told - advertised))
        return (
            f"--initial-cluster has {missing} but missing from"
            f" --initial-advertise-peer-urls={','.join(sorted(advertised))}"
        )
    return (
        f"--initial-advertise-peer-urls has {','.join(sorted(advertised - told))} but missing from"
        f" --initial-cluster={','.join(f'{name}={url}' for url in sorted(told))}"
    )


def refuse_founding_twice(cluster: Cluster, own: ClusterMember, info: ClusterInfo) -> None:
    """Raise ``JoinRefused`` if another member knows that `own` cannot be at its first start.

    `info` is what that member says of its cluster.
    """
    if info.cluster_id != cluster.id:
        raise JoinRefused(
            f"cluster ID mismatch: another member of --initial-cluster is in cluster"
            f" {info.cluster_id:x}, and the flags make {cluster.id:x}; to join that one, add this"
            " member to it and give --initial-cluster-state=existing"
        )
    known = next((member for member in info.members if member.id == own.id), None)
    if known is None:
        raise JoinRefused(f"member {own.id:x}: {REMOVED}")
    _refuse_amnesia(known)


# Joining


def take_identity(
    wanted: Cluster,
    own: ClusterMember,
    infos: Sequence[ClusterInfo],
    resolved: Mapping[str, str],
) -> FirstStart:
    """Find `own` in what the members of a running cluster say; raises ``JoinRefused``.

    ``--initial-cluster``, as `wanted`, must name exactly the members that there are. One whose
    answer is older than this member may not know of it yet, so one that does is enough.
    """
    refusals = []
    for info in infos:
        try:
            found = _match(wanted, own, info, resolved)
        except JoinRefused as refused:
            refusals.append(refused)
        else:
            _refuse_amnesia(found)
            return FirstStart(found.id, Cluster(info.cluster_id, info.members), is_founding=False)
    raise refusals[0]


def _match(
    wanted: Cluster, own: ClusterMember, info: ClusterInfo, resolved: Mapping[str, str]
) -> ClusterMember:
    """Pair every member there is with one of `wanted`, by peer URLs; return `own`'s."""
    there = ", ".join(f"{each.id:x}={'|'.join(each.peer_urls)}" for each in info.members)
    if len(info.members) != len(wanted.members):
        raise JoinRefused(
            f"error validating peerURLs: member count is unequal: --initial-cluster names"
            f" {len(wanted.members)}, the cluster has {len(info.members)} ({there})"
        )
    pairs = {}
    for member in info.members:
        goal = _addresses(member, resolved)
        pair = next((each for each in wanted.members if _addresses(each, resolved) == goal), None)
        if pair is None:
            raise JoinRefused(
                "error validating peerURLs: --initial-cluster has no match for existing member"
                f" {member.id:x} ({', '.join(member.peer_urls)}); the cluster is {there}"
            )
        pairs[pair.id] = member
    if own.id not in pairs:
        raise JoinRefused(
            "error validating peerURLs: --initial-cluster has other URLs for this member than the"
            f" cluster, which is {there}"
        )
    return pairs[own.id]


def _addresses(member: ClusterMember, resolved: Mapping[str, str]) -> frozenset[str]:
    return frozenset(resolved[url] for url in member.peer_urls)


def _refuse_amnesia(found: ClusterMember) -> None:
    """Raise if others know a member's client URLs, which it told when it first ran."""
    if found.client_urls:
        raise JoinRefused(
            f"member {found.id:x} has already been bootstrapped: it has run before, with data that"
            " is not in --data-dir; remove it from the cluster and add it again"
        )


async def resolve(urls: Iterable[str]) -> dict[str, str]:
    """Look up the hosts; one that cannot be found stays as it is."""
    loop = asyncio.get_running_loop()

    async def one(url: str) -> str:
        parts = urlsplit(url)
        try:
            found = await loop.getaddrinfo(parts.hostname, parts.port)
        except (OSError, ValueError):
            return url
        address = min(str(each[4][0]) for each in found)
        return f"{parts.scheme}://{address}:{parts.port}"

    wanted = list(dict.fromkeys(urls))
    return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))
