"""The two clusters of a run: three members each, every member a process, all on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc.aio
import psutil  # type: ignore[import-untyped]

from benchmarks.real_etcd import etcd_binary
from etcd_pinwheel import Client
from etcd_pinwheel.protos.etcdserverpb import PutRequest, RequestOp, TxnRequest
from etcd_pinwheel.protos.rpcs import KV_TXN
from etcd_pinwheel.server_stub.local import LocalCluster, LocalMember

ETCD, OURS = "etcd", "etcd-pinwheel"
SIZE = 3
PUTS_IN_A_TXN = 100
TXNS_AT_A_TIME = 16
FILLER_BYTES = 64


@dataclass(slots=True)
class Side:
    """A cluster, and which member of it leads."""

    name: str
    leader: LocalMember
    followers: list[LocalMember]

    @property
    def members(self) -> list[LocalMember]:
        """The leader first."""
        return [self.leader, *self.followers]

    def cpu_seconds(self) -> list[float]:
        """User and system time of each member so far, the leader first."""
        return [_cpu_seconds(member) for member in self.members]

    def resident_bytes(self) -> list[int]:
        """What each member holds in memory, the leader first."""
        return [int(psutil.Process(each.pid).memory_info().rss) for each in self.members]

    def find_leader(self) -> None:
        """Look again who leads: elections happen."""
        self.leader, self.followers = _sorted_by_role(self.members)

    def fill(self, first: int, end: int) -> None:
        """Put keys number `first` up to `end`, many at a time."""
        asyncio.run(_fill(self.leader.endpoint, first, end))


@contextmanager
def side(name: str) -> Iterator[Side]:
    """Run a cluster of either make for as long as the block lasts."""
    cluster = (
        LocalCluster(size=SIZE, binary=etcd_binary())
        if name == ETCD
        else LocalCluster(size=SIZE, processes=True)
    )
    with cluster:
        leader, followers = _sorted_by_role(
            [member for member in cluster if isinstance(member, LocalMember)]
        )
        yield Side(name, leader, followers)


def _sorted_by_role(members: list[LocalMember]) -> tuple[LocalMember, list[LocalMember]]:
    """Tell the leader from the others; raises ``StopIteration`` when there is none."""
    with Client([member.endpoint for member in members]) as client:
        client.put("benchmark/ready", "")
        leader = next(
            member for member in members if _leads(client.maintenance.status(member.endpoint))
        )
    return leader, [member for member in members if member is not leader]


def _leads(status: object) -> bool:
    return status.leader == status.header.member_id  # type: ignore[attr-defined]


def _cpu_seconds(member: LocalMember) -> float:
    times = psutil.Process(member.pid).cpu_times()
    return float(times.user + times.system)


async def _fill(target: str, first: int, end: int) -> None:
    starts = iter(range(first, end, PUTS_IN_A_TXN))

    async def writer(txn: grpc.aio.UnaryUnaryMultiCallable) -> None:
        for start in starts:
            puts = (
                PutRequest(key=b"filler/%08d" % number, value=b"v" * FILLER_BYTES)
                for number in range(start, min(start + PUTS_IN_A_TXN, end))
            )
            request = TxnRequest(success=[RequestOp(request_put=put) for put in puts])
            await txn(request, timeout=30.0)

    async with grpc.aio.insecure_channel(target) as channel:
        txn = channel.unary_unary(
            KV_TXN.path, KV_TXN.request.SerializeToString, KV_TXN.reply.FromString
        )
        await asyncio.gather(*(writer(txn) for _ in range(TXNS_AT_A_TIME)))
