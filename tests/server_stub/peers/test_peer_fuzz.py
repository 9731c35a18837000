"""Random bytes on the peer port, before and after a good greeting: the member outlives them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.peers import PeerLimits
from etcd_pinwheel.server_stub.peers.frames import Kind, framed
from etcd_pinwheel.server_stub.peers.greeting import (
    GREETING_BYTES,
    Channel,
    Hello,
    Verdict,
    Welcome,
)
from etcd_pinwheel.server_stub.peers.wire import Encoder

from .conftest import CLUSTER, A, B, Station, heartbeat, open_sockets, snapshot

SECONDS = 20

greeting = st.sampled_from(Channel).map(lambda channel: Hello(channel, CLUSTER, B, A).encode())
random_frame = st.builds(
    lambda kind, payload: b"".join(framed(kind, payload)),
    st.sampled_from(Kind),
    st.binary(max_size=60),
)
good_frame = st.sampled_from(
    [
        b"".join(framed(Kind.MESSAGE, *Encoder().encode(heartbeat(B, A)))),
        b"".join(framed(Kind.PING, bytes(8))),
        b"".join(framed(Kind.ASK, bytes(8), b"\0\1k", b"payload")),
        b"".join(framed(Kind.SNAPSHOT, b"\0" * 7 + b"\4", *Encoder().encode(snapshot(B, A)))),
        b"".join(framed(Kind.CHUNK, b"data")),
    ]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """What somebody says: a greeting or not, frames or not, cut at random places."""
    parts = draw(st.lists(good_frame | random_frame | st.binary(max_size=60), max_size=6))
    data = draw(greeting | st.binary(max_size=60)) + b"".join(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def say(station: Station, pieces: list[bytes]) -> None:
    """Say it all, and wait for the end."""
    reader, writer = await asyncio.open_connection(station.host, station.port)
    with suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), SECONDS)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def outlive(directory: Path, conversations: list[list[bytes]]) -> None:
    before = open_sockets()
    a = Station(A, directory / "a", limits=PeerLimits(max_frame_bytes=4096))
    b = Station(B, directory / "b")
    await a.listen()
    await b.listen()
    await asyncio.gather(*(say(a, each) for each in conversations))
    b.know(a)
    await b.connected(A)
    a.receiver.messages.clear()
    b.peers.send([heartbeat(B, A, commit=77)])
    await a.receiver.until(lambda: any(each.commit == 77 for each in a.receiver.messages))
    assert len(a.peers._accepted) <= 2
    await asyncio.gather(a.close(), b.close())
    assert not a.peers._station.tasks
    assert not a.peers._station.connections
    assert open_sockets() <= before


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(conversations(), min_size=1, max_size=4))
def test_a_member_outlives_what_it_is_told(tmp_path: Path, said: list[list[bytes]]) -> None:
    asyncio.run(outlive(tmp_path, said))
    assert not list(tmp_path.rglob("*.partial"))


@settings(max_examples=40)
@given(st.binary(max_size=120), st.booleans())
def test_a_member_outlives_what_it_is_answered(data: bytes, greeted: bool) -> None:
    asyncio.run(call_somebody_strange(data, greeted))


async def call_somebody_strange(data: bytes, greeted: bool) -> None:
    """Connect to a port that answers with ``data``, behind a good greeting or at once."""
    often = asyncio.Event()
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(GREETING_BYTES)
            writer.write(Welcome(Verdict.WELCOME, CLUSTER, B).encode() * greeted + data)
        writer.close()
        calls += 1
        if calls == 4:
            often.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    a = Station(A, Path("/nonexistent"))
    a.peers.set_members({B: [f"http://127.0.0.1:{port}"]})
    await asyncio.wait_for(often.wait(), SECONDS)
    await a.close()
    assert a.receiver.told_removed == 0
    assert not a.peers._station.tasks
    server.close()
    await server.wait_closed()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
