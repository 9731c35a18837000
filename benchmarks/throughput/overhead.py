"""What our client alone adds to a call: its flow over a stub that answers at once.

The other benchmark sees a call as a user does, and with it all the weather of a machine; this one
sees only our own microseconds, and sees them on a busy machine too. It is for whoever changes the
call's path: ``python -m benchmarks.throughput.overhead`` before and after.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from random import Random
from typing import Any

from benchmarks import report
from benchmarks.report import Goal, Table
from benchmarks.throughput.worker import KEYS, VALUE
from etcd_pinwheel.balancers import Need
from etcd_pinwheel.client import kv
from etcd_pinwheel.client.aio import AsyncioWorld
from etcd_pinwheel.client.assembly import assemble
from etcd_pinwheel.client.blocking import BlockingWorld
from etcd_pinwheel.client.config import Config
from etcd_pinwheel.client.connections import Connections, Link, LinkState
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import awaiting, blocking
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.client.world import LinkChanged
from etcd_pinwheel.protos.etcdserverpb import (
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
)
from etcd_pinwheel.protos.mvccpb import KeyValue
from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE

KEY = KEYS[0]
CALLS = 2_000
REPEATS = 5
"""The fastest repeat counts: whatever else the machine does can only add."""
ROUNDS = 20
"""How often all take their turns, so that each has one while the machine is at its fastest."""
PICK_LIMIT_US = 3.0

HEADER = ResponseHeader(cluster_id=2**63, member_id=2**62, revision=123_456, raft_term=2)
STORED = KeyValue(key=KEY, value=VALUE, create_revision=7, mod_revision=123_456, version=9)
REPLIES = {
    KV_PUT.path: PutResponse(header=HEADER).SerializeToString(),
    KV_RANGE.path: RangeResponse(header=HEADER, kvs=[STORED], count=1).SerializeToString(),
}


class InstantChannel:
    """Answers every call at once, after the work with messages that grpcio would do too."""

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
    ) -> Callable[..., Any]:
        reply = REPLIES[path]

        def call(request: Any, timeout: float | None = None, metadata: Any = None) -> Any:
            request_serializer(request)
            return response_deserializer(reply)

        return call


class InstantAioChannel(InstantChannel):
    """The same, to be awaited."""

    def unary_unary(self, *setup: Any, **named: Any) -> Callable[..., Any]:
        answer = super().unary_unary(*setup, **named)

        async def call(request: Any, **how: Any) -> Any:
            return answer(request, **how)

        return call


class InstantWorld(BlockingWorld):
    """Threads without a network."""

    def open(self, link: Link, changed: weakref.WeakMethod[LinkChanged]) -> None:
        connect(link, InstantChannel(), changed)

    def close(self, link: Link) -> None:
        link.channel = None


class InstantAioWorld(AsyncioWorld):
    """Tasks without a network."""

    def open(self, link: Link, changed: weakref.WeakMethod[LinkChanged]) -> None:
        connect(link, InstantAioChannel(), changed)


def connect(link: Link, channel: object, changed: weakref.WeakMethod[LinkChanged]) -> None:
    link.channel = channel
    if report_change := changed():
        report_change(link, LinkState.READY, "")


class Face:
    """The part of ``Client`` that is measured, in a world without a network."""

    def __init__(self) -> None:
        world = InstantWorld(Config())
        self._call = assemble(Config(), world)
        self._run = world.run

    put = blocking(kv.put)
    get = blocking(kv.get)


class AioFace:
    """The part of ``AsyncClient`` that is measured."""

    def __init__(self) -> None:
        world = InstantAioWorld(Config())
        self._call = assemble(Config(), world)
        self._run = world.run

    put = awaiting(kv.put)
    get = awaiting(kv.get)


def stubs(channel: InstantChannel) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what the bare stub's user would call: a put and a get."""
    put = channel.unary_unary(KV_PUT.path, PutRequest.SerializeToString, PutResponse.FromString)
    get = channel.unary_unary(
        KV_RANGE.path, RangeRequest.SerializeToString, RangeResponse.FromString
    )
    return (
        lambda: put(PutRequest(key=KEY, value=VALUE), timeout=5.0),
        lambda: get(RangeRequest(key=KEY), timeout=5.0),
    )


def cost_us(call: Callable[[], Any]) -> float:
    """Return a call's CPU time in microseconds."""
    fastest = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        fastest = min(fastest, time.process_time() - began)
    return fastest / CALLS * 1e6


async def cost_aio_us(call: Callable[[], Awaitable[Any]]) -> float:
    """Return an awaited call's CPU time in microseconds."""
    fastest = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(CALLS):
            await call()
        fastest = min(fastest, time.process_time() - began)
    return fastest / CALLS * 1e6


async def measure_aio() -> list[tuple[str, float, float]]:
    put, get = stubs(InstantAioChannel())
    etcd = AioFace()
    return [
        (
            "put, asyncio",
            await cost_aio_us(put),
            await cost_aio_us(lambda: etcd.put(KEY, VALUE)),
        ),
        ("get, asyncio", await cost_aio_us(get), await cost_aio_us(lambda: etcd.get(KEY))),
    ]


def measure() -> list[tuple[str, float, float]]:
    put, get = stubs(InstantChannel())
    etcd = Face()
    return [
        ("put, threads", cost_us(put), cost_us(lambda: etcd.put(KEY, VALUE))),
        ("get, threads", cost_us(get), cost_us(lambda: etcd.get(KEY))),
    ]


def fastest(rounds: list[list[tuple[str, float, float]]]) -> list[tuple[str, float, float]]:
    """Take the least of each number over the rounds."""
    return [
        (names[0], min(bare), min(ours))
        for names, bare, ours in (zip(*rows, strict=True) for rows in zip(*rounds, strict=True))
    ]


def overhead_table(rows: list[tuple[str, float, float]]) -> Table:
    return Table(
        "What our client alone adds to a call, in microseconds of CPU time",
        ("", "messages alone", "with our client", "added"),
        [(name, f"{bare:.1f}", f"{ours:.1f}", f"{ours - bare:.1f}") for name, bare, ours in rows],
    )


def pick_us(policy: str) -> float:
    """Return what a pick among three members costs, and to pay it back, in microseconds."""
    world = InstantWorld(Config())
    connections = Connections(BUILT_IN[policy].build(Random(1), {}), world)
    world.connections = connections
    connections.set_endpoints([Endpoint(f"10.0.0.{number}:2379") for number in (1, 2, 3)])
    now = time.monotonic()

    def call() -> None:
        nonlocal now
        link = connections.pick(Need.QUORUM, now)
        assert link is not None
        now += 0.0002
        connections.done(link, None, 0.0002, now)

    cost = cost_us(call) - cost_us(lambda: None)
    connections.close()
    world.stop()
    return cost


def picks_us(rounds: int = ROUNDS) -> dict[str, float]:
    """Return what a pick costs under each policy: the least of so many rounds."""
    least = dict.fromkeys(BUILT_IN, inf)
    for _ in range(rounds):
        least = {policy: min(before, pick_us(policy)) for policy, before in least.items()}
    return least


def picks_table(picks: Mapping[str, float]) -> Table:
    return Table(
        "What a pick among three members and its bookkeeping cost, in microseconds of CPU time",
        ("", "a call"),
        [(policy, f"{cost:.2f}") for policy, cost in picks.items()],
    )


def picks_goals(picks: Mapping[str, float]) -> list[Goal]:
    return [
        Goal(f"a pick and its bookkeeping, {policy}, in us", cost, at_most=PICK_LIMIT_US)
        for policy, cost in picks.items()
    ]


def main() -> None:
    rounds = [[*measure(), *asyncio.run(measure_aio())] for _ in range(ROUNDS)]
    report.show(report.console(), [overhead_table(fastest(rounds)), picks_table(picks_us())])


if __name__ == "__main__":
    main()
