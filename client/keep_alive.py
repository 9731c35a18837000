"""Leases kept alive on one shared stream, and when to take one for lost. Pure; see stream.py.

A lease is renewed when a third of its time is gone. Its deadline is ours to keep: the moment the
last *answered* renewal was sent, plus the time to live in the answer. The server counts from when
the renewal reached it, so ours is never later, whatever the network did to the answer.

A renewal that is not answered within a sixth of the time to live condemns the stream: it is
dropped and opened anew, on another endpoint if there is one, and everything is renewed there. So a
half-open connection is found out with time left for some more attempts, instead of after a quarter
of an hour of TCP's patience. Only when the deadline passes is the lease lost.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from random import Random
from typing import Final

from ..protos.errors import Code
from ..protos.etcdserverpb import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from ..protos.rpcs import LEASE_LEASE_KEEP_ALIVE
from .error_handler import is_about_token, nothing_came_of
from .errors import TimedOut, Unauthenticated
from .stream import Actions, Phase, StreamMachine, Wake

_NEVER: Final = float("inf")
MIN_PATIENCE_SECONDS: Final = 0.5
MAX_PATIENCE_SECONDS: Final = 30.0
UNKNOWN_TTL_PATIENCE_SECONDS: Final = 2.0


class LossReason(StrEnum):
    """Why a lease is not kept alive any more, or why a claim that lives by it is over."""

    EXPIRED = "expired"
    """The server does not have it: it expired, or somebody revoked it."""
    UNANSWERED = "unanswered"
    """No renewal was answered before our own deadline; the server may still have it."""
    REVOKED = "revoked"
    """Revoked through this very object."""
    CLOSED = "closed"
    """The client was closed, or the keeping ended; the lease lives on until it expires."""
    DELETED = "deleted"
    """A claim's key is gone: the server let go of the lease, or somebody deleted the key."""
    RESIGNED = "resigned"
    """The claim was given up through this very object."""


@dataclass(eq=False, slots=True)
class Keeper:
    """One lease that somebody keeps alive, or (``once``) wants renewed a single time."""

    lease_id: int
    ttl_seconds: int | None
    """None: not known before the first answer."""
    deadline: float = _NEVER
    """The lease must be taken for lost from then on. Moves forward only."""
    next_send: float = 0.0
    once: bool = False
    over: bool = False
    """Nothing is due of it any more: it is lost, or was renewed the one time."""
    loss: LossReason | None = None
    cause: Exception | None = None
    """What was wrong with the stream when it was lost for want of answers."""
    renewed_ttl_seconds: int | None = None
    """The time to live in the last answer."""
    attempts: int = 0
    """How many of its renewals the server may have carried out, answered or not."""
    attempts_here: int = 0
    """How many of them are on the stream that is open."""
    added_at: float = 0.0
    answer_by: float = _NEVER
    """When to lose patience with the stream; never: nothing is unanswered."""

    @classmethod
    def granted(cls, lease_id: int, ttl_seconds: int, sent_at: float) -> Keeper:
        """Keep a lease alive whose grant was asked for at ``sent_at``."""
        return cls(lease_id, ttl_seconds, sent_at + ttl_seconds, sent_at + ttl_seconds / 3)

    @property
    def due(self) -> float:
        """When something has to be done about it next."""
        return min(self.deadline, self.next_send, self.answer_by)

    @property
    def patience_seconds(self) -> float:
        """How long an answer may take before the stream is to blame."""
        if self.ttl_seconds is None:
            return UNKNOWN_TTL_PATIENCE_SECONDS
        return min(max(self.ttl_seconds / 6, MIN_PATIENCE_SECONDS), MAX_PATIENCE_SECONDS)

    def sent(self, now: float) -> None:
        self.attempts += 1
        self.attempts_here += 1
        self.next_send = _NEVER
        self.answer_by = min(self.answer_by, now + self.patience_seconds)

    def answered(self, ttl_seconds: int, sent_at: float) -> None:
        self.ttl_seconds = self.renewed_ttl_seconds = ttl_seconds
        known = self.deadline if self.deadline != _NEVER else 0.0
        self.deadline = max(known, sent_at + ttl_seconds)
        self.next_send = sent_at + ttl_seconds / 3
        self.answer_by = _NEVER

    def unheard(self, *, in_vain: bool) -> None:
        """Take in that the stream is gone; on the next one everything is renewed first.

        ``in_vain``: what was asked for on it was not done.
        """
        if in_vain:
            self.attempts -= self.attempts_here
        self.attempts_here = 0
        self.next_send = self.answer_by = _NEVER


@dataclass(slots=True)
class _Schedule:
    """Keepers by when they are due. An entry whose time is not its keeper's any more is stale."""

    _heap: list[tuple[float, int, Keeper]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def put(self, keeper: Keeper, time: float) -> None:
        heapq.heappush(self._heap, (time, next(self._order), keeper))

    def first_time(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def pop_until(self, now: float) -> list[Keeper]:
        ripe = []
        while self._heap and self._heap[0][0] <= now:
            ripe.append(heapq.heappop(self._heap)[2])
        return ripe


class KeepAliveMachine(StreamMachine[LeaseKeepAliveRequest, LeaseKeepAliveResponse]):
    """All leases of a client that are kept alive."""

    def __init__(self, random: Random, *, linger_seconds: float = 30.0) -> None:
        super().__init__(random, linger_seconds=linger_seconds)
        self._keepers: dict[int, list[Keeper]] = {}
        """Invariant: no empty lists."""
        self._unanswered: dict[int, deque[float]] = {}
        """When the requests without an answer were sent on this stream, by lease, oldest first.
        The server answers in order, so an answer belongs to the oldest of its lease."""
        self._schedule = _Schedule()

    # What the users of leases ask for

    def add(self, keeper: Keeper, now: float) -> Actions[LeaseKeepAliveRequest]:
        """Begin to keep a lease alive, or renew it once."""
        if self.closed_by is not None:
            keeper.loss, keeper.cause = LossReason.CLOSED, self.closed_by
            return ()
        keeper.added_at = now
        self._keepers.setdefault(keeper.lease_id, []).append(keeper)
        if self.phase is Phase.OPEN and keeper.next_send <= now:
            self._renew(keeper.lease_id, now)
        else:
            self._plan(keeper)
        return self._settle(now)

    def remove(
        self, keeper: Keeper, reason: LossReason, now: float
    ) -> Actions[LeaseKeepAliveRequest]:
        """Stop keeping a lease alive."""
        self._end(keeper, reason)
        return self._settle(now)

    # Hooks of the stream

    def _wanted(self) -> bool:
        return bool(self._keepers)

    def _on_open(self, now: float) -> None:
        for lease_id in self._keepers:
            self._renew(lease_id, now)

    def _on_message(self, message: LeaseKeepAliveResponse, now: float) -> None:
        self._served(now)
        sent = self._unanswered.get(message.ID)
        sent_at = sent.popleft() if sent else None
        if not sent:
            self._unanswered.pop(message.ID, None)
        keepers = list(self._keepers.get(message.ID, ()))
        for keeper in keepers:
            if message.TTL <= 0:
                self._end(keeper, LossReason.EXPIRED)
            elif sent_at is not None:
                self._prolong(keeper, message.TTL, sent_at)

    def _on_loss(self, error: Exception | None, now: float) -> None:
        self._unanswered.clear()
        in_vain = nothing_came_of(error, self._requests)
        for keepers in self._keepers.values():
            for keeper in keepers:
                keeper.unheard(in_vain=in_vain)
                self._plan(keeper)
        if isinstance(error, Unauthenticated) and not is_about_token(error):
            self._end_single_renewals(error)

    def _end_single_renewals(self, error: Unauthenticated) -> None:
        """Say that name or password are wrong to those who need not wait for a better one.

        A lease that is kept alive lives on until its deadline: by then the server may know them.
        """
        for keeper in [each for keepers in self._keepers.values() for each in keepers]:
            if keeper.once:
                keeper.cause = error
                self._end(keeper, LossReason.UNANSWERED)

    def _on_time(self, now: float) -> None:
        impatient = False
        for keeper in self._schedule.pop_until(now):
            if keeper.over or keeper.due > now:
                continue
            if keeper.deadline <= now:
                keeper.cause = self.last_error
                self._end(keeper, LossReason.UNANSWERED)
                continue
            impatient = impatient or keeper.answer_by <= now
            if keeper.next_send <= now and self.phase is Phase.OPEN:
                self._renew(keeper.lease_id, now)
            else:
                self._plan(keeper)
        if impatient:
            self._give_up_on_stream(_unanswered(), now)

    def _on_close(self, error: Exception) -> None:
        for keepers in list(self._keepers.values()):
            for keeper in list(keepers):
                keeper.cause = error
                self._end(keeper, LossReason.CLOSED)

    def _next_time(self) -> float | None:
        return self._schedule.first_time()

    # Inner workings

    def _renew(self, lease_id: int, now: float) -> None:
        self._unanswered.setdefault(lease_id, deque()).append(now)
        self._send(LeaseKeepAliveRequest(ID=lease_id))
        for keeper in self._keepers[lease_id]:
            keeper.sent(now)
            self._plan(keeper)

    def _prolong(self, keeper: Keeper, ttl_seconds: int, sent_at: float) -> None:
        if sent_at < keeper.added_at and keeper.once:
            return
        keeper.answered(ttl_seconds, sent_at)
        if keeper.once:
            self._end(keeper, None)
        else:
            self._plan(keeper)

    def _plan(self, keeper: Keeper) -> None:
        """Wake up for the keeper in time; sending has to wait for the stream."""
        due = keeper.due if self.phase is Phase.OPEN else keeper.deadline
        if due != _NEVER:
            self._schedule.put(keeper, due)

    def _end(self, keeper: Keeper, reason: LossReason | None) -> None:
        keepers = self._keepers.get(keeper.lease_id, [])
        if keeper not in keepers:
            return
        keepers.remove(keeper)
        if not keepers:
            del self._keepers[keeper.lease_id]
        keeper.over, keeper.loss = True, reason
        self._do(Wake(keeper))


def _unanswered() -> TimedOut:
    return TimedOut(
        "keep-alive not answered",
        code=Code.DEADLINE_EXCEEDED,
        rpc=LEASE_LEASE_KEEP_ALIVE.path,
        attempts=1,
    )
