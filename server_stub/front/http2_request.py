"""A plain request over HTTP/2, e.g. ``curl https://.../health``."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..api.call import HttpResponse
from .frames import ErrorCode
from .header_blocks import encode
from .http2 import Http2
from .http_answer import BODY_TOO_LARGE, answer
from .request_head import RequestHead
from .serving import Serving
from .stream import Stream


class Carrier(Protocol):
    """The connection, as a plain request sees it."""

    serving: Serving
    http2: Http2

    def flush_soon(self) -> None:
        """Write what was sent, all of it at once."""

    def count_buffered(self, change: int) -> None:
        """Account for bytes received that nobody has taken yet."""


class PlainRequest(Stream):
    """One request to a route, answered when its body is complete, or is too much.

    Invariant: ``_answered`` is set with the answer, which may wait for the client; what comes of
    the body after that is dropped.
    """

    __slots__ = ("_answered", "_body", "_carrier", "_head", "_task")

    def __init__(self, stream_id: int, carrier: Carrier, head: RequestHead) -> None:
        super().__init__(stream_id)
        self._carrier = carrier
        self._head = head
        self._body = bytearray()
        self._answered = False
        self._task: asyncio.Task[None] | None = None

    def on_data(self, data: bytes, ended: bool) -> None:
        self._carrier.http2.credit(self)
        if self._answered:
            return
        self._body += data
        self._carrier.count_buffered(len(data))
        if len(self._body) > self._carrier.serving.limits.max_message_bytes:
            self._respond(BODY_TOO_LARGE)
        elif ended:
            self._task = asyncio.get_running_loop().create_task(self._serve())

    def on_reset(self) -> None:
        self._release()
        if self._task is not None:
            self._task.cancel()

    async def _serve(self) -> None:
        body = bytes(self._body)
        head = self._head
        routes = self._carrier.serving.routes
        self._respond(await answer(routes, head.method, head.path, body))

    def _respond(self, response: HttpResponse) -> None:
        """Answer, unless the client leaves too much unread already."""
        self._answered = True
        self._release()
        outbox = self._carrier.http2.outbox
        if outbox.pending_bytes > self._carrier.serving.limits.max_buffered_bytes:
            outbox.reset(self, ErrorCode.ENHANCE_YOUR_CALM)
            self._carrier.flush_soon()
            return
        head = encode(
            [
                (b":status", b"%d" % response.status),
                (b"content-type", response.content_type.encode()),
                (b"content-length", b"%d" % len(response.body)),
            ]
        )
        empty = not response.body or self._head.method == "HEAD"
        outbox.send_headers(self, head, end=empty)
        if not empty:
            outbox.send_data(self, response.body)
            outbox.send_trailers(self, b"")
        self._carrier.flush_soon()

    def _release(self) -> None:
        self._carrier.count_buffered(-len(self._body))
        self._body = bytearray()
