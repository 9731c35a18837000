"""One HTTP/2 stream: the state of its two directions, and the events it is told."""

from __future__ import annotations

from collections import deque
from typing import Final

STREAM_WINDOW: Final = 256 * 1024
"""Bytes a client may send on a stream ahead of its consumer."""


class Stream:
    """One request and its response; what serves the request overrides the events.

    Invariants: a stream is registered with its connection from its first frame until
    ``local_closed``; ``queued`` is true exactly while it is in the outbox's ready queue.
    """

    __slots__ = (
        "held",
        "id",
        "local_closed",
        "pending",
        "queued",
        "receive_window",
        "remote_closed",
        "send_window",
        "trailers",
    )

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.send_window = 0
        self.receive_window = STREAM_WINDOW
        self.held = 0
        """Bytes received for which the client was given no new window yet."""
        self.local_closed = False
        self.remote_closed = False
        self.queued = False
        self.pending: deque[memoryview] | None = None
        """Data that could not leave at once; None until there was any."""
        self.trailers: bytes | None = None
        """What follows the pending data and ends the stream."""

    def on_open(self) -> None:
        """Begin: from now on the stream can be answered."""

    def on_data(self, data: bytes, ended: bool) -> None:
        """Take bytes of the request; ``ended``: they are its last."""

    def on_reset(self) -> None:
        """Learn that the client gave the stream up, or is gone."""

    def on_drained(self) -> None:
        """Learn that all pending data has left."""
