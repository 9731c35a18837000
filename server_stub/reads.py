"""Linearizable reads: when a member may answer a read from its own store.

A read must see everything that was acknowledged before it was asked for. The member asks the
leader for the *read index*, the commit index that the leader held while a quorum still followed
it, and answers once it has applied that far. :class:`ReadQueue` decides; :class:`Reads` waits.

Why no answer can be stale. All rests on one rule: *an answer lets go on only those readers that
had joined before the question was asked*, which :class:`ReadQueue` holds by counting, not by
timing. The leader takes the index after it got the question, so the index covers whatever was
acknowledged before, and goes on to do so however late the answer comes. It follows that

- a process that was paused (etcd issue 21417) between question, answer and reading may find its
  answer old, but never too old for the readers that it belongs to; those who came meanwhile wait
  for the answer to a later question;
- a change of leader (etcd issue 21378) that comes before, after or together with the answer cannot
  make it wrong: what an answer proves was proved before it was sent. That readers are told
  "leader changed" is a courtesy, so that they need not wait for an answer that may never come; it
  forgets the questions in the same step, so a late answer finds nobody;
- a question that is asked again (etcd issue 20418) has a new id, so a leader never takes the
  confirmation of one for that of another; and ids start at random, so a member that was restarted
  does not take the answer to a question of its former life for one to its own.

What the leader itself must hold (confirm after it noted the index, and only once it has committed
in its own term) is the business of :mod:`.raft`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from ..protos.errors import (
    LEADER_CHANGED,
    STOPPED,
    TIMEOUT,
    TIMEOUT_APPLIED_INDEX,
    Refusal,
    Refused,
)

Ticket = TypeVar("Ticket")

RETRY_SECONDS: Final = 0.5
"""After how long a question is asked again, as in etcd."""
NOBODY: Final = 0
_ID_BYTES: Final = 8
_IDS: Final = 2 ** (8 * _ID_BYTES)


@dataclass(slots=True)
class _Reader(Generic[Ticket]):
    ticket: Ticket
    deadline: float
    wants_applied: bool


class ReadQueue(Generic[Ticket]):
    """Who waits for a read index, what was asked on their behalf, and whom an answer releases.

    Knows no clock (``now`` is an argument, in seconds) and sends nothing. A ticket is whatever
    stands for a reader outside. All readers that wait when a question is asked share it.

    Invariants: readers leave ``_waiting`` in the order in which they joined; the position of a
    question is the number of readers that had joined by then, so those before it, and only those,
    are covered by its answer.
    """

    def __init__(
        self, first_id: int, *, timeout_seconds: float, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        """``first_id``: random; see the module."""
        self._next_id = first_id
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._leader = NOBODY
        self._waiting: deque[_Reader[Ticket]] = deque()
        self._released = 0
        """Readers that have left the front of the queue, for whatever reason."""
        self._positions: dict[bytes, int] = {}
        """The questions that are open: the id of each, and its position."""
        self._asked_at = 0.0
        self._confirmed: deque[tuple[int, list[_Reader[Ticket]]]] = deque()
        """Readers whose index is known but not applied yet; 0 for who wants no more than that."""

    def __len__(self) -> int:
        """How many readers wait, for an answer or for the applier."""
        return len(self._waiting) + sum(len(readers) for _, readers in self._confirmed)

    def join(self, ticket: Ticket, now: float, *, applied: bool = True) -> None:
        """Add a reader; the next question will be asked for it too.

        ``applied``: whether it wants more than an answer: that what is answered is applied here.
        """
        self._waiting.append(_Reader(ticket, now + self._timeout_seconds, applied))

    def ask(self, now: float) -> bytes | None:
        """Return the id to ask with now; None if there is no need to, or nobody to ask.

        One question at a time, and again with a new id if it is not answered in time: then also
        for those who came since.
        """
        if not self._waiting or self._leader == NOBODY:
            return None
        if self._positions and not self.is_overdue(now):
            return None
        return self._new_question(now)

    def is_overdue(self, now: float) -> bool:
        """Whether a question is open that should have been answered by now."""
        return bool(self._positions) and now >= self._asked_at + self._retry_seconds

    def retry_in(self, now: float) -> float:
        """Return after how many seconds to look again whether to ask or to give up."""
        if not self._positions:
            return self._retry_seconds
        return max(self._asked_at + self._retry_seconds - now, 0.0)

    def ask_again(self, now: float) -> bytes | None:
        """Return an id to ask with at once, if a question is open.

        For when there is news: a leader that has committed in its term can answer at last.
        """
        return self._new_question(now) if self._positions and self._leader != NOBODY else None

    def answered(self, context: bytes, index: int) -> None:
        """Note the read index that came in answer to a question; strangers are ignored.

        Whom it lets go on, :meth:`applied` tells.
        """
        position = self._positions.get(context)
        if position is None:
            return
        self._forget_questions_up_to(position)
        covered = position - self._released
        if covered > 0:
            readers = list(self._take(covered))
            for wanted, wants_applied in ((0, False), (index, True)):
                those = [reader for reader in readers if reader.wants_applied is wants_applied]
                self._confirmed.append((wanted, those))

    def applied(self, index: int) -> list[Ticket]:
        """Return who may read, now that the member has applied all entries up to `index`."""
        ready: list[Ticket] = []
        for _ in range(len(self._confirmed)):
            wanted, readers = self._confirmed.popleft()
            if wanted <= index:
                ready.extend(reader.ticket for reader in readers)
            else:
                self._confirmed.append((wanted, readers))
        return ready

    def led_by(self, leader: int) -> list[Ticket]:
        """Note who leads (0: nobody); return the readers that are to be told of a change.

        Those are the readers for whom another leader was asked; who came while nobody led, waits
        for the one to come. That the leader is gone is no change yet, as in etcd: if its answer is
        on the way, it counts.
        """
        changed = leader not in (NOBODY, self._leader)
        self._leader = leader
        if not changed or not self._positions:
            return []
        position = max(self._positions.values())
        self._positions.clear()
        return [reader.ticket for reader in self._take(position - self._released)]

    def expired(self, now: float) -> list[tuple[Ticket, Refusal]]:
        """Return whose time is up, and what to tell them."""
        late: list[tuple[Ticket, Refusal]] = []
        while self._waiting and self._waiting[0].deadline <= now:
            late.extend((reader.ticket, TIMEOUT) for reader in self._take(1))
        for _, readers in self._confirmed:
            gone = [reader for reader in readers if reader.deadline <= now]
            late.extend((reader.ticket, TIMEOUT_APPLIED_INDEX) for reader in gone)
            readers[:] = [reader for reader in readers if reader.deadline > now]
        self._forget_questions_up_to(self._released)
        return late

    def everybody(self) -> list[Ticket]:
        """Empty the queue; return who was in it."""
        tickets = [reader.ticket for _, readers in self._confirmed for reader in readers]
        self._confirmed.clear()
        tickets += [reader.ticket for reader in self._take(len(self._waiting))]
        self._positions.clear()
        return tickets

    def _new_question(self, now: float) -> bytes:
        context = self._next_id.to_bytes(_ID_BYTES, "big")
        self._next_id = (self._next_id + 1) % _IDS
        self._positions[context] = self._released + len(self._waiting)
        self._asked_at = now
        return context

    def _forget_questions_up_to(self, position: int) -> None:
        """Drop the questions that have nobody to speak for any more."""
        for context in [each for each, at in self._positions.items() if at <= position]:
            del self._positions[context]

    def _take(self, count: int) -> Iterator[_Reader[Ticket]]:
        for _ in range(count):
            self._released += 1
            yield self._waiting.popleft()


class Core(Protocol):
    """What reading needs of consensus."""

    @property
    def id(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def is_sole_voter(self) -> bool: ...
    @property
    def commit_index(self) -> int: ...

    def read_index(self, context: bytes) -> None:
        """Ask the leader; dropped silently when nobody leads."""


class Applied(Protocol):
    """What reading needs of the applier: the last entry that was applied."""

    @property
    def index(self) -> int: ...
    @property
    def term(self) -> int: ...


class Reads:
    """The linearizable reads of one member; belongs to one event loop."""

    def __init__(
        self,
        core: Core,
        applier: Applied,
        clock: Callable[[], float],
        first_id: int,
        *,
        timeout_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        """``wake`` has :meth:`before_turn` called soon, and what the core then wants sent."""
        self.timed_out = 0
        """Readers that were not answered in time, for metrics."""
        self.slow = 0
        """Questions that had to be asked again, for metrics."""
        self._core = core
        self._applier = applier
        self._clock = clock
        self._wake = wake
        self._queue: ReadQueue[asyncio.Future[None]] = ReadQueue(
            first_id, timeout_seconds=timeout_seconds
        )
        self._loop = asyncio.get_running_loop()
        self._wants_to_ask = False
        self._looking: asyncio.TimerHandle | None = None
        self._is_stopped = False

    async def barrier(self) -> None:
        """Return when a local read sees everything that was acknowledged before the call.

        Raises ``Refused``: LEADER_CHANGED, TIMEOUT, TIMEOUT_APPLIED_INDEX, STOPPED.
        """
        if not (self._is_alone() and self._has_applied_all()):
            await self._answer(applied=True)

    async def confirmation(self) -> None:
        """Return when a quorum has followed the leader at some time after the call.

        For whom the answer itself is news, not what it says: unlike :meth:`barrier`, it does not
        wait for an applier that lags. Raises ``Refused``: LEADER_CHANGED, TIMEOUT, STOPPED.
        """
        if not self._is_alone():
            await self._answer(applied=False)

    async def _answer(self, *, applied: bool) -> None:
        """Wait for the answer to the next question, and perhaps for the applier."""
        if self._is_stopped:
            raise Refused(STOPPED)
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._queue.join(ticket, self._clock(), applied=applied)
        if not self._wants_to_ask:
            self._wants_to_ask = True
            self._wake()
        await ticket

    def _is_alone(self) -> bool:
        """Whether this member leads, and is a quorum by itself."""
        return self._core.leader == self._core.id and self._core.is_sole_voter

    def _has_applied_all(self) -> bool:
        """Whether a member that is alone has applied whatever is committed.

        With an entry of its own term it knows that whatever its log held before is committed, too.
        """
        core, applier = self._core, self._applier
        return applier.term == core.term and applier.index >= core.commit_index

    # What the driver of consensus tells

    def before_turn(self) -> None:
        """Ask for whoever has come, before the core's messages are sent.

        All who join in one turn of the event loop share a question.
        """
        if self._wants_to_ask and not self._is_stopped:
            self._wants_to_ask = False
            self._ask()

    def led_by(self, leader: int) -> None:
        """Note who leads; to be told before any answer that came later."""
        for ticket in self._queue.led_by(leader):
            _refuse(ticket, LEADER_CHANGED)
        self._ask_soon()

    def answered(self, answers: Iterable[tuple[int, bytes]]) -> None:
        """Note the answers that have come: (read index, id of the question) each."""
        for index, context in answers:
            self._queue.answered(context, index)
        self.applied()
        self._ask_soon()

    def applied(self) -> None:
        """Let go on whom the applier has caught up with; to be called after each batch."""
        if self._queue:
            for ticket in self._queue.applied(self._applier.index):
                if not ticket.done():
                    ticket.set_result(None)

    def term_began(self) -> None:
        """Ask again: the first entry of a leader's term is applied, so now it can answer."""
        context = self._queue.ask_again(self._clock())
        if context is not None:
            self._core.read_index(context)
            self._wake()

    def stop(self) -> None:
        """Answer everybody with STOPPED."""
        self._is_stopped = True
        if self._looking is not None:
            self._looking.cancel()
        for ticket in self._queue.everybody():
            _refuse(ticket, STOPPED)

    def _ask_soon(self) -> None:
        if self._queue and not self._wants_to_ask:
            self._wants_to_ask = True
            self._wake()

    def _ask(self) -> None:
        now = self._clock()
        context = self._queue.ask(now)
        if context is not None:
            self._core.read_index(context)
        if self._looking is None and self._queue:
            self._looking = self._loop.call_later(self._queue.retry_in(now), self._look)

    def _look(self) -> None:
        """Ask again what was not answered, and give up on whom it was not answered in time."""
        self._looking = None
        now = self._clock()
        for ticket, refusal in self._queue.expired(now):
            self.timed_out += not ticket.done()
            _refuse(ticket, refusal)
        self.slow += self._queue.is_overdue(now)
        self._ask()
        self._wake()


def _refuse(ticket: asyncio.Future[None], refusal: Refusal) -> None:
    if not ticket.done():
        ticket.set_exception(Refused(refusal))
