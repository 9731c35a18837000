"""The load through somebody else's client: puts only, in the environment of that client.

``python -m benchmarks.failover.peer_load CLIENT JOB.json``; what is said and told is in ``job.py``.
Names nothing that is not in every environment. Each client is used as its documentation shows,
with the deadline for every call and, where it has that, failing over between endpoints.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.failover.job import AUDIT, BEGIN, DONE, READY, Job
from benchmarks.failover.record import Call, Recording

VALUE = b"v" * 64
DEADLINE_SECONDS = 3.0
LONGEST_SECONDS = 20.0
"""For a call of a client that does not keep the deadline."""
THREADS = 1000
"""Enough for every call of a client that blocks."""

Put = Callable[[str], Awaitable[object]]


@asynccontextmanager
async def python_etcd3(endpoints: list[str]) -> AsyncIterator[Put]:
    from pyetcd.client import Endpoint, MultiEndpointEtcd3Client  # type: ignore[import-not-found]

    split = [endpoint.rpartition(":") for endpoint in endpoints]
    known = [Endpoint(host, int(port), secure=False) for host, _, port in split]
    etcd = MultiEndpointEtcd3Client(known, timeout=DEADLINE_SECONDS, failover=True)
    etcd._current_endpoint_label = known[0].netloc  # else one at random
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        yield lambda key: loop.run_in_executor(pool, etcd.put, key, VALUE)
    etcd.close()


@asynccontextmanager
async def etcd3aio(endpoints: list[str]) -> AsyncIterator[Put]:
    from etcd3aio import Etcd3Client

    async with Etcd3Client(endpoints) as etcd:
        kv: Any = etcd.kv
        yield lambda key: kv.put(key.encode(), VALUE, timeout=DEADLINE_SECONDS)


@asynccontextmanager
async def etcd_client_py(endpoints: list[str]) -> AsyncIterator[Put]:
    from etcd_client import Client, ConnectOptions  # type: ignore[import-not-found]

    options = ConnectOptions().with_timeout(DEADLINE_SECONDS)
    client = Client([f"http://{endpoint}" for endpoint in endpoints], options)
    async with client.connect() as etcd:
        yield lambda key: asyncio.wait_for(etcd.put(key.encode(), VALUE), DEADLINE_SECONDS)


@asynccontextmanager
async def aetcd(endpoints: list[str]) -> AsyncIterator[Put]:
    import aetcd  # type: ignore[import-not-found]

    host, _, port = endpoints[0].rpartition(":")  # it knows no more than one
    async with aetcd.Client(host, int(port), timeout=DEADLINE_SECONDS) as etcd:
        yield lambda key: etcd.put(key.encode(), VALUE)


CLIENTS = {
    "etcd-sdk-python": python_etcd3,
    "etcd3aio": etcd3aio,
    "etcd-client-py": etcd_client_py,
    "aetcd": aetcd,
}


async def main(client: str, job: Job) -> None:
    loop = asyncio.get_running_loop()
    calls: list[Call] = []

    async def told() -> list[str]:
        return (await loop.run_in_executor(None, sys.stdin.readline)).split()

    async with CLIENTS[client](list(job.endpoints)) as put:
        await asyncio.wait_for(put(f"{job.prefix}warm"), LONGEST_SECONDS)
        print(READY, flush=True)
        word, when = await told()
        assert word == BEGIN
        began = float(when)

        async def call(number: int, due: float) -> None:
            error = ""
            try:
                await asyncio.wait_for(put(f"{job.prefix}{number:08}"), LONGEST_SECONDS)
            except Exception as failure:
                error = type(failure).__name__
            calls.append(Call("put", number, due, time.monotonic() - began, error))

        async with asyncio.TaskGroup() as group:
            for number in range(round(job.seconds * 1000 / job.every_ms)):
                due = number * job.every_ms / 1000
                await asyncio.sleep(began + due - time.monotonic())
                group.create_task(call(number, due))
        Recording(calls=calls, began=began).save(Path(job.recording))
        print(DONE, flush=True)
        while (await told())[:1] not in ([AUDIT], []):
            pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Job.load(Path(sys.argv[2]))))
