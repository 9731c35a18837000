"""A connection that has not said yet what it speaks."""

from __future__ import annotations

import asyncio
import socket

from .frames import PREFACE
from .http1 import Http1Connection
from .http2_connection import Http2Connection
from .serving import Serving


class UnknownConnection(asyncio.Protocol):
    """Tells HTTP/2 from HTTP/1.1 by ALPN or the first bytes, and hands the connection over."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _answer_at_once(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._hand_over(Http2Connection(self._serving))
            return
        self._serving.connections.add(self)
        seconds = self._serving.limits.head_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._seen.startswith(PREFACE):
            self._hand_over(Http2Connection(self._serving))
        elif not PREFACE.startswith(self._seen):
            self._hand_over(Http1Connection(self._serving))

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    async def close(self, grace_seconds: float) -> None:
        """End: nothing was asked for yet."""
        if self._transport is not None:
            self._transport.abort()

    def abort(self) -> None:
        """End at once, without a word to the client."""
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        transport = self._transport
        assert transport is not None
        self._leave()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._seen:
            protocol.data_received(self._seen)

    def _leave(self) -> None:
        self._transport = None
        self._serving.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()


def _answer_at_once(transport: asyncio.Transport) -> None:
    """Have small answers leave at once, and not wait until the one before them is acknowledged.

    asyncio sees to that only where the listening socket was made with its protocol's number.
    """
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
