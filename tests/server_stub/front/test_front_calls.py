"""gRPC calls of every shape, made by grpcio and by hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.rpc import Rpc


class Stubs:
    """The test services as grpc.aio sees them."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.put = channel.unary_unary(*codec(rpcs.KV_PUT))
        self.snapshot = channel.unary_stream(*codec(rpcs.MAINTENANCE_SNAPSHOT))
        self.watch = channel.stream_stream(*codec(rpcs.WATCH_WATCH))


def codec(rpc: Rpc[Any, Any]) -> tuple[str, Any, Any]:
    return rpc.path, rpc.request.SerializeToString, rpc.reply.FromString


@pytest.fixture
async def served(serve: Any) -> Any:
    return await serve()


@pytest.fixture
async def stubs(served: Any) -> AsyncIterator[Stubs]:
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield Stubs(channel)


def put(key: bytes = b"k", value: bytes = b"v") -> Any:
    return pb.PutRequest(key=key, value=value)


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_535, 300_000, 2_000_000])
async def test_a_unary_call_of_any_size(stubs: Stubs, size: int) -> None:
    value = bytes(size)
    assert (await stubs.put(put(value=value), timeout=20)).prev_kv.value == value


async def test_many_calls_at_once(stubs: Stubs) -> None:
    values = [str(number).encode() * (number % 7 + 1) for number in range(500)]
    replies = await asyncio.gather(*(stubs.put(put(value=value)) for value in values))
    assert [reply.prev_kv.value for reply in replies] == values


async def test_many_large_calls_at_once(stubs: Stubs) -> None:
    values = [bytes((number,)) * 500_000 for number in range(20)]
    replies = await asyncio.gather(*(stubs.put(put(value=value)) for value in values))
    assert [reply.prev_kv.value for reply in replies] == values


def test_the_sync_client(loop_thread: Any) -> None:
    with grpc.insecure_channel(loop_thread.address) as channel:
        path, serialize, parse = codec(rpcs.KV_PUT)
        stub = channel.unary_unary(path, serialize, parse)
        assert stub(put(), timeout=20).prev_kv.value == b"v"
        watch = channel.stream_stream(*codec(rpcs.WATCH_WATCH))
        asked = [pb.WatchRequest(create_request=pb.WatchCreateRequest(watch_id=2))] * 3
        assert [reply.watch_id for reply in watch(iter(asked), timeout=20)] == [0, 1] * 3


@pytest.fixture
def loop_thread(serve_factory: Any) -> Any:
    with serve_factory() as served:
        yield served


async def test_server_streaming(stubs: Stubs, served: Any) -> None:
    call = stubs.snapshot(pb.SnapshotRequest())
    numbers = []
    async for reply in call:
        numbers.append(reply.remaining_bytes)
        if len(numbers) == 300:
            break
    call.cancel()
    assert numbers == list(range(1, 301))


async def test_bidirectional_streaming(stubs: Stubs, served: Any) -> None:
    call = stubs.watch()
    for count in (1, 3, 0, 2):
        await call.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(watch_id=count)))
        assert [(await call.read()).watch_id for _ in range(count)] == list(range(count))
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    await served.services.until(lambda: served.services.ended == 1)


async def test_metadata_and_deadline_reach_the_method(stubs: Stubs, served: Any) -> None:
    metadata = (("token", "t.1"), ("hasleader", "true"), ("trace-bin", b"\0\xff"))
    before = time.monotonic()
    await stubs.put(put(), metadata=metadata, timeout=100)
    call = served.services.calls[0]
    assert call.metadata["token"] == "t.1"
    assert call.metadata["trace-bin"] == b"\0\xff"
    assert call.requires_leader
    assert call.peer.startswith("127.0.0.1:")
    assert "grpc-timeout" not in call.metadata
    assert before + 99 < call.deadline <= time.monotonic() + 100
    await stubs.put(put())
    assert served.services.calls[1].deadline is None
    assert not served.services.calls[1].requires_leader


async def test_a_refusal_keeps_its_code_and_text(stubs: Stubs) -> None:
    text = "etcdserver: 100% \u201cnot\u201d found\n"
    assert await failure(stubs.put(put(b"!refuse", text.encode()))) == (
        grpc.StatusCode.NOT_FOUND,
        text,
    )


async def test_an_unexpected_exception_is_logged_and_tells_nothing(
    stubs: Stubs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        code, text = await failure(stubs.put(put(b"!raise")))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    [record] = [r for r in caplog.records if r.exc_info]
    assert "secret of the server" in str(record.exc_info)
    assert rpcs.KV_PUT.path in record.getMessage()
    await stubs.put(put())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etcdserverpb.KV/Nothing", "unknown method Nothing for service etcdserverpb.KV"),
        ("/no.Such/Method", "unknown service no.Such"),
        ("/nothing", 'malformed method name: "/nothing"'),
    ],
)
async def test_unknown_methods(stubs: Stubs, path: str, text: str) -> None:
    call = stubs.channel.unary_unary(path)(b"")
    assert await failure(call) == (grpc.StatusCode.UNIMPLEMENTED, text)


async def test_a_request_too_large(stubs: Stubs) -> None:
    size = put(value=bytes(2_097_152)).ByteSize()
    assert await failure(stubs.put(put(value=bytes(2_097_152)))) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"grpc: received message larger than max ({size} vs. 2097152)",
    )
    await stubs.put(put())


async def test_bytes_that_are_no_request(stubs: Stubs) -> None:
    code, text = await failure(stubs.channel.unary_unary(rpcs.KV_PUT.path)(b"\xff\xff\xff"))
    assert code is grpc.StatusCode.INTERNAL
    assert text.startswith("grpc: error unmarshalling request: ")
    call = stubs.channel.stream_stream(rpcs.WATCH_WATCH.path)(iter([b"\xff\xff\xff"]))
    assert (await failure(call.read()))[0] is grpc.StatusCode.INTERNAL


async def test_gzip_requests(served: Any) -> None:
    gzip = grpc.Compression.Gzip
    async with grpc.aio.insecure_channel(served.address, compression=gzip) as channel:
        value = b"x" * 100_000
        assert (await Stubs(channel).put(put(value=value))).prev_kv.value == value
    deflate = grpc.Compression.Deflate
    async with grpc.aio.insecure_channel(served.address, compression=deflate) as channel:
        assert await failure(Stubs(channel).put(put(value=b"x" * 1000))) == (
            grpc.StatusCode.UNIMPLEMENTED,
            'grpc: Decompressor is not installed for grpc-encoding "deflate"',
        )


async def test_a_method_runs_in_a_task_of_its_own(stubs: Stubs) -> None:
    """It may ask for its task, and bound what it waits for."""
    replies = await asyncio.gather(*(stubs.put(put(b"!timeout", bytes((n,)))) for n in range(9)))
    assert [reply.prev_kv.value for reply in replies] == [bytes((n,)) for n in range(9)]


async def test_a_method_that_will_not_be_cancelled(serve: Any, raw: Any) -> None:
    """Its caller is answered in time, and it counts against the bound until it ends."""
    served = await serve(max_concurrent_streams=1)
    client = await raw(served)
    fields = [*client_fields(), ("grpc-timeout", "20m")]
    client.send(client.headers(1, fields=fields), client.message(1, put(b"!stubborn")))
    assert (await client.trailers(1))["grpc-status"] == "4"
    client.send(*client.put(3))
    assert (await client.until(RstStreamFrame, 3)).error_code == 7
    served.services.go_on.set()
    await client.round_trip()
    client.send(*client.put(5))
    assert (await client.trailers(5))["grpc-status"] == "0"


async def test_calls_leave_nothing_behind(stubs: Stubs, served: Any) -> None:
    for _ in range(20):
        calls = [stubs.put(put(), timeout=100) for _ in range(50)]
        calls += [stubs.put(put(b"!refuse"), timeout=100) for _ in range(5)]
        await asyncio.gather(*calls, return_exceptions=True)
    serving = served.front._serving
    [connection] = serving.connections
    assert not connection.running
    assert not connection.http2.streams
    assert not any(serving.deadlines._ticks.values())
    assert connection._buffered_bytes == 0


async def test_cancelling_cancels_the_method(stubs: Stubs, served: Any) -> None:
    services = served.services
    call = stubs.put(put(b"!wait"))
    await services.until(lambda: len(services.requests) == 1)
    call.cancel()
    await services.until(lambda: services.cancelled == 1)
    watch = stubs.watch()
    await watch.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(watch_id=1)))
    await watch.read()
    watch.cancel()
    await services.until(lambda: services.cancelled == 2)


async def test_a_lost_connection_cancels_its_methods(served: Any) -> None:
    services = served.services
    async with grpc.aio.insecure_channel(served.address) as channel:
        calls = [Stubs(channel).put(put(b"!wait")) for _ in range(3)]
        await services.until(lambda: len(services.requests) == 3)
    assert all(call.cancelled() for call in calls)
    await services.until(lambda: services.cancelled == 3)


async def test_the_server_enforces_the_deadline(served: Any, raw: Any) -> None:
    client = await raw(served)
    fields = [*client_fields(), ("grpc-timeout", "50m")]
    begun = time.monotonic()
    client.send(client.headers(1, fields=fields), client.message(1, put(b"!wait")))
    trailers = await client.trailers(1)
    assert time.monotonic() - begun >= 0.05
    assert trailers["grpc-status"] == "4"
    assert trailers["grpc-message"] == "context deadline exceeded"
    assert trailers[":status"] == "200"
    await served.services.until(lambda: served.services.cancelled == 1)


async def test_a_deadline_that_has_passed_leaves_no_trace(served: Any, raw: Any) -> None:
    """A call that ends in time is not told of its deadline, before or after."""
    client = await raw(served)
    fields = [*client_fields(), ("grpc-timeout", "20m")]
    client.send(client.headers(1, fields=fields), client.message(1, put()))
    assert (await client.trailers(1))["grpc-status"] == "0"
    client.send(client.headers(3, fields=fields), client.message(3, put(b"!wait")))
    assert (await client.trailers(3))["grpc-status"] == "4"
    assert not [f for f in client.seen if isinstance(f, RstStreamFrame) and f.stream_id == 1]


def client_fields() -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", rpcs.KV_PUT.path),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc+proto"),
    ]


async def test_the_frames_of_an_answer(served: Any, raw: Any) -> None:
    client = await raw(served)
    client.send(*client.put(1))
    trailers = await client.trailers(1)
    head, data, end = [f for f in client.seen if f.stream_id == 1]
    assert head.fields == {":status": "200", "content-type": "application/grpc"}
    assert isinstance(data, DataFrame)
    assert pb.PutResponse.FromString(data.data[5:]).prev_kv.value == b"v"
    assert trailers["grpc-status"] == "0"
    assert end.flags == {"END_HEADERS", "END_STREAM"}


async def test_messages_cut_anywhere(served: Any, raw: Any) -> None:
    client = await raw(served)
    client.send(client.headers(1))
    whole = client.message(1, put(value=b"0123456789")).data
    for at in range(len(whole)):
        client.send(DataFrame(1, whole[at : at + 1]))
    client.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert (await client.trailers(1))["grpc-status"] == "0"
    assert served.services.requests[0].value == b"0123456789"


async def test_several_messages_in_one_frame(served: Any, raw: Any) -> None:
    client = await raw(served)
    asked = pb.WatchRequest(create_request=pb.WatchCreateRequest(watch_id=1))
    data = client.message(1, asked).data * 3
    client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
    client.send(DataFrame(1, data, flags=["END_STREAM"]))
    assert (await client.trailers(1))["grpc-status"] == "0"
    assert len(served.services.requests) == 3
    assert len([f for f in client.seen if isinstance(f, DataFrame)]) == 3


async def test_a_trailing_headers_frame_ends_the_request(served: Any, raw: Any) -> None:
    client = await raw(served)
    client.send(client.headers(1), client.message(1, put(), end=False))
    client.send(client.headers(1, fields=[("x", "y")], end=True))
    assert (await client.trailers(1))["grpc-status"] == "0"


@pytest.mark.parametrize("messages", [0, 2])
async def test_a_unary_call_takes_one_message(served: Any, raw: Any, messages: int) -> None:
    client = await raw(served)
    client.send(client.headers(1))
    data = client.message(1, put()).data * messages
    client.send(DataFrame(1, data, flags=["END_STREAM"]))
    trailers = await client.trailers(1)
    assert trailers["grpc-status"] == "13"
    assert "cardinality" in trailers["grpc-message"]


async def test_half_a_message(served: Any, raw: Any) -> None:
    client = await raw(served)
    client.send(client.headers(1), DataFrame(1, b"\0\0\0\0\x09half", flags=["END_STREAM"]))
    assert (await client.trailers(1))["grpc-message"] == "unexpected EOF"


@pytest.mark.parametrize(
    ("replaced", "status", "grpc_status"),
    [
        ({"content-type": "application/json"}, "415", "3"),
        ({"content-type": "application/grpc-web"}, "415", "3"),
        ({"content-type": "application/grpc+proto"}, "200", "0"),
        ({":method": "PUT"}, "405", "13"),
    ],
)
async def test_requests_that_are_no_call(
    served: Any, raw: Any, replaced: dict[str, str], status: str, grpc_status: str
) -> None:
    client = await raw(served)
    fields = [(name, replaced.get(name, value)) for name, value in client_fields()]
    client.send(client.headers(1, fields=fields), client.message(1, put()))
    frame = await client.until(HeadersFrame, 1)
    assert frame.fields[":status"] == status
    trailers = frame.fields if "END_STREAM" in frame.flags else await client.trailers(1)
    assert trailers["grpc-status"] == grpc_status


async def test_an_unknown_encoding_names_the_known_ones(served: Any, raw: Any) -> None:
    client = await raw(served)
    client.send(client.headers(1, fields=[*client_fields(), ("grpc-encoding", "br")], end=True))
    trailers = await client.trailers(1)
    assert trailers["grpc-status"] == "12"
    assert trailers["grpc-accept-encoding"] == "identity,gzip"


async def test_an_early_answer_tells_the_client_to_stop_sending(served: Any, raw: Any) -> None:
    """After trailers, a client that has not half-closed is told so by RST_STREAM(NO_ERROR)."""
    client = await raw(served)
    client.send(client.headers(1, path="/no.Such/Method"))
    assert (await client.trailers(1))["grpc-status"] == "12"
    assert (await client.until(RstStreamFrame, 1)).error_code == 0
    client.send(client.message(1, put()), *client.put(3))
    assert (await client.trailers(3))["grpc-status"] == "0"
