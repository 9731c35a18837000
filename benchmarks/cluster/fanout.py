"""How long it takes until every watcher has an event: many watchers of one key, on one stream."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import grpc.aio

from etcd_pinwheel.protos.etcdserverpb import PutRequest, WatchCreateRequest, WatchRequest
from etcd_pinwheel.protos.rpcs import KV_PUT, WATCH_WATCH

KEY = b"benchmark/fanout"
DEADLINE_SECONDS = 60.0


def until_all_have_it_ms(put_target: str, watch_target: str, watchers: int, puts: int) -> float:
    """Put so often; return the median time from the put's call to the last watcher's event."""
    return asyncio.run(_measure(put_target, watch_target, watchers, puts))


async def _measure(put_target: str, watch_target: str, watchers: int, puts: int) -> float:
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        grpc.aio.insecure_channel(put_target) as putting,
        grpc.aio.insecure_channel(watch_target) as watching,
    ):
        put = putting.unary_unary(
            KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
        )
        watch = watching.stream_stream(
            WATCH_WATCH.path, WatchRequest.SerializeToString, WATCH_WATCH.reply.FromString
        )
        stream: Any = watch(None)
        for _ in range(watchers):
            await stream.write(WatchRequest(create_request=WatchCreateRequest(key=KEY)))
        for _ in range(watchers):
            assert (await stream.read()).created
        took = []
        for number in range(puts):
            began = time.perf_counter()
            await put(PutRequest(key=KEY, value=b"%d" % number))
            left = watchers
            while left:
                left -= bool((await stream.read()).events)
            took.append(time.perf_counter() - began)
        stream.cancel()
        return median(took) * 1e3
