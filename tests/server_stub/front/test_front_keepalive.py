"""Keep-alive pings, the client's and ours."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from hyperframe.frame import PingFrame

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

PING = PingFrame(0, b"12345678")


@pytest.mark.parametrize("open_stream", [False, True])
async def test_the_fourth_ping_in_a_row_is_one_too_many(
    serve: Any, raw: Any, open_stream: bool
) -> None:
    client = await raw(await serve())
    if open_stream:
        client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
    for _ in range(3):
        client.send(PING)
        await client.until(PingFrame, opaque_data=b"12345678", flags={"ACK"})
    client.send(PING)
    goaway = await client.ends()
    assert goaway is not None
    assert (goaway.error_code, goaway.additional_data) == (0xB, b"too_many_pings")


async def test_pings_among_calls_are_fine(serve: Any, raw: Any) -> None:
    client = await raw(await serve())
    for stream_id in range(1, 41, 2):
        client.send(PING, *client.put(stream_id))
        assert (await client.trailers(stream_id))["grpc-status"] == "0"


async def test_slow_pings_are_fine_if_there_is_a_stream(serve: Any, raw: Any) -> None:
    """The rate is configured; without a stream it is two hours, unless permitted."""
    for permitted, open_stream in ((False, True), (True, False)):
        served = await serve(keepalive_min_seconds=0.0, keepalive_permit_without_stream=permitted)
        client = await raw(served)
        if open_stream:
            client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
        client.send(*[PING] * 20)
        await client.round_trip()
    served = await serve(keepalive_min_seconds=0.0)
    client = await raw(served)
    client.send(*[PING] * 20)
    assert await client.ends() is not None


async def test_a_silent_client_is_pinged_and_then_dropped(serve: Any, raw: Any) -> None:
    served = await serve(keepalive_interval_seconds=0.05, keepalive_timeout_seconds=0.1)
    client = await raw(served)
    client.send(client.headers(1), client.message(1, pb.PutRequest(key=b"!wait")))
    await client.until(PingFrame)
    await client.ends()
    await served.services.until(lambda: served.services.cancelled == 1)
    assert not served.front._serving.connections


async def test_a_client_that_answers_stays(serve: Any, raw: Any) -> None:
    client = await raw(await serve(keepalive_interval_seconds=0.05, keepalive_timeout_seconds=1.0))
    for _ in range(3):
        ping = await client.until(PingFrame)
        client.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    await client.round_trip()


@pytest.mark.slow
async def test_grpcio_that_pings_too_often_is_cut_off(serve: Any) -> None:
    served = await serve()
    options = [
        ("grpc.keepalive_time_ms", 500),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(served.address, options=options) as channel:
        put = channel.unary_unary(rpcs.KV_PUT.path, rpcs.KV_PUT.request.SerializeToString)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(put(pb.PutRequest(key=b"!wait")), 30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
