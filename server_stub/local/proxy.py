"""A TCP proxy whose connections can be held, each direction by itself, or reset.

Bytes are never dropped, which would corrupt what they are part of: they are held back until they
may go on, as in a network that loses packets and gets them sent again. All of it belongs to one
event loop.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, cast

from ..accepting import ProtocolServer, bind
from .ports import HOST, ReservedPorts

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds
_MAX_EARLY_BYTES: Final = 1 << 16


class Side(asyncio.Protocol):
    """One end of a connection through a proxy; what is read here goes to the other side.

    Invariant: it is read from iff nothing holds it, and the other side can take what comes (or
    is not there yet, and little came so far).
    """

    def __init__(self, connection: Connection) -> None:
        self.bytes_read = 0
        self.is_held = False
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._is_clogged = False
        self._is_joined = False
        self._at_eof = False
        self._end: tuple[Exception | None] | None = None

    @property
    def _other(self) -> Side:
        return self._connection.other(self)

    @property
    def early(self) -> bytes:
        """What came before there was another side to take it."""
        return bytes(self._early)

    @property
    def port(self) -> int:
        """The port at the far end."""
        assert self._transport is not None
        number: int = self._transport.get_extra_info("peername")[1]
        return number

    def hold(self, held: bool) -> None:
        """Read no more from here, or go on: the end of it, if that came meanwhile, is told now."""
        self.is_held = held
        self._read_or_not()
        if not held and self._end is not None:
            self._tell_end()

    def join(self) -> None:
        """Send on what came before the other side was there, and from now on what comes."""
        self._is_joined = True
        if self._early:
            self._other.write(bytes(self._early))
            self._early.clear()
        if self._at_eof:
            self._other.write_eof()
        self._read_or_not()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            with suppress(OSError):
                self._transport.write_eof()

    def close(self) -> None:
        """Send what is under way, then close."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close at once, in a way that the far end takes for an error."""
        if self._transport is None:
            return
        connection: socket.socket = self._transport.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    # Told by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connection.made(self)

    def data_received(self, data: bytes) -> None:
        self.bytes_read += len(data)
        if self._is_joined:
            self._other.write(data)
            return
        self._early += data
        self._read_or_not()
        self._connection.news.set()

    def eof_received(self) -> bool:
        self._at_eof = True
        self._connection.news.set()
        if self._is_joined:
            self._other.write_eof()
            if self._other._at_eof:
                self._connection.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end = (exc,)
        self._connection.news.set()
        if not self.is_held:
            self._tell_end()

    def pause_writing(self) -> None:
        self._other._clog(True)

    def resume_writing(self) -> None:
        self._other._clog(False)

    def _clog(self, clogged: bool) -> None:
        self._is_clogged = clogged
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._at_eof:
            return
        has_room = self._is_joined or len(self._early) < _MAX_EARLY_BYTES
        wanted = has_room and not self.is_held and not self._is_clogged
        if wanted and not self._transport.is_reading():
            self._transport.resume_reading()
        elif not wanted and self._transport.is_reading():
            self._transport.pause_reading()

    def _tell_end(self) -> None:
        assert self._end is not None
        (error,) = self._end
        self._connection.lost(self, error)


class Connection:
    """One connection through a proxy: the side of who called, and that of who was called."""

    def __init__(self, proxy: Proxy) -> None:
        self.caller = Side(self)
        self.target = Side(self)
        self.news = asyncio.Event()
        """Set when something came from the caller, or the connection ended."""
        self.is_over = False
        self._proxy = proxy

    def other(self, side: Side) -> Side:
        return self.target if side is self.caller else self.caller

    def made(self, side: Side) -> None:
        """Note that a side is there."""
        if side is self.caller:
            self._proxy.opened(self)

    def lost(self, side: Side, error: Exception | None) -> None:
        """End the other side in the way this one ended."""
        self.is_over = True
        if error is None:
            self.other(side).close()
        else:
            self.other(side).reset()
        self._proxy.closed(self)

    def close(self) -> None:
        """Close both sides when they have taken what is under way."""
        self.is_over = True
        self.caller.close()
        self.target.close()

    def reset(self) -> None:
        """End both sides at once, with an error."""
        self.is_over = True
        for side in (self.caller, self.target):
            side.hold(False)
            side.reset()

    async def reach(self, port: int) -> None:
        """Connect to the target, and let the two sides talk; raises OSError."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.target, HOST, port)
        if self.is_over:
            self.target.close()
            return
        self.target.join()
        self.caller.join()


class Proxy:
    """A port that leads to ``target_port``.

    ``admit`` returns when a connection may be made there, or ends it; the first bytes of the
    caller are in ``connection.caller.early`` by and by. ``on_closed`` is told of each end.
    """

    def __init__(
        self,
        target_port: int,
        admit: Callable[[Connection], Awaitable[None]],
        on_closed: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self.target_port = target_port
        self._reserved = ReservedPorts(1)
        (self.port,) = self._reserved.numbers
        self.connections: set[Connection] = set()
        self.accepted = 0
        """How many connections were ever accepted."""
        self._admit = admit
        self._listener: ProtocolServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_closed = on_closed

    async def listen(self) -> None:
        """Accept connections."""
        if self._listener is None:
            listener = await bind(HOST, self.port)
            self._listener = ProtocolServer(lambda: Connection(self).caller)
            self._listener.serve(listener)

    async def refuse(self) -> None:
        """Accept no more connections. The port is kept, so that nobody else answers there."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.close()

    def reset_all(self) -> None:
        """End every connection with an error."""
        for connection in list(self.connections):
            connection.reset()

    async def close(self) -> None:
        """Accept nothing more, end what there is, and give up the port."""
        await self.refuse()
        self._reserved.release()
        self.reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close their sockets

    def opened(self, connection: Connection) -> None:
        """Take a connection in."""
        self.accepted += 1
        self.connections.add(connection)
        task = asyncio.ensure_future(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._on_closed(connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._admit(connection)
            if not connection.is_over:
                await connection.reach(self.target_port)
        except OSError:
            connection.reset()
