"""The HTTP/2 state of one connection, the server's side (RFC 9113). No socket, no task, no clock.

Bytes come in through :meth:`Http2.receive`, which tells the streams what they mean; what is to
be written collects in :attr:`Http2.outbox`. Rules, one line each:

- all that one read causes, and all that calls send in one turn of the loop, is one write;
- a stream's window grows only when what arrived on it was consumed (:meth:`Http2.credit`);
- a broken rule on a stream resets it; one of the connection raises :class:`ConnectionFailed`;
- frames that are cheap for the client and useless to it are paid for from :class:`Patience`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

from . import frames
from .frames import ErrorCode, Setting
from .header_blocks import BadBlock, HeadDecoder, HeaderBomb
from .limits import Limits
from .outbox import Outbox
from .patience import Patience, PingPolicy
from .request_head import Malformed, RequestHead
from .stream import STREAM_WINDOW, Stream

CONNECTION_WINDOW: Final = 8 << 20
"""Bytes a client may have under way to us, all streams together."""
MAX_STREAMS: Final = 65_536
"""The most calls of one connection, whatever larger number is configured."""
_STREAMS_A_TOKEN: Final = 64
"""Streams whose windows are changed in the time that one cheap frame takes."""
_TOO_MANY_SETTINGS: Final = "too many SETTINGS"


class ConnectionFailed(Exception):
    """The client broke the protocol; the connection ends with GOAWAY ``code``."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Listener(Protocol):
    """Who serves the streams of a connection."""

    @property
    def running(self) -> Collection[object]:
        """Calls that still run; can be more than there are streams, as a client can reset one."""
        raise NotImplementedError

    def new_stream(self, stream_id: int, head: RequestHead) -> Stream:
        """Return what serves this request; it is told to open once it is registered."""
        raise NotImplementedError

    def on_ping_ack(self, data: bytes) -> None:
        """Learn that a ping of ours was answered."""


@dataclass(slots=True)
class _OpenBlock:
    """A header block whose CONTINUATION is still to come."""

    stream_id: int
    ended: bool
    data: bytearray = field(default_factory=bytearray)


class Http2:
    """Frames, streams and flow control of one connection."""

    def __init__(self, listener: Listener, limits: Limits, clock: Callable[[], float]) -> None:
        self._listener = listener
        self._clock = clock
        self._max_streams = min(limits.max_concurrent_streams, MAX_STREAMS)
        self._max_block_bytes = limits.max_header_list_bytes
        self._decoder = HeadDecoder(limits.max_header_list_bytes)
        self._patience = Patience(clock())
        self._ping_policy = PingPolicy(
            limits.keepalive_min_seconds, limits.keepalive_permit_without_stream
        )
        self.streams: dict[int, Stream] = {}
        self.outbox = Outbox(self.streams)
        self.last_stream_id = 0
        self.refuse_after = frames.MAX_STREAM_ID
        """Streams with a larger id are not served any more: our GOAWAY said so."""
        self._preface = frames.PREFACE
        """What is left of it to receive."""
        self._expected: int | None = frames.SETTINGS
        """The one type of frame that may come next; None: any."""
        self._unread = b""
        self._block: _OpenBlock | None = None
        self._receive_window = CONNECTION_WINDOW
        self._greet(limits)
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }

    @property
    def in_head(self) -> bool:
        """Whether the connection's head, or that of a request, has begun and not ended."""
        return self._expected is not None

    def credit(self, stream: Stream) -> None:
        """Let the client send as much again as was consumed of a stream."""
        if stream.held >= STREAM_WINDOW // 2 and not stream.remote_closed:
            self.outbox.send_frame(frames.window_update(stream.id, stream.held))
            stream.receive_window += stream.held
            stream.held = 0

    def goaway(self, code: ErrorCode, text: str, *, last_stream_id: int | None = None) -> None:
        """Say that no streams after the last (default: the last seen) are served, and why."""
        self.refuse_after = self.last_stream_id if last_stream_id is None else last_stream_id
        self.outbox.send_frame(frames.goaway(self.refuse_after, code, text))

    def _greet(self, limits: Limits) -> None:
        """Send the connection's head, our settings."""
        self.outbox.send_frame(
            frames.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: self._max_streams,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
                }
            )
        )
        self.outbox.send_frame(frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW))

    # Frames

    def receive(self, data: bytes) -> None:
        """Take bytes from the client, its preface first. Raises ConnectionFailed."""
        if self._unread:
            data = self._unread + data
        position = self._skip_preface(data) if self._preface else 0
        unpack, total = frames.unpack_header, len(data)
        while total - position >= frames.HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 8 | low
            if length > frames.MAX_FRAME_BYTES:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = position + frames.HEADER_BYTES
            if start + length > total:
                break
            if self._expected is not None and kind != self._expected:
                raise _violation("SETTINGS do not come first, or CONTINUATION not next")
            position = start + length
            handler = self._handlers.get(kind, self._on_unknown)
            handler(flags, stream_id & frames.MAX_STREAM_ID, data[start:position])
        self._unread = data[position:]

    def _skip_preface(self, data: bytes) -> int:
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise _violation("no HTTP/2 preface")
        self._preface = self._preface[size:]
        return size

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size, ended = len(payload), bool(flags & frames.END_STREAM)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window")
        if self._receive_window <= CONNECTION_WINDOW // 2:
            increment = CONNECTION_WINDOW - self._receive_window
            self.outbox.send_frame(frames.window_update(0, increment))
            self._receive_window = CONNECTION_WINDOW
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        if not payload and not ended:
            self._spend("too many empty frames")
        stream = self._stream(stream_id)
        if stream is None:
            return
        stream.receive_window -= size
        stream.held += size
        if stream.remote_closed or stream.receive_window < 0:
            code = ErrorCode.STREAM_CLOSED if stream.remote_closed else ErrorCode.FLOW_CONTROL_ERROR
            self._reset(stream, code)
            return
        stream.remote_closed = ended
        stream.on_data(payload, ended)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id % 2 == 0:
            raise _violation("HEADERS on a stream that no client can open")
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        if flags & frames.PRIORITIZED:
            if len(payload) < 5:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            payload = payload[5:]
        ended = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, ended, payload)
        else:
            self._block = _OpenBlock(stream_id, ended, bytearray(payload))
            self._expected = frames.CONTINUATION

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or stream_id != block.stream_id:
            raise _violation("CONTINUATION of nothing, or of another stream")
        self._spend("too many CONTINUATION frames")
        block.data += payload
        if flags & frames.END_HEADERS:
            self._block = self._expected = None
            self._on_block(stream_id, block.ended, bytes(block.data))
        elif len(block.data) > self._max_block_bytes:
            raise _calm("too many headers")

    def _on_block(self, stream_id: int, ended: bool, block: bytes) -> None:
        """Take a whole header block; it is decoded whatever becomes of its stream."""
        if len(block) > self._max_block_bytes:
            raise _calm("too many headers")
        try:
            head = self._decoder.decode(block)
        except HeaderBomb as bomb:
            raise _calm("too many headers") from bomb
        except BadBlock as bad:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(bad)) from bad
        if stream_id <= self.last_stream_id:
            self._on_client_trailers(stream_id, ended)
        elif stream_id <= self.refuse_after:
            self.last_stream_id = stream_id
            self._open(stream_id, head, ended)

    def _open(self, stream_id: int, head: RequestHead | Malformed, ended: bool) -> None:
        busy = max(len(self.streams), len(self._listener.running)) >= self._max_streams
        if busy or isinstance(head, Malformed):
            self._spend("too many requests that cannot be served")
            code = ErrorCode.REFUSED_STREAM if busy else ErrorCode.PROTOCOL_ERROR
            self.outbox.send_frame(frames.rst_stream(stream_id, code))
            return
        stream = self._listener.new_stream(stream_id, head)
        self.streams[stream_id] = stream
        self.outbox.open(stream)
        stream.remote_closed = ended
        stream.on_open()
        if ended:
            stream.on_data(b"", True)

    def _on_client_trailers(self, stream_id: int, ended: bool) -> None:
        stream = self._stream(stream_id)
        if stream is None:
            return
        if stream.remote_closed or not ended:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.remote_closed = True
        stream.on_data(b"", True)

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect_size(payload, 5)
        self._spend("too many PRIORITY frames")

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect_size(payload, 4)
        self._spend("too many cancelled calls")
        stream = self._stream(stream_id, free=True)
        if stream is not None:
            self.outbox.forget(stream)
            stream.on_reset()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _violation("SETTINGS on a stream")
        if flags & frames.ACK:
            _expect_size(payload, 0)
            if self._expected is not None:
                raise _violation("SETTINGS are acknowledged before any were sent")
            return
        if len(payload) % 6:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of an odd size")
        self._spend(_TOO_MANY_SETTINGS)
        self._expected = None
        for name, value in dict(frames.read_settings(payload)).items():
            self._apply_setting(name, value)
        self.outbox.send_frame(frames.SETTINGS_ACK)

    def _apply_setting(self, name: int, value: int) -> None:
        if name == Setting.INITIAL_WINDOW_SIZE:
            self._set_initial_window(value)
        elif name == Setting.MAX_FRAME_SIZE:
            if not frames.MAX_FRAME_BYTES <= value < 2**24:
                raise _violation("a maximal frame size out of range")
            self.outbox.set_max_frame_bytes(value)
        elif name == Setting.ENABLE_PUSH and value > 1:
            raise _violation("ENABLE_PUSH is neither 0 nor 1")

    def _set_initial_window(self, size: int) -> None:
        """Change the windows of all streams, which costs as much as there are."""
        if size == self.outbox.initial_window:
            return
        self._spend(_TOO_MANY_SETTINGS, len(self.streams) // _STREAMS_A_TOKEN)
        if size > frames.MAX_WINDOW or not self.outbox.set_initial_window(size):
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise _violation("PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect_size(payload, 8)
        if stream_id:
            raise _violation("PING on a stream")
        if flags & frames.ACK:
            self._listener.on_ping_ack(payload)
            return
        self.outbox.send_frame(frames.ping(payload, frames.ACK))
        wrote, self.outbox.wrote = self.outbox.wrote, False
        if not self._ping_policy.allows(self._clock(), len(self.streams), wrote):
            raise _calm("too_many_pings")

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._spend("too many GOAWAY frames")

    def _on_unknown(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._spend("too many frames of an unknown type")

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        _expect_size(payload, 4)
        increment = frames.uint31(payload)
        if stream_id == 0:
            if increment == 0:
                raise _violation("WINDOW_UPDATE of nothing")
            if not self.outbox.widen(increment):
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window too large")
            return
        stream = self._stream(stream_id, free=True)
        if stream is None:
            return
        if increment == 0:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR)
        elif not self.outbox.widen_stream(stream, increment):
            self._reset(stream, ErrorCode.FLOW_CONTROL_ERROR)

    def _stream(self, stream_id: int, *, free: bool = False) -> Stream | None:
        """Find a stream; None when it is closed, for which a late frame pays unless ``free``."""
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id % 2 == 0 or self.last_stream_id < stream_id <= self.refuse_after:
                raise _violation("a frame on a stream that is not open")
            if not free:
                self._spend("too many frames on closed streams")
        return stream

    def _reset(self, stream: Stream, code: ErrorCode) -> None:
        """Give up a stream on which the client broke a rule."""
        self._spend("too many broken streams")
        self.outbox.reset(stream, code)
        stream.on_reset()

    def _spend(self, complaint: str, tokens: int = 1) -> None:
        if not self._patience.spend(self._clock(), self.outbox.completed, tokens):
            raise _calm(complaint)


def _without_padding(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _violation("more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _expect_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"{len(payload)} bytes for {size}")


def _violation(text: str) -> ConnectionFailed:
    return ConnectionFailed(ErrorCode.PROTOCOL_ERROR, text)


def _calm(text: str) -> ConnectionFailed:
    return ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, text)
