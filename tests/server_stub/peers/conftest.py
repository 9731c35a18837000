"""Two members, or more, whose transports talk over loopback."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.cluster import ClusterMember
from etcd_pinwheel.server_stub.local import ReservedPorts
from etcd_pinwheel.server_stub.peers import ClusterInfo, PeerLimits, Peers
from etcd_pinwheel.server_stub.raft.messages import Message

CLUSTER = 0xC1
A, B, C = 0xA, 0xB, 0xC
PATIENCE_SECONDS = 30


class Until:
    """A condition that is looked at whenever something has changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def change(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def soon(condition: Callable[[], Any]) -> None:
    """Wait for something of which nobody is told."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class FakeReceiver(Until):
    """A member that writes down what its transport tells it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.lost: list[int] = []
        self.statuses: list[tuple[int, bool]] = []
        self.snapshots: list[tuple[Message, Path, bytes]] = []
        self.questions: list[tuple[int, str, bytes]] = []
        self.removed_ids: set[int] = set()
        self.told_removed = 0
        self.answering: Callable[[str, bytes], Any] | None = None
        self.taking: Callable[[Message, Path], Any] | None = None
        self.needed = True

    def step(self, message: Message) -> None:
        self.messages.append(message)
        self.change()

    def unreachable(self, member_id: int) -> None:
        self.lost.append(member_id)
        self.change()

    def snapshot_status(self, member_id: int, ok: bool) -> None:
        self.statuses.append((member_id, ok))
        self.change()

    async def answer(self, sender: int, kind: str, payload: bytes) -> bytes:
        self.questions.append((sender, kind, payload))
        self.change()
        if self.answering is not None:
            return bytes(await self.answering(kind, payload))
        return payload[::-1]

    def needs_snapshot(self, message: Message) -> bool:
        return self.needed

    async def snapshot_arrived(self, message: Message, path: Path) -> None:
        if self.taking is not None:
            await self.taking(message, path)
        self.snapshots.append((message, path, path.read_bytes()))  # noqa: ASYNC240
        self.change()

    def is_removed(self, member_id: int) -> bool:
        return member_id in self.removed_ids

    def removed(self) -> None:
        self.told_removed += 1
        self.change()

    def cluster_info(self) -> ClusterInfo:
        members = (ClusterMember(A, ("http://a:1",), "a"), ClusterMember(B, ("http://b:1",)))
        return ClusterInfo(CLUSTER, members)


class Station:
    """One member's transport, its receiver and its address."""

    def __init__(self, own_id: int, directory: Path, **options: Any) -> None:
        self.id = own_id
        self.receiver = FakeReceiver()
        self.directory = directory
        options.setdefault("limits", PeerLimits(connect_seconds=10))
        options.setdefault("on_connected", lambda _: self.receiver.change())
        self.peers = Peers(
            own_id,
            options.pop("cluster_id", CLUSTER),
            self.receiver,
            snapshot_dir=directory,
            **options,
        )
        self._reserved = ReservedPorts(1)
        self.host, self.port = "127.0.0.1", self._reserved.numbers[0]
        self.url = ""

    async def listen(self, scheme: str = "http") -> None:
        self.url = f"{scheme}://{self.host}:{self.port}"
        assert await self.peers.listen([self.url]) == [(self.host, self.port)]

    async def close(self) -> None:
        await self.peers.close()
        self._reserved.release()

    def know(self, *others: Station) -> None:
        self.peers.set_members({each.id: [each.url] for each in others} | {self.id: [self.url]})

    async def connected(self, other: int) -> None:
        """Wait until our stream to another member stands."""
        await self.receiver.until(lambda: self.peers.connected_since(other) is not None)

    async def disconnected(self, other: int) -> None:
        """Wait until our stream to another member is down."""
        await self.receiver.until(lambda: self.peers.connected_since(other) is None)


def heartbeat(sender: int, to: int, commit: int = 0) -> Message:
    return Message(type=raftpb.MsgHeartbeat, to=to, sender=sender, term=1, commit=commit)


def append(sender: int, to: int, entries: Sequence[raftpb.Entry] = (), index: int = 0) -> Message:
    return Message(
        type=raftpb.MsgApp, to=to, sender=sender, term=1, index=index, entries=list(entries)
    )


def snapshot(sender: int, to: int, index: int = 7) -> Message:
    metadata = raftpb.SnapshotMetadata(index=index, term=1)
    return Message(
        type=raftpb.MsgSnap,
        to=to,
        sender=sender,
        term=1,
        snapshot=raftpb.Snapshot(metadata=metadata),
    )


def open_sockets() -> set[str]:
    found = set()
    for each in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{each}")
        except OSError:
            continue
        if target.startswith("socket:") or target.endswith((".snap.db", ".partial")):
            found.add(target)
    return found


Make = Callable[..., Any]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Make members; afterwards nothing of them may be left: no task, no socket, no file."""
    before, threads = open_sockets(), set(threading.enumerate())
    stations: list[Station] = []

    async def make(own_id: int, *, scheme: str = "http", **options: Any) -> Station:
        station = Station(own_id, tmp_path / f"{own_id:x}", **options)
        stations.append(station)
        await station.listen(scheme)
        return station

    async with AsyncExitStack() as stack:

        async def close() -> None:
            await asyncio.gather(*(each.close() for each in stations))

        stack.push_async_callback(close)
        yield make
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not {task for task in tasks if "peers" in repr(task.get_coro())}, "tasks are left"
    gc.collect()
    assert open_sockets() <= before, "sockets are left"
    extra = {each for each in set(threading.enumerate()) - threads if "asyncio" not in each.name}
    assert not extra


@pytest.fixture
async def pair(make: Make) -> tuple[Station, Station]:
    """Two members that are connected both ways."""
    a, b = await make(A), await make(B)
    a.know(b)
    b.know(a)
    await a.connected(B)
    await b.connected(A)
    return a, b
