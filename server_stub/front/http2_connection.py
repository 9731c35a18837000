"""The asyncio end of an HTTP/2 connection: reads, timers, and one write for all that is due."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ...protos import errors
from . import frames
from .admission import Rejected, rejection
from .frames import ErrorCode
from .grpc_call import GrpcCall, ManyRequestsCall, OneRequestCall
from .http2 import ConnectionFailed, Http2
from .http2_request import PlainRequest
from .http_answer import path_of
from .linger import linger
from .request_head import RequestHead
from .serving import Serving, peer_name
from .stream import Stream

_log = logging.getLogger(__name__)

_KEEPALIVE_PING: Final = b"pinwheel"
_DRAIN_PING: Final = b"draining"
_DRAIN_SECONDS: Final = 1.0
"""How long a client has to answer the first GOAWAY of a shutdown."""
_CANCEL_SECONDS: Final = 1.0
"""How long cancelled methods have at least to clean up."""


class Http2Connection(asyncio.Protocol):
    """One client over HTTP/2."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.running: set[GrpcCall] = set()
        self.peer = ""
        self._loop = asyncio.get_running_loop()
        self.http2 = Http2(self, serving.limits, self._loop.time)
        self._transport: asyncio.Transport | None = None
        self._ended = False
        """Whether nothing is read or sent any more."""
        self._flush_scheduled = False
        self._write_waiters: list[asyncio.Future[None]] = []
        self._buffered_bytes = 0
        self._last_heard = self._loop.time()
        self._head_timer: asyncio.TimerHandle | None = None
        self._keepalive_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._drain_acknowledged = asyncio.Event()
        self._idle = asyncio.Event()
        self._lost = asyncio.Event()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = peer_name(transport)
        self.serving.connections.add(self)
        limits = self.serving.limits
        self._head_timer = self._loop.call_later(limits.head_seconds, self._on_head_overdue)
        self._keepalive_timer = self._loop.call_later(
            limits.keepalive_interval_seconds, self._keep_alive
        )
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._last_heard = self._loop.time()
        try:
            self.http2.receive(data)
        except ConnectionFailed as failure:
            self._fail(failure.code, str(failure))
        except Exception:
            _log.exception("%s: a connection met a defect of the front", self.peer)
            self._fail(ErrorCode.INTERNAL_ERROR, "internal error")
        else:
            self._watch_head()
            self.flush_soon()

    def pause_writing(self) -> None:
        """Take no more from a client that does not read what it asked for."""
        self.http2.outbox.writable = False
        if self._transport is not None and not self._ended:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.http2.outbox.writable = True
        if self._transport is not None and not self._ended:
            self._transport.resume_reading()
            self.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stop()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self.serving.connections.discard(self)
        for event in (self._drain_acknowledged, self._idle, self._lost):
            event.set()

    # What streams and calls ask for

    def new_stream(self, stream_id: int, head: RequestHead) -> Stream:
        if head.is_grpc and head.method == "POST" and head.refusal is None:
            method = self.serving.methods.get(head.path)
            if method is not None:
                kind = ManyRequestsCall if method.rpc.client_streaming else OneRequestCall
                return kind(stream_id, self, method, head)
        elif not head.is_grpc and (
            head.method != "POST" or path_of(head.path) in self.serving.routes
        ):
            return PlainRequest(stream_id, self, head)
        return Rejected(stream_id, self.http2.outbox, rejection(head, self.serving.services))

    def flush_soon(self) -> None:
        """Write once all that runs in this turn of the loop has had its say."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def next_write(self) -> asyncio.Future[None]:
        """Done when all that was sent so far is written; of no use on a lost connection."""
        waiter = self._loop.create_future()
        self._write_waiters.append(waiter)
        return waiter

    def count_buffered(self, change: int) -> None:
        """Account for bytes received that nobody has taken yet. Raises ConnectionFailed."""
        self._buffered_bytes += change
        if change > 0 and self._buffered_bytes > self.serving.limits.max_buffered_bytes:
            text = "too much data that no call has taken"
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, text)

    def on_ping_ack(self, data: bytes) -> None:
        if data == _DRAIN_PING:
            self._drain_acknowledged.set()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._ended or self._transport is None:
            return
        outbox = self.http2.outbox
        data = outbox.take()
        if data:
            self._transport.write(data)
        if outbox.has_more:
            self.flush_soon()
        for waiter in self._write_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._write_waiters.clear()
        if not self.http2.streams and self._drain_acknowledged.is_set():
            self._idle.set()

    # How the connection ends

    async def close(self, grace_seconds: float) -> None:
        """End in good order: no new calls, and those in flight have the grace to finish.

        GOAWAY goes out twice (RFC 9113, 6.8), so that calls already under way to us still count.
        """
        end = self._loop.time() + grace_seconds
        if not self._ended:
            self.http2.goaway(ErrorCode.NO_ERROR, "", last_stream_id=frames.MAX_STREAM_ID)
            self.http2.outbox.send_frame(frames.ping(_DRAIN_PING))
            self._flush()
            await _wait(self._drain_acknowledged, min(_DRAIN_SECONDS, grace_seconds))
        if not self._ended:
            self._drain_acknowledged.set()
            self.http2.goaway(ErrorCode.NO_ERROR, "")
            self._flush()
            await _wait(self._idle, end - self._loop.time())
        if not self._ended:
            for stream in list(self.http2.streams.values()):
                if isinstance(stream, GrpcCall):
                    stream.abort(errors.STOPPED)
            self._end()
        await _wait(self._lost, self.serving.limits.linger_seconds)
        if self._transport is not None:
            self._transport.abort()
        tasks = [call.task for call in self.running if call.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=max(end - self._loop.time(), _CANCEL_SECONDS))

    def abort(self) -> None:
        """End at once, without a word to the client."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, code: ErrorCode, text: str) -> None:
        """Cut the client off, and tell it why."""
        _log.warning("%s: cut off: %s (%s)", self.peer, text, code.name)
        self.http2.goaway(code, text)
        self._end()

    def _end(self) -> None:
        """Write the rest, then drain what still comes, so that no reset overtakes our words."""
        transport = self._transport
        if self._ended or transport is None:
            return
        transport.write(self.http2.outbox.take())
        self._stop()
        self._linger_timer = linger(transport, self.serving.limits.linger_seconds)

    def _stop(self) -> None:
        """Serve nothing any more: cancel the timers and the calls."""
        self._ended = True
        for timer in (self._head_timer, self._keepalive_timer):
            if timer is not None:
                timer.cancel()
        for stream in list(self.http2.streams.values()):
            self.http2.outbox.forget(stream)
            stream.on_reset()

    # Timers

    def _watch_head(self) -> None:
        if not self.http2.in_head:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            seconds = self.serving.limits.head_seconds
            self._head_timer = self._loop.call_later(seconds, self._on_head_overdue)

    def _on_head_overdue(self) -> None:
        self._fail(ErrorCode.ENHANCE_YOUR_CALM, "headers took too long")

    def _keep_alive(self) -> None:
        """Ping a client that has been silent for long."""
        limits = self.serving.limits
        remaining = self._last_heard + limits.keepalive_interval_seconds - self._loop.time()
        if remaining > 0:
            self._keepalive_timer = self._loop.call_later(remaining, self._keep_alive)
            return
        self.http2.outbox.send_frame(frames.ping(_KEEPALIVE_PING))
        self._flush()
        self._keepalive_timer = self._loop.call_later(
            limits.keepalive_timeout_seconds, self._check_alive, self._last_heard
        )

    def _check_alive(self, heard_before: float) -> None:
        if self._last_heard > heard_before:
            self._keep_alive()
        elif self._transport is not None:
            _log.info("%s: cut off: no answer to a keep-alive ping", self.peer)
            self._transport.abort()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not for longer."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        pass
