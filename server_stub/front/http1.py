"""HTTP/1.1 on the client port, through h11."""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11

from ..api.call import HttpResponse
from .http_answer import BODY_TOO_LARGE, answer, origin_form, plain_text
from .linger import linger
from .serving import Serving, peer_name

_log = logging.getLogger(__name__)

_GO_ON: Final = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")


class _Rejected(Exception):
    """A request that is answered without its handler, and ends the connection."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.body.decode().strip())
        self.response = response


class Http1Connection(asyncio.Protocol):
    """One client over HTTP/1.1: one request after the other, each against the clock.

    Nothing is read while a request is served, and nothing is served while the client does not
    read; so a connection holds one request and one response.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        limits = serving.limits
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=limits.max_header_list_bytes
        )
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._serving_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = True
        """Whether nothing of the next request has come yet."""
        self._closing = False
        """Whether the response in hand is the last."""
        self._ended = False
        """Whether all that still comes is dropped."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peer = peer_name(transport)
        self._serving.connections.add(self)
        self._expect_within(self._serving.limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._idle:
            self._idle = False
            self._expect_within(self._serving.limits.head_seconds)
        self._h11.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        if not self._ended:
            self._h11.receive_data(b"")
            self._advance()
        return self._serving_task is not None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._transport = None
        self._serving.connections.discard(self)
        self._lost.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._serving_task is not None:
            self._serving_task.cancel()

    async def close(self, grace_seconds: float) -> None:
        """End: an idle connection at once, a busy one after its response, within the grace."""
        self._closing = True
        if self._serving_task is None and self._transport is not None:
            self._transport.close()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._lost.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    def abort(self) -> None:
        """End at once, without a word to the client."""
        if self._transport is not None:
            self._transport.abort()

    def _expect_within(self, seconds: float) -> None:
        """Give the client so long for what it has to do now."""
        assert self._transport is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._transport.abort)

    # Requests

    def _advance(self) -> None:
        """Take what has come, up to the end of one request."""
        try:
            while self._serving_task is None and not self._ended:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._reject(plain_text(error.error_status_hint, str(error)))
        except _Rejected as rejected:
            self._reject(rejected.response)

    def _take(self, event: object) -> None:
        assert self._transport is not None
        match event:
            case h11.Request():
                self._request = event
                self._expect_within(self._serving.limits.body_seconds)
                if self._h11.they_are_waiting_for_100_continue:
                    self._transport.write(self._h11.send(_GO_ON) or b"")
            case h11.Data():
                self._body += event.data
                if len(self._body) > self._serving.limits.max_message_bytes:
                    raise _Rejected(BODY_TOO_LARGE)
            case h11.EndOfMessage():
                assert self._request is not None
                assert self._timer is not None
                self._timer.cancel()
                self._transport.pause_reading()
                self._serving_task = self._loop.create_task(self._serve(self._request))
            case h11.ConnectionClosed():
                self._ended = True
                self._transport.close()

    async def _serve(self, request: h11.Request) -> None:
        body, self._body = bytes(self._body), bytearray()
        method = request.method.decode()
        try:
            target = origin_form(request.target.decode("latin-1"))
        except ValueError:
            self._respond(plain_text(400, "bad request target"))
        else:
            self._respond(await answer(self._serving.routes, method, target, body))
        self._expect_within(self._serving.limits.body_seconds)
        await self._writable.wait()
        self._serving_task = None
        self._next_request()

    def _respond(self, response: HttpResponse) -> None:
        assert self._transport is not None
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            ("date", formatdate(usegmt=True)),
        ]
        if self._closing or self._h11.their_state is not h11.DONE:
            headers.append(("connection", "close"))
        head = h11.Response(
            status_code=response.status,
            headers=headers,
            reason=_phrase(response.status),
        )
        parts = [self._h11.send(head)]
        if self._request is None or self._request.method != b"HEAD":
            parts.append(self._h11.send(h11.Data(data=response.body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))

    def _next_request(self) -> None:
        assert self._transport is not None
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._end()
            return
        self._request = None
        self._h11.start_next_cycle()
        self._idle = True
        self._expect_within(self._serving.limits.idle_seconds)
        self._transport.resume_reading()
        self._advance()

    def _reject(self, response: HttpResponse) -> None:
        """Answer what cannot be served, as far as an answer is possible, and end."""
        _log.info("%s: rejected: %s", self._peer, response.body.decode().strip())
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._respond(response)
        self._end()

    def _end(self) -> None:
        assert self._transport is not None
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = linger(self._transport, self._serving.limits.linger_seconds)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
