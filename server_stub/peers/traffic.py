"""What went over the wire to and from one member, for metrics and benchmarks."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

ROUND_TRIP_BUCKETS_SECONDS: Final = tuple(0.0001 * 2**n for n in range(16))
"""Upper bounds, as etcd counts them: from 0.1 ms to 3 s."""


@dataclass(slots=True)
class Traffic:
    """Counters of one peer; they only grow, apart from the last round trip."""

    sent_bytes: int = 0
    """Messages, questions and snapshots, with their framing; greetings and TLS not counted."""
    received_bytes: int = 0
    sent_messages: int = 0
    received_messages: int = 0
    dropped_messages: int = 0
    """Not sent: no connection, or the queue was full."""
    connections: int = 0
    """How often a stream to the peer was established."""
    connection_failures: int = 0
    sent_snapshots: int = 0
    received_snapshots: int = 0
    snapshot_send_failures: int = 0
    snapshot_receive_failures: int = 0
    round_trip_seconds: float | None = None
    """Of the last ping; None until one was answered."""
    round_trips: list[int] = field(
        default_factory=lambda: [0] * (len(ROUND_TRIP_BUCKETS_SECONDS) + 1)
    )
    """How many pings were answered within each bound and above the one before; the last: above."""
    round_trips_seconds: float = 0.0
    """The sum of all."""

    @property
    def snapshot_failures(self) -> int:
        """Transfers that failed, in either direction."""
        return self.snapshot_send_failures + self.snapshot_receive_failures

    def count_round_trip(self, seconds: float) -> None:
        """Note how long a ping took."""
        self.round_trip_seconds = seconds
        self.round_trips[bisect_left(ROUND_TRIP_BUCKETS_SECONDS, seconds)] += 1
        self.round_trips_seconds += seconds
