"""The end of a front: clients are told, calls in flight finish, then it is over."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame
from inprocess.sockets import caller, is_over, nothing_left_open

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.server_stub.front import Front, http2_connection


async def acknowledge(client: Any) -> None:
    """Take the first GOAWAY and answer the ping behind it."""
    goaway = await client.until(GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code) == (2**31 - 1, 0)
    ping = await client.until(PingFrame)
    client.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))


async def test_an_idle_connection_ends_at_once(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served)
    await client.round_trip()
    closing = asyncio.create_task(served.front.close(60))
    await acknowledge(client)
    goaway = await client.ends()
    assert goaway is not None
    assert (goaway.last_stream_id, goaway.error_code) == (0, 0)
    client.writer.close()
    await asyncio.wait_for(closing, 20)


async def test_calls_in_flight_finish(serve: Any, raw: Any) -> None:
    """Also one that was under way while the first GOAWAY was; not one after the second."""
    served = await serve()
    client = await raw(served)
    wait = pb.PutRequest(key=b"!wait", value=b"done")
    client.send(client.headers(1), client.message(1, wait))
    await served.services.until(lambda: len(served.services.requests) == 1)
    closing = asyncio.create_task(served.front.close(60))
    await client.until(GoAwayFrame)
    client.send(client.headers(3), client.message(3, wait))
    ping = await client.until(PingFrame)
    client.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    assert (await client.until(GoAwayFrame)).last_stream_id == 3
    client.send(client.headers(5), client.message(5, wait))
    await client.round_trip()
    assert len(served.services.requests) == 2
    assert not closing.done()
    served.services.go_on.set()
    assert (await client.trailers(1))["grpc-status"] == "0"
    assert (await client.trailers(3))["grpc-status"] == "0"
    await client.ends()
    assert not [f for f in client.seen if f.stream_id == 5]
    client.writer.close()
    await asyncio.wait_for(closing, 20)


async def test_a_reply_that_waits_for_the_window_is_in_flight(serve: Any, raw: Any) -> None:
    from hyperframe.frame import SettingsFrame, WindowUpdateFrame

    served = await serve()
    client = await raw(served, {SettingsFrame.INITIAL_WINDOW_SIZE: 10})
    client.send(*client.put(1, value=bytes(1000)))
    await client.until(DataFrame, 1)
    closing = asyncio.create_task(served.front.close(60))
    await acknowledge(client)
    await client.until(GoAwayFrame)
    client.send(WindowUpdateFrame(1, 10_000))
    assert (await client.trailers(1))["grpc-status"] == "0"
    client.writer.close()
    await asyncio.wait_for(closing, 20)


async def test_after_the_grace_calls_are_refused_and_cancelled(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served)
    client.send(client.headers(1), client.message(1, pb.PutRequest(key=b"!wait")))
    await served.services.until(lambda: len(served.services.requests) == 1)
    closing = asyncio.create_task(served.front.close(0.05))
    trailers = await client.trailers(1)
    assert trailers["grpc-status"] == "14"
    assert trailers["grpc-message"] == "etcdserver: server stopped"
    await client.ends()
    client.writer.close()
    await asyncio.wait_for(closing, 20)
    assert served.services.cancelled == 1


async def test_a_client_that_says_nothing_does_not_hold_up_the_end(
    serve: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_connection, "_DRAIN_SECONDS", 0.05)
    served = await serve(linger_seconds=0.05)
    client = await raw(served)
    unknown = await raw(served, hello=False)
    await client.round_trip()
    await asyncio.wait_for(served.front.close(60), 20)
    assert not served.front._serving.connections
    assert await unknown.frame() is None


async def test_grpcio_sees_nothing_of_it(serve: Any) -> None:
    served = await serve()
    async with grpc.aio.insecure_channel(served.address) as channel:
        put = channel.unary_unary(
            rpcs.KV_PUT.path, rpcs.KV_PUT.request.SerializeToString, rpcs.KV_PUT.reply.FromString
        )
        call = put(pb.PutRequest(key=b"!wait", value=b"done"))
        await served.services.until(lambda: len(served.services.requests) == 1)
        closing = asyncio.create_task(served.front.close(60))
        await asyncio.sleep(0)
        served.services.go_on.set()
        assert (await call).prev_kv.value == b"done"
        await asyncio.wait_for(closing, 20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await put(pb.PutRequest(key=b"k"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_nothing_is_left_behind(serve: Any, raw: Any) -> None:
    served = await serve()
    before = asyncio.all_tasks()
    client = await raw(served)
    for stream_id in (1, 3, 5):
        client.send(client.headers(stream_id, path=rpcs.WATCH_WATCH.path))
    client.send(client.headers(7), client.message(7, pb.PutRequest(key=b"!wait")))
    await served.services.until(lambda: len(served.services.calls) == 4)
    await served.front.close(0)
    assert asyncio.all_tasks() == before
    assert served.services.cancelled == 4


async def test_a_port_in_use_is_an_error_that_names_it(serve: Any) -> None:
    served = await serve()
    with pytest.raises(OSError, match=f"{served.port}") as caught:
        await Front({}).listen("127.0.0.1", served.port)
    assert "127.0.0.1" in str(caught.value)


async def test_a_port_is_free_again_at_once(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served)
    client.send(*client.put(1))
    await client.trailers(1)
    await served.front.close(0)
    again = Front({})
    assert await again.listen("127.0.0.1", served.port) == ("127.0.0.1", served.port)
    await again.close()


async def test_names_and_no_name() -> None:
    front = Front({})
    host, port = await front.listen("localhost", 0)
    assert host == "127.0.0.1"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    _, port = await front.listen("", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 404")
    writer.close()
    await front.close()
    with pytest.raises(OSError):
        await front.listen("no-such-host.invalid", 0)


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("end", ["close", "abort"])
async def test_nobody_is_served_who_came_while_it_ended(end: str, turns: int, serve: Any) -> None:
    """As a killed process would not: the connection is over, whatever the loop had seen of it."""
    served = await serve()
    with nothing_left_open():
        connection = caller((served.host, served.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await getattr(served.front, end)()
        assert await is_over(connection)
        connection.close()
        assert not served.front._serving.connections
