"""Receiving snapshots: into a file of its own, checked, durable, and then handed over."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from ..raft.messages import Message
from .blocking import in_thread
from .connection import Connection, FrameQueue
from .frames import BadFrame, Kind, framed
from .greeting import Hello
from .snapshot_sending import LENGTH
from .station import Station
from .wire import MSG_SNAP, BadMessage, decode_from

log = logging.getLogger(__package__)

T = TypeVar("T")

_PARTIAL: Final = ".snap.db.partial"
_FILE_MODE: Final = 0o600


class SnapshotInbox:
    """The snapshots on their way in, as ``<index>.snap.db`` in one directory.

    Invariant: no two transfers are of one index, and none is of one whose file is in use.
    """

    def __init__(self, station: Station, directory: Path) -> None:
        self._station = station
        self._directory = directory
        self._under_way: set[int] = set()

    def clean(self) -> None:
        """Delete what transfers of an earlier process have left unfinished."""
        if self._directory.is_dir():
            for path in self._directory.glob(f"*{_PARTIAL}"):
                path.unlink(missing_ok=True)

    async def receive(self, connection: Connection, hello: Hello) -> None:
        """Serve a connection that brings a snapshot, to its end."""
        traffic = self._station.traffic[hello.sender]
        status = b"\1"
        try:
            frames = FrameQueue(connection, 2 * self._station.limits.chunk_bytes)
            await self._receive(connection, frames, hello.sender)
            traffic.received_snapshots += 1
        except (OSError, TimeoutError, BadFrame, BadMessage, SnapshotRefused) as error:
            traffic.snapshot_receive_failures += 1
            reason = str(error) or "nothing came for too long"
            self._station.complaints.say(
                (hello.sender, "snapshot"),
                "a snapshot from member %x has failed: %s",
                hello.sender,
                reason,
            )
            status = b"\0" + reason.encode()
        except BaseException:
            connection.abort()
            raise
        connection.write(framed(Kind.STATUS, status))
        connection.close()

    async def _receive(self, connection: Connection, frames: FrameQueue, sender: int) -> None:
        stalled_seconds = self._station.limits.stalled_seconds
        kind, payload = await frames.next(stalled_seconds)
        if kind != Kind.SNAPSHOT or len(payload) < LENGTH.size:
            raise BadFrame("a snapshot without its message")
        (length,) = LENGTH.unpack_from(payload)
        message = decode_from(payload[LENGTH.size :], sender, self._station.own_id)
        if message.type != MSG_SNAP or message.snapshot is None:
            raise BadMessage("a snapshot's message of another type")
        index = message.snapshot.metadata.index
        if index in self._under_way:
            raise SnapshotRefused("this snapshot is on its way already")
        if not self._station.receiver.needs_snapshot(message):
            await self._ignore(frames)
            self._station.receiver.step(message)
            return
        self._under_way.add(index)
        try:
            await self._store(connection, frames, message, length)
        finally:
            self._under_way.discard(index)

    async def _store(
        self, connection: Connection, frames: FrameQueue, message: Message, length: int
    ) -> None:
        assert message.snapshot is not None
        path = self._directory / f"{message.snapshot.metadata.index:016x}.snap.db"
        partial = path.with_name(path.name.removesuffix(".snap.db") + _PARTIAL)
        incoming = _IncomingFile(partial, length)
        try:
            await in_thread(incoming.open)
            await self._fill(incoming, frames, message.sender)
            await self._meanwhile_ping(connection, in_thread(incoming.finish, path))
            await self._meanwhile_ping(
                connection, self._station.receiver.snapshot_arrived(message, path)
            )
        except BaseException as error:
            incoming.drop()
            if isinstance(error, Exception) and not isinstance(error, _EXPECTED):
                log.exception("cannot take over a snapshot")
                raise SnapshotRefused("it cannot be taken over") from error
            raise

    async def _fill(self, incoming: _IncomingFile, frames: FrameQueue, sender: int) -> None:
        traffic = self._station.traffic[sender]
        while True:
            kind, payload = await frames.next(self._station.limits.stalled_seconds)
            traffic.received_bytes += len(payload)
            if kind == Kind.END:
                incoming.check(payload)
                return
            if kind != Kind.CHUNK:
                raise BadFrame(f"a frame of kind {kind} within a snapshot")
            await in_thread(incoming.write, payload)

    async def _ignore(self, frames: FrameQueue) -> None:
        """Read the file and forget it: a sender that is interrupted may not hear the answer."""
        kind = None
        while kind != Kind.END:
            kind, _ = await frames.next(self._station.limits.stalled_seconds)

    async def _meanwhile_ping(self, connection: Connection, work: Coroutine[Any, Any, T]) -> T:
        """Work, and let the sender know that it is not waiting in vain."""

        async def ping() -> None:
            while True:
                await asyncio.sleep(self._station.limits.working_seconds)
                connection.write(framed(Kind.PING, bytes(8)))

        pinging = asyncio.ensure_future(ping())
        try:
            return await work
        finally:
            pinging.cancel()


class SnapshotRefused(Exception):
    """A snapshot that cannot be taken now."""


_EXPECTED: Final = (OSError, TimeoutError, BadFrame, BadMessage, SnapshotRefused)


class _IncomingFile:
    """A file that is being received. Its methods block, apart from ``check`` and ``drop``."""

    def __init__(self, path: Path, length: int) -> None:
        self._path = path
        self._left = length
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(
            self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE
        )
        self._file = os.fdopen(descriptor, "wb")

    def write(self, chunk: bytes) -> None:
        if len(chunk) > self._left:
            raise BadFrame("a snapshot longer than announced")
        assert self._file is not None
        self._file.write(chunk)
        self._digest.update(chunk)
        self._left -= len(chunk)

    def check(self, digest: bytes) -> None:
        if self._left:
            raise BadFrame(f"a snapshot cut short by {self._left} bytes")
        if digest != self._digest.digest():
            raise BadFrame("a snapshot with a wrong checksum")

    def finish(self, path: Path) -> None:
        """Make it durable, under its name."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path = self._path.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def drop(self) -> None:
        """Close and delete it, under the name that it has by now."""
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)
