"""Who leads, how sure that is, and what depends on it.

:class:`Tenure` decides: when this member's lessor lets time run, when a leader must prove that it
still is one, how many changes there were. :class:`Leadership` is its edge: it proves by a read
index, waits for leaders, and cuts streams off that do not want to go on without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

from ..protos.errors import LEADER_CHANGED, NO_LEADER, Refused
from .lease.lessor import Lessor

NOBODY: Final = 0
STALL_HEARTBEATS: Final = 3
"""After how many heartbeats without a tick those of a leader count as late."""
CUT_OFF_ELECTIONS: Final = 3
"""After how many election timeouts without a leader streams are cut off that require one."""
_POLL_SECONDS: Final = 0.05


class Proof:
    """For how long a leader may renew leases without asking whether it still is one.

    What is known for sure is known from an answer: a quorum still followed this member after it had
    asked. Whoever is elected next, is so by a later vote of one of them, therefore takes office
    after the question; and then it gives every lease an election timeout more than its span. So
    whatever this member renews within an election timeout after the question holds.

    This asks nothing of time but that a second is as long here as there (which it is not while a
    machine is suspended: its clock stands still). Nothing less would do. A leader that loses its
    followers steps down (check quorum), but by its ticks, which are late if its event loop is, and
    by answers, which may have been long on their way; one that hands the lead over may not hear of
    its successor's election; one that was stopped (SIGSTOP, a disk that blocks everything) goes on
    as if nothing had happened: etcd issues 12528 and 15247. etcd asks only if the last tick was
    long ago.
    """

    def __init__(self, holds_seconds: float, now: float) -> None:
        """``now``: this member does not lead yet, so whoever succeeds it does so later."""
        self._holds_seconds = holds_seconds
        self._asked_at = now

    def holds(self, now: float) -> bool:
        """Whether what is renewed now holds, whoever leads by now."""
        return now - self._asked_at <= self._holds_seconds

    def given(self, asked_at: float) -> None:
        """Note that a quorum still followed this member at some time after `asked_at`."""
        self._asked_at = max(self._asked_at, asked_at)


class Tenure:
    """The times at which this member is the leader.

    Invariant: the lessor is primary only while this member leads, and only from the moment on at
    which it has applied an entry of its own term. Before that, it may lack leases that the leader
    before it granted, and have others that are revoked.
    """

    def __init__(
        self,
        own_id: int,
        lessor: Lessor,
        *,
        election_timeout_seconds: float,
        heartbeat_seconds: float,
        now: float,
    ) -> None:
        self.leader = NOBODY
        self.changes = 0
        """How often a leader was found, after another or after none."""
        self.proof = Proof(election_timeout_seconds, now)
        self._own_id = own_id
        self._lessor = lessor
        self._election_timeout_seconds = election_timeout_seconds
        self._patience_seconds = STALL_HEARTBEATS * heartbeat_seconds
        self._ticked_at = now

    @property
    def leads(self) -> bool:
        """Whether this member is the leader, as far as it knows."""
        return self.leader == self._own_id

    @property
    def is_in_office(self) -> bool:
        """Whether this member leads and may judge leases."""
        return self._lessor.is_primary

    def ticked(self, now: float) -> bool:
        """Note a tick; return whether a leader's heartbeats are late by it."""
        is_late = self.leads and now - self._ticked_at > self._patience_seconds
        self._ticked_at = now
        return is_late

    def led_by(self, leader: int) -> None:
        """Note who leads. A lessor whose member does not any more is demoted at once."""
        if leader not in (NOBODY, self.leader):
            self.changes += 1
        self.leader = leader
        if not self.leads and self._lessor.is_primary:
            self._lessor.demote()

    def applied(self, entry_term: int, current_term: int, now: float) -> None:
        """Note the term of the last entry that was applied.

        The first one of a leader's own term makes it take office: all that the leaders before it
        have granted is known now. Every lease gets its span again and an election timeout on top.
        """
        if self.leads and entry_term == current_term and not self._lessor.is_primary:
            self._lessor.promote(now, self._election_timeout_seconds)


class Core(Protocol):
    """What leadership needs to see of consensus."""

    @property
    def leader(self) -> int: ...
    @property
    def term(self) -> int: ...


class Applied(Protocol):
    """What leadership needs to see of the applier."""

    @property
    def term(self) -> int:
        """Of the last entry that was applied."""
        raise NotImplementedError


class Reader(Protocol):
    """What proves leadership, and wants to know when there is news of it."""

    async def confirmation(self) -> None: ...
    def led_by(self, leader: int) -> None: ...
    def term_began(self) -> None: ...


class Leadership:
    """Leadership as the rest of a member sees it; belongs to one event loop."""

    def __init__(
        self,
        tenure: Tenure,
        core: Core,
        applier: Applied,
        reads: Reader,
        clock: Callable[[], float],
        *,
        election_timeout_seconds: float,
    ) -> None:
        self.tenure = tenure
        self.late_heartbeats = 0
        """Ticks at which this leader should have sent heartbeats long ago, for metrics."""
        self._core = core
        self._applier = applier
        self._reads = reads
        self._clock = clock
        self._term = core.term
        self._applied_term = applier.term
        self._cut_off_seconds = CUT_OFF_ELECTIONS * election_timeout_seconds
        self._cutting: asyncio.TimerHandle | None = None
        self._cuts: set[_Cut] = set()
        self._loop = asyncio.get_running_loop()

    # What the driver of consensus tells

    def ticked(self) -> None:
        """Note a tick of the consensus."""
        self.late_heartbeats += self.tenure.ticked(self._clock())

    def look(self) -> None:
        """See whether the leader changed, and tell whoever must know.

        To be called when the state of the core has changed, before its answers to read indexes are
        handed out; and by whoever acts as leader, for the core may know more than was told.
        """
        leader, term = self._core.leader, self._core.term
        if leader == self.tenure.leader and term == self._term:
            return
        if leader == self.tenure.leader:  # it lost a term and won another, unseen
            self._now_led_by(NOBODY)
        self._term = term
        self._now_led_by(leader)

    def _now_led_by(self, leader: int) -> None:
        self.tenure.led_by(leader)
        self._reads.led_by(leader)
        if leader == NOBODY:
            if self._cutting is None:
                self._cutting = self._loop.call_later(self._cut_off_seconds, self._cut_all)
        elif self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None

    def applied(self) -> None:
        """See whether a term has begun; to be called after each batch of entries."""
        term = self._applier.term
        if term != self._applied_term:
            self._applied_term = term
            self._reads.term_began()
        if not self.tenure.is_in_office:
            self.tenure.applied(term, self._core.term, self._clock())

    def stop(self) -> None:
        """Cut nobody off any more."""
        if self._cutting is not None:
            self._cutting.cancel()

    # What others ask

    async def prove(self) -> None:
        """Return when this member may act as in office. Raises ``Refused(LEADER_CHANGED)``.

        At once, as long as its last proof holds; else by a read index, which all who come meanwhile
        share. One that takes longer than it would hold is asked again. It waits for the answer
        alone, not for the applier: who renews leases must be able to while the log is applied late.
        """
        self.look()
        term, proof = self._core.term, self.tenure.proof
        while self.tenure.is_in_office and not proof.holds(asked_at := self._clock()):
            try:
                await self._reads.confirmation()
            except Refused:
                raise Refused(LEADER_CHANGED) from None
            self.look()
            if self._core.term != term:
                raise Refused(LEADER_CHANGED)
            proof.given(asked_at)
        if not self.tenure.is_in_office:
            raise Refused(LEADER_CHANGED)

    async def some_leader(self, deadline: float) -> int:
        """Return who leads, once somebody does. Raises ``Refused(NO_LEADER)`` at the deadline."""
        while self.tenure.leader == NOBODY:
            if self._clock() >= deadline:
                raise Refused(NO_LEADER)
            await asyncio.sleep(_POLL_SECONDS)
        return self.tenure.leader

    async def while_led(self, replies: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        """Hand `replies` on; end them with NO_LEADER when nobody has led for too long.

        For streams whose client requires a leader. Not at the first moment without one: to open
        a stream anew costs more than to wait for an election.
        """
        cut = _Cut()
        self._cuts.add(cut)
        try:
            async with aclosing(replies):
                while True:
                    try:
                        reply = await cut.guard(anext(replies))
                    except StopAsyncIteration:
                        return
                    yield reply
        finally:
            self._cuts.discard(cut)

    def _cut_all(self) -> None:
        self._cutting = None
        for cut in self._cuts:
            cut.cut()


class _Cut:
    """A way to end a wait from outside with NO_LEADER, as ``asyncio.timeout`` does with time.

    The task is cancelled only while it is in the guarded wait; if it is elsewhere, its next wait
    does not begin.
    """

    def __init__(self) -> None:
        self._is_cut = False
        self._waiting: asyncio.Task[Any] | None = None

    def cut(self) -> None:
        """End the wait, or the next one."""
        if not self._is_cut and self._waiting is not None:
            self._waiting.cancel()
        self._is_cut = True

    async def guard(self, wait: Any) -> Any:
        """Return what `wait` gives. Raises ``Refused(NO_LEADER)`` when cut off."""
        if self._is_cut:
            wait.close()
            raise Refused(NO_LEADER)
        self._waiting = task = asyncio.current_task()
        assert task is not None
        others = task.cancelling()
        try:
            return await wait
        except asyncio.CancelledError:
            if self._is_cut and task.uncancel() <= others:
                raise Refused(NO_LEADER) from None
            raise
        finally:
            self._waiting = None
