"""What is to be written: frames in their order, data as far as the client's windows allow."""

from __future__ import annotations

from collections import deque
from typing import Final

from . import frames
from .frames import ErrorCode
from .stream import Stream

_WRITE_BYTES: Final = 64 * 1024
"""Data collected for one write, before the rest has to wait for the next."""
_MAX_FRAME_BYTES: Final = 64 * 1024
"""The largest frame sent, whatever the client would take: streams are to take turns."""


class Outbox:
    """The frames of one connection that wait to be written.

    Data that may not leave yet stays with its stream, and streams with data take turns, a frame
    each. Nothing here is bounded by itself: whoever sends waits for ``on_drained`` before more,
    and sends nothing while ``pending_bytes`` are too many.
    """

    def __init__(self, streams: dict[int, Stream]) -> None:
        self._streams = streams
        self._out: list[bytes] = []
        self._data_bytes = 0
        self._ready: deque[Stream] = deque()
        self._window = frames.DEFAULT_WINDOW
        self._max_frame_bytes = frames.MAX_FRAME_BYTES
        self.initial_window = frames.DEFAULT_WINDOW
        """What the client grants each new stream; :meth:`set_initial_window` changes it."""
        self.writable = True
        """Whether the transport takes more data; the connection sets it."""
        self.wrote = False
        """Whether headers or data were sent since this was last cleared."""
        self.pending_bytes = 0
        """Data that could not leave yet, of all streams."""
        self.completed = 0
        """Streams that ran to the end of both directions."""

    def take(self) -> bytes:
        """Hand over what is to be written now."""
        self._pump()
        out = b"".join(self._out)
        self._out.clear()
        self._data_bytes = 0
        return out

    @property
    def has_more(self) -> bool:
        """Whether data is left that the next write can carry."""
        return bool(self._ready) and self._window > 0 and self.writable

    # What streams send

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that is not subject to flow control."""
        self._out.append(frame)

    def send_headers(self, stream: Stream, block: bytes, end: bool = False) -> None:
        """Send the head of a response; ``end``: it is all there is."""
        if stream.local_closed:
            return
        flags = frames.END_HEADERS | frames.END_STREAM if end else frames.END_HEADERS
        self._out += (frames.header(len(block), frames.HEADERS, flags, stream.id), block)
        self.wrote = True
        if end:
            self._end(stream)

    def send_data(self, stream: Stream, data: bytes) -> None:
        """Send bytes of a response, or keep them until they may leave."""
        if stream.local_closed:
            return
        size = len(data)
        if (
            not stream.pending
            and not self._ready
            and size <= stream.send_window
            and size <= self._window
            and size <= self._max_frame_bytes
            and self._data_bytes < _WRITE_BYTES
            and self.writable
        ):
            self._emit(stream, data)
            return
        if stream.pending is None:
            stream.pending = deque()
        stream.pending.append(memoryview(data))
        self.pending_bytes += size
        self._enqueue(stream)

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """End a response, as soon as its data has left; without a block, by an empty frame."""
        if stream.local_closed:
            return
        if stream.pending:
            stream.trailers = block
        elif block:
            self.send_headers(stream, block, end=True)
        else:
            self._out.append(frames.header(0, frames.DATA, frames.END_STREAM, stream.id))
            self._end(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Give a stream up, and all that it still had to send."""
        if not stream.local_closed:
            self._out.append(frames.rst_stream(stream.id, code))
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """Drop a stream that was reset by either side."""
        stream.local_closed = stream.remote_closed = True
        if stream.pending:
            self.pending_bytes -= sum(map(len, stream.pending))
        stream.pending = stream.trailers = None
        self._streams.pop(stream.id, None)

    def _end(self, stream: Stream) -> None:
        """Close our side, and the client's: what it might still send is of no use."""
        if stream.remote_closed:
            self.completed += 1
        else:
            self._out.append(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
        self.forget(stream)

    # What windows allow

    def open(self, stream: Stream) -> None:
        """Give a new stream the window the client grants each."""
        stream.send_window = self.initial_window

    def set_max_frame_bytes(self, size: int) -> None:
        """Follow the client's SETTINGS_MAX_FRAME_SIZE."""
        self._max_frame_bytes = min(size, _MAX_FRAME_BYTES)

    def set_initial_window(self, size: int) -> bool:
        """Follow the client's SETTINGS_INITIAL_WINDOW_SIZE; False if a window overflows."""
        change = size - self.initial_window
        self.initial_window = size
        fits = [self.widen_stream(stream, change) for stream in self._streams.values()]
        return all(fits)

    def widen(self, increment: int) -> bool:
        """Grow the connection's window; False if it overflows."""
        self._window += increment
        return self._window <= frames.MAX_WINDOW

    def widen_stream(self, stream: Stream, increment: int) -> bool:
        """Grow (or shrink) the window of one stream; False if it overflows."""
        stream.send_window += increment
        if stream.pending and stream.send_window > 0:
            self._enqueue(stream)
        return stream.send_window <= frames.MAX_WINDOW

    def _enqueue(self, stream: Stream) -> None:
        if not stream.queued and stream.send_window > 0:
            stream.queued = True
            self._ready.append(stream)

    def _pump(self) -> None:
        """Let pending data leave, a frame of each stream in turn."""
        while self.has_more and self._data_bytes < _WRITE_BYTES:
            stream = self._ready.popleft()
            stream.queued = False
            if stream.pending and stream.send_window > 0:
                self._send_one(stream, stream.pending)

    def _send_one(self, stream: Stream, pending: deque[memoryview]) -> None:
        chunk = pending.popleft()
        room = min(stream.send_window, self._window, self._max_frame_bytes)
        if len(chunk) > room:
            pending.appendleft(chunk[room:])
            chunk = chunk[:room]
        self.pending_bytes -= len(chunk)
        self._emit(stream, chunk)
        if pending:
            self._enqueue(stream)
        elif stream.trailers is not None:
            self.send_trailers(stream, stream.trailers)
        else:
            stream.on_drained()

    def _emit(self, stream: Stream, data: bytes | memoryview) -> None:
        size = len(data)
        stream.send_window -= size
        self._window -= size
        self._data_bytes += size
        self._out += (frames.header(size, frames.DATA, 0, stream.id), data)  # type: ignore[arg-type]
        self.wrote = True
