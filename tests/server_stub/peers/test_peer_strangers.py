"""Whoever calls the peer port and is no member: refused with one line, and nothing kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.peers import PeerLimits
from etcd_pinwheel.server_stub.peers.frames import Kind, framed
from etcd_pinwheel.server_stub.peers.greeting import (
    GREETING_BYTES,
    MAGIC,
    Channel,
    Hello,
    Verdict,
    Welcome,
)
from etcd_pinwheel.server_stub.peers.wire import Encoder
from etcd_pinwheel.server_stub.raft.messages import Message

from .conftest import CLUSTER, A, B, C, heartbeat, snapshot

SECONDS = 20
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def call(station: Any) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(station.host, station.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came before the end of a connection."""
    with suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), SECONDS)
    return b""


async def say_hello(stream: Stream, hello: Hello) -> Welcome:
    reader, writer = stream
    writer.write(hello.encode())
    return Welcome.decode(await asyncio.wait_for(reader.readexactly(GREETING_BYTES), SECONDS))


async def still_works(a: Any, make: Any) -> None:
    """A member that is one is served as if nothing had happened."""
    c = await make(C)
    c.know(a)
    c.peers.send([heartbeat(C, A)])
    await a.receiver.until(lambda: a.receiver.messages == [heartbeat(C, A)])
    assert not a.peers._listener._strangers


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def message(sender: int = B, to: int = A, **fields: Any) -> bytes:
    fields.setdefault("type", raftpb.MsgHeartbeat)
    parts = Encoder().encode(Message(to=to, sender=sender, **fields))
    return b"".join(framed(Kind.MESSAGE, *parts))


@pytest.mark.parametrize(
    ("garbage", "text"),
    [
        (b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2, or gRPC"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS, where none is spoken"),
        (random.Random(7).randbytes(1 << 20), "not a greeting: "),
        (b"\0", "not a greeting: 00"),
        (MAGIC + bytes(40), "a greeting with a wrong checksum"),
    ],
)
async def test_garbage_is_refused_at_once(
    make: Any, garbage: bytes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    a = await make(A)
    for _ in range(5):
        async with call(a) as (reader, writer):
            writer.write(garbage)
            assert await ended(reader) == b""
    assert len(warnings(caplog)) == 1, "one line for all of them"
    assert "refused a connection from 127.0.0.1:" in warnings(caplog)[0]
    assert text in warnings(caplog)[0]
    assert a.receiver.messages == []
    await still_works(a, make)


@pytest.mark.parametrize(
    ("hello", "verdict", "text"),
    [
        (
            Hello(1, CLUSTER, B, A, protocol_version=2),
            Verdict.WRONG_VERSION,
            "member b speaks protocol 2",
        ),
        (
            Hello(1, 0xBAD, B, A),
            Verdict.FOREIGN_CLUSTER,
            "member b is of another cluster, bad",
        ),
        (
            Hello(1, CLUSTER, B, C),
            Verdict.WRONG_MEMBER,
            "member b wants member c, which we are not",
        ),
        (Hello(1, CLUSTER, A, A), Verdict.BAD_CALLER, "the caller says that it is member a"),
        (Hello(2, CLUSTER, 0, A), Verdict.BAD_CALLER, "the caller says that it is member 0"),
        (Hello(9, CLUSTER, B, A), Verdict.BAD_CALLER, "member b asks for"),
        (Hello(1, CLUSTER, 0xDEAD, A), Verdict.REMOVED, "member dead was removed from the cluster"),
        (Hello(3, CLUSTER, 0xDEAD, A), Verdict.REMOVED, "member dead was removed from the cluster"),
    ],
)
async def test_wrong_greetings_are_answered_and_refused(
    make: Any, hello: Hello, verdict: Verdict, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    a = await make(A)
    a.receiver.removed_ids.add(0xDEAD)
    for _ in range(3):
        async with call(a) as stream:
            welcome = await say_hello(stream, hello)
            assert welcome.verdict == verdict
            assert (welcome.cluster_id, welcome.member_id) == (CLUSTER, A)
            assert await ended(stream[0]) == b""
    assert len(warnings(caplog)) == 1
    assert text in warnings(caplog)[0]
    await still_works(a, make)
    assert set(a.peers.traffic) <= {C}, "nothing is kept about strangers"


@pytest.mark.parametrize(
    ("channel", "frames", "text"),
    [
        (Channel.CONTROL, message(sender=C), "a message in the name of member c"),
        (Channel.APPENDS, message(to=C), "a message to member c"),
        (
            Channel.CONTROL,
            b"".join(framed(Kind.MESSAGE, *Encoder().encode(snapshot(B, A)))),
            "a snapshot among messages",
        ),
        (Channel.CONTROL, b"\xff\xff\xff\xff\x01", "a frame of 4294967295 bytes, above"),
        (Channel.CONTROL, b"\0\0\0\2\x01\xff\xff", "not a raft message"),
        (Channel.APPENDS, b"\0\0\0\0\x63", "a frame of kind 99, which has no place here"),
        (Channel.CONTROL, b"\0\0\0\1\x02a", "a ping of a wrong size"),
        (Channel.CONTROL, b"\0\0\0\1\x04a", "a question cut short"),
        (Channel.CONTROL, b"\0\0\0\1\x05a", "an answer cut short"),
        (Channel.CONTROL, b"\0\0\0\1\x06a", "an answer cut short"),
        (Channel.CONTROL, b"\0\0\0\1\x07a", "a cancellation of a wrong size"),
        (
            Channel.CONTROL,
            b"\0\0\0\x0c\x04" + bytes(8) + b"\0\x02\xff\xff",
            "a question of no kind",
        ),
        (
            Channel.CONTROL,
            b"\0\0\0\x0a\x04" + bytes(8) + b"\0\x02",
            "a question that cannot be",
        ),
    ],
)
async def test_frames_that_no_member_sends(
    make: Any, channel: Channel, frames: bytes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    a = await make(A)
    for _ in range(2):
        async with call(a) as stream:
            welcome = await say_hello(stream, Hello(channel, CLUSTER, B, A))
            assert welcome.verdict == Verdict.WELCOME
            stream[1].write(frames + message(commit=1))
            await ended(stream[0])
    assert [each for each in warnings(caplog) if text in each] == warnings(caplog)
    assert len(warnings(caplog)) == 1
    assert "closed a connection with member b: it sent " in warnings(caplog)[0]
    assert a.receiver.messages == [], "not what came behind it either"
    await still_works(a, make)


async def test_frames_right_behind_the_greeting(make: Any) -> None:
    a = await make(A)
    async with call(a) as (_, writer):
        writer.write(Hello(Channel.CONTROL, CLUSTER, B, A).encode() + message() + message(commit=2))
        await a.receiver.until(lambda: len(a.receiver.messages) == 2)


async def test_a_greeting_byte_by_byte(make: Any) -> None:
    a = await make(A)
    async with call(a) as (reader, writer):
        for each in Hello(Channel.CONTROL, CLUSTER, B, A).encode():
            writer.write(bytes([each]))
            await asyncio.sleep(0)
        first_bytes = await asyncio.wait_for(reader.readexactly(GREETING_BYTES), SECONDS)
        assert Welcome.decode(first_bytes).verdict == Verdict.WELCOME


async def test_a_silent_stranger_is_sent_away(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    a = await make(A, limits=PeerLimits(handshake_seconds=0.05))
    async with call(a) as (reader, writer):
        writer.write(MAGIC)
        assert await ended(reader) == b""
    assert len(warnings(caplog)) == 1
    assert "no greeting in time" in warnings(caplog)[0]


async def test_somebody_who_only_looks_whether_the_port_is_open(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a = await make(A)
    async with call(a):
        pass
    await still_works(a, make)
    assert warnings(caplog) == []


async def test_strangers_are_few_and_the_oldest_gives_way(make: Any) -> None:
    a = await make(A, limits=PeerLimits(max_strangers=3))
    streams = [await asyncio.open_connection(a.host, a.port) for _ in range(8)]
    for reader, _ in streams[:5]:
        assert await ended(reader) == b""
    assert len(a.peers._listener._strangers) == 3
    assert (await say_hello(streams[-1], Hello(1, CLUSTER, B, A))).verdict == Verdict.WELCOME
    assert len(a.peers._listener._strangers) == 2
    for _, writer in streams:
        writer.close()


async def test_a_stranger_does_not_fill_the_memory(make: Any) -> None:
    """Until a greeting was answered, no more is read than what one read brings."""
    a = await make(A)
    held = asyncio.Event()

    async def never(*_: Any) -> None:
        await held.wait()

    a.peers._listener._hear = never
    async with call(a) as (_, writer):
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(Hello(Channel.CONTROL, CLUSTER, B, A).encode())
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                for _ in range(64):  # 64 MiB
                    writer.write(bytes(1 << 20))
                    await writer.drain()
        assert writer.transport.get_write_buffer_size() > 0, "it is stuck"
        (connection,) = a.peers._station.connections
        assert len(connection._early) <= 512 << 10
        writer.transport.abort()
    held.set()


async def test_unknown_members_are_few(make: Any) -> None:
    """They may be newer than what we have applied, so some are served."""
    a = await make(A, limits=PeerLimits(max_unknown_members=2))
    streams = [await asyncio.open_connection(a.host, a.port) for _ in range(4)]
    verdicts = [
        (await say_hello(stream, Hello(1, CLUSTER, sender, A))).verdict
        for stream, sender in zip(streams, (0x21, 0x22, 0x23, 0x21), strict=True)
    ]
    assert verdicts == [Verdict.WELCOME, Verdict.WELCOME, Verdict.BUSY, Verdict.WELCOME]
    for _, writer in streams:
        writer.close()
    await still_works(a, make)


async def test_only_the_member_called_may_say_that_we_were_removed(make: Any) -> None:
    a = await make(A)
    answers = [
        Welcome(Verdict.REMOVED, 0xBAD, B),
        Welcome(Verdict.REMOVED, CLUSTER, C),
        Welcome(Verdict.REMOVED, CLUSTER, B, protocol_version=2),
    ]
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = Hello.decode(await reader.readexactly(GREETING_BYTES))
        if hello.channel == Channel.CONTROL and answers:
            writer.write(answers.pop().encode())
        elif hello.channel == Channel.CONTROL:
            asked.set()  # so what was answered before has been understood
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    a.peers.set_members({B: [f"http://127.0.0.1:{port}"]})
    async with asyncio.timeout(SECONDS):
        await asked.wait()
    assert a.receiver.told_removed == 0
    answers.append(Welcome(Verdict.REMOVED, CLUSTER, B))
    await a.receiver.until(lambda: a.receiver.told_removed)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(100),
        MAGIC,
        Welcome(Verdict.WELCOME, 0xBAD, B).encode(),
        Welcome(Verdict.WELCOME, CLUSTER, C).encode(),
    ],
    ids=["nothing", "HTTP", "zeros", "too little", "another cluster", "another member"],
)
async def test_something_else_listens_where_a_member_should(
    make: Any, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    a = await make(A)

    calls = 0
    often = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readexactly(GREETING_BYTES)
        writer.write(answer)
        writer.close()
        calls += 1
        if calls == 8:
            often.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    a.peers.set_members({B: [f"http://127.0.0.1:{port}"]})
    await asyncio.wait_for(often.wait(), SECONDS)
    assert a.peers.connected_since(B) is None
    assert a.peers.traffic[B].connection_failures >= 6
    assert 1 <= len(a.receiver.lost) <= 2, "not with every attempt"
    lines = [each for each in warnings(caplog) if "cannot connect to member b: http://" in each]
    assert lines == warnings(caplog)
    assert len(lines) == 1
    server.close()
    await server.wait_closed()
