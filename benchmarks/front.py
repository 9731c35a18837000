"""What carrying a call costs: our front beside a bare grpc.aio server, in the same run.

Both answer an empty Put with a ready-made reply; each runs in a process of its own, and one
grpc.aio client loads them in turn. The client itself tops out at some 20,000 calls a second and
core, so on a small machine read the server's CPU per call rather than the calls per second.

    python benchmarks/front.py [--seconds 3] [--rounds 3] [--callers 1 32 128] [--json out.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import grpc
import grpc.aio
import psutil

from etcd_pinwheel.protos import etcdserverpb, rpcs
from etcd_pinwheel.server_stub.api.call import Call, Method
from etcd_pinwheel.server_stub.front import Front

REPLY = etcdserverpb.PutResponse(
    header=etcdserverpb.ResponseHeader(
        cluster_id=1 << 60, member_id=1 << 61, revision=7, raft_term=2
    )
)
REQUEST = etcdserverpb.PutRequest(key=b"k", value=b"v" * 64)
SERVERS = ("front", "grpc.aio")


async def serve_front() -> None:
    """Serve through our front, until killed."""

    async def put(request: Any, call: Call) -> Any:
        return REPLY

    front = Front({rpcs.KV_PUT.path: Method(rpcs.KV_PUT, put)})
    _, port = await front.listen("127.0.0.1", 0)
    print(port, flush=True)
    await asyncio.Event().wait()


async def serve_grpc_aio() -> None:
    """Serve through grpcio's own asyncio server, until killed."""

    async def put(request: Any, context: Any) -> Any:
        return REPLY

    handler = grpc.unary_unary_rpc_method_handler(
        put, rpcs.KV_PUT.request.FromString, rpcs.KV_PUT.reply.SerializeToString
    )
    server = grpc.aio.server()
    handlers = grpc.method_handlers_generic_handler("etcdserverpb.KV", {"Put": handler})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


@contextmanager
def running(name: str) -> Iterator[tuple[str, psutil.Process]]:
    """Start one of the servers; yield its address and its process."""
    command = [sys.executable, __file__, "--serve", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}", psutil.Process(process.pid)
        finally:
            process.kill()


async def load(address: str, callers: int, seconds: float) -> list[float]:
    """Call for that long with so many callers; return the latency of each call, in seconds."""
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        put = channel.unary_unary(
            rpcs.KV_PUT.path, rpcs.KV_PUT.request.SerializeToString, rpcs.KV_PUT.reply.FromString
        )
        await put(REQUEST, timeout=5)
        end = time.perf_counter() + seconds

        async def caller() -> None:
            begun = time.perf_counter()
            while begun < end:
                await put(REQUEST, timeout=5)
                now = time.perf_counter()
                latencies.append(now - begun)
                begun = now

        await asyncio.gather(*(caller() for _ in range(callers)))
    return latencies


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(name: str, callers: int, seconds: float) -> dict[str, float]:
    """Load one server; return calls per second, its CPU per call and the median latency."""
    with running(name) as (address, process):
        asyncio.run(load(address, callers, seconds / 4))
        before = cpu_seconds(process)
        latencies = asyncio.run(load(address, callers, seconds))
        used = cpu_seconds(process) - before
    return {
        "calls_per_second": len(latencies) / seconds,
        "cpu_us_per_call": used / len(latencies) * 1e6,
        "median_latency_us": median(latencies) * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what carrying a call costs.")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 32, 128])
    parser.add_argument("--json")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run({"front": serve_front, "grpc.aio": serve_grpc_aio}[options.serve]())
        return
    results = []
    print(f"{'server':10} {'callers':>7} {'calls/s':>9} {'CPU us/call':>12} {'p50 us':>8}")
    for callers in options.callers:
        for name in SERVERS:
            rounds = [measure(name, callers, options.seconds) for _ in range(options.rounds)]
            row = {key: median(r[key] for r in rounds) for key in rounds[0]}
            results.append({"server": name, "callers": callers, **row})
            print(
                f"{name:10} {callers:7} {row['calls_per_second']:9.0f} "
                f"{row['cpu_us_per_call']:12.1f} {row['median_latency_us']:8.0f}"
            )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
