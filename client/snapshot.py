"""A member's snapshot: received, verified, and put in place whole or not at all.

The stream is the database's bytes, then the SHA-256 of all of them; the file keeps that trailer,
because ``etcdutl snapshot restore`` checks it. A database is a multiple of 512 bytes long, so a
file with its trailer leaves 32 (the rule clientv3 and etcdutl apply). clientv3 leaves the digest
to the restore; here it is verified before the file gets its name.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from ..protos.errors import Code
from ..protos.etcdserverpb import SnapshotResponse
from ..protos.rpcs import MAINTENANCE_SNAPSHOT
from .call import Call
from .connections import Link
from .endpoints import normalise
from .error_handler import is_about_token
from .errors import (
    ConnectionLost,
    EtcdError,
    InvalidArgument,
    LearnerCannotServe,
    NoLeader,
    NotSent,
    SnapshotCorrupt,
    TimedOut,
    Unavailable,
)
from .flow import CallFailed, Flow, Sleep
from .pump import Trip
from .stream import TOKENS_TRIED, Backoff

DIGEST_BYTES: Final = 32
PAGE_BYTES: Final = 512

SnapshotProgress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes received, bytes still to come as the server reckons) after each chunk."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that arrived whole."""

    size_bytes: int
    """The database and its trailing digest."""
    sha256: bytes
    revision: int
    """The store's revision in the first message's header; 0 where the server leaves it out."""
    version: str
    """The storage version, e.g. ``3.6.0``; empty before etcd 3.6."""


class SnapshotReceiver:
    """Checks a snapshot while it comes in. Pure."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.remaining_bytes = 0
        self._digest = hashlib.sha256()
        self._tail = b""
        """The last bytes seen, which may be the digest and so are not part of it."""
        self._revision = 0
        self._version = ""

    def receive(self, response: SnapshotResponse) -> bytes:
        """Take in a message; return its bytes, all of which belong to the file."""
        blob = response.blob
        self._revision = self._revision or response.header.revision
        self._version = self._version or response.version
        self.received_bytes += len(blob)
        self.remaining_bytes = response.remaining_bytes
        seen = self._tail + blob
        self._digest.update(seen[:-DIGEST_BYTES])
        self._tail = seen[-DIGEST_BYTES:]
        return blob

    def finish(self) -> Snapshot:
        """Verify what came in, once the stream has ended well."""
        if self.received_bytes % PAGE_BYTES != DIGEST_BYTES:
            raise SnapshotCorrupt(
                f"snapshot cut short: {self.received_bytes} bytes are not whole pages and a digest"
            )
        if self._digest.digest() != self._tail:
            raise SnapshotCorrupt(
                f"snapshot tampered with: its SHA-256 is {self._digest.hexdigest()}, "
                f"but its trailer says {self._tail.hex()}"
            )
        return Snapshot(self.received_bytes, self._tail, self._revision, self._version)


_TRY_ELSEWHERE: Final = (
    NotSent,
    TimedOut,
    ConnectionLost,
    Unavailable,
    NoLeader,
    LearnerCannotServe,
)
BEGIN_SHARE: Final = 0.4
"""How much of the time to begin an endpoint gets, if there are others to ask after it."""
LEAST_BEGIN_SECONDS: Final = 0.2
_UNBEGUN: Final = CallFailed(Code.DEADLINE_EXCEEDED, "no byte of the snapshot came in time")


class SnapshotTrip(Trip):
    """A snapshot's stay on one link, which is given up when it does not begin."""

    _begun = _given_up = False

    def __init__(self, call: Call) -> None:
        super().__init__(call, MAINTENANCE_SNAPSHOT)
        self._lock = threading.Lock()

    def answered(self) -> None:
        with self._lock:
            self._begun = True
        super().answered()

    def cancel(self) -> None:
        if self.stream is not None:
            self.stream.cancel()

    def give_up(self) -> None:
        """End it, unless it has begun."""
        with self._lock:
            self._given_up = not self._begun
        if self._given_up:
            self.cancel()

    @property
    def own_failure(self) -> CallFailed | None:
        """What to say when this side has ended it; None: it has not."""
        if self._given_up:
            return _UNBEGUN
        return self.closed_failure if self.left_by_us else None


class SnapshotSearch:
    """Where a snapshot comes from: from endpoint to endpoint, until the first byte.

    A snapshot is of one member at one moment, so a stream that breaks later cannot be resumed.
    """

    def __init__(self, call: Call, endpoint: str | None, timeout: float | None) -> None:
        self._call = call
        self._endpoint = None if endpoint is None else normalise(endpoint)
        self._timeout = timeout
        self._backoff = Backoff(Random(), initial_seconds=0.05, max_seconds=1.0)
        self._tried: list[str] = []
        self._tokens_refused = 0
        started = time.monotonic()
        allowed_seconds = call.allowance(timeout)
        self._begin_by = started + allowed_seconds
        self._end_by = math.inf if timeout is None else started + allowed_seconds

    @property
    def left_seconds(self) -> float | None:
        """How long the stream may take from now on; None: as long as it likes."""
        left = max(0.0, self._end_by - time.monotonic())
        return None if left == math.inf else left

    @property
    def begin_seconds(self) -> float:
        """How long the first byte may take, so that there is time to ask somebody else."""
        left = max(LEAST_BEGIN_SECONDS, self._begin_by - time.monotonic())
        alone = self._endpoint is not None or self._call.connections.size < 2
        return left if alone else max(LEAST_BEGIN_SECONDS, BEGIN_SHARE * left)

    @property
    def picks(self) -> bool:
        """Whether the balancer chooses, rather than the caller."""
        return self._endpoint is None

    def place(self, trip: Trip) -> Flow[Link]:
        """Choose where to ask."""
        trip.token = yield from self._call.token_of_stream(
            MAINTENANCE_SNAPSHOT, self._left_to_begin
        )
        if self._endpoint is not None:
            try:
                return self._call.connections.reach(self._endpoint)
            except KeyError:
                text = f"{self._endpoint} is not among the client's endpoints"
                raise InvalidArgument(text) from None
        link = yield from self._call.place(
            MAINTENANCE_SNAPSHOT, self._left_to_begin, tried=self._tried
        )
        self._tried.append(link.url)
        return link

    @property
    def _left_to_begin(self) -> float:
        return max(0.001, self._begin_by - time.monotonic())

    def judge(self, error: EtcdError, received_bytes: int) -> Flow[None]:
        """Wait before the next attempt, or raise why there is none."""
        if self._is_worth_a_token(error) and not received_bytes:
            return
        pause_seconds = self._backoff.pause_seconds()
        late = time.monotonic() + pause_seconds > self._begin_by
        if received_bytes or late or not isinstance(error, _TRY_ELSEWHERE):
            raise error
        yield Sleep(pause_seconds)

    def _is_worth_a_token(self, error: EtcdError) -> bool:
        """Tell whether to ask again at once, with another token."""
        if self._call.credentials is None or not is_about_token(error):
            self._tokens_refused = 0
            return False
        self._tokens_refused += 1
        return self._tokens_refused <= TOKENS_TRIED
