"""Leases: how long each has left, which keys hang on it, and which have run out.

The lessor decides and never acts: it neither reads a clock (``now`` is an argument, seconds on any
monotonic clock) nor writes to the backend (the applier persists a lease in the batch that grants
it) nor revokes anything (the member proposes what :meth:`Lessor.expired` names).

Only the *primary* lessor, the leader's, lets time run out. Everywhere else a lease lives for ever
until the log says that it is gone, so that two members never disagree about it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf
from typing import Final

from ...protos import leasepb
from ...protos.errors import (
    LEADER_CHANGED,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    LEASE_TTL_TOO_LARGE,
    Refused,
)

NO_LEASE: Final = 0
MAX_TTL_SECONDS: Final = 9_000_000_000
REVOKES_PER_SECOND: Final = 1000
"""How many leases a leader revokes at most; what keeps a mass expiry from drowning the log."""
CHECKPOINT_INTERVAL_SECONDS: Final = 300
MAX_CHECKPOINTS_PER_BATCH: Final = 1000


@dataclass(slots=True)
class Lease:
    """One lease and the keys that go with it."""

    id: int
    ttl_seconds: int
    remaining_seconds: int = 0
    """What a checkpoint says was left; 0: no checkpoint, the whole TTL."""
    expiry: float = inf
    """When the primary lets it run out; never, for everybody else."""
    keys: set[bytes] = field(default_factory=set)

    @property
    def span_seconds(self) -> int:
        """How long the lease lives from a refresh on."""
        return self.remaining_seconds or self.ttl_seconds

    def to_record(self) -> leasepb.Lease:
        """What the backend keeps of it: never the expiry, so a restart renews every lease."""
        return leasepb.Lease(ID=self.id, TTL=self.ttl_seconds, RemainingTTL=self.remaining_seconds)


@dataclass(slots=True)
class Counters:
    """What became of leases since the start, for metrics."""

    granted: int = 0
    revoked: int = 0
    renewed: int = 0
    expired: int = 0


class Lessor:
    """All leases of a member.

    Invariants: ``lease_of(key) == id`` iff ``key in lease(id).keys``; while primary, every lease
    has exactly one entry in the expiry heap, at or before the time it falls due.
    """

    def __init__(
        self, min_ttl_seconds: int, *, retry_seconds: float = 3.0, checkpoints: bool = False
    ) -> None:
        """``retry_seconds``: when to name a lease again that was named as expired and is still
        there, or whose checkpoint failed.

        ``checkpoints``: whether long leases tell from time to time how much of them is left, so
        that a new leader does not start them afresh (etcd's LeaseCheckpoint gate, off by default).
        """
        self._min_ttl_seconds = min_ttl_seconds
        self._retry_seconds = retry_seconds
        self._checkpoints = checkpoints
        self.counters = Counters()
        self._leases: dict[int, Lease] = {}
        self._lease_of: dict[bytes, int] = {}
        self._primary = False
        self._due: list[tuple[float, int, Lease]] = []
        self._serial = count()
        self._next_checkpoint: dict[int, float] = {}
        self._checkpoints_under_way: set[int] = set()
        """The leases of which a checkpoint was named, and what became of it is not known."""

    # What the store asks of it

    def exists(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def attach(self, lease_id: int, key: bytes) -> None:
        """Hang `key` on a lease, and take it off the one it had."""
        lease = self.lease(lease_id)
        self.detach(key)
        lease.keys.add(key)
        self._lease_of[key] = lease_id

    def detach(self, key: bytes) -> None:
        """Take `key` off its lease, if it has one."""
        lease_id = self._lease_of.pop(key, NO_LEASE)
        if lease_id:
            self._leases[lease_id].keys.discard(key)

    def lease_of(self, key: bytes) -> int:
        """The lease that `key` hangs on; 0 for none."""
        return self._lease_of.get(key, NO_LEASE)

    # What the log says

    def recover(self, records: Iterable[leasepb.Lease]) -> None:
        """Take over the leases that the backend kept; to be called before the store restores.

        What was known before is forgotten: on a running member, the backend is now another's.
        """
        self.demote()
        self._leases.clear()
        self._lease_of.clear()
        for record in records:
            ttl_seconds = max(record.TTL, self._min_ttl_seconds)
            self._leases[record.ID] = Lease(record.ID, ttl_seconds, record.RemainingTTL)

    def grant(self, lease_id: int, ttl_seconds: int, now: float) -> Lease:
        """Create a lease; a TTL under the minimum is raised to it."""
        if lease_id == NO_LEASE:
            raise Refused(LEASE_NOT_FOUND)
        if ttl_seconds > MAX_TTL_SECONDS:
            raise Refused(LEASE_TTL_TOO_LARGE)
        if lease_id in self._leases:
            raise Refused(LEASE_EXISTS)
        lease = Lease(lease_id, max(ttl_seconds, self._min_ttl_seconds))
        self._leases[lease_id] = lease
        self.counters.granted += 1
        if self._primary:
            self._refresh(lease, now)
            heapq.heappush(self._due, self._due_entry(lease))
        return lease

    def remove(self, lease_id: int) -> None:
        """Forget a lease whose keys were deleted."""
        lease = self.lease(lease_id)
        for key in lease.keys:
            del self._lease_of[key]
        del self._leases[lease_id]
        self.counters.revoked += 1
        self._next_checkpoint.pop(lease_id, None)
        self._checkpoints_under_way.discard(lease_id)

    def checkpoint(self, lease_id: int, remaining_seconds: int, now: float) -> Lease | None:
        """Note what the leader says is left of a lease; None if it is gone meanwhile."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.remaining_seconds = remaining_seconds
            self._checkpoints_under_way.discard(lease_id)
            self._schedule_checkpoint(lease, now)
        return lease

    # What a client asks

    def lease(self, lease_id: int) -> Lease:
        """The lease of this ID, or ``Refused(LEASE_NOT_FOUND)``."""
        try:
            return self._leases[lease_id]
        except KeyError:
            raise Refused(LEASE_NOT_FOUND) from None

    def leases(self) -> list[Lease]:
        """All leases, the one that expires first at the front."""
        return sorted(self._leases.values(), key=lambda lease: lease.expiry)

    def time_to_live(self, lease_id: int, now: float) -> int:
        """Whole seconds until the lease expires, rounded towards zero as etcd does.

        Only the primary knows; anybody else raises ``Refused(LEADER_CHANGED)``.
        """
        self._check_primary()
        remaining = self.lease(lease_id).expiry - now
        return int(min(remaining, MAX_TTL_SECONDS))

    def has_expired(self, lease_id: int, now: float) -> bool:
        """Whether a lease has run out but is still there, because its revocation is under way."""
        return self.lease(lease_id).expiry <= now

    def renew(self, lease_id: int, now: float) -> int:
        """Give a lease its whole TTL again, in seconds, and say how much that is.

        An expired lease must not be renewed: somebody may have been told that it is gone. Wait
        until it is (see :meth:`has_expired`). A checkpoint must be cleared by the log before (see
        :meth:`must_clear_checkpoint`). Only the primary renews; anybody else raises
        ``Refused(LEADER_CHANGED)``.
        """
        self._check_primary()
        lease = self.lease(lease_id)
        if lease.expiry <= now:
            raise Refused(LEASE_NOT_FOUND)
        lease.remaining_seconds = 0
        self._refresh(lease, now)
        self.counters.renewed += 1
        return lease.ttl_seconds

    def must_clear_checkpoint(self, lease_id: int, now: float) -> bool:
        """Whether the log says, or is about to say, that not all of a lease is left.

        Then the log must say first that a renewal gives it the whole TTL again, by a checkpoint of
        0; otherwise the next leader would not know. No other checkpoint is due before that.
        """
        lease = self.lease(lease_id)
        if not (lease.remaining_seconds or lease_id in self._checkpoints_under_way):
            return False
        self._schedule_checkpoint(lease, now)
        return True

    # What the leader does

    @property
    def is_primary(self) -> bool:
        return self._primary

    def promote(self, now: float, extend_seconds: float) -> None:
        """Become primary: time runs for every lease from now on, `extend_seconds` granted on top.

        The extension (an election timeout) makes up for renewals lost with the old leader. Where
        many leases would expire together they are spread, so that revoking them all leaves room
        for other requests.
        """
        self._primary = True
        for lease in self._leases.values():
            self._refresh(lease, now, extend_seconds)
        if len(self._leases) >= REVOKES_PER_SECOND:
            self._spread(now, extend_seconds)
        self._due = [self._due_entry(lease) for lease in self._leases.values()]
        heapq.heapify(self._due)

    def demote(self) -> None:
        """Leave time to the new leader: here, every lease lives for ever again."""
        self._primary = False
        self._due.clear()
        self._next_checkpoint.clear()
        self._checkpoints_under_way.clear()
        for lease in self._leases.values():
            lease.expiry = inf

    def has_due(self, now: float) -> bool:
        """Whether there may be leases to revoke or to checkpoint now."""
        has_expired = bool(self._due) and self._due[0][0] <= now
        return has_expired or any(at <= now for at in self._next_checkpoint.values())

    def expired(self, now: float, limit: int = REVOKES_PER_SECOND // 2) -> list[int]:
        """The leases to be revoked now, at most `limit` of them.

        A lease is named once; and again after ``retry_seconds`` if it is still there then.
        """
        found: list[int] = []
        while self._due and self._due[0][0] <= now and len(found) < limit:
            _, serial, lease = self._due[0]
            if self._leases.get(lease.id) is not lease:
                heapq.heappop(self._due)
            elif lease.expiry > now:  # it was renewed since the entry was made
                heapq.heapreplace(self._due, (lease.expiry, serial, lease))
            else:
                found.append(lease.id)
                self.counters.expired += 1
                heapq.heapreplace(self._due, (now + self._retry_seconds, serial, lease))
        return found

    def due_checkpoints(self, now: float) -> list[tuple[int, int]]:
        """(lease, seconds left) of long leases that the followers should hear of again.

        Each is named once; see :meth:`checkpoints_failed`.
        """
        due = [id_ for id_, at in self._next_checkpoint.items() if at <= now]
        checkpoints: list[tuple[int, int]] = []
        for lease_id in due[:MAX_CHECKPOINTS_PER_BATCH]:
            del self._next_checkpoint[lease_id]
            lease = self._leases[lease_id]
            remaining_seconds = ceil(lease.expiry - now)
            if 0 < remaining_seconds < lease.ttl_seconds:
                checkpoints.append((lease_id, remaining_seconds))
                self._checkpoints_under_way.add(lease_id)
        return checkpoints

    def checkpoints_failed(self, lease_ids: Iterable[int], now: float) -> None:
        """Name these again after ``retry_seconds``; the log may have heard of them or not."""
        for lease_id in lease_ids:
            if self._primary and lease_id in self._leases:
                self._next_checkpoint.setdefault(lease_id, now + self._retry_seconds)

    def _check_primary(self) -> None:
        if not self._primary:
            raise Refused(LEADER_CHANGED)

    def _refresh(self, lease: Lease, now: float, extend_seconds: float = 0.0) -> None:
        lease.expiry = now + extend_seconds + lease.span_seconds
        self._schedule_checkpoint(lease, now)

    def _due_entry(self, lease: Lease) -> tuple[float, int, Lease]:
        return (lease.expiry, next(self._serial), lease)

    def _schedule_checkpoint(self, lease: Lease, now: float) -> None:
        if not (self._primary and self._checkpoints):
            return
        if lease.span_seconds > CHECKPOINT_INTERVAL_SECONDS:
            self._next_checkpoint[lease.id] = now + CHECKPOINT_INTERVAL_SECONDS

    def _spread(self, now: float, extend_seconds: float) -> None:
        """Let at most three quarters of the revoke rate expire in any one second."""
        target_per_second = 3 * REVOKES_PER_SECOND // 4
        leases = self.leases()
        window_start = leases[0].expiry - now
        window_end = window_start + 1.0
        expiring = 0
        for lease in leases:
            remaining = lease.expiry - now
            if remaining > window_end:
                window_start, window_end, expiring = remaining, remaining + 1.0, 1
                continue
            expiring += 1
            if expiring <= target_per_second:
                continue
            delay = expiring / target_per_second - (remaining - window_start)
            window_end = window_start + delay
            self._refresh(lease, now, delay + extend_seconds)

    def _check(self) -> None:
        """Raise AssertionError unless the invariants hold; for tests."""
        attached = {key: lease.id for lease in self._leases.values() for key in lease.keys}
        assert attached == self._lease_of
        entries = [lease.id for _, _, lease in self._due if self._leases.get(lease.id) is lease]
        assert sorted(entries) == (sorted(self._leases) if self._primary else [])
