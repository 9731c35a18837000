"""What a front grants a client, and for how long it waits for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GRPC_OVERHEAD_BYTES: Final = 512 * 1024
"""What etcd adds to ``--max-request-bytes`` for the limit on a received gRPC message."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one front; the defaults are etcd's, where etcd has the limit.

    Bytes are counted per connection, not per front.
    """

    max_message_bytes: int = 1_572_864 + GRPC_OVERHEAD_BYTES
    """Largest gRPC message and HTTP/1.1 body received (``--max-request-bytes`` + 512 KiB)."""
    max_concurrent_streams: int = 2**32 - 1
    """Calls in flight on one connection (``--max-concurrent-streams``); more are refused."""
    max_header_list_bytes: int = 32 * 1024
    """Headers of one request, as HTTP/2 counts them (32 bytes are added for each header)."""
    max_buffered_bytes: int = 256 * 1024 * 1024
    """Received and not yet consumed, all calls of one connection together; over it, the
    connection ends. Replies that wait for the client may be as many; over it, they are refused."""
    keepalive_min_seconds: float = 5.0
    """A client that pings more often is cut off (``--grpc-keepalive-min-time``)."""
    keepalive_permit_without_stream: bool = False
    """Whether a client without a call in flight may ping as often."""
    keepalive_interval_seconds: float = 7200.0
    """Silence after which the front pings (``--grpc-keepalive-interval``)."""
    keepalive_timeout_seconds: float = 20.0
    """Silence after that ping at which the peer counts as gone (``--grpc-keepalive-timeout``)."""
    head_seconds: float = 10.0
    """For a connection's first request, and for any head once it has begun."""
    body_seconds: float = 60.0
    """For the body of an HTTP/1.1 request, once its head was read, and to read the answer."""
    idle_seconds: float = 180.0
    """Between two HTTP/1.1 requests on one connection."""
    linger_seconds: float = 1.0
    """How long a connection that is cut off is still drained, so that it learns why."""
