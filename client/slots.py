"""The markers of writes that are carried out exactly once: who has which, and since when.

A *slot* is a key of this client alone, on a lease. A write changes its slot together with what it
writes, if the slot is still as it was; see exactly_once.py. One call at a time has a slot, and the
next one uses it again. Nothing here asks the server, and nothing here is needed for a write to be
safe: the clock only decides when slots are given up, so that the server's clock never ends them
under a call.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Final

DEFAULT_PREFIX: Final = "__etcd_pinwheel/once/"
LEAST_TTL_SECONDS: Final = 60
MOST_TTL_SECONDS: Final = 3600
"""What calls without a deadline get; a longer lease would keep the slots of who is gone."""
CALLS_IN_A_TTL: Final = 4
"""So many calls of the longest kind fit into a lease's time."""


@dataclass(slots=True, eq=False)
class Session:
    """A lease for slots; never renewed, but followed by another."""

    lease_id: int
    """Chosen here, so that many calls that need it at once ask for one and the same."""
    ttl_seconds: int
    begun: float
    """When it was first asked for: the server cannot have begun to count before."""
    is_granted: bool = False


@dataclass(slots=True, eq=False)
class Slot:
    """A marker key that one call at a time may use."""

    key: bytes
    session: Session
    mod_revision: int = 0
    """When it was last changed, as all its calls so far have it; 0: it is not made yet."""


class Slots:
    """The slots of one client. ``random`` must not repeat itself after a fork."""

    def __init__(
        self,
        prefix: bytes = DEFAULT_PREFIX.encode(),
        random: Random | None = None,
        *,
        timeout_seconds: float = 5.0,
    ) -> None:
        self.prefix = prefix
        self._random = random or SystemRandom()
        self._ttl_seconds = max(LEAST_TTL_SECONDS, _whole(CALLS_IN_A_TTL * timeout_seconds))
        self._lock = threading.Lock()
        self._owner = b""
        self._made = 0
        self._session: Session | None = None
        self._free: list[Slot] = []
        """Invariant: all are of the session that there is."""

    def operation_id(self) -> bytes:
        """Make up what tells one operation from all others, of all clients."""
        return self._random.randbytes(16)

    def take(self, now: float, seconds: float) -> Slot:
        """Hand out a slot for a call of so many seconds; one that is not made yet if none is free.

        It is the call's until it is given back, or for ever if its state is not known any more.
        """
        with self._lock:
            session = self._session
            if session is None or not _lasts(session, now, seconds):
                session = self._begin(now, seconds)
            if self._free:
                return self._free.pop()
            self._owner = self._owner or self._random.randbytes(16).hex().encode()
            self._made += 1
            return Slot(b"%s%s/%d" % (self.prefix, self._owner, self._made), session)

    def give_back(self, slot: Slot) -> None:
        """Take a slot back of which it is known that it is as its ``mod_revision`` says."""
        with self._lock:
            if slot.session is self._session and slot.mod_revision:
                self._free.append(slot)

    def end(self, session: Session) -> None:
        """Use a session no more: its lease is gone."""
        with self._lock:
            if session is self._session:
                self._session = None
                self._free.clear()

    def _begin(self, now: float, seconds: float) -> Session:
        ttl = self._ttl_seconds
        if not _lasts_long(seconds):
            ttl = max(ttl, _whole(2 * seconds))
        self._free.clear()
        self._session = Session(self._random.getrandbits(62) + 1, ttl, now)
        return self._session


def _lasts(session: Session, now: float, seconds: float) -> bool:
    """Whether a session has half of its time left, and enough for a call of so many seconds."""
    left = session.begun + session.ttl_seconds - now
    return left >= session.ttl_seconds / 2 and (_lasts_long(seconds) or left >= seconds)


def _lasts_long(seconds: float) -> bool:
    """Whether a call has so much time that no lease is sure to outlive it."""
    return seconds > MOST_TTL_SECONDS / 2


def _whole(seconds: float) -> int:
    return math.ceil(min(seconds, MOST_TTL_SECONDS))
