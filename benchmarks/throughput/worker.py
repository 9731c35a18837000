"""One contender in an interpreter of its own: takes turns from stdin, measures itself.

Run as a script by its path, for a peer's environment has neither this repository nor our package;
so nothing here imports more than the contender itself. Usage: ``worker.py CONTENDER HOST:PORT``,
and then the policy, if it is ours.

Both ways one JSON object a line. A turn comes as ``{"operation": "put", "callers": 32,
"seconds": 0.5}`` and is answered by the fields of :class:`Tally`; the first line of all says which
releases are measured. The end of stdin ends the worker.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import cycle, islice
from typing import Any

KEYS = tuple(b"benchmark/throughput/%04d" % number for number in range(1000))
"""What is put and read. Enough of them that callers seldom meet on one."""
VALUE = b"v" * 64
DEADLINE_SECONDS = 5.0
"""Every call has one where the client can, as a careful user's would."""
FAILURES_ALLOWED = 20
"""A turn with more is given up: it measures nothing."""

Operation = Callable[[bytes], Any]
"""Takes a key; returns the value read, or VALUE where none is read. Awaitable on asyncio."""
Operations = dict[str, Operation]


@dataclass(slots=True)
class Tally:
    """What came of one turn."""

    calls: int = 0
    failed: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """User and system time of this process, all threads."""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    """How long calls took; 0 where that is not measured."""
    error: str = ""
    """The first failure, for people."""
    over: bool = False

    def fail(self, error: BaseException | str) -> None:
        self.failed += 1
        self.error = self.error or (error if isinstance(error, str) else repr(error))
        self.over = self.over or self.failed > FAILURES_ALLOWED


def keys_from(caller: int, callers: int) -> Iterator[bytes]:
    """Run through the keys for ever, each caller from a place of its own."""
    return islice(cycle(KEYS), caller * len(KEYS) // callers, None)


# Contenders: threads


@contextmanager
def bare(target: str) -> Iterator[Operations]:
    """The floor: grpcio's own stub, protobuf messages and a deadline."""
    import grpc

    from etcd_pinwheel.protos.etcdserverpb import PutRequest, RangeRequest
    from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE

    with grpc.insecure_channel(target) as channel:
        put_stub = channel.unary_unary(
            KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
        )
        range_stub = channel.unary_unary(
            KV_RANGE.path, RangeRequest.SerializeToString, KV_RANGE.reply.FromString
        )

        def put(key: bytes) -> bytes:
            put_stub(PutRequest(key=key, value=VALUE), timeout=DEADLINE_SECONDS)
            return VALUE

        def get(key: bytes) -> Any:
            reply = range_stub(RangeRequest(key=key), timeout=DEADLINE_SECONDS)
            return reply.kvs[0].value

        yield {"put": put, "get": get}


@contextmanager
def pinwheel(target: str, policy: str = "round_robin") -> Iterator[Operations]:
    from etcd_pinwheel import Client

    with Client([target], balancer=policy, timeout=DEADLINE_SECONDS) as etcd:

        def put(key: bytes) -> bytes:
            etcd.put(key, VALUE)
            return VALUE

        def get(key: bytes) -> bytes | None:
            found = etcd.get(key)
            return found.value if found else None

        yield {"put": put, "get": get}


@contextmanager
def python_etcd3(target: str) -> Iterator[Operations]:
    import etcd3  # type: ignore[import-not-found]

    host, _, port = target.rpartition(":")
    with etcd3.client(host, int(port), timeout=DEADLINE_SECONDS) as etcd:

        def put(key: bytes) -> bytes:
            etcd.put(key, VALUE)
            return VALUE

        yield {"put": put, "get": lambda key: etcd.get(key)[0]}


# Contenders: tasks


@asynccontextmanager
async def bare_aio(target: str) -> AsyncIterator[Operations]:
    """The floor of asyncio. The echo server is asked by it too, for no client of etcd can."""
    import grpc.aio

    from etcd_pinwheel.protos.etcdserverpb import PutRequest, RangeRequest
    from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE

    async with grpc.aio.insecure_channel(target) as channel:
        put_stub = channel.unary_unary(
            KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
        )
        range_stub = channel.unary_unary(
            KV_RANGE.path, RangeRequest.SerializeToString, KV_RANGE.reply.FromString
        )
        echo_stub = channel.unary_unary("/benchmarks.Echo/Empty", bytes, bytes)

        async def put(key: bytes) -> bytes:
            await put_stub(PutRequest(key=key, value=VALUE), timeout=DEADLINE_SECONDS)
            return VALUE

        async def get(key: bytes) -> Any:
            reply = await range_stub(RangeRequest(key=key), timeout=DEADLINE_SECONDS)
            return reply.kvs[0].value

        async def echo(key: bytes) -> bytes:
            await echo_stub(b"", timeout=DEADLINE_SECONDS)
            return VALUE

        yield {"put": put, "get": get, "echo": echo}


@asynccontextmanager
async def pinwheel_aio(target: str, policy: str = "round_robin") -> AsyncIterator[Operations]:
    from etcd_pinwheel import AsyncClient

    async with AsyncClient([target], balancer=policy, timeout=DEADLINE_SECONDS) as etcd:

        async def put(key: bytes) -> bytes:
            await etcd.put(key, VALUE)
            return VALUE

        async def get(key: bytes) -> bytes | None:
            found = await etcd.get(key)
            return found.value if found else None

        yield {"put": put, "get": get}


@asynccontextmanager
async def aetcd(target: str) -> AsyncIterator[Operations]:
    import aetcd  # type: ignore[import-not-found]

    host, _, port = target.rpartition(":")
    async with aetcd.Client(host, int(port), timeout=DEADLINE_SECONDS) as etcd:

        async def put(key: bytes) -> bytes:
            await etcd.put(key, VALUE)
            return VALUE

        async def get(key: bytes) -> bytes | None:
            found = await etcd.get(key)
            return found.value if found else None

        yield {"put": put, "get": get}


@asynccontextmanager
async def etcd3aio(target: str) -> AsyncIterator[Operations]:
    from etcd3aio import Etcd3Client

    async with Etcd3Client([target]) as etcd:
        kv: Any = etcd.kv

        async def put(key: bytes) -> bytes:
            await kv.put(key, VALUE, timeout=DEADLINE_SECONDS)
            return VALUE

        async def get(key: bytes) -> bytes | None:
            found = await kv.get(key, timeout=DEADLINE_SECONDS)
            return found.kvs[0].value if found.kvs else None

        yield {"put": put, "get": get}


THREADED: dict[str, Callable[..., AbstractContextManager[Operations]]] = {
    "bare": bare,
    "pinwheel": pinwheel,
    "python-etcd3": python_etcd3,
}
ASYNCIO: dict[str, Callable[..., AbstractAsyncContextManager[Operations]]] = {
    "bare-aio": bare_aio,
    "pinwheel-aio": pinwheel_aio,
    "aetcd": aetcd,
    "etcd3aio": etcd3aio,
}


# Turns


def take_turn(operation: Operation, callers: int, seconds: float) -> Tally:
    """Let so many threads call as fast as they can, for so long."""
    tally = Tally()
    counts = [0] * callers
    start = threading.Barrier(callers + 1)

    def call(caller: int) -> None:
        calls = 0
        start.wait()
        for key in keys_from(caller, callers):
            if tally.over:
                break
            try:
                if operation(key) != VALUE:
                    tally.fail(f"{key!r} has another value")
            except Exception as error:
                tally.fail(error)
            calls += 1
        counts[caller] = calls

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    began, cpu_began = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    tally.over = True
    for thread in threads:
        thread.join()
    return finished(tally, sum(counts), began, cpu_began)


async def take_turn_aio(operation: Operation, callers: int, seconds: float) -> Tally:
    """Let so many tasks call as fast as they can, for so long."""
    tally = Tally()

    async def call(caller: int) -> int:
        calls = 0
        for key in keys_from(caller, callers):
            if tally.over:
                break
            try:
                if await operation(key) != VALUE:
                    tally.fail(f"{key!r} has another value")
            except Exception as error:
                tally.fail(error)
            calls += 1
        return calls

    def stop() -> None:
        tally.over = True

    began, cpu_began = time.perf_counter(), time.process_time()
    asyncio.get_running_loop().call_later(seconds, stop)
    calls = sum(await asyncio.gather(*map(call, range(callers))))
    return finished(tally, calls, began, cpu_began)


def finished(tally: Tally, calls: int, began: float, cpu_began: float) -> Tally:
    tally.calls = calls
    tally.seconds = time.perf_counter() - began
    tally.cpu_seconds = time.process_time() - cpu_began
    return tally


# The conversation


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def turns() -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in iter(sys.stdin.readline, ""))


def serve(contender: str, *setup: str) -> None:
    """Take turns on threads until stdin ends."""
    with THREADED[contender](*setup) as operations:
        say(ready=True, releases=releases())
        for turn in turns():
            operation = operations[turn["operation"]]
            say(**asdict(take_turn(operation, turn["callers"], turn["seconds"])))


async def serve_aio(contender: str, *setup: str) -> None:
    """Take turns on tasks until stdin ends."""
    loop = asyncio.get_running_loop()
    async with ASYNCIO[contender](*setup) as operations:
        say(ready=True, releases=releases())
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            turn = json.loads(line)
            operation = operations[turn["operation"]]
            say(**asdict(await take_turn_aio(operation, turn["callers"], turn["seconds"])))


def releases() -> dict[str, str]:
    """Tell which grpcio and protobuf are measured, and what protobuf is made of."""
    from google.protobuf.internal import api_implementation

    protobuf = f"{version('protobuf')} ({api_implementation.Type()})"
    return {"grpcio": version("grpcio"), "protobuf": protobuf}


def main() -> None:
    contender, *setup = sys.argv[1:]
    if contender in THREADED:
        serve(contender, *setup)
    else:
        asyncio.run(serve_aio(contender, *setup))


if __name__ == "__main__":
    main()
