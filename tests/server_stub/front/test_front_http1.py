"""Plain HTTP on the same port, in both versions."""

from __future__ import annotations

import asyncio
import logging
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from etcd_pinwheel.server_stub.api.call import HttpRequest, HttpResponse
from etcd_pinwheel.server_stub.front.frames import ErrorCode


class Http1:
    """A socket, and h11's answers read by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def response(self, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            size = int(headers.get("content-length", 0)) if body else 0
            return int(lines[0].split()[1]), headers, await self.reader.readexactly(size)

    async def ended(self) -> bool:
        async with asyncio.timeout(20):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@pytest.fixture
async def http1() -> Any:
    clients: list[Http1] = []

    async def connect(served: Any) -> Http1:
        clients.append(Http1(*await asyncio.open_connection(served.host, served.port)))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.transport.abort()


def test_urllib(serve_factory: Any) -> None:
    with serve_factory() as served:
        url = f"http://{served.address}"
        with urllib.request.urlopen(f"{url}/hello?a=1&a=2&b=", timeout=20) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "text/plain"
            assert response.headers["date"]
            assert response.read() == b"GET /hello {'a': ['1', '2'], 'b': ['']} 0"
        with urllib.request.urlopen(f"{url}/hello", b"x" * 100_000, timeout=20) as response:
            assert response.read() == b"POST /hello {} 100000"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/nothing", timeout=20)
        assert caught.value.code == 404
        caught.value.close()


async def test_requests_follow_each_other_on_one_connection(serve: Any, http1: Any) -> None:
    """Also when they are sent before the answers are read, and cut anywhere."""
    client = await http1(await serve())
    head = b"HEAD /hello HTTP/1.1\r\nhost: x\r\n\r\n"
    get = b"GET /%68ello HTTP/1.1\r\nhost: x\r\n\r\n"
    chunked = b"POST /hello HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked += b"5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n"
    for byte in get + head + chunked + get:
        client.writer.write(bytes((byte,)))
        await client.writer.drain()
    assert (await client.response())[2] == b"GET /hello {} 0"
    status, headers, _ = await client.response(body=False)
    assert (status, headers["content-length"]) == (200, "16")
    assert (await client.response())[2] == b"POST /hello {} 8"
    assert (await client.response())[2] == b"GET /hello {} 0"


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("http://x/hello", 200, b"GET /hello {} 0"),
        ("HTTPS://[::1]:2379/%68ello?a=b", 200, b"GET /hello {'a': ['b']} 0"),
        ("http:///hello?", 200, b"GET /hello {} 0"),
        ("http://x", 404, b"404 page not found\n"),
        ("http://x/hello#a", 404, b"404 page not found\n"),
        ("http://[::1/hello", 400, b"bad request target\n"),
    ],
)
async def test_targets_as_for_a_proxy(
    serve: Any, http1: Any, target: str, status: int, body: bytes
) -> None:
    client = await http1(await serve())
    client.writer.write(f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert (await client.response())[::2] == (status, body)
    client.writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await client.response())[0] == 200


async def test_no_answer_waits_for_an_acknowledgement(serve: Any, http1: Any) -> None:
    """Else one is late by as long as the client is silent, whatever it speaks."""
    served = await serve()
    client = await http1(served)
    client.writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    await client.response()
    (connection,) = served.front._serving.connections
    accepted = connection._transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_client_can_have_it_closed(serve: Any, http1: Any) -> None:
    served = await serve()
    for request in (
        b"GET /hello HTTP/1.0\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ):
        client = await http1(served)
        client.writer.write(request)
        status, headers, _ = await client.response()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended()


async def test_a_failing_handler(serve: Any, http1: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = await http1(await serve())
    client.writer.write(
        b"GET /broken HTTP/1.1\r\nhost: x\r\n\r\nGET /hello HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    status, _, body = await client.response()
    assert status == 500
    assert b"secret" not in body
    assert (await client.response())[0] == 200
    [record] = [r for r in caplog.records if r.exc_info]
    assert "secret of the server" in str(record.exc_info)


async def test_expect_continue(serve: Any, http1: Any) -> None:
    client = await http1(await serve())
    client.writer.write(
        b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    )
    assert (await client.response())[0] == 100
    client.writer.write(b"hi")
    assert (await client.response())[2] == b"POST /hello {} 2"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /" + b"x" * 40_000, 431),
        (
            b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"
            + b"x" * 30_000,
            413,
        ),
        (b"POST /hello HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_bad_requests_are_answered_and_end_the_connection(
    serve: Any, http1: Any, request_bytes: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = await http1(await serve(max_message_bytes=20_000))
    with caplog.at_level(logging.INFO):
        client.writer.write(request_bytes)
        answered, headers, _ = await client.response()
    assert (answered, headers["connection"]) == (status, "close")
    assert await client.ended()
    assert len(caplog.records) == 1


async def test_slow_heads_and_bodies_run_out_of_time(serve: Any, http1: Any) -> None:
    served = await serve(head_seconds=0.2, body_seconds=0.2)
    head = await http1(served)
    body = await http1(served)
    body.writer.write(b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")

    async def trickle(client: Any, data: bytes) -> None:
        try:
            while True:
                client.writer.write(data)
                await client.writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass

    async with asyncio.timeout(20):
        tricklers = [
            asyncio.create_task(trickle(head, b"G")),
            asyncio.create_task(trickle(body, b"x")),
        ]
        await asyncio.gather(head.ended(), body.ended())
    for trickler in tricklers:
        trickler.cancel()


async def test_an_idle_connection_is_closed(serve: Any, http1: Any) -> None:
    client = await http1(await serve(idle_seconds=0.1))
    client.writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await client.response())[0] == 200
    assert await client.ended()


async def test_a_client_that_does_not_read_is_not_served(serve: Any, http1: Any) -> None:
    served = await serve()
    answered = 0

    async def large(request: HttpRequest) -> HttpResponse:
        nonlocal answered
        answered += 1
        return HttpResponse(200, bytes(40_000))

    served.front._serving.routes["/large"] = large
    client = await http1(served)
    client.writer.transport.pause_reading()
    client.writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n" * 2000)
    other = await http1(served)
    before = -1
    while before != answered:  # until it is served no further
        before = answered
        for _ in range(20):
            other.writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
            await other.response()
    assert 0 < answered < 2000
    connections = served.front._serving.connections
    assert max(c._transport.get_write_buffer_size() for c in connections) < 200_000
    client.writer.transport.resume_reading()
    for _ in range(2000):
        assert len((await client.response())[2]) == 40_000


async def test_shutdown_lets_a_request_finish(serve: Any, http1: Any) -> None:
    served = await serve()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: HttpRequest) -> HttpResponse:
        begun.set()
        await go_on.wait()
        return HttpResponse(200, b"done")

    served.front._serving.routes["/slow"] = slow
    busy, idle = await http1(served), await http1(served)
    idle.writer.write(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
    await idle.response()
    busy.writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
    await begun.wait()
    closing = asyncio.create_task(served.front.close(60))
    assert await idle.ended()
    go_on.set()
    status, headers, body = await busy.response()
    assert (status, headers["connection"], body) == (200, "close", b"done")
    busy.writer.close()
    await asyncio.wait_for(closing, 20)


def get(client: Any, stream_id: int, path: str, method: str = "GET", end: bool = True) -> Any:
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
    return client.headers(stream_id, fields=fields, end=end)


async def test_plain_requests_over_http2(serve: Any, raw: Any) -> None:
    client = await raw(await serve(max_message_bytes=40_000))
    client.send(get(client, 1, "/hello?a=b"))
    head = await client.until(HeadersFrame, 1)
    assert head.fields[":status"] == "200"
    assert head.fields["content-type"] == "text/plain"
    assert (await client.until(DataFrame, 1)).data == b"GET /hello {'a': ['b']} 0"
    assert "END_STREAM" in (await client.until(DataFrame, 1)).flags

    client.send(get(client, 3, "/hello", "POST", end=False))
    client.send(DataFrame(3, bytes(10_000)), DataFrame(3, b"", flags=["END_STREAM"]))
    assert (await client.until(DataFrame, 3)).data == b"POST /hello {} 10000"

    client.send(get(client, 5, "/hello", "HEAD"))
    head = await client.until(HeadersFrame, 5)
    assert (head.fields["content-length"], "END_STREAM" in head.flags) == ("16", True)

    for stream_id, path, method, status in (
        (7, "/nothing", "GET", "404"),
        (9, "/broken", "GET", "500"),
        (11, "/nothing", "POST", "415"),
    ):
        client.send(get(client, stream_id, path, method))
        assert (await client.until(HeadersFrame, stream_id)).fields[":status"] == status

    client.send(get(client, 13, "/hello", "POST", end=False))
    for _ in range(3):
        client.send(DataFrame(13, bytes(15_000)))
    assert (await client.until(HeadersFrame, 13)).fields[":status"] == "413"


async def test_a_body_too_large_is_answered_once(serve: Any, raw: Any) -> None:
    """Also when the answer has to wait for the client, which sends on meanwhile."""
    served = await serve(max_message_bytes=10_000)
    client = await raw(served, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    asked = 0

    async def counted(request: HttpRequest) -> HttpResponse:
        nonlocal asked
        asked += 1
        return HttpResponse(200, b"done")

    served.front._serving.routes["/counted"] = counted
    client.send(get(client, 1, "/counted", "POST", end=False))
    sent = 0
    while sent < 600_000:
        client.send(DataFrame(1, bytes(15_000)))
        sent += 15_000
        await client.round_trip()
    client.send(DataFrame(1, b"", flags=["END_STREAM"]))
    await client.quiet()
    client.send(WindowUpdateFrame(1, 10_000))
    body = b""
    while "END_STREAM" not in (last := await client.until(DataFrame, 1)).flags:
        body += last.data
    assert body == b"http: request body too large\n"
    await client.quiet()
    heads = [f.fields[":status"] for f in client.seen if isinstance(f, HeadersFrame)]
    assert (heads, asked) == (["413"], 0)
    [connection] = served.front._serving.connections
    assert connection._buffered_bytes == 0


async def test_answers_that_are_not_taken_are_bounded(serve: Any, raw: Any) -> None:
    """A client that asks and asks, and never opens the window."""
    served = await serve(max_buffered_bytes=100_000)
    client = await raw(served, {SettingsFrame.INITIAL_WINDOW_SIZE: 0})

    async def large(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, bytes(10_000))

    served.front._serving.routes["/large"] = large
    for stream_id in range(1, 61, 2):
        client.send(get(client, stream_id, "/large"))
    assert (await client.until(RstStreamFrame, 59)).error_code == ErrorCode.ENHANCE_YOUR_CALM
    [connection] = served.front._serving.connections
    assert 100_000 < connection.http2.outbox.pending_bytes <= 110_000
    client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 20_000}))
    assert (await client.until(DataFrame, 1)).data == bytes(10_000)
