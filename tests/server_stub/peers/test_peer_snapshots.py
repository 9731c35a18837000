"""Snapshots between members: whole or not at all, and never for ever."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.local import FaultProxy
from etcd_pinwheel.server_stub.peers import PeerLimits, snapshot_receiving
from etcd_pinwheel.server_stub.peers.connection import Connection
from etcd_pinwheel.server_stub.peers.frames import Kind, framed
from etcd_pinwheel.server_stub.peers.greeting import (
    GREETING_BYTES,
    Channel,
    Hello,
    Verdict,
    Welcome,
)
from etcd_pinwheel.server_stub.peers.wire import Encoder

from .conftest import CLUSTER, A, B, C, heartbeat, snapshot

SECONDS = 20


def copy_of(directory: Path, data: bytes) -> Any:
    path = directory / "copy"
    path.write_bytes(data)
    return partial(open, path, "rb")


def files(station: Any) -> list[str]:
    directory = station.directory
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[FaultProxy] = []

    def before(station: Any) -> FaultProxy:
        made.append(FaultProxy(f"127.0.0.1:{station.port}"))
        return made[-1].__enter__()

    yield before
    for each in made:
        each.__exit__()


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (3 << 20) + 5, 40 << 20])
async def test_a_snapshot_arrives_whole(pair: Any, tmp_path: Path, size: int) -> None:
    a, b = pair
    data = random.Random(size).randbytes(size)
    message = snapshot(A, B, index=0x2A)
    assert await a.peers.send_snapshot(message, copy_of(tmp_path, data)) is True
    ((arrived, path, contents),) = b.receiver.snapshots
    assert arrived == message
    assert path == b.directory / "000000000000002a.snap.db"
    assert hashlib.sha256(contents).digest() == hashlib.sha256(data).digest()
    assert files(b) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600
    assert a.receiver.statuses == [(B, True)]
    assert a.peers.traffic[B].sent_snapshots == b.peers.traffic[A].received_snapshots == 1
    assert a.peers.traffic[B].sent_bytes >= size
    assert b.peers.traffic[A].received_bytes >= size
    assert b.receiver.messages == [], "the message travels with the file"


async def test_messages_pass_a_snapshot(pair: Any, tmp_path: Path) -> None:
    a, b = pair
    go_on = asyncio.Event()

    async def take(*_: Any) -> None:
        await go_on.wait()

    b.receiver.taking = take
    sending = asyncio.create_task(
        a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, bytes(1 << 20)))
    )
    a.peers.send([heartbeat(A, B)])
    await b.receiver.until(lambda: b.receiver.messages)
    go_on.set()
    assert await sending


async def test_a_receiver_that_takes_long_is_waited_for(make: Any, tmp_path: Path) -> None:
    """Longer than nothing may move: it says that it works."""
    limits = PeerLimits(stalled_seconds=1.0, working_seconds=0.05)
    a, b = await make(A, limits=limits), await make(B, limits=limits)
    a.know(b)

    async def take(*_: Any) -> None:
        await asyncio.sleep(1.5)

    b.receiver.taking = take
    assert await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, b"data"))


async def test_a_receiver_that_cannot_take_it(
    pair: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pair

    async def fail(*_: Any) -> None:
        raise LookupError("no room")

    b.receiver.taking = fail
    assert not await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, b"data"))
    assert a.receiver.statuses == [(B, False)]
    assert "the other side has refused it: it cannot be taken over" in caplog.text
    assert "no room" in caplog.text
    assert files(b) == []
    b.receiver.taking = None
    assert await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, b"data"))


async def test_a_directory_that_cannot_be_written(make: Any, tmp_path: Path) -> None:
    a, b = await make(A), await make(B)
    a.know(b)
    b.directory.write_text("not a directory")
    assert not await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, b"data"))
    assert b.peers.traffic[A].snapshot_receive_failures == 1


async def test_nobody_to_send_to(make: Any, tmp_path: Path) -> None:
    a, b = await make(A), await make(B)
    open_copy = copy_of(tmp_path, b"data")
    assert not await a.peers.send_snapshot(snapshot(A, C), open_copy)
    a.know(b)
    await b.peers.close()
    assert not await a.peers.send_snapshot(snapshot(A, B), open_copy)
    missing = partial(open, tmp_path / "missing", "rb")
    assert not await a.peers.send_snapshot(snapshot(A, B), missing)
    assert a.receiver.statuses == [(C, False), (B, False), (B, False)]


async def test_a_file_that_shrinks_is_not_sent_as_whole(pair: Any, tmp_path: Path) -> None:
    a, b = pair
    path = tmp_path / "copy"
    path.write_bytes(bytes(1 << 20))

    class Shrinking:
        def __init__(self) -> None:
            self.file = path.open("rb")

        def read(self, size: int) -> bytes:
            with path.open("r+b") as file:
                file.truncate(1000)
            return self.file.read(size)

        def fileno(self) -> int:
            return self.file.fileno()

        def close(self) -> None:
            self.file.close()

    assert not await a.peers.send_snapshot(snapshot(A, B), Shrinking)
    await until_no_transfer(b)
    assert b.receiver.snapshots == []
    assert files(b) == []


async def until_no_transfer(station: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while station.peers._snapshots_in:
            await asyncio.wait(set(station.peers._station.tasks), return_when="FIRST_COMPLETED")


@pytest.mark.parametrize("fault", ["cut", "stall", "refuse"])
async def test_a_transfer_that_breaks_off(
    make: Any, proxy: Any, tmp_path: Path, fault: str
) -> None:
    limits = PeerLimits(stalled_seconds=1.0, connect_seconds=10, chunk_bytes=16 << 10)
    a, b = await make(A, limits=limits), await make(B, limits=limits)
    before = proxy(b)
    a.peers.set_members({B: [f"http://{before.endpoint}"]})
    await a.connected(B)
    opened: list[BinaryIO] = []

    class Faulty:
        """A file in whose middle the network fails."""

        def __init__(self) -> None:
            self.file = copy_of(tmp_path, bytes(4 << 20))()
            self.left = 100
            opened.append(self.file)

        def read(self, size: int) -> bytes:
            self.left -= 1
            if self.left == 0:
                getattr(before, fault)()
            return bytes(self.file.read(size))

        def fileno(self) -> int:
            return int(self.file.fileno())

        def close(self) -> None:
            self.file.close()

    assert not await a.peers.send_snapshot(snapshot(A, B), Faulty)
    assert opened[0].closed
    assert a.receiver.statuses == [(B, False)]
    await until_no_transfer(b)
    assert files(b) == []
    assert b.receiver.snapshots == []
    before.heal()
    assert await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, b"data"))


async def by_hand(station: Any, *frames: list[bytes]) -> list[tuple[int, bytes]]:
    """Send frames as a member would send a snapshot; return the last answer."""
    reader, writer = await asyncio.open_connection(station.host, station.port)
    try:
        writer.write(Hello(Channel.SNAPSHOT, CLUSTER, C, B).encode())
        first_bytes = await asyncio.wait_for(reader.readexactly(GREETING_BYTES), SECONDS)
        assert Welcome.decode(first_bytes).verdict == Verdict.WELCOME
        for frame in frames:
            writer.write(b"".join(frame))
        answer = await asyncio.wait_for(reader.read(), SECONDS)
        return [(answer[4], answer[5:])]
    finally:
        writer.close()


def head(length: int, **changes: Any) -> list[bytes]:
    message = snapshot(C, B)
    for name, value in changes.items():
        setattr(message, name, value)
    return framed(Kind.SNAPSHOT, length.to_bytes(8, "big"), *Encoder().encode(message))


SUM = framed(Kind.END, hashlib.sha256(b"data").digest())


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([framed(Kind.CHUNK, b"data")], "a snapshot without its message"),
        ([framed(Kind.SNAPSHOT, b"abc")], "a snapshot without its message"),
        ([head(4, sender=A)], "a message in the name of member a"),
        ([head(4, type=raftpb.MsgApp)], "a snapshot's message of another type"),
        ([head(4, snapshot=None)], "a snapshot's message of another type"),
        ([head(4), framed(Kind.CHUNK, b"date"), SUM], "a snapshot with a wrong checksum"),
        ([head(5), framed(Kind.CHUNK, b"data"), SUM], "a snapshot cut short by 1 bytes"),
        ([head(3), framed(Kind.CHUNK, b"data"), SUM], "a snapshot longer than announced"),
        ([head(4), framed(Kind.PONG, b"data")], "a frame of kind 3 within a snapshot"),
    ],
)
async def test_a_snapshot_that_is_not_what_it_says(
    make: Any, frames: list[list[bytes]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    b = await make(B)
    assert await by_hand(b, *frames) == [(Kind.STATUS, b"\0" + reason.encode())]
    assert f"a snapshot from member c has failed: {reason}" in caplog.text
    assert files(b) == []
    assert b.receiver.snapshots == []
    good = await by_hand(b, head(4), framed(Kind.CHUNK, b"data"), SUM)
    assert good == [(Kind.STATUS, b"\1")]
    assert b.receiver.snapshots[0][2] == b"data"
    assert C not in b.peers.traffic, "nothing is kept about somebody unknown"


async def test_only_so_many_at_once(make: Any, tmp_path: Path) -> None:
    limits = PeerLimits(max_snapshots=2)
    a, b, c = await make(A, limits=limits), await make(B, limits=limits), await make(C)
    a.know(b, c)
    c.know(b)
    go_on = asyncio.Event()

    async def take(*_: Any) -> None:
        b.receiver.change()
        await go_on.wait()

    b.receiver.taking = take
    open_copy = copy_of(tmp_path, b"data")
    sending = [
        asyncio.create_task(a.peers.send_snapshot(snapshot(A, B, index), open_copy))
        for index in (1, 2)
    ]
    await b.receiver.until(lambda: len(files(b)) == 2 and b.peers._snapshots_in == 2)
    assert not await a.peers.send_snapshot(snapshot(A, C), open_copy), "the sender's bound"
    assert not await c.peers.send_snapshot(snapshot(C, B, 3), open_copy), "the receiver's"
    go_on.set()
    assert await asyncio.gather(*sending) == [True, True]
    assert await c.peers.send_snapshot(snapshot(C, B, 3), open_copy)


async def test_the_same_snapshot_twice_at_once(make: Any, tmp_path: Path) -> None:
    a, b, c = await make(A), await make(B), await make(C)
    a.know(b)
    c.know(b)
    go_on = asyncio.Event()

    async def take(*_: Any) -> None:
        b.receiver.change()
        await go_on.wait()

    b.receiver.taking = take
    open_copy = copy_of(tmp_path, b"data")
    first = asyncio.create_task(a.peers.send_snapshot(snapshot(A, B), open_copy))
    await b.receiver.until(lambda: any(name.endswith(".snap.db") for name in files(b)))
    assert not await c.peers.send_snapshot(snapshot(C, B), open_copy)
    go_on.set()
    assert await first
    assert files(b) == ["0000000000000007.snap.db"]


@pytest.mark.parametrize("size", [0, 4 << 20])
async def test_a_snapshot_that_is_not_needed(pair: Any, tmp_path: Path, size: int) -> None:
    """Its message is all that is taken, and no file is touched."""
    a, b = pair
    assert await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, b"data"))
    b.receiver.needed = False
    again = snapshot(A, B)
    assert await a.peers.send_snapshot(again, copy_of(tmp_path, bytes(size)))
    assert len(b.receiver.snapshots) == 1
    assert b.receiver.messages == [again]
    (kept,) = b.directory.iterdir()
    assert kept.read_bytes() == b"data"


async def test_a_transfer_deletes_no_file_but_its_own(make: Any) -> None:
    b = await make(B)
    b.directory.mkdir(exist_ok=True)
    whole = b.directory / "0000000000000007.snap.db"
    whole.write_bytes(b"whole")
    ((kind, reason),) = await by_hand(b, head(5), framed(Kind.CHUNK, b"data"), SUM)
    assert (kind, reason[:1]) == (Kind.STATUS, b"\0")
    assert files(b) == [whole.name]
    assert whole.read_bytes() == b"whole"


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_closing_in_the_middle(pair: Any, tmp_path: Path, who: str) -> None:
    a, b = pair

    async def take(*_: Any) -> None:
        b.receiver.change()
        await asyncio.Event().wait()

    b.receiver.taking = take
    sending = asyncio.create_task(
        a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, bytes(1 << 20)))
    )
    await b.receiver.until(lambda: any(name.endswith(".snap.db") for name in files(b)))
    await (a if who == "sender" else b).peers.close()
    assert await asyncio.wait_for(sending, SECONDS) is False
    assert a.receiver.statuses == ([] if who == "sender" else [(B, False)])
    await b.peers.close()
    assert files(b) == []


async def test_a_cancelled_sender_leaves_nothing(pair: Any, tmp_path: Path) -> None:
    a, b = pair

    async def take(*_: Any) -> None:
        b.receiver.change()
        await asyncio.Event().wait()

    b.receiver.taking = take
    sending = asyncio.create_task(
        a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, bytes(1 << 20)))
    )
    await b.receiver.until(lambda: any(name.endswith(".snap.db") for name in files(b)))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert a.receiver.statuses == []
    b.receiver.taking = None
    assert await a.peers.send_snapshot(snapshot(A, B, 8), copy_of(tmp_path, b"data"))


async def test_leftovers_of_an_earlier_process_are_deleted(make: Any, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0000000000000001.snap.db.partial").write_text("half")
    (tmp_path / "b" / "0000000000000002.snap.db").write_text("whole")
    b = await make(B)
    assert files(b) == ["0000000000000002.snap.db"]


async def test_a_chunk_waits_for_the_disk(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk holds the sender up; the memory does not fill."""
    b = await make(B)
    go_on, paused = asyncio.Event(), asyncio.Event()
    original = snapshot_receiving.in_thread
    original_pause = Connection.pause_reading

    def pause_reading(self: Connection) -> None:
        original_pause(self)
        if self._handler is not None:
            paused.set()

    monkeypatch.setattr(Connection, "pause_reading", pause_reading)

    async def slow(work: Any, *args: Any) -> Any:
        await go_on.wait()
        return await original(work, *args)

    monkeypatch.setattr(snapshot_receiving, "in_thread", slow)
    most = 0
    original_take = Connection.data_received

    def data_received(self: Connection, data: bytes) -> None:
        nonlocal most
        original_take(self, data)
        if self._handler is not None:
            most = max(most, getattr(self._handler, "_waiting_bytes", 0))

    monkeypatch.setattr(Connection, "data_received", data_received)
    chunks = [framed(Kind.CHUNK, bytes(100_000)) for _ in range(200)]
    end = framed(Kind.END, hashlib.sha256(bytes(100_000 * 200)).digest())
    sending = asyncio.create_task(by_hand(b, head(100_000 * 200), *chunks, end))
    await asyncio.wait_for(paused.wait(), SECONDS)
    go_on.set()
    assert await sending == [(Kind.STATUS, b"\1")]
    assert 512 << 10 <= most <= 1 << 20


async def test_the_sender_waits_for_the_socket(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    most = 0
    original = Connection.write

    def write(self: Connection, parts: Any) -> None:
        nonlocal most
        original(self, parts)
        most = max(most, self.unsent_bytes)

    monkeypatch.setattr(Connection, "write", write)
    go_on = asyncio.Event()
    original_thread = snapshot_receiving.in_thread

    async def slow(work: Any, *args: Any) -> Any:
        await go_on.wait()
        return await original_thread(work, *args)

    monkeypatch.setattr(snapshot_receiving, "in_thread", slow)
    asyncio.get_running_loop().call_later(0.5, go_on.set)  # enough to send it all, if it could
    assert await a.peers.send_snapshot(snapshot(A, B), copy_of(tmp_path, bytes(32 << 20)))
    assert most <= (1 << 20) + (256 << 10) + 100
    assert len(b.receiver.snapshots[0][2]) == 32 << 20
