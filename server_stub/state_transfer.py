"""The whole state on its way between members, for one that needs more than the log still has.

Sending: a copy of the backend is made now, with the position in the log that it tells itself.

Receiving, safe against a crash at every step:

1. the file is there, whole and durable, as ``member/snap/<index>.snap.db`` (the transport's work);
2. the core accepts the snapshot and asks to have it installed;
3. the log begins anew with the snapshot, in one step: from then on it is what this member has;
4. the file takes the place of the backend's.

Before step 3 a restart finds the old log and the old state; behind it, :mod:`.boot` does step 4.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ..protos import raftpb
from .mvcc.restoring import Restored, restore
from .raft.core import Ready
from .raft.messages import Message
from .replica import Replica
from .storage.backend import BackendError, LmdbBackend
from .storage.copied import CopiedBackend
from .storage.position import position_of
from .storage.snapshot import SnapshotFiles
from .storage.wal import Wal

log = logging.getLogger(__name__)

RECEIVED_SUFFIX: Final = ".snap.db"


class Carrier(Protocol):
    """What takes a file to another member."""

    async def send_snapshot(self, message: Message, open_copy: Callable[[], BinaryIO]) -> bool: ...


def received_path(directory: Path, index: int) -> Path:
    """Where a received state is kept until it is installed."""
    return directory / f"{index:016x}{RECEIVED_SUFFIX}"


class StateTransfer:
    """The states that one member sends and receives."""

    def __init__(
        self,
        replica: Replica,
        backend: LmdbBackend,
        backend_file: asyncio.Lock,
        wal: Wal,
        directory: Path,
        *,
        in_log_thread: Callable[[Callable[[], None]], Awaitable[None]],
        step: Callable[[Message], None],
        failed: Callable[[int], None],
    ) -> None:
        """``backend_file`` is held while the file is copied or replaced.

        ``step`` gives the core a message; ``failed`` tells it that a member cannot be sent the
        state now.
        """
        self._replica = replica
        self._backend = backend
        self._backend_file = backend_file
        self._wal = wal
        self._directory = directory
        self._in_log_thread = in_log_thread
        self._step = step
        self._failed = failed
        self._sending: set[asyncio.Task[None]] = set()

    # Sending

    def send(self, message: Message, carrier: Carrier) -> None:
        """Begin to send the state to a member, in the place of the snapshot that `message` names.

        How it ends, the transport tells the core.
        """
        task = asyncio.create_task(self._send(message, carrier))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def stop(self) -> None:
        """Give up what is being sent."""
        for task in self._sending:
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending)

    async def _send(self, message: Message, carrier: Carrier) -> None:
        self._replica.begin_transfer()
        copy: Path | None = None
        try:
            copy = await self._copy()
            metadata = await asyncio.to_thread(position_of, copy)
            named = replace(message, snapshot=raftpb.Snapshot(metadata=metadata))
            log.info(
                "sending the state to a member",
                extra={"to": f"{message.to:x}", "index": metadata.index},
            )
            await carrier.send_snapshot(named, partial(_open, copy))
        except Exception as error:  # a disk that is full, above all: the core must hear of it
            log.error("cannot send the state to a member: %s", error)
            self._failed(message.to)
        finally:
            self._replica.end_transfer()
            if copy is not None:
                copy.unlink(missing_ok=True)

    async def _copy(self) -> Path:
        """Copy what is applied by now to a file."""
        async with self._backend_file:
            await self._backend.commit_async()
            return await asyncio.to_thread(self._backend.snapshot, self._directory)

    # Receiving

    def needs(self, message: Message) -> bool:
        """Tell whether the core may have use for a state.

        Not for one that is being installed: what the core has taken is committed to it. A leader
        that has not heard of its arrival sends it again.
        """
        assert message.snapshot is not None
        index: int = message.snapshot.metadata.index
        return index > self._replica.raft.commit_index

    async def arrived(self, message: Message, path: Path) -> None:
        """Offer the core a state that is on the disk, and delete it if the core does not take it.

        Only one that was needed when it began to come. Raises ``BackendError`` if it is none.
        """
        assert message.snapshot is not None
        wanted = message.snapshot.metadata
        found = await asyncio.to_thread(position_of, path)
        if (found.index, found.term) != (wanted.index, wanted.term):
            raise BackendError(path, f"ends with entry {found.index}, not {wanted.index}")
        self._step(message)
        if self._replica.raft.log.snapshot is not message.snapshot:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def install(self, ready: Ready) -> None:
        """Put a received state in the place of this member's: log, backend, and all that is read.

        A large state takes a while to be read: that happens in a thread, from the received file,
        while requests are still answered from the old state. Only what could be read does the log
        begin with: there is no way back from that. Raises ``WalFailed``, ``BackendError``,
        ``OSError``; the member cannot go on then.
        """
        assert ready.snapshot is not None
        index = ready.snapshot.metadata.index
        received = received_path(self._directory, index)
        async with self._backend_file:
            restored = await asyncio.to_thread(_restored, received)
            await self._in_log_thread(lambda: self._begin_log(ready))
            self._backend.replace_by(received)
            self._replica.installed(restored)
        remove_received(self._directory, index)
        log.info("installed the state of another member", extra={"index": index})

    def _begin_log(self, ready: Ready) -> None:
        """Have the log begin with the snapshot; in its thread."""
        assert ready.snapshot is not None
        metadata = ready.snapshot.metadata
        SnapshotFiles(self._directory).save(raftpb.Snapshot(metadata=metadata))
        self._wal.install_snapshot(
            ready.hard_state, metadata.index, metadata.term, metadata.conf_state
        )
        self._wal.save(None, ready.entries)


def _restored(path: Path) -> Restored:
    with CopiedBackend(path) as copy:
        return restore(copy)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def remove_received(directory: Path, up_to: int) -> None:
    """Delete received states that are not needed, because the backend is at `up_to` or behind."""
    for path in directory.glob(f"*{RECEIVED_SUFFIX}"):
        try:
            index = int(path.name.removesuffix(RECEIVED_SUFFIX), 16)
        except ValueError:
            continue
        if index <= up_to:
            path.unlink(missing_ok=True)
