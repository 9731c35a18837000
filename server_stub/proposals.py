"""Those who wait for their proposals: who they are, until when, and what they are told.

A proposal is given to the core once. While nobody leads it is kept here; when the core has taken
it, it may be lost on its way to the leader, or with the leader, and nobody knows: then the caller
hears that the time is up, and the request may take effect or not. It is never given twice.

What becomes of an entry between the core and the log is not this module's business; it knows its
own proposals by their data, which carries a request number and is therefore unique, and its changes
of the membership by their id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

from ..protos import raftpb
from ..protos.errors import (
    LEADER_CHANGED,
    NO_SPACE,
    REQUEST_TOO_LARGE,
    STOPPED,
    TIMEOUT,
    TIMEOUT_CONNECTION_LOST,
    TIMEOUT_LEADER_FAILURE,
    TOO_MANY_REQUESTS,
    Refusal,
    Refused,
)
from ..protos.etcdserverpb import NOSPACE, AlarmRequest, InternalRaftRequest
from .apply.applier import Applier
from .raft.core import ProposalDropped, Raft, Role
from .replica import Applied, parse_request
from .request_ids import RequestIds

log = logging.getLogger(__name__)

MAX_UNAPPLIED_ENTRIES: Final = 5000
"""How far the log may run ahead of the applier before new requests are turned away."""
MAX_UNAPPLIED_FOR_LEASES: Final = 2 * MAX_UNAPPLIED_ENTRIES
"""The same for what must go on, or the load gets worse: expired leases are revoked, and others are
renewed, which takes the log where it has a checkpoint of them."""


@dataclass(slots=True)
class _Waiter:
    """A caller of this process, and the request as it was before it became data."""

    request: InternalRaftRequest
    reply: asyncio.Future[Message]
    began: float


@dataclass(slots=True)
class _Change:
    """A caller who wants the membership changed."""

    change: raftpb.ConfChange
    admit: Callable[[], None]
    done: asyncio.Future[None]
    began: float


@dataclass(slots=True)
class Timings:
    """What tells why a request took too long; kept by whoever watches leaders and connections."""

    election_timeout_seconds: float
    leader_since: float = 0.0
    """When this member learned of the leader it has."""
    is_connected_since: Callable[[float], bool] = field(default=lambda _since: True)
    """Whether the leader, or for a leader its quorum, was connected all the time since then."""

    def blame(self, began: float) -> Refusal:
        """Say what the caller of a request is told that was begun then and is not done.

        Source: ``parseProposeCtxErr`` in etcd's server.
        """
        leader_lost = self.leader_since - 2 * self.election_timeout_seconds
        if leader_lost < began < self.leader_since:
            return TIMEOUT_LEADER_FAILURE
        return TIMEOUT if self.is_connected_since(began) else TIMEOUT_CONNECTION_LOST


class Proposals:
    """The one way to change the state of the cluster through this member.

    Invariant: whoever is in ``_waiting`` or ``_changes`` was either given to the core or stands in
    one of the two queues, never both.
    """

    def __init__(
        self,
        raft: Raft,
        applier: Applier,
        ids: RequestIds,
        clock: Callable[[], float],
        timings: Timings,
        *,
        timeout_seconds: float,
        max_request_bytes: int,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` has the core's work done soon."""
        self.failed = 0
        """Proposals that were not answered by the applier, for metrics."""
        self._raft = raft
        self._applier = applier
        self._ids = ids
        self._clock = clock
        self._timings = timings
        self._timeout_seconds = timeout_seconds
        self._max_request_bytes = max_request_bytes
        self._wake = wake
        self._waiting: dict[bytes, _Waiter] = {}
        """By the data of the entry, oldest first."""
        self._changes: dict[int, _Change] = {}
        """By the id of the change, oldest first."""
        self._held: deque[bytes] = deque()
        self._held_changes: deque[raftpb.ConfChange] = deque()
        self._loop = asyncio.get_running_loop()
        self._alarms_to_raise: set[asyncio.Task[None]] = set()
        self.is_open = True
        """Whether proposals are taken."""

    # What callers do

    def propose(self, request: InternalRaftRequest) -> asyncio.Future[Message]:
        """Have a request carried out by every member; return the reply of this one, to be awaited.

        Raises ``Refused``, now or from the reply: what the applier answers, or REQUEST_TOO_LARGE,
        TOO_MANY_REQUESTS, one of the three TIMEOUT texts, STOPPED. After a timeout or STOPPED
        nobody knows whether the request takes effect.
        """
        data, reply = self._registered(request)
        self._held.append(data)
        self._wake()
        return reply

    async def propose_as_leader(self, request: InternalRaftRequest) -> Message:
        """Propose what only the leader may: it is appended here and now, in this term, or never.

        It never stands in the queue, from which it could be handed on to another leader; so it does
        not wait for what does, and may come before that in the log.

        Raises ``Refused`` as :meth:`propose` does, and LEADER_CHANGED when this member does not
        lead, or is handing the lead over, or takes nothing just now.
        """
        if self._raft.role is not Role.LEADER:
            raise Refused(LEADER_CHANGED)
        data, reply = self._registered(request)
        try:
            self._raft.propose(data)
        except ProposalDropped:
            del self._waiting[data]
            raise Refused(LEADER_CHANGED) from None
        self._wake()
        return await reply

    def _registered(self, request: InternalRaftRequest) -> tuple[bytes, asyncio.Future[Message]]:
        """Have a caller wait for a request; return its data, and the reply to be awaited."""
        if not self.is_open:
            raise Refused(STOPPED)
        self._refuse_if_behind(request)
        request.header.ID = self._ids.next()
        data = request.SerializeToString()
        if len(data) > self._max_request_bytes:
            raise Refused(REQUEST_TOO_LARGE)
        reply: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[data] = _Waiter(request, reply, self._clock())
        return data, reply

    def propose_change(
        self, change: raftpb.ConfChange, admit: Callable[[], None] = lambda: None
    ) -> asyncio.Future[None]:
        """Have the membership changed; done when the change is applied here.

        It gets an id of its own. ``admit`` raises ``Refused`` if the change had better not be
        proposed now; it is asked at once, and again when the core is given the change: by then
        another one may be in force. Raises ``Refused`` as :meth:`propose` and ``admit`` do; what
        the applier refuses is what ``Membership.validate`` raises.
        """
        if not self.is_open:
            raise Refused(STOPPED)
        admit()
        change.id = self._ids.next()
        done: asyncio.Future[None] = self._loop.create_future()
        self._changes[change.id] = _Change(change, admit, done, self._clock())
        self._held_changes.append(change)
        self._wake()
        return done

    @property
    def pending(self) -> int:
        """How many proposals of this member wait for their answer."""
        return len(self._waiting) + len(self._changes)

    def _refuse_if_behind(self, request: InternalRaftRequest) -> None:
        unapplied = self._raft.commit_index - self._applier.index
        if unapplied <= MAX_UNAPPLIED_ENTRIES:
            return
        is_for_leases = request.HasField("lease_revoke") or request.HasField("lease_checkpoint")
        if unapplied > MAX_UNAPPLIED_FOR_LEASES or not is_for_leases:
            raise Refused(TOO_MANY_REQUESTS)

    # What the driver of consensus does

    def hand_over(self) -> None:
        """Give the core what is held, as far as it takes it.

        To be called first in every turn, and to be followed by sending: what a follower hands on to
        its leader must leave before anything can change who that is.
        """
        while self._held:
            data = self._held[0]
            if data in self._waiting:  # else its time was up
                try:
                    self._raft.propose(data)
                except ProposalDropped:
                    break
            self._held.popleft()
        while self._held_changes:
            waiting = self._changes.get(self._held_changes[0].id)
            if waiting is not None:
                try:
                    waiting.admit()
                    self._raft.propose_change(waiting.change)
                except ProposalDropped:
                    break
                except Refused as refused:
                    self._answer_change(waiting.change.id, refused)
            self._held_changes.popleft()

    def request_of(self, data: bytes) -> InternalRaftRequest:
        """Return the request in the data of an entry; without parsing it, if it came from here."""
        waiter = self._waiting.get(data)
        return parse_request(data) if waiter is None else waiter.request

    def applied(self, done: list[Applied]) -> None:
        """Answer those whose entries were applied."""
        pop = self._waiting.pop
        for applied in done:
            if applied.change is not None:
                self._answer_change(applied.change.id, applied.refused)
                continue
            waiter = pop(applied.entry.Data, None)
            if waiter is None:
                continue
            if applied.refused is not None:
                self._refuse_applied(waiter, applied.refused)
            elif applied.reply is not None and not waiter.reply.done():
                waiter.reply.set_result(applied.reply)

    def expire(self) -> None:
        """Answer the proposals whose time is up; to be called now and then."""
        begun_before = self._clock() - self._timeout_seconds
        while self._waiting:
            data, oldest = next(iter(self._waiting.items()))
            if oldest.began > begun_before:
                break
            del self._waiting[data]
            self.failed += 1
            _refuse(oldest.reply, Refused(self._timings.blame(oldest.began)))
        while self._changes:
            number, change = next(iter(self._changes.items()))
            if change.began > begun_before:
                break
            del self._changes[number]
            _refuse(change.done, Refused(self._timings.blame(change.began)))

    def close(self) -> None:
        """Take nothing more; what waits goes on waiting."""
        self.is_open = False

    async def finish(self, timeout_seconds: float) -> None:
        """Wait until what was proposed is answered, or there is no more hope for it."""
        waits: list[asyncio.Future[Any]] = [each.reply for each in self._waiting.values()]
        waits += [each.done for each in self._changes.values()]
        waits += self._alarms_to_raise
        if waits:
            await asyncio.wait(waits, timeout=timeout_seconds)

    def give_up(self) -> None:
        """Take nothing more, and answer with STOPPED whoever waits."""
        self.close()
        self.failed += len(self._waiting)
        for waiter in self._waiting.values():
            _refuse(waiter.reply, Refused(STOPPED))
        for change in self._changes.values():
            _refuse(change.done, Refused(STOPPED))
        self._waiting.clear()
        self._changes.clear()

    # Refusals of the applier

    def _answer_change(self, number: int, refused: Refused | None) -> None:
        change = self._changes.pop(number, None)
        if change is None or change.done.done():
            return
        if refused is None:
            change.done.set_result(None)
        else:
            change.done.set_exception(refused)

    def _refuse_applied(self, waiter: _Waiter, refused: Refused) -> None:
        """Hand a refusal to the caller; the first NO_SPACE only once the alarm is raised."""
        if refused.refusal is NO_SPACE and NOSPACE not in self._applier.alarms.active:
            task = asyncio.create_task(self._raise_alarm_then_refuse(waiter, refused))
            self._alarms_to_raise.add(task)
            task.add_done_callback(self._alarms_to_raise.discard)
        else:
            _refuse(waiter.reply, refused)

    async def _raise_alarm_then_refuse(self, waiter: _Waiter, refused: Refused) -> None:
        log.warning("request exceeded the backend's quota; raising alarm")
        try:
            await self.raise_no_space()
        except Refused as error:
            log.error("could not raise the alarm NOSPACE", extra={"reason": str(error)})
        _refuse(waiter.reply, refused)

    async def raise_no_space(self) -> None:
        """Tell the cluster that this member has no space left."""
        alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=self._raft.id, alarm=NOSPACE)
        await self.propose(InternalRaftRequest(alarm=alarm))


def _refuse(waiting: asyncio.Future[Message] | asyncio.Future[None], refused: Refused) -> None:
    if not waiting.done():
        waiting.set_exception(refused)
