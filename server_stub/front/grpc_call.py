"""One gRPC call: its requests in, the method that serves it, its replies out."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from ...protos.errors import Code, Refusal, Refused
from ..api.call import Call, Method
from . import grpc_wire
from .admission import CONTENT_TYPE, status_fields, trailers_only
from .frames import ErrorCode
from .header_blocks import encode
from .http2 import Http2
from .request_head import RequestHead
from .requests import Requests
from .serving import Serving
from .stream import Stream

_log = logging.getLogger(__name__)

DEADLINE_EXCEEDED: Final = Refusal(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
CANCELLED: Final = Refusal(Code.CANCELLED, "context canceled")
FAILED: Final = Refusal(Code.INTERNAL, "internal error; the server's log says more")
UNREAD: Final = Refusal(
    Code.RESOURCE_EXHAUSTED, "grpc: too many replies wait for the client to take them"
)
CUT_OFF: Final = Refusal(Code.INTERNAL, "unexpected EOF")

_CARDINALITY: Final = Refusal(
    Code.INTERNAL, "cardinality violation: a unary request takes exactly one message"
)
_BURST_BYTES: Final = 16 * 1024
"""What a stream of replies may send before others have their turn."""
_HEAD: Final = encode([(b":status", b"200"), CONTENT_TYPE])
_OK: Final = encode([(b"grpc-status", b"0")])


if sys.version_info >= (3, 12):

    def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task at once: a method that never waits then ends before its start returns."""
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
else:

    def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task with the next turn of the loop."""
        return asyncio.get_running_loop().create_task(work)


class Carrier(Protocol):
    """The connection, as a call sees it."""

    serving: Serving
    http2: Http2
    peer: str
    running: set[GrpcCall]
    """Calls whose method runs, or has not noticed yet that it was cancelled."""

    def flush_soon(self) -> None:
        """Write what was sent, all of it at once."""

    def next_write(self) -> asyncio.Future[None]:
        """Done when all that was sent so far is written; of no use on a lost connection."""
        raise NotImplementedError

    def count_buffered(self, change: int) -> None:
        """Account for bytes received that no method has taken yet."""


class GrpcCall(Stream):
    """One call, from its head to its trailers.

    Invariant: ``finished`` is set once, by whoever decides the outcome (the method, the deadline,
    the client, the shutdown); what comes later is dropped.
    """

    __slots__ = (
        "_buffered_bytes",
        "_carrier",
        "_drained",
        "_encoding",
        "_head_sent",
        "_method",
        "_reader",
        "call",
        "deadline",
        "finished",
        "task",
        "tick",
    )

    def __init__(self, stream_id: int, carrier: Carrier, method: Method, head: RequestHead) -> None:
        super().__init__(stream_id)
        self._carrier = carrier
        self._method = method
        self._encoding = head.encoding
        self._reader: grpc_wire.MessageReader | None = None
        self._buffered_bytes = 0
        self.task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._head_sent = False
        self.finished = False
        self.deadline: float | None = None
        self.tick = 0
        if head.timeout_seconds is not None:
            self.deadline = time.monotonic() + head.timeout_seconds
            carrier.serving.deadlines.add(self)
        self.call = Call(head.metadata, carrier.peer, self.deadline)

    # What the two kinds of calls do with their messages

    def _take(self, messages: list[bytes], ended: bool) -> None:
        """Take messages from the client. Raises Refused."""
        raise NotImplementedError

    def _untaken_bytes(self) -> int:
        """Size of the messages that the method has not taken yet."""
        raise NotImplementedError

    # What the client does

    def on_data(self, data: bytes, ended: bool) -> None:
        if self.finished:
            return
        try:
            self._take(self._read(data, ended), ended)
        except Refused as refused:
            self.abort(refused.refusal)
        else:
            self._account()

    def on_reset(self) -> None:
        if not self.finished:
            self._finish()
            self._cancel()

    def _read(self, data: bytes, ended: bool) -> list[bytes]:
        reader = self._reader
        if reader is None:
            max_bytes = self._carrier.serving.limits.max_message_bytes
            message = grpc_wire.whole_message(data, max_bytes)
            if message is not None:
                return [message]
            if not data:
                return []
            reader = self._reader = grpc_wire.MessageReader(max_bytes, self._encoding)
        messages = reader.feed(data)
        if ended and reader.buffered_bytes:
            raise Refused(CUT_OFF)
        return messages

    def _decode(self, payload: bytes) -> Any:
        try:
            return self._method.rpc.request.FromString(payload)
        except DecodeError as error:
            text = f"grpc: error unmarshalling request: {error}"
            raise Refused(Refusal(Code.INTERNAL, text)) from error

    def _account(self) -> None:
        """Count what is buffered, and let the client send on once its messages were taken."""
        untaken = self._untaken_bytes()
        buffered = untaken + (self._reader.buffered_bytes if self._reader is not None else 0)
        if buffered != self._buffered_bytes:
            change = buffered - self._buffered_bytes
            self._buffered_bytes = buffered
            self._carrier.count_buffered(change)
        if not untaken:
            self._carrier.http2.credit(self)

    # How the call ends

    def abort(self, refusal: Refusal) -> None:
        """End the call from outside: answer at once, and cancel its method."""
        self._answer(refusal)
        self._cancel()

    def expire(self) -> None:
        """End the call because its deadline has passed."""
        self.abort(DEADLINE_EXCEEDED)

    def _answer(self, refusal: Refusal) -> None:
        if self.finished:
            return
        outbox = self._carrier.http2.outbox
        if self.pending:
            # The method has ended between two messages, the client may be within one.
            outbox.reset(self, ErrorCode.CANCEL)
        elif self._head_sent:
            outbox.send_trailers(self, encode(status_fields(refusal)))
        else:
            outbox.send_headers(self, trailers_only(refusal), end=True)
        self._finish()
        self._carrier.flush_soon()

    def _finish(self) -> None:
        self.finished = True
        if self.deadline is not None:
            self._carrier.serving.deadlines.discard(self)
        if self._buffered_bytes:
            self._carrier.count_buffered(-self._buffered_bytes)
            self._buffered_bytes = 0

    def _cancel(self) -> None:
        if self.task is not None and not self.task.done():
            # A task that never began to run does not reach its own clean-up.
            self.task.add_done_callback(lambda _: self._carrier.running.discard(self))
            self.task.cancel()

    # How it is served

    def _start(self, request: Any) -> None:
        self._carrier.running.add(self)
        self.task = _spawn(self._run(request))

    async def _run(self, request: Any) -> None:
        try:
            if self._method.rpc.server_streaming:
                await self._serve_many(request)
            else:
                self._send(await self._method.serve(request, self.call))
            if not self.finished:
                self._carrier.http2.outbox.send_trailers(self, _OK)
                self._finish()
                self._carrier.flush_soon()
        except Refused as refused:
            self._answer(refused.refusal)
        except asyncio.CancelledError:
            self._answer(CANCELLED)
            raise
        except Exception:
            _log.exception("%s failed for %s", self._method.rpc.path, self._carrier.peer)
            self._answer(FAILED)
        finally:
            self._carrier.running.discard(self)

    async def _serve_many(self, request: Any) -> None:
        burst_bytes = 0
        async with aclosing(self._method.serve(request, self.call)) as replies:
            async for reply in replies:
                burst_bytes += self._send(reply)
                self._carrier.flush_soon()
                if self.pending:
                    self._drained = asyncio.get_running_loop().create_future()
                    await self._drained
                elif burst_bytes >= _BURST_BYTES:
                    burst_bytes = 0
                    await self._carrier.next_write()

    def on_drained(self) -> None:
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _send(self, reply: Any) -> int:
        """Send a reply; return its size in bytes. Raises Refused when too much is unread."""
        if self.finished:
            return 0
        outbox = self._carrier.http2.outbox
        if outbox.pending_bytes > self._carrier.serving.limits.max_buffered_bytes:
            raise Refused(UNREAD)
        if not self._head_sent:
            self._head_sent = True
            outbox.send_headers(self, _HEAD)
        data = grpc_wire.frame(reply.SerializeToString())
        outbox.send_data(self, data)
        return len(data)


class OneRequestCall(GrpcCall):
    """A call with one request: its method starts when the client has half-closed."""

    __slots__ = ("_request",)

    def __init__(self, stream_id: int, carrier: Carrier, method: Method, head: RequestHead) -> None:
        super().__init__(stream_id, carrier, method, head)
        self._request: bytes | None = None

    def _take(self, messages: list[bytes], ended: bool) -> None:
        for message in messages:
            if self._request is not None:
                raise Refused(_CARDINALITY)
            self._request = message
        if ended:
            if self._request is None:
                raise Refused(_CARDINALITY)
            request, self._request = self._request, None
            self._start(self._decode(request))

    def _untaken_bytes(self) -> int:
        return 0 if self._request is None else len(self._request)


class ManyRequestsCall(GrpcCall):
    """A call with a stream of requests: its method starts at once, and takes them as it likes."""

    __slots__ = ("_requests",)

    def __init__(self, stream_id: int, carrier: Carrier, method: Method, head: RequestHead) -> None:
        super().__init__(stream_id, carrier, method, head)
        self._requests = Requests(self._decode, self._on_taken)

    def on_open(self) -> None:
        self._start(self._requests)

    def _take(self, messages: list[bytes], ended: bool) -> None:
        self._requests.put(messages, ended)

    def _untaken_bytes(self) -> int:
        return self._requests.size_bytes

    def _on_taken(self) -> None:
        self._account()
        self._carrier.flush_soon()
