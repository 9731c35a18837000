"""The driver of one replica: time passes, messages come and go, the log is saved and applied.

One *turn* does all there is to do, and is run once however many inputs asked for it:

1. what waited for a leader is handed over, if there is one now;
2. what may be sent is sent: a leader's appends go out before it has saved them itself;
3. what must be saved next goes to the thread of the log, unless that is still busy: all that comes
   in meanwhile is one batch, with one fsync;
4. what is committed and saved is applied, and its callers are answered;
5. answers to read-index questions are handed out.

What depends on a save (votes, acknowledgements) is held back by the core until it is told that the
save is done; everything else, heartbeats and read indexes above all, never waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, Protocol

from ..protos import raftpb
from .raft.core import LogLost, Raft, ReadState, Ready, Role
from .raft.messages import NOBODY, Message
from .replica import Applied, Replica
from .storage.wal import Wal

log = logging.getLogger(__name__)

APPLIED_PER_TURN: Final = 100
"""Entries applied before others in the event loop get their turn."""
GATHERING_SECONDS: Final = 0.01
"""How long a leader lets proposals gather; a disk or a member that stalls holds up nobody."""
MAX_PUT_OFF: Final = 1024
"""Messages with proposals of others that wait here; the core may drop what is beyond."""
MAX_PUT_OFF_SECONDS: Final = 2.0
"""How long they wait; after that, those who made them have other worries."""


class Post(Protocol):
    """Whoever carries messages to other members; never waits."""

    def send(self, messages: Iterable[Message], /) -> None:
        """Send what is no snapshot."""
        ...

    def send_snapshot(self, message: Message, /) -> None:
        """Begin to send the state to a member; the core is told how it ends."""
        ...


class Listener(Protocol):
    """Whoever is to know what comes of it all. Nothing here may raise, but for ``applied``."""

    def before_turn(self) -> None:
        """Take the chance to propose what could not be proposed before."""
        ...

    def ticked(self) -> None:
        """Learn that a tick has passed."""
        ...

    def state_changed(self) -> None:
        """Learn that the term, the role or the leader is another; told before the answers below."""
        ...

    def applied(self, done: list[Applied]) -> None:
        """Learn what entries came to, in the order of the log."""
        ...

    def read_indexes(self, answers: list[ReadState]) -> None:
        """Learn the answers to ``raft.read_index``."""
        ...

    def installed(self) -> None:
        """Learn that the state is now the one that another member sent."""
        ...

    def failed(self, error: BaseException) -> None:
        """Learn that this member is over; told once, before anything else happens."""
        ...


class Consensus:
    """The one writer of a member's log and state.

    Invariant: at most one save is under way; entries are applied in the order of the log, each
    after it is durable here.
    """

    def __init__(
        self,
        replica: Replica,
        wal: Wal,
        clock: Callable[[], float],
        *,
        tick_seconds: float,
        post: Post,
        listener: Listener,
        install: Callable[[Ready], Awaitable[None]],
    ) -> None:
        """``install`` puts another member's state in the place of the replica's, durably."""
        self.replica = replica
        self.raft: Raft = replica.raft
        self.failure: asyncio.Future[None]
        """Raises what made the member stop by itself."""
        self._wal = wal
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._post = post
        self._listener = listener
        self._install = install
        self._loop = asyncio.get_running_loop()
        self.failure = self._loop.create_future()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="wal")
        self._idle = asyncio.Event()
        """Set while nothing is being saved."""
        self._idle.set()
        self._saving_since = 0.0
        self._is_running = False
        self._is_woken = False
        self._put_off: list[tuple[float, Message]] = []
        """Others' proposals, and when they came, that wait for a leader or for a save."""
        self._installing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._known_state = self._state()

    # What the owner does

    def start(self) -> None:
        """Let time pass and work be done."""
        self._is_running = True
        self._due = self._loop.time() + self._tick_seconds
        self._timer = self._loop.call_at(self._due, self._tick)
        self.wake()

    def wake(self) -> None:
        """Have a turn run soon: there was an input. All inputs until then share it."""
        if not self._is_woken and self._is_running:
            self._is_woken = True
            self._loop.call_soon(self._woken)

    def step(self, message: Message) -> None:
        """Take a message of another member."""
        if not self._is_running:
            return
        if message.type == raftpb.MsgProp and self._must_wait():
            self._put_off.append((self._clock(), message))
            return
        try:
            self.raft.step(message)
        except Exception as error:  # the log was lost, or a bug: the state is in doubt
            self.fail(error)
        self.wake()

    def _must_wait(self) -> bool:
        """Whether a proposal of another member had better be taken later."""
        return len(self._put_off) < MAX_PUT_OFF and (self._is_between_leaders or self.is_gathering)

    @property
    def _is_between_leaders(self) -> bool:
        """Whether a proposal of another member would be dropped now, but not in a moment.

        So it is while the lead is being handed over. The member that sent it does not learn that it
        was dropped, and would let its caller wait in vain.
        """
        return self.raft.transferee != NOBODY or self.raft.leader == NOBODY

    @property
    def is_gathering(self) -> bool:
        """Whether proposals had better wait for the batch under way, to be one batch then.

        A leader sends entries as soon as it has them. Were they sent in the small pieces in which
        they come, every member would have the work of many messages and saves for a few of them.
        """
        log = self.raft.log
        return (
            (not self._idle.is_set() or log.committed < log.last_index)
            and self.raft.role is Role.LEADER
            and self._clock() - self._saving_since < GATHERING_SECONDS
        )

    @property
    def is_installing(self) -> bool:
        """Whether another member's state is being put in the place of this one's."""
        return self._installing is not None and not self._installing.done()

    async def in_log_thread(self, work: Callable[[], None]) -> None:
        """Run `work` on the write-ahead log, between two saves. Raises what it raises."""
        await self._loop.run_in_executor(self._disk, work)

    async def stop(self) -> None:
        """Take part no more; finish the save that is under way. The log can be closed then."""
        self._end()
        await self._idle.wait()
        if self._installing is not None:
            await asyncio.wait([self._installing])
        self._disk.shutdown()

    def fail(self, error: BaseException) -> None:
        """Stop for good."""
        if self.failure.done():
            return
        self._end()
        self._listener.failed(error)
        level = logging.ERROR if isinstance(error, LogLost) else logging.CRITICAL
        log.log(level, "the member stops: %s", error, exc_info=error)
        self.failure.set_exception(error)
        self.failure.exception()  # whoever awaits it gets it; nobody has to

    def _end(self) -> None:
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()

    # Time

    def _tick(self) -> None:
        """Let one tick pass, never several at once.

        After a pause of the process nobody knows what messages are waiting to be read: ticks made
        up for would make this member campaign before it has looked.
        """
        now = self._loop.time()
        self._due += self._tick_seconds
        if self._due <= now:
            self._due = now + self._tick_seconds
        self._timer = self._loop.call_at(self._due, self._tick)
        self.raft.tick()
        self._listener.ticked()
        self.wake()

    # One turn

    def _woken(self) -> None:
        self._is_woken = False
        self._turn()

    def _turn(self) -> None:
        if not self._is_running:
            return
        try:
            self._notice_state()
            if self._put_off and not (self._is_between_leaders or self.is_gathering):
                self._step_put_off()
            self._listener.before_turn()
            self._send()
            self._save_next()
            self._apply()
            if answers := self.raft.reads():
                self._notice_state()
                self._listener.read_indexes(answers)
        except Exception as error:  # the backend failed, or a bug: the state is in doubt
            self.fail(error)

    def _step_put_off(self) -> None:
        """Take what was put off; if another member leads by now, the core hands it on."""
        put_off, self._put_off = self._put_off, []
        oldest = self._clock() - MAX_PUT_OFF_SECONDS
        for came_at, message in put_off:
            if came_at < oldest:
                continue
            if message.sender == self.raft.leader:  # who sent it leads now: it may have it back
                self._post.send([replace(message, to=message.sender, sender=self.raft.id)])
            else:
                self.raft.step(message)

    def _state(self) -> tuple[int, int, Role]:
        raft = self.raft
        return raft.term, raft.leader, raft.role

    def _notice_state(self) -> None:
        state = self._state()
        if state != self._known_state:
            self._known_state = state
            self._listener.state_changed()

    def _send(self) -> None:
        messages = self.raft.messages()
        if not messages:
            return
        snapshots = [message for message in messages if message.type == raftpb.MsgSnap]
        if snapshots:
            messages = [message for message in messages if message.type != raftpb.MsgSnap]
        self._post.send(messages)
        for message in snapshots:
            self._post.send_snapshot(message)

    def _apply(self) -> None:
        done = self.replica.apply(APPLIED_PER_TURN, self._clock())
        if done:
            self._listener.applied(done)
            self.wake()  # for what else is committed, and for what the core says to that

    # Saving

    def _save_next(self) -> None:
        """Give the disk what is to be saved, if it has nothing to do."""
        ready = self.raft.ready()
        if ready is None:
            return
        self._idle.clear()
        self._saving_since = self._clock()
        if ready.snapshot is None:
            self._disk.submit(self._save, ready)
        else:
            self._installing = asyncio.create_task(self._install_snapshot(ready))

    def _save(self, ready: Ready) -> None:
        """Make a batch durable; in the thread of the log."""
        failure: BaseException | None = None
        try:
            self._wal.save(ready.hard_state, ready.entries)
        except BaseException as error:
            failure = error
        self._loop.call_soon_threadsafe(self._saved, ready, failure)

    def _saved(self, ready: Ready, failure: BaseException | None) -> None:
        self._idle.set()
        if failure is not None:
            self.fail(failure)
        if not self.failure.done():
            self.raft.saved(ready)
            self._turn()
            if self.is_gathering:  # and perhaps nothing is heard of the others for a while
                self._loop.call_later(GATHERING_SECONDS, self.wake)

    async def _install_snapshot(self, ready: Ready) -> None:
        failure: BaseException | None = None
        try:
            await self._install(ready)
            if not self.failure.done():
                self._listener.installed()
        except Exception as error:
            failure = error
        self._saved(ready, failure)
