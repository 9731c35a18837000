"""One socket between two members: a greeting each way, then frames."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, cast

from .frames import BadFrame, FrameReader
from .greeting import GREETING_BYTES, may_become_greeting
from .limits import PeerLimits

_KEEPALIVE: Final = (  # a dead host is noticed in 10 to 20 s even where nobody pings
    ("TCP_KEEPIDLE", 5),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 2),
    ("TCP_USER_TIMEOUT", 15_000),
)


class FrameHandler(Protocol):
    """Whoever reads a connection's frames; called on the loop's thread."""

    def frame(self, kind: int, payload: bytes) -> None:
        """Take a frame. ``BadFrame`` raised here ends the connection."""
        ...

    def lost(self, reason: str) -> None:
        """Learn that the connection is over; called once."""
        ...

    def writable(self) -> None:
        """Learn that what was written has left, after ``Connection.paused``."""
        ...


class Connection(asyncio.Protocol):
    """A connection that first waits for a greeting, and then hands frames to a handler."""

    def __init__(self, limits: PeerLimits) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[bytes] = loop.create_future()
        self._early = bytearray()
        self._reader = FrameReader(limits.max_frame_bytes)
        self._handler: FrameHandler | None = None
        self._reason = ""
        self._soon: list[bytes] = []
        self._written_bytes = 0
        self._drained: list[asyncio.Future[None]] = []
        self._abort_timer: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        """Done when the socket is gone."""
        self.paused = False
        """Too much written waits to be sent: write no more before ``writable``."""
        self.offence: str | None = None
        """What the other side sent that no member sends, if that is how it ended."""
        self.heard = False
        """Something has arrived; for others to reset."""

    # Life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.max_write_bytes)
        _tune(transport.get_extra_info("socket"))

    def start(self, handler: FrameHandler) -> None:
        """Hand on frames from now on, those that came early first."""
        self._handler = handler
        early, self._early = bytes(self._early), bytearray()
        if self.closed.done():
            handler.lost(self._reason)
            return
        self._take(early)
        self.resume_reading()

    def close(self, reason: str = "closed by us") -> None:
        """Send what was written, within the farewell's time, and end."""
        if self._transport is None or self.closed.done():
            return
        self._flush()
        self._reason = self._reason or reason
        self._transport.close()
        if self._abort_timer is None:
            self._abort_timer = self._loop.call_later(self._limits.farewell_seconds, self.abort)

    def abort(self, reason: str = "closed by us") -> None:
        """End at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reason = self._reason or (str(exc) if exc else "closed by the other side")
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if not self._greeting.done():
            self._greeting.set_result(bytes(self._early))
        self._soon.clear()
        self._wake_drained()
        if not self.closed.done():
            self.closed.set_result(None)
        if self._handler is not None:
            self._handler.lost(self._reason)

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        await asyncio.wait({self.closed})  # unlike a plain await, leaves it to others

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def peer_address(self) -> str:
        """Where the other side is, for logs."""
        address = self.extra("peername")
        if isinstance(address, tuple):
            return f"{address[0]}:{address[1]}"
        return "an unknown address"

    def extra(self, name: str) -> object:
        """What asyncio knows of the connection under this name."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    # Reading

    async def greeting(self) -> bytes:
        """Wait for the other side's first bytes.

        Fewer than ``GREETING_BYTES``: it has closed, or they are no greeting.
        """
        return await self._greeting

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._handler is not None:
            self._take(data)
            return
        self._early += data
        if not self._greeting.done():
            if may_become_greeting(self._early) and len(self._early) < GREETING_BYTES:
                return
            self._greeting.set_result(bytes(self._early[:GREETING_BYTES]))
            del self._early[:GREETING_BYTES]
        self.pause_reading()  # one read's worth waits here at most

    def pause_reading(self) -> None:
        """Leave what comes to the socket's own buffer."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        handler = self._handler
        assert handler is not None
        try:
            for kind, payload in self._reader.feed(data):
                handler.frame(kind, payload)
                if not self.is_open:
                    return
        except BadFrame as error:
            self.offence = str(error)
            self.abort(self.offence)

    # Writing

    def write(self, parts: Sequence[bytes]) -> None:
        """Send, as one write."""
        if self.is_open and self._transport is not None:
            data = b"".join(parts)
            self._written_bytes += len(data)
            self._transport.write(data)

    def write_soon(self, parts: Sequence[bytes]) -> None:
        """Send at the end of this turn of the loop, together with what else there is by then."""
        if not self._soon:
            self._loop.call_soon(self._flush)
        self._soon += parts

    def _flush(self) -> None:
        if self._soon:
            parts, self._soon = self._soon, []
            self.write(parts)

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not gone to the operating system."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size()

    @property
    def sent_bytes(self) -> int:
        """What has gone to the operating system."""
        return self._written_bytes - self.unsent_bytes

    async def drained(self) -> None:
        """Wait while ``paused``."""
        if self.paused and self.is_open:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._wake_drained()
        if self._handler is not None:
            self._handler.writable()

    def _wake_drained(self) -> None:
        waiting, self._drained = self._drained, []
        for each in waiting:
            if not each.done():
                each.set_result(None)


class FrameQueue:
    """The frames of a connection one by one, for those who wait for them."""

    def __init__(self, connection: Connection, max_waiting_bytes: int) -> None:
        self._connection = connection
        self._max_waiting_bytes = max_waiting_bytes
        self._frames: deque[tuple[int, bytes]] = deque()
        self._waiting_bytes = 0
        self._lost: str | None = None
        self._changed = asyncio.Event()
        connection.start(self)

    async def next(self, timeout_seconds: float) -> tuple[int, bytes]:
        """Wait for a frame; raises ``TimeoutError``, or ``ConnectionError`` when it is over."""
        async with asyncio.timeout(timeout_seconds):
            while not self._frames:
                if self._lost is not None:
                    raise ConnectionError(self._lost)
                self._changed.clear()
                await self._changed.wait()
        kind, payload = self._frames.popleft()
        self._waiting_bytes -= len(payload)
        if self._waiting_bytes <= self._max_waiting_bytes:
            self._connection.resume_reading()
        return kind, payload

    def frame(self, kind: int, payload: bytes) -> None:
        self._frames.append((kind, payload))
        self._waiting_bytes += len(payload)
        if self._waiting_bytes > self._max_waiting_bytes:
            self._connection.pause_reading()
        self._changed.set()

    def lost(self, reason: str) -> None:
        self._lost = reason
        self._changed.set()

    def writable(self) -> None:
        pass


def _tune(connected: socket.socket | None) -> None:
    if connected is None or connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
