"""What the transport between members grants, in bytes, counts and seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

_AROUND_REQUEST_BYTES: Final = 1 << 20
"""More than what an entry and a message add to a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLimits:
    """Bounds on memory, sockets and patience; the defaults suit members of one cluster."""

    max_frame_bytes: int = 64 << 20
    """The largest frame taken; must exceed the largest proposal by a kilobyte."""
    max_queued_messages: int = 4096
    """Per peer and stream; what comes on top is dropped, and Raft told so."""
    max_queued_bytes: int = 64 << 20
    max_write_bytes: int = 1 << 20
    """How much is handed to the socket at once, and how much may wait there."""
    max_strangers: int = 64
    """Connections whose greeting has not come yet; the oldest gives way to the next."""
    max_unknown_members: int = 16
    """Senders of our cluster that we have not heard of yet, served at the same time."""
    max_questions: int = 256
    """Questions of one connection under way at the same time."""
    max_question_bytes: int = 1 << 20
    max_snapshots: int = 16
    """Transfers under way, out and in counted apart. As many as etcd."""
    chunk_bytes: int = 256 << 10

    handshake_seconds: float = 5.0
    """For TLS and greeting together."""
    connect_seconds: float = 2.0
    """For one address: connection, TLS and greeting."""
    first_pause_seconds: float = 0.01
    longest_pause_seconds: float = 0.5
    """Between attempts to connect: doubled from the first, up to this."""
    silent_ticks: int = 6
    """A connection on which nothing was heard for so many ticks is given up."""
    stalled_seconds: float = 10.0
    """A snapshot that does not move for so long is given up."""
    working_seconds: float = 1.0
    """How often the sender of a snapshot hears that it is being worked on."""
    farewell_seconds: float = 1.0
    """For what was written to leave a connection that is being closed."""
    complaint_seconds: float = 30.0
    """The same complaint is logged once in so long."""

    @classmethod
    def for_requests(cls, max_request_bytes: int) -> Self:
        """The limits of a member that takes requests of this size.

        A request that is in the log and cannot be sent is never committed, and nothing behind it.
        """
        limits = cls()
        needed = max_request_bytes + _AROUND_REQUEST_BYTES
        return replace(
            limits,
            max_frame_bytes=max(limits.max_frame_bytes, needed),
            max_queued_bytes=max(limits.max_queued_bytes, needed),
        )
