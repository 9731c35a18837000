"""Numbers for requests and leases that no two members, and no two starts of one, give out twice."""

from __future__ import annotations

from typing import Final

_TIME_MASK: Final = (1 << 40) - 1
_INT63_MASK: Final = (1 << 63) - 1


class RequestIds:
    """etcd's numbering: 16 bits of the member, 40 bits of the time it started, 8 bits to count in.

    Counting runs over into the time, which is safe as long as there are fewer than 256 requests
    in each millisecond.
    """

    def __init__(self, member_id: int, now_ms: int) -> None:
        """``now_ms``: milliseconds since the epoch."""
        self._prefix = (member_id & 0xFFFF) << 48
        self._suffix = (now_ms & _TIME_MASK) << 8

    def next(self) -> int:
        """Return a new number of 64 bits."""
        self._suffix += 1
        return self._prefix | (self._suffix & (1 << 48) - 1)

    def next_lease(self) -> int:
        """Return a new number for a lease: of 63 bits, so that it is positive on the wire."""
        return self.next() & _INT63_MASK
