"""The cluster that a run is played on, and what stands between it and the clients."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.failover.faults import LEADER, LEARNER, Fault
from benchmarks.failover.record import Stored
from etcd_pinwheel import Client, EtcdError
from etcd_pinwheel.server_stub.local import AnyMember, FaultProxy, LocalCluster

WELL_SECONDS = 30.0
POLL_SECONDS = 0.05
FILL_VALUE = b"f" * (512 * 1024)


@dataclass
class Stage:
    """What a fault has in its hands."""

    cluster: LocalCluster
    victim: AnyMember
    """Whom the fault strikes."""
    proxies: Mapping[str, FaultProxy] = field(default_factory=dict)
    """Before each member, by its name, if there are any."""

    def endpoint(self, member: AnyMember) -> str:
        """Where clients are told that a member is."""
        proxy = self.proxies.get(member.name)
        return proxy.endpoint if proxy else member.endpoint

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint(member) for member in self.cluster]

    def names(self) -> dict[str, str]:
        """Every name that a member goes by in a recording, to its own: its id, its endpoints."""
        names = {}
        for member in self.cluster:
            for endpoint in (member.endpoint, self.endpoint(member)):
                names |= {endpoint: member.name, f"http://{endpoint}": member.name}
            names[standing(member).member_id] = member.name
        return names

    def wait_until_well(self) -> None:
        """Wait until all members follow one leader; raises ``TimeoutError``."""
        deadline = time.monotonic() + WELL_SECONDS
        while True:
            statuses = self.cluster.statuses(timeout_seconds=1.0)
            leaders = {status.leader_id for status in statuses.values()}
            if len(statuses) == len(self.cluster) and len(leaders) == 1 and 0 not in leaders:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not well after {WELL_SECONDS} s: {statuses}")
            time.sleep(POLL_SECONDS)

    def defragment(self, member: AnyMember, timeout_seconds: float) -> None:
        with Client([member.endpoint]) as client:
            client.maintenance.defragment(member.endpoint, timeout=timeout_seconds)

    def stored(self, prefix: str) -> dict[int, Stored]:
        """Read back what a load has written."""
        with Client(self.cluster.endpoints, timeout=10.0) as client:
            found = client.range(prefix, prefix=True, keys_only=True)
        start = len(prefix)
        numbered = [kv for kv in found if kv.key[start:].isdigit()]
        return {int(kv.key[start:]): Stored(kv.version, kv.mod_revision) for kv in numbered}

    def seconds_until_led(self, since: float, patience_seconds: float) -> float | None:
        """Wait for a leader among those who live; return the seconds since that moment."""
        while time.monotonic() - since < patience_seconds:
            for member in self.cluster:
                if member is not self.victim and leads(member):
                    return time.monotonic() - since
            time.sleep(POLL_SECONDS / 2)
        return None


@contextmanager
def staged(fault: Fault, binary: Path | None) -> Iterator[Stage]:
    """Have a fresh cluster of three for as long as the block lasts; everything is removed."""
    with ExitStack() as stack:
        cluster = stack.enter_context(
            LocalCluster(processes=True, binary=binary, partitions=fault.partitions)
        )
        if fault.learner:
            cluster.add_learner()
        proxies = {}
        if fault.proxies:
            proxies = {
                member.name: stack.enter_context(FaultProxy(member.endpoint)) for member in cluster
            }
        stage = Stage(cluster, cluster[0], proxies)
        stage.wait_until_well()
        if fault.filled_mb:
            fill(cluster, fault.filled_mb)
        stage.victim = find_victim(cluster, fault.victim)
        yield stage


def find_victim(cluster: LocalCluster, kind: str) -> AnyMember:
    if kind == LEARNER:
        return cluster[-1]
    return next(each for each in cluster if leads(each) is (kind == LEADER))


def fill(cluster: LocalCluster, megabytes: int) -> None:
    """Put so much into the store and delete half of it: then defragmenting has something to do."""
    with Client(cluster.endpoints, timeout=10.0) as client:
        for number in range(megabytes * 2):
            for _attempt in range(3):
                try:
                    client.put(f"filling/{number % megabytes}", FILL_VALUE)
                    break
                except EtcdError:
                    continue


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member says of itself."""

    member_id: str
    leads: bool


def leads(member: AnyMember) -> bool:
    """Whether a member says that it leads; one that does not answer does not."""
    try:
        return standing(member, timeout_seconds=0.5).leads
    except (URLError, OSError):
        return False


def standing(member: AnyMember, timeout_seconds: float = 5.0) -> Standing:
    """Ask a member who it is and whether it leads, through its metrics.

    Not through gRPC: that is what the clients do, and this is an opinion of its own.
    """
    with urlopen(f"http://{member.endpoint}/metrics", timeout=timeout_seconds) as answer:
        metrics = answer.read().decode()
    member_id = re.search(r'^etcd_server_id\{server_id="(\w+)"\} 1', metrics, re.MULTILINE)
    leading = re.search(r"^etcd_server_is_leader (\d)", metrics, re.MULTILINE)
    if member_id is None or leading is None:
        raise RuntimeError(f"{member.endpoint} does not tell its id and role in /metrics")
    return Standing(member_id[1], leading[1] == "1")
