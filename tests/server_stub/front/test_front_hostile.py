"""Hostile clients: bounded work, bounded memory, one line in the log, and then the door."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

CALM = 0xB
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return head + payload


async def flood(client: Any, chunk: Callable[[], bytes], chunks: int = 400) -> Any:
    """Send chunks until the front has enough; return its GOAWAY."""
    with suppress(ConnectionError):
        for _ in range(chunks):
            if client.reader.at_eof() or b"\x00\x00" in client.reader._buffer[-1:]:
                break
            client.writer.write(chunk())
            await client.writer.drain()
            await asyncio.sleep(0)
    return await client.ends()


async def still_serves(served: Any, raw: Any) -> None:
    client = await raw(served)
    client.send(*client.put(1))
    assert (await client.trailers(1))["grpc-status"] == "0"


def rapid_reset(client: Any) -> Callable[[], bytes]:
    ids = count(3, 2)
    client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
    block = client.headers(1, path=rpcs.WATCH_WATCH.path).data

    def chunk() -> bytes:
        return b"".join(
            frame(1, 4, stream_id, block) + frame(3, 0, stream_id, b"\0\0\0\x08")
            for stream_id, _ in zip(ids, range(100), strict=False)
        )

    return chunk


def repeated(data: bytes) -> Callable[[Any], Callable[[], bytes]]:
    return lambda client: lambda: data * 200


def on_a_stream(*frames: Any) -> Callable[[Any], Callable[[], bytes]]:
    """Flood with frames after a watch was opened on stream 1."""

    def begin(client: Any) -> Callable[[], bytes]:
        client.send(client.headers(1, path=rpcs.WATCH_WATCH.path))
        return lambda: b"".join(f.serialize() for f in frames) * 200

    return begin


def empty_continuations(client: Any) -> Callable[[], bytes]:
    client.send(HeadersFrame(1, client.headers(1).data))
    return lambda: frame(9, 0, 1, b"") * 200


def malformed_heads(client: Any) -> Callable[[], bytes]:
    ids = count(1, 2)
    return lambda: b"".join(frame(1, 5, next(ids), b"\x84") for _ in range(200))


FLOODS: dict[str, tuple[Callable[[Any], Callable[[], bytes]], bytes]] = {
    "rapid reset": (rapid_reset, b"too many cancelled calls"),
    "pings": (repeated(frame(6, 0, 0, b"12345678")), b"too_many_pings"),
    "settings": (repeated(frame(4, 0, 0, b"")), b"too many SETTINGS"),
    "large settings": (
        repeated(frame(4, 0, 0, b"\0\x04\0\0\xff\xff" * 500)),
        b"too many SETTINGS",
    ),
    "priorities": (repeated(PriorityFrame(1, 3, 5).serialize()), b"too many PRIORITY frames"),
    "unknown frames": (repeated(frame(0xEE, 0, 0, b"")), b"too many frames of an unknown type"),
    "goaways": (repeated(frame(7, 0, 0, bytes(8))), b"too many GOAWAY frames"),
    "empty data": (on_a_stream(DataFrame(1, b"")), b"too many empty frames"),
    "padding alone": (
        on_a_stream(DataFrame(1, b"", flags=["PADDED"])),
        b"too many empty frames",
    ),
    "empty continuations": (empty_continuations, b"too many CONTINUATION frames"),
    "malformed heads": (malformed_heads, b"too many requests that cannot be served"),
}


@pytest.mark.parametrize(("begin", "reason"), FLOODS.values(), ids=FLOODS)
async def test_floods(
    serve: Any, raw: Any, begin: Any, reason: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve()
    client = await raw(served)
    await client.round_trip()
    with caplog.at_level(logging.INFO):
        goaway = await flood(client, begin(client))
    assert goaway is not None
    assert (goaway.error_code, goaway.additional_data) == (CALM, reason)
    assert len(caplog.records) == 1
    await still_serves(served, raw)
    assert all(not c.running for c in served.front._serving.connections)


async def test_data_for_a_closed_stream_is_paid_for(serve: Any, raw: Any) -> None:
    served = await serve()
    client = await raw(served)
    client.send(*client.put(1))
    await client.trailers(1)
    goaway = await flood(client, lambda: frame(0, 0, 1, b"x") * 200)
    assert goaway is not None
    assert goaway.additional_data == b"too many frames on closed streams"


@pytest.mark.slow
async def test_a_busy_client_may_cancel_a_lot(serve: Any, raw: Any) -> None:
    """Every call that ran to its end pays for one that was cancelled."""
    served = await serve()
    client = await raw(served)
    client.send(WindowUpdateFrame(0, 10_000_000))
    ids = count(1, 2)
    for _ in range(24):
        for _ in range(500):
            stream_id = next(ids)
            client.send(client.headers(stream_id), RstStreamFrame(stream_id, 8))
            last = next(ids)
            client.send(*client.put(last))
        await client.trailers(last)
    assert len(served.services.requests) == 12_000


@pytest.mark.parametrize(
    "frames",
    [
        lambda c: [HeadersFrame(1, bytes(16_000)), *[ContinuationFrame(1, bytes(16_000))] * 3],
        lambda c: [c.headers(1, fields=[(":path", "x" * 40_000)]).data],
    ],
    ids=["in continuations", "decoded"],
)
async def test_headers_without_end(serve: Any, raw: Any, frames: Any) -> None:
    served = await serve()
    client = await raw(served)
    parts = frames(client)
    if isinstance(parts[0], bytes):
        block = parts[0]
        parts = [HeadersFrame(1, block[:16_000])]
        parts += [ContinuationFrame(1, block[16_000:32_000])]
        parts += [ContinuationFrame(1, block[32_000:], flags=["END_HEADERS"])]
    client.send(*parts)
    goaway = await client.ends()
    assert goaway is not None
    assert (goaway.error_code, goaway.additional_data) == (CALM, b"too many headers")
    await still_serves(served, raw)


async def test_an_hpack_bomb(serve: Any, raw: Any) -> None:
    """A few bytes that name a large entry of the table, over and over."""
    served = await serve()
    client = await raw(served)
    entry = b"\x40\x01a\x7f\x81\x1e" + b"z" * 3968
    client.send(frame(1, 5, 1, b"\x83\x86\x84" + entry))
    client.send(frame(1, 5, 3, b"\x83\x86\x84" + b"\xbe" * 16_000))
    goaway = await client.ends()
    assert goaway is not None
    assert (goaway.error_code, goaway.additional_data) == (CALM, b"too many headers")


async def test_metadata_over_the_limit_refuses_the_call_alone(serve: Any, raw: Any) -> None:
    client = await raw(await serve(max_header_list_bytes=1000))
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", rpcs.KV_PUT.path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    long = [*fields, ("token", "t" * 900)]
    client.send(client.headers(1, fields=long, end=True), *client.put(3))
    trailers = await client.trailers(1)
    assert trailers["grpc-status"] == "8"
    assert (await client.trailers(3))["grpc-status"] == "0"


async def test_a_head_that_is_never_finished(serve: Any, raw: Any) -> None:
    served = await serve(head_seconds=0.1)
    client = await raw(served)
    client.send(HeadersFrame(1, client.headers(1).data))
    goaway = await client.ends()
    assert goaway is not None
    assert (goaway.error_code, goaway.additional_data) == (CALM, b"headers took too long")


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", PREFACE[:-1], PREFACE, b"GET / HT", b"\xff" * 500],
)
async def test_a_connection_that_asks_for_nothing_is_dropped(
    serve: Any, raw: Any, sent: bytes
) -> None:
    client = await raw(await serve(head_seconds=0.1), hello=False)
    client.send(sent)
    await client.ends()
    assert client.reader.at_eof()


async def test_a_connection_with_settings_may_idle(serve: Any, raw: Any) -> None:
    client = await raw(await serve(head_seconds=0.05))
    await client.round_trip()
    await asyncio.sleep(0.15)  # longer than what a head may take
    client.send(*client.put(1))
    assert (await client.trailers(1))["grpc-status"] == "0"


async def test_more_streams_than_allowed_are_refused(serve: Any, raw: Any) -> None:
    served = await serve(max_concurrent_streams=3)
    client = await raw(served)
    wait = pb.PutRequest(key=b"!wait")
    for stream_id in (1, 3, 5):
        client.send(client.headers(stream_id), client.message(stream_id, wait))
    client.send(client.headers(7), client.message(7, wait))
    assert (await client.until(RstStreamFrame, 7)).error_code == 7
    served.services.go_on.set()
    for stream_id in (1, 3, 5):
        assert (await client.trailers(stream_id))["grpc-status"] == "0"
    client.send(*client.put(9))
    assert (await client.trailers(9))["grpc-status"] == "0"


async def test_unfinished_messages_are_bounded(serve: Any, raw: Any) -> None:
    served = await serve(max_buffered_bytes=1_000_000)
    client = await raw(served)
    prefix = b"\0\0\x10\0\0"

    def chunk(ids: Any = count(1, 2)) -> bytes:  # noqa: B008
        stream_id = next(ids)
        parts = [client.headers(stream_id).serialize(), frame(0, 0, stream_id, prefix)]
        parts += [frame(0, 0, stream_id, bytes(16_000))] * 10
        return b"".join(parts)

    goaway = await flood(client, chunk)
    assert goaway is not None
    assert goaway.additional_data == b"too much data that no call has taken"
    await still_serves(served, raw)


async def test_replies_that_are_not_taken_are_bounded(serve: Any, raw: Any) -> None:
    """A client that asks and asks, and never opens the window."""
    served = await serve(max_buffered_bytes=100_000)
    client = await raw(served, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    ids = range(1, 61, 2)
    for stream_id in ids:
        client.send(*client.put(stream_id, value=bytes(10_000)))
    trailers = await client.trailers(ids[-1])
    assert trailers["grpc-status"] == "8"
    [connection] = served.front._serving.connections
    assert 100_000 < connection.http2.outbox.pending_bytes < 115_000
    client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 60_000}))
    assert (await client.trailers(1))["grpc-status"] == "0"
    for stream_id in ids:
        client.send(RstStreamFrame(stream_id, 8))
    await client.round_trip()
    assert connection.http2.outbox.pending_bytes == 0
    client.send(WindowUpdateFrame(0, 100_000), *client.put(101))
    assert (await client.trailers(101))["grpc-status"] == "0"


async def test_what_is_buffered_is_given_back(serve: Any, raw: Any) -> None:
    """Consumed, refused, cancelled: whatever ends a call, its bytes no longer count."""
    served = await serve(max_buffered_bytes=1_000_000)
    client = await raw(served)
    await client.round_trip()
    [connection] = served.front._serving.connections
    prefix = b"\0\0\x01\0\0"
    for stream_id in range(1, 31, 6):
        client.send(client.headers(stream_id), frame(0, 0, stream_id, prefix + bytes(10_000)))
        client.send(frame(3, 0, stream_id, b"\0\0\0\x08"))
        refused = stream_id + 2
        client.send(client.headers(refused), frame(0, 0, refused, prefix + bytes(9_000)))
        client.send(frame(0, 1, refused, b""))
        client.send(*client.put(stream_id + 4, value=bytes(9_000)))
        await client.trailers(stream_id + 4)
    await client.round_trip()
    assert connection._buffered_bytes == 0


async def test_garbage_is_answered_and_dropped(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve()
    tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))
    for garbage in (tls_hello, bytes(1000), b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"):
        client = await raw(served, hello=False)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            client.send(garbage)
            assert (await client.reader.read()).startswith(b"HTTP/1.1 4")
        assert len(caplog.records) == 1
    await still_serves(served, raw)


async def test_settings_frames_are_answered_one_by_one(serve: Any, raw: Any) -> None:
    client = await raw(await serve())
    client.send(*[SettingsFrame(0, {})] * 50)
    await client.round_trip()
    assert client._settings_acknowledged() == 52
