"""HTTP/2 by the letter: what a client must not do, and what it may."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from etcd_pinwheel.protos import etcdserverpb as pb

NO_ERROR, PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION = 0, 1, 3, 5, 6, 9


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return head + payload


VIOLATIONS: list[tuple[str, Callable[[Any], list[Any]], int]] = [
    ("DATA on stream 0", lambda c: [frame(0, 0, 0, b"x")], PROTOCOL),
    ("DATA on an idle stream", lambda c: [DataFrame(5, b"x")], PROTOCOL),
    ("DATA with too much padding", lambda c: [c.headers(1), frame(0, 8, 1, b"\x05abc")], PROTOCOL),
    ("DATA padded with nothing", lambda c: [c.headers(1), frame(0, 8, 1, b"")], PROTOCOL),
    ("HEADERS on stream 0", lambda c: [frame(1, 5, 0, c.headers(1).data)], PROTOCOL),
    ("HEADERS on an even stream", lambda c: [c.headers(2)], PROTOCOL),
    ("HEADERS with too much padding", lambda c: [frame(1, 12, 1, b"\xff\x82")], PROTOCOL),
    ("HEADERS without their priority", lambda c: [frame(1, 0x24, 1, b"abc")], SIZE),
    ("HEADERS that are no HPACK", lambda c: [frame(1, 4, 1, b"\xff\xff\xff\xff\xff")], COMPRESSION),
    ("HEADERS with an unknown index", lambda c: [frame(1, 4, 1, b"\xfe")], COMPRESSION),
    ("PRIORITY too short", lambda c: [frame(2, 0, 1, b"abc")], SIZE),
    ("RST_STREAM too short", lambda c: [c.headers(1), frame(3, 0, 1, b"abc")], SIZE),
    ("RST_STREAM on an idle stream", lambda c: [RstStreamFrame(3)], PROTOCOL),
    ("RST_STREAM on stream 0", lambda c: [frame(3, 0, 0, b"\0\0\0\x08")], PROTOCOL),
    ("SETTINGS on a stream", lambda c: [frame(4, 0, 1, b"")], PROTOCOL),
    ("SETTINGS of an odd size", lambda c: [frame(4, 0, 0, b"12345")], SIZE),
    ("an acknowledgement with settings", lambda c: [frame(4, 1, 0, b"123456")], SIZE),
    ("a window too large", lambda c: [SettingsFrame(0, {4: 2**31})], FLOW),
    ("a frame size too small", lambda c: [SettingsFrame(0, {5: 16_383})], PROTOCOL),
    ("a frame size too large", lambda c: [SettingsFrame(0, {5: 2**24})], PROTOCOL),
    ("ENABLE_PUSH of 2", lambda c: [SettingsFrame(0, {2: 2})], PROTOCOL),
    ("PUSH_PROMISE", lambda c: [c.headers(1), PushPromiseFrame(1, 2, b"\x82")], PROTOCOL),
    ("PING too short", lambda c: [frame(6, 0, 0, b"1234567")], SIZE),
    ("PING on a stream", lambda c: [frame(6, 0, 1, b"12345678")], PROTOCOL),
    ("WINDOW_UPDATE too short", lambda c: [frame(8, 0, 0, b"123")], SIZE),
    ("WINDOW_UPDATE of nothing", lambda c: [frame(8, 0, 0, b"\0\0\0\0")], PROTOCOL),
    ("WINDOW_UPDATE on an idle stream", lambda c: [frame(8, 0, 1, b"\0\0\0\1")], PROTOCOL),
    ("a connection window too large", lambda c: [WindowUpdateFrame(0, 2**31 - 1)], FLOW),
    ("CONTINUATION of nothing", lambda c: [ContinuationFrame(1, b"\x82")], PROTOCOL),
    ("a frame too large", lambda c: [b"\x00\x40\x01\0\0\0\0\0\x01"], SIZE),
    (
        "another frame before CONTINUATION",
        lambda c: [HeadersFrame(1, c.headers(1).data), PingFrame(0, b"12345678")],
        PROTOCOL,
    ),
    (
        "CONTINUATION of another stream",
        lambda c: [HeadersFrame(1, c.headers(1).data), ContinuationFrame(3, b"")],
        PROTOCOL,
    ),
    (
        "settings that make an open window overflow",
        lambda c: [
            c.headers(1),
            WindowUpdateFrame(1, 2**31 - 1 - 65_535),
            SettingsFrame(0, {4: 65_536}),
        ],
        FLOW,
    ),
]


@pytest.mark.parametrize(
    ("frames", "code"), [v[1:] for v in VIOLATIONS], ids=[v[0] for v in VIOLATIONS]
)
async def test_a_broken_rule_of_the_connection_ends_it(
    serve: Any, raw: Any, frames: Any, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve()
    client = await raw(served)
    await client.round_trip()
    with caplog.at_level(logging.INFO):
        client.send(*frames(client), *client.put(99))
        goaway = await client.ends()
    assert goaway is not None
    assert goaway.error_code == code
    assert goaway.additional_data
    assert len(caplog.records) == 1
    assert not served.services.requests


@pytest.mark.parametrize("last_stream_id", [0, 3])
async def test_goaway_names_the_last_stream_served(
    serve: Any, raw: Any, last_stream_id: int
) -> None:
    client = await raw(await serve())
    for stream_id in range(1, last_stream_id + 1, 2):
        client.send(*client.put(stream_id))
        await client.trailers(stream_id)
    client.send(frame(6, 0, 0, b"short"))
    goaway = await client.ends()
    assert goaway is not None
    assert goaway.last_stream_id == last_stream_id


STREAM_ERRORS: list[tuple[str, Callable[[Any], list[Any]], int]] = [
    (
        "a head without a path",
        lambda c: [c.headers(1, fields=[(":method", "GET"), (":scheme", "http")])],
        PROTOCOL,
    ),
    ("an empty path", lambda c: [c.headers(1, path="")], PROTOCOL),
    (
        "a header of HTTP/1",
        lambda c: [
            c.headers(
                1,
                fields=[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    ("connection", "close"),
                ],
            )
        ],
        PROTOCOL,
    ),
    (
        "trailers that do not end the stream",
        lambda c: [c.headers(1), c.headers(1, fields=[("a", "b")])],
        PROTOCOL,
    ),
    (
        "DATA after the end of the stream",
        lambda c: [
            c.headers(1),
            c.message(1, pb.PutRequest(key=b"!wait")),
            DataFrame(1, b"more"),
        ],
        CLOSED,
    ),
    (
        "HEADERS after the end of the stream",
        lambda c: [
            c.headers(1),
            c.message(1, pb.PutRequest(key=b"!wait")),
            c.headers(1, fields=[("a", "b")], end=True),
        ],
        PROTOCOL,
    ),
    (
        "WINDOW_UPDATE of nothing",
        lambda c: [c.headers(1), frame(8, 0, 1, b"\0\0\0\0")],
        PROTOCOL,
    ),
    (
        "a stream window too large",
        lambda c: [c.headers(1), WindowUpdateFrame(1, 2**31 - 1)],
        FLOW,
    ),
]


@pytest.mark.parametrize(
    ("frames", "code"), [v[1:] for v in STREAM_ERRORS], ids=[v[0] for v in STREAM_ERRORS]
)
async def test_a_broken_rule_of_a_stream_resets_it_alone(
    serve: Any, raw: Any, frames: Any, code: int
) -> None:
    client = await raw(await serve())
    client.send(*frames(client))
    assert (await client.until(RstStreamFrame, 1)).error_code == code
    client.send(*client.put(3))
    assert (await client.trailers(3))["grpc-status"] == "0"


async def test_what_is_allowed(serve: Any, raw: Any) -> None:
    """Padding, priorities, unknown frames and settings, split headers, late frames."""
    client = await raw(await serve())
    request = client.message(1, pb.PutRequest(key=b"k", value=b"v")).data
    block = client.headers(1).data
    client.send(
        SettingsFrame(0, {0x99: 7, 3: 0, 2: 1}),
        PriorityFrame(1, 0, 15, False),
        frame(0xBE, 0xFF, 1, b"unknown"),
        GoAwayFrame(0, 0, 0),
        SettingsFrame(0, flags=["ACK"]),
    )
    padded = HeadersFrame(1, block[:3], flags=["PADDED", "PRIORITY"])
    padded.pad_length = 9
    client.send(padded, ContinuationFrame(1, block[3:5]), ContinuationFrame(1, b""))
    client.send(ContinuationFrame(1, block[5:], flags=["END_HEADERS"]))
    data = DataFrame(1, request, flags=["PADDED", "END_STREAM"])
    data.pad_length = 200
    client.send(data)
    assert (await client.trailers(1))["grpc-status"] == "0"
    client.send(
        DataFrame(1, b"late"),
        WindowUpdateFrame(1, 5),
        RstStreamFrame(1, 8),
        client.headers(1, fields=[("late", "trailers")], end=True),
        *client.put(3),
    )
    assert (await client.trailers(3))["grpc-status"] == "0"


async def test_a_refused_head_keeps_the_header_tables_in_step(serve: Any, raw: Any) -> None:
    """A stream that is refused may have taught the table what later streams refer to."""
    served = await serve(max_concurrent_streams=1)
    client = await raw(served)
    waiting = client.message(1, pb.PutRequest(key=b"!wait"))
    client.send(client.headers(1), waiting)
    fields = [(n, v) for n, v in _fields() if n != "token"]
    client.send(client.headers(3, fields=[*fields, ("token", "secret")], end=True))
    assert (await client.until(RstStreamFrame, 3)).error_code == 7
    served.services.go_on.set()
    await client.trailers(1)
    client.send(client.headers(5, fields=[*fields, ("token", "secret")]))
    client.send(client.message(5, pb.PutRequest(key=b"k")))
    assert (await client.trailers(5))["grpc-status"] == "0"
    assert served.services.calls[-1].metadata["token"] == "secret"


def _fields() -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Put"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


async def test_the_settings_of_the_front(serve: Any, raw: Any) -> None:
    client = await raw(await serve(max_concurrent_streams=77, max_header_list_bytes=4000))
    settings = (await client.until(SettingsFrame)).settings
    assert settings == {3: 77, 4: 256 * 1024, 6: 4000}
    assert (await client.until(WindowUpdateFrame, 0)).window_increment > 1_000_000


async def test_the_first_frame_is_settings(serve: Any, raw: Any) -> None:
    client = await raw(await serve(), hello=False)
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *client.put(1))
    goaway = await client.ends()
    assert goaway is not None
    assert goaway.error_code == PROTOCOL


async def test_the_preface_may_come_in_pieces(serve: Any, raw: Any) -> None:
    client = await raw(await serve(), hello=False)
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, {}).serialize()
    rest = b"".join(f.serialize() for f in client.put(1))
    for byte in begin + rest:
        client.send(bytes((byte,)))
        await client.writer.drain()
    assert (await client.trailers(1))["grpc-status"] == "0"


async def test_h2_agrees(serve: Any, raw: Any) -> None:
    """The state machine of the h2 library, as the client, finds nothing to object to."""
    served = await serve()
    transport = await raw(served, hello=False)
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    for number in range(20):
        stream_id = client.get_next_available_stream_id()
        client.send_headers(stream_id, [*_fields(), ("x", str(number % 3))])
        request = transport.message(stream_id, pb.PutRequest(key=b"k", value=bytes(3000 * number)))
        for at in range(0, len(request.data), 16_000):
            client.send_data(stream_id, request.data[at : at + 16_000])
        client.end_stream(stream_id)
        transport.send(client.data_to_send())
        data, trailers = b"", None
        while trailers is None:
            received = await transport.reader.read(65_536)
            assert received, "the front has ended the connection"
            for event in client.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    data += event.data
                    client.acknowledge_received_data(event.flow_controlled_length, stream_id)
                elif isinstance(event, h2.events.TrailersReceived):
                    trailers = dict(event.headers)
            transport.send(client.data_to_send())
        assert trailers["grpc-status"] == "0"
        assert len(pb.PutResponse.FromString(data[5:]).prev_kv.value) == 3000 * number
