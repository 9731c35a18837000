"""States that come from other members: whose the file is, whatever comes twice or breaks off."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from inprocess.served import PATIENCE_SECONDS, until
from inprocess.trio import NAMES, Trio

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub import state_transfer
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.state_transfer import StateTransfer, received_path
from etcd_pinwheel.server_stub.storage.backend import BackendError

SHORT_LOG: dict[str, Any] = {"snapshot_count": 20, "snapshot_catchup_entries": 5}


# What is offered to the core


@dataclass
class Log:
    snapshot: raftpb.Snapshot | None = None


@dataclass
class Core:
    """A core that takes a state, or does not for reasons of its own."""

    commit_index: int = 10
    takes: bool = True
    log: Log = field(default_factory=Log)
    stepped: list[Message] = field(default_factory=list)

    def step(self, message: Message) -> None:
        self.stepped.append(message)
        if self.takes and message.snapshot is not None:
            self.log.snapshot = message.snapshot
            self.commit_index = message.snapshot.metadata.index


class Offered:
    """A member to which states are offered; their files say what the test has them say."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.core = Core()
        self.raft = self.core
        self._directory = directory
        nothing: Any = None
        self.transfer = StateTransfer(
            self,  # type: ignore[arg-type]
            nothing,
            nothing,
            nothing,
            directory,
            in_log_thread=nothing,
            step=self.core.step,
            failed=nothing,
        )
        monkeypatch.setattr(state_transfer, "position_of", self._position_of)

    def _position_of(self, path: Path) -> raftpb.SnapshotMetadata:
        return raftpb.SnapshotMetadata(index=int(path.read_text()), term=2)

    async def arrives(self, index: int, says: int | None = None) -> Message:
        metadata = raftpb.SnapshotMetadata(index=index, term=2)
        snapshot = raftpb.Snapshot(metadata=metadata)
        message = Message(raftpb.MsgSnap, 1, 2, 2, snapshot=snapshot)
        path = received_path(self._directory, index)
        path.write_text(str(says or index))
        await self.transfer.arrived(message, path)
        return message

    @property
    def files(self) -> list[int]:
        return sorted(int(path.name.partition(".")[0], 16) for path in self._directory.iterdir())


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offered:
    return Offered(tmp_path, monkeypatch)


async def test_a_state_that_the_core_takes_is_kept(offered: Offered) -> None:
    message = await offered.arrives(20)
    assert offered.core.stepped == [message]
    assert offered.files == [20]
    assert not offered.transfer.needs(message), "it is being installed"


@pytest.mark.parametrize("commit_index", [10, 25], ids=["for its own reasons", "it has that much"])
async def test_a_state_that_the_core_does_not_take_goes(
    offered: Offered, commit_index: int
) -> None:
    """And nothing else does: what is being installed may be of an older entry."""
    await offered.arrives(20)
    offered.core.takes = False
    offered.core.commit_index = commit_index
    await offered.arrives(25)
    assert len(offered.core.stepped) == 2
    assert offered.files == [20]


async def test_a_state_that_is_not_what_it_is_said_to_be(offered: Offered) -> None:
    with pytest.raises(BackendError, match="ends with entry 19, not 20"):
        await offered.arrives(20, says=19)
    assert offered.core.stepped == []


# While one is being installed


class Slow:
    """Members that take long to read a received state, as if it were large."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reading, self._go_on = threading.Event(), threading.Event()
        self._read = state_transfer._restored
        monkeypatch.setattr(state_transfer, "_restored", self._restored)

    def _restored(self, path: Path) -> Any:
        self.is_reading.set()
        assert self._go_on.wait(PATIENCE_SECONDS)
        return self._read(path)

    def go_on(self) -> None:
        self._go_on.set()


class Sent:
    """The last state that a leader has sent, to be sent again."""

    def __init__(self, trio: Trio, leader: str, kept: Path) -> None:
        self._peers = trio[leader].member.peers
        self._kept = kept
        self.message: Message | None = None
        self._send = self._peers.send_snapshot
        self._peers.send_snapshot = self._sending  # type: ignore[method-assign]

    async def _sending(self, message: Message, open_copy: Any) -> bool:
        with open_copy() as copy, self._kept.open("wb") as kept:
            shutil.copyfileobj(copy, kept)
        self.message = message
        return await self._send(message, open_copy)

    async def again(self, *, is_cut_short: bool) -> bool:
        assert self.message is not None
        opened: Any = CutShort if is_cut_short else open
        return await self._send(self.message, lambda: opened(self._kept, "rb"))


class CutShort:
    """A file that cannot be read to its end."""

    def __init__(self, path: Path, mode: str) -> None:
        self._file: BinaryIO = open(path, mode)  # type: ignore[assignment]  # noqa: SIM115
        self._left = os.fstat(self._file.fileno()).st_size // 2

    def read(self, size: int) -> bytes:
        found = self._file.read(min(size, self._left))
        self._left -= len(found)
        return found

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    async with Trio(tmp_path, **SHORT_LOG) as trio:
        yield trio


async def left_behind(trio: Trio) -> tuple[str, str]:
    """Stop a follower until it needs the state; return the leader's name and its own."""
    leader = await trio.led()
    away = next(name for name in NAMES if name != leader)
    await trio.stop(away)
    for number in range(100):
        await trio[leader].put(b"k%d" % (number % 50), b"x" * 1000)
    await until(lambda: trio[leader].member.core.log.first_index > 50)
    return leader, away


@pytest.mark.parametrize("is_cut_short", [False, True], ids=["whole", "cut short"])
async def test_a_state_that_comes_again_while_it_is_installed(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cut_short: bool
) -> None:
    """As when the word that it has arrived gets lost: the leader sends it once more."""
    leader, away = await left_behind(trio)
    sent, slow = Sent(trio, leader, tmp_path / "sent"), Slow(monkeypatch)
    starting = asyncio.create_task(trio.start(away))
    await until(slow.is_reading.is_set)
    assert await sent.again(is_cut_short=is_cut_short) is not is_cut_short
    slow.go_on()
    await starting
    await trio.alike()
    await trio[away].restart()
    await trio.alike()
    assert not list(trio[away].settings.snap_path.glob("*.snap.db*"))


async def test_a_state_that_cannot_be_read_is_not_begun_with(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log must not say that it is there: the next start goes on from the old state."""
    _, away = await left_behind(trio)

    def lost(path: Path) -> Any:
        path.unlink()
        raise BackendError(path, "cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr(state_transfer, "_restored", lost)
        starting = asyncio.create_task(trio[away].start())
        with pytest.raises(BackendError, match="cannot be read"):
            await asyncio.wait_for(starting, PATIENCE_SECONDS)
    await trio.start(away)
    await trio.alike()
