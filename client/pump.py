"""What the pumps of both worlds have in common; see stream.py for the machines they serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol

from ..balancers.api import Failure
from ..protos.errors import Code
from ..protos.etcdserverpb import RangeRequest, ResponseHeader
from ..protos.rpc import Rpc
from ..protos.rpcs import KV_RANGE
from . import events
from .call import Call
from .connections import Link, Seat
from .credentials import Token
from .errors import EtcdError
from .flow import (
    CLOSED_UNDER_STREAM,
    LINK_CLOSED,
    REQUIRE_LEADER,
    CallFailed,
    Flow,
    Metadata,
    T,
)
from .stream import (
    Actions,
    HangUp,
    Open,
    Q,
    R,
    ReadRevision,
    Send,
    StreamMachine,
    TryToRead,
    Wake,
    WakeAt,
)

UNANSWERED: Final = CallFailed(Code.DEADLINE_EXCEEDED, "stream not answered")


class Trip:
    """One stream's stay on one link: the pick it owes to the balancer, and its seat."""

    stream: Any = None
    """grpc's call; None before there is one."""

    def __init__(
        self, call: Call, rpc: Rpc[Any, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.dropped: HangUp | None = None
        """Set when nobody wants to hear of it any more."""
        self.moved = False
        """Set when its link is no place for streams any more."""
        self.endpoint = ""
        self.token: Token | None = None
        """What it is opened with; None: the client speaks for nobody."""
        self._call = call
        self._rpc = rpc
        self._clock = clock
        self._link: Link | None = None
        self._seat: Seat | None = None
        self._started = clock()
        self._owed = False

    @property
    def left_by_us(self) -> bool:
        """Whether it ends because this side wants it to."""
        return self.moved or self.dropped is not None

    def move(self) -> None:
        """End it, so that the machine opens it anew elsewhere."""
        self.moved = True
        self.cancel()

    def cancel(self) -> None:
        """End the stream, if there is one yet."""
        raise NotImplementedError

    def drop(self, how: HangUp) -> None:
        """End it, because its machine is done with it."""
        self.dropped = how
        if how.token_refused and self.token is not None:
            self._call.reject(self.token)
        self.cancel()

    def metadata(self, own: Metadata = ()) -> Metadata:
        """Add the token to the metadata that its kind of stream has."""
        return own if self.token is None else own + self.token.metadata

    def move_if_closed(self) -> None:
        """End it, unless it is only asked to move, which it cannot."""
        if self._call.connections.closed:
            self.move()

    @property
    def closed_failure(self) -> CallFailed:
        """What to say of a stream that ended because its channel, or the client, was closed."""
        text = LINK_CLOSED if self.stream is None else CLOSED_UNDER_STREAM
        return CallFailed(Code.UNAVAILABLE, text)

    def board(self, link: Link, on_drain: Callable[[], None], *, picked: bool = True) -> None:
        """Begin the stay. Raises ClientClosed."""
        self._link, self._owed = link, picked
        self.endpoint = link.url
        self._started = self._clock()
        self._seat = self._call.connections.take_seat(link, on_drain)

    def answered(self) -> None:
        """Pay the pick back: the stream is open."""
        if self._owed and self._link is not None:
            self._pay(self._link, None)

    def leave(self, failed: CallFailed | None) -> EtcdError | None:
        """End the stay; return the error to tell. None: the server ended the stream well.

        A stream that was left before it was answered shows nothing of its member.
        """
        link, seat = self._link, self._seat
        if seat is not None:
            seat.leave()
        if self.dropped is not None:
            failed = UNANSWERED if self.dropped.unanswered else None
        if link is None:
            return None
        failure: Failure | None = None
        error: EtcdError | None = None
        if failed is not None:
            failure, error = self._call.judge_stream(
                self._rpc, link, failed, self._started, self.token
            )
        if self._owed:
            self._pay(link, failure or Failure.CANCELLED)
        if self.dropped is None or self.dropped != HangUp():
            renewed = self.dropped is not None and self.dropped.token_refused
            told = "token refused" if renewed else str(failed) if failed else self._why(link)
            events.stream_moved(self._rpc.path, self.endpoint, told)
        return error

    def _why(self, link: Link) -> str:
        """Say why it ended without a failure."""
        if not self.moved:
            return "ended by the server"
        return "no longer an endpoint" if link.gone else "the balancer has streams leave"

    def _pay(self, link: Link, failure: Failure | None) -> None:
        self._owed = False
        now = self._clock()
        self._call.connections.done(link, failure, now - self._started, now)


class Spawner(Protocol):
    """The part of a world that runs flows in the background."""

    def spawn(self, flow: Flow[T], then: Callable[[T], None]) -> None: ...


class Pump(Generic[Q, R]):
    """Carries out what a machine wants done. One thing at a time: subclasses see to that."""

    def __init__(
        self,
        world: Spawner,
        call: Call,
        rpc: Rpc[Any, Any],
        machine: StreamMachine[Q, R],
        metadata: Metadata = REQUIRE_LEADER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.call = call
        self._world = world
        self._rpc = rpc
        self._machine = machine
        self._metadata = metadata
        self._clock = clock
        self._last_endpoint = ""

    def _perform(self, actions: Actions[Q]) -> list[object]:
        """Carry out a machine's actions; return who is to be woken afterwards."""
        woken: list[object] = []
        for action in actions:
            match action:
                case Send(message):
                    self._send(message)
                case Wake(whom):
                    woken.append(whom)
                case WakeAt(moment):
                    self._wake_at(moment)
                case Open():
                    self._open()
                case HangUp():
                    self._hang_up(action)
                case ReadRevision():
                    self._world.spawn(read_revision(self.call), self._revision_read)
                case TryToRead(whom, key, range_end):
                    self._world.spawn(try_to_read(self.call, key, range_end), self._tried(whom))
        return woken

    def tell(self, event: Callable[[float], Actions[Q]]) -> None:
        """Tell the machine something, do what it wants, and wake whom it names."""
        raise NotImplementedError

    def on_wake(self, whom: object, wake: Callable[[], None] | None) -> None:
        """Call ``wake``, without locks, when the machine names ``whom``; None: not any more."""
        raise NotImplementedError

    def close(self, error: Exception) -> None:
        """End the machine and its stream."""
        self.tell(lambda now: self._machine.close(error))

    def _woken(self) -> None:
        """Tell the machine that its time has come."""
        try:
            self.tell(self._machine.woken)
        except Exception as mistake:  # ours: rather an error for all than silence
            self.close(mistake)
            raise

    def _send(self, message: Q) -> None:
        raise NotImplementedError

    def _wake_at(self, moment: float | None) -> None:
        raise NotImplementedError

    def _open(self) -> None:
        raise NotImplementedError

    def _hang_up(self, how: HangUp) -> None:
        raise NotImplementedError

    def _revision_read(self, header: ResponseHeader | None) -> None:
        raise NotImplementedError

    def _tried(self, whom: object) -> Callable[[EtcdError | None], None]:
        return lambda error: self.tell(lambda now: self._machine.read_tried(whom, error, now))

    def _place(self, trip: Trip) -> Flow[Link]:
        """Choose where the next stream goes: rather not where the last one was."""
        trip.token = yield from self.call.token_of_stream(self._rpc)
        tried = [self._last_endpoint] if self._last_endpoint else []
        return (yield from self.call.place(self._rpc, tried=tried))


def read_revision(call: Call) -> Flow[ResponseHeader | None]:
    """Read the store's revision, linearizably; None when nobody can tell now."""
    try:
        reply = yield from call(KV_RANGE, RangeRequest(key=b"\0", count_only=True))
    except EtcdError:
        return None
    return reply.header


def try_to_read(call: Call, key: bytes, range_end: bytes) -> Flow[EtcdError | None]:
    """Find out whether keys may be read, by reading one; None when they may."""
    try:
        yield from call(
            KV_RANGE, RangeRequest(key=key, range_end=range_end, limit=1, keys_only=True)
        )
    except EtcdError as error:
        return error
    return None
