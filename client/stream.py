"""What every long-lived stream has in common: when to open it, to drop it, to try again.

Rule 1: a machine never waits and never sends. A pump (blocking_streams.py, aio_streams.py) tells
it what happened, one thing at a time, and carries out the actions that come back, in order::

    pump -> machine     opened, received, broke, woken, and what the users of the machine ask for
    machine -> pump     Open, Send, HangUp, WakeAt, Wake, ReadRevision, TryToRead

Rule 2: an Open is answered by ``opened`` and later ``broke``, or by ``broke`` alone. Of a stream
that the machine hung up on, nothing more is told.

Rule 3: ``now`` is in seconds of one monotonic clock, and never goes back.

The life of the stream::

              wanted               opened
      IDLE ------------> OPENING ---------> OPEN
       ^                  ^    | broke        | broke, or the machine hung up
       |            later |    v              v
       +-----------------  WAITING <----------+
         nobody wants it

An open stream that nobody wants any more is kept for a while (``linger_seconds``): those who watch
or renew again and again must not pay, nor make the server pay, for a stream each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Final, Generic, TypeAlias, TypeVar

from ..protos.etcdserverpb import ResponseHeader

Q = TypeVar("Q")
R = TypeVar("R")

STABLE_SECONDS: Final = 1.0
"""A stream that served for this long was a good one: the next break begins a new count."""

TOKENS_TRIED: Final = 2
"""How many more tokens are tried when a stream's was refused: the next one may be somebody else's,
and old itself."""


class Phase(Enum):
    """Where the stream is in its life."""

    IDLE = auto()
    OPENING = auto()
    OPEN = auto()
    WAITING = auto()
    CLOSED = auto()


# What to do: machine -> pump


@dataclass(frozen=True, slots=True)
class Open:
    """Open the stream, on another endpoint than the last time if there is one."""


@dataclass(frozen=True, slots=True)
class Send(Generic[Q]):
    """Put a message on the open stream; must not block."""

    message: Q


@dataclass(frozen=True, slots=True)
class HangUp:
    """Drop the stream. ``unanswered``: its endpoint did not answer, and is to blame for it.
    ``token_refused``: the token that it was opened with must not be used again."""

    unanswered: bool = False
    token_refused: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Call ``woken`` at this time; takes the place of an earlier WakeAt. None: never mind."""

    time: float | None


@dataclass(frozen=True, slots=True)
class Wake:
    """Let whoever waits for ``whom`` look again."""

    whom: object


@dataclass(frozen=True, slots=True)
class ReadRevision:
    """Read the store's revision, linearizably; tell the machine with ``revision_read``."""


@dataclass(frozen=True, slots=True)
class TryToRead:
    """Find out whether these keys may be read; tell the machine with ``read_tried``."""

    whom: object
    key: bytes
    range_end: bytes


Action: TypeAlias = Open | Send[Q] | HangUp | WakeAt | Wake | ReadRevision | TryToRead
Actions: TypeAlias = Sequence[Action[Q]]


@dataclass(slots=True)
class Backoff:
    """Growing pauses, each drawn from the upper half of its size so that clients do not march."""

    random: Random
    initial_seconds: float = 0.02
    max_seconds: float = 2.0
    factor: float = 2.0
    _next_seconds: float = field(init=False, default=0.0)

    def pause_seconds(self) -> float:
        """Draw the next pause."""
        size = max(self._next_seconds, self.initial_seconds)
        self._next_seconds = min(size * self.factor, self.max_seconds)
        return size * self.random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._next_seconds = 0.0


class StreamMachine(Generic[Q, R]):
    """The stream's life; what is said on it is the subclass's, through the hooks below."""

    def __init__(self, random: Random, *, linger_seconds: float = 5.0) -> None:
        self.phase = Phase.IDLE
        self.last_error: Exception | None = None
        """Why the stream broke last, or could not be opened; None: ended by the server."""
        self.closed_by: Exception | None = None
        """What ended the machine for good."""
        self._linger_seconds = linger_seconds
        self._backoff = Backoff(random)
        self._actions: list[Action[Q]] = []
        self._requests = 0
        """How many messages were put on the stream that was opened last."""
        self._proved_at: float | None = None
        self._reopen_at = 0.0
        self._idle_since: float | None = None
        self._alarm: float | None = None

    # What the pump tells

    def opened(self, now: float) -> Actions[Q]:
        """Take in that the stream is there to be written to."""
        if self.phase is Phase.OPENING:
            self.phase = Phase.OPEN
            self._requests = 0
            self._proved_at = None
            self._on_open(now)
        return self._settle(now)

    def received(self, message: R, now: float) -> Actions[Q]:
        """Take in a message of the server."""
        if self.phase is Phase.OPEN:
            self._on_message(message, now)
        return self._settle(now)

    def broke(self, error: Exception | None, now: float) -> Actions[Q]:
        """Take in that the stream ended, or was not to be had. None: the server ended it well."""
        if self.phase in (Phase.OPENING, Phase.OPEN):
            self._lose(error, now)
        return self._settle(now)

    def woken(self, now: float) -> Actions[Q]:
        """Take in that the time of the last WakeAt has come."""
        self._alarm = None
        if self.phase is not Phase.CLOSED:
            self._on_time(now)
        return self._settle(now)

    def revision_read(self, header: ResponseHeader | None, now: float) -> Actions[Q]:
        """Take in the answer to ReadRevision; None: there was none to be had."""
        raise NotImplementedError

    def read_tried(self, whom: object, error: Exception | None, now: float) -> Actions[Q]:
        """Take in the answer to TryToRead; None: the keys may be read."""
        raise NotImplementedError

    def close(self, error: Exception) -> Actions[Q]:
        """End for good; whoever still uses the machine is told ``error``."""
        if self.phase is not Phase.CLOSED:
            self.closed_by = error
            self._on_close(error)
            self._do(HangUp())
            self.phase = Phase.CLOSED
            self._do(WakeAt(None))
        return self._drain()

    # Hooks of the subclass

    def _wanted(self) -> bool:
        """Tell whether anybody needs the stream now."""
        raise NotImplementedError

    def _on_open(self, now: float) -> None:
        """Say what has to be said first."""
        raise NotImplementedError

    def _on_message(self, message: R, now: float) -> None:
        raise NotImplementedError

    def _on_loss(self, error: Exception | None, now: float) -> None:
        """Forget what was bound to this very stream."""
        raise NotImplementedError

    def _on_time(self, now: float) -> None:
        """Do what is due."""
        raise NotImplementedError

    def _on_close(self, error: Exception) -> None:
        raise NotImplementedError

    def _next_time(self) -> float | None:
        """Say when ``_on_time`` is needed next."""
        raise NotImplementedError

    # For the subclass

    def _do(self, action: Action[Q]) -> None:
        self._actions.append(action)

    def _send(self, message: Q) -> None:
        self._requests += 1
        self._actions.append(Send(message))

    def _served(self, now: float) -> None:
        """Note that the stream did what it is for, which an accepted connection alone is not."""
        if self._proved_at is None:
            self._proved_at = now

    def _give_up_on_stream(self, error: Exception, now: float) -> None:
        """Hang up on a stream that does not answer, to try elsewhere."""
        self._leave_stream(HangUp(unanswered=True), error, now)

    def _leave_stream(self, how: HangUp, error: Exception | None, now: float) -> None:
        """Hang up on a stream to open another."""
        if self.phase in (Phase.OPENING, Phase.OPEN):
            self._do(how)
            self._lose(error, now)

    def _settle(self, now: float) -> Actions[Q]:
        """Open, linger or hang up as the state asks for; return all that is to be done."""
        if self.phase is Phase.WAITING and not self._wanted():
            self.phase = Phase.IDLE
        if self.phase is Phase.OPEN:
            self._linger(now)
        elif self._wanted() and (
            self.phase is Phase.IDLE or (self.phase is Phase.WAITING and now >= self._reopen_at)
        ):
            self.phase = Phase.OPENING
            self._do(Open())
        self._set_alarm()
        return self._drain()

    # Inner workings

    def _linger(self, now: float) -> None:
        if self._wanted():
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since >= self._linger_seconds:
            self._idle_since = None
            self._do(HangUp())
            self.phase = Phase.IDLE

    def _lose(self, error: Exception | None, now: float) -> None:
        if self._proved_at is not None and now - self._proved_at >= STABLE_SECONDS:
            self._backoff.reset()
        self._proved_at = self._idle_since = None
        self.last_error = error
        self.phase = Phase.WAITING
        self._reopen_at = now + self._backoff.pause_seconds()
        self._on_loss(error, now)

    def _set_alarm(self) -> None:
        times = [self._next_time()]
        if self.phase is Phase.WAITING:
            times.append(self._reopen_at)
        if self.phase is Phase.OPEN and self._idle_since is not None:
            times.append(self._idle_since + self._linger_seconds)
        alarm = min((time for time in times if time is not None), default=None)
        if self.phase is Phase.CLOSED:
            alarm = None
        if alarm != self._alarm:
            self._alarm = alarm
            self._do(WakeAt(alarm))

    def _drain(self) -> Actions[Q]:
        actions, self._actions = self._actions, []
        return actions
