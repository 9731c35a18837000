"""Sending a snapshot: a connection of its own, the message, the file, and how it ended."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import struct
from collections.abc import Callable
from typing import BinaryIO, Final

from ..raft.messages import Message
from .blocking import in_thread
from .connection import Connection, FrameQueue
from .dialing import DialFailed, dial
from .frames import BadFrame, Kind, framed
from .greeting import Channel, Hello
from .station import Station

log = logging.getLogger(__package__)

LENGTH: Final = struct.Struct(">Q")
_MAX_ANSWERS_BYTES: Final = 64 << 10


class SnapshotFailed(Exception):
    """A transfer that came to nothing; the text says why."""


async def send_snapshot(
    station: Station, urls: tuple[str, ...], message: Message, open_copy: Callable[[], BinaryIO]
) -> None:
    """Carry ``message`` and the file that ``open_copy`` opens to a member.

    ``open_copy`` is called in a thread; the file is closed here. Returns when the other side has
    the file on its disk and has taken it over. Raises ``SnapshotFailed``.
    """
    try:
        file = await in_thread(open_copy)
        try:
            await _send(station, urls, message, file)
        finally:
            await in_thread(file.close)
    except TimeoutError:
        raise SnapshotFailed(f"nothing moved for {station.limits.stalled_seconds:g} s") from None
    except (OSError, DialFailed, BadFrame) as error:
        raise SnapshotFailed(str(error)) from error


async def _send(station: Station, urls: tuple[str, ...], message: Message, file: BinaryIO) -> None:
    hello = Hello(
        Channel.SNAPSHOT, station.cluster_id, station.own_id, message.to, station.server_version
    )
    connection, _, _ = await dial(
        urls, hello, tls=station.tls_client, limits=station.limits, opened=station.adopt
    )
    try:
        answers = FrameQueue(connection, _MAX_ANSWERS_BYTES)
        await _Sending(station, connection, answers, message.to).run(message, file)
    finally:
        connection.close()


class _Sending:
    """One transfer on an open connection."""

    def __init__(
        self, station: Station, connection: Connection, answers: FrameQueue, target: int
    ) -> None:
        self._connection = connection
        self._answers = answers
        self._limits = station.limits
        self._encoder = station.encoder
        self._traffic = station.traffic[target]

    async def run(self, message: Message, file: BinaryIO) -> None:
        length = os.fstat(file.fileno()).st_size
        await self._write(Kind.SNAPSHOT, LENGTH.pack(length), *self._encoder.encode(message))
        digest = hashlib.sha256()
        left = length
        while left:
            chunk = await in_thread(_read, file, min(left, self._limits.chunk_bytes), digest)
            if not chunk:
                raise SnapshotFailed(f"the file to send ends {left} bytes early")
            left -= len(chunk)
            await self._write(Kind.CHUNK, chunk)
        await self._write(Kind.END, digest.digest())
        await self._hear_the_end()

    async def _write(self, kind: Kind, *parts: bytes) -> None:
        """Send a frame; wait while too much waits to be sent. A broken connection is an error."""
        if not self._connection.is_open:
            await self._hear_the_end()
        frame = framed(kind, *parts)
        self._connection.write(frame)
        self._traffic.sent_bytes += sum(map(len, frame))
        async with asyncio.timeout(self._limits.stalled_seconds):
            await self._connection.drained()

    async def _hear_the_end(self) -> None:
        """Wait for the other side's word; it pings while it works."""
        while True:
            kind, payload = await self._answers.next(self._limits.stalled_seconds)
            if kind == Kind.STATUS and payload[:1] == b"\1":
                return
            if kind == Kind.STATUS:
                reason = payload[1:].decode(errors="replace")
                raise SnapshotFailed(f"the other side has refused it: {reason}")
            if kind != Kind.PING:
                raise BadFrame(f"a frame of kind {kind} in answer to a snapshot")


def _read(file: BinaryIO, size: int, digest: hashlib._Hash) -> bytes:
    chunk = file.read(size)
    digest.update(chunk)
    return chunk
