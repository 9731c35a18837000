"""Streams in the world of threads.

An open stream has one thread here, which reads it, and one of grpc's own, which writes it. One
more serves the alarms of all streams of a client. All of them end by themselves when nobody
watches, and keeps no lease, for a while.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import grpc

from ..protos.etcdserverpb import ResponseHeader
from ..protos.rpc import Rpc
from .blocking import BlockingWorld, wait_seconds
from .call import Call
from .callbacks import call_back
from .channels import call_failed
from .errors import ClientClosed, EtcdError
from .flow import CallFailed, Metadata
from .interrupts import interruptible
from .pump import Pump, Trip
from .stream import Actions, HangUp, Q, R, StreamMachine
from .streams import Streams

T = TypeVar("T")


class Alarms:
    """Calls back at given times, on a thread that lives while there are any to come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._times: dict[Callable[[], None], float] = {}
        self._thread: threading.Thread | None = None

    def set(self, wake: Callable[[], None], moment: float | None) -> None:
        """Call ``wake`` at that moment, instead of at its earlier one; None: not at all."""
        with self._changed:
            if moment is None:
                self._times.pop(wake, None)
            else:
                self._times[wake] = moment
                if self._thread is None:
                    thread = _thread("alarms", self._run)
                    thread.start()  # and then it waits for the lock
                    self._thread = thread
            self._changed.notify()

    def join(self) -> None:
        """Forget all alarms, and wait for the thread to end."""
        with self._changed:
            self._times.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (wake := self._next()) is not None:
            call_back(wake)

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next alarm; None when there are no more."""
        with self._changed:
            while self._times:
                wake = min(self._times, key=self._times.__getitem__)
                left = self._times[wake] - self._clock()
                if left <= 0:
                    del self._times[wake]
                    return wake
                self._changed.wait(wait_seconds(left))
            self._thread = None
            return None


class _Outbox(Generic[Q]):
    """The requests of a stream, as grpc's writing thread takes them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Q | None] = queue.SimpleQueue()

    def put(self, message: Q) -> None:
        self._queue.put(message)

    def close(self) -> None:
        """Let the writing thread end; it waits here for good otherwise (grpc issue 21995)."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[Q]:
        while (message := self._queue.get()) is not None:
            yield message


class _BlockingTrip(Trip, Generic[Q]):
    """A trip with the means to write to it and to end it."""

    def __init__(self, call: Call, rpc: Rpc[Any, Any]) -> None:
        super().__init__(call, rpc)
        self.outbox: _Outbox[Q] = _Outbox()

    def cancel(self) -> None:
        if self.stream is not None:
            interruptible(self.stream.cancel)


class BlockingPump(Pump[Q, R]):
    """Serves one machine with threads. Its machine may be told things from any of them."""

    def __init__(
        self,
        world: BlockingWorld,
        call: Call,
        rpc: Rpc[Any, Any],
        machine: StreamMachine[Q, R],
        alarms: Alarms,
        metadata: Metadata,
    ) -> None:
        super().__init__(world, call, rpc, machine, metadata)
        self.lock = threading.Lock()
        """Held around the machine, and never across a wait."""
        self._run = world.run
        self._alarms = alarms
        self._trip: _BlockingTrip[Q] | None = None
        self._threads: set[threading.Thread] = set()
        self._wakers: dict[object, Callable[[], None]] = {}

    # For those who use the machine

    def tell(self, event: Callable[[float], Actions[Q]]) -> None:
        with self.lock:
            woken = self._perform(event(self._clock()))
            wakers = [self._wakers.get(whom) for whom in woken]
        for wake in wakers:
            if wake is not None:
                call_back(wake)

    def ask(self, question: Callable[[float], tuple[T, Actions[Q]]]) -> T:
        """Ask the machine something, with the lock held; nobody is woken."""
        answer, actions = question(self._clock())
        if actions:
            self._perform(actions)
        return answer

    def on_wake(self, whom: object, wake: Callable[[], None] | None) -> None:
        with self.lock:
            if wake is None:
                self._wakers.pop(whom, None)
            else:
                self._wakers[whom] = wake

    def join(self) -> None:
        """Wait for the threads of a closed pump to end."""
        with self.lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    # What the machine wants

    def _send(self, message: Q) -> None:
        if self._trip is not None:
            self._trip.outbox.put(message)

    def _wake_at(self, moment: float | None) -> None:
        self._alarms.set(self._woken, moment)

    def _open(self) -> None:
        trip: _BlockingTrip[Q] = _BlockingTrip(self.call, self._rpc)
        self._trip = trip
        thread = _thread(self._rpc.name, lambda: self._travel(trip))
        self._threads.add(thread)
        thread.start()

    def _hang_up(self, how: HangUp) -> None:
        trip, self._trip = self._trip, None
        if trip is not None:
            trip.drop(how)

    # The thread of a stream

    def _travel(self, trip: _BlockingTrip[Q]) -> None:
        """See a stream through from its opening to its end, on a thread of its own."""
        error: Exception | None
        try:
            error = self._ride(trip)
        except ClientClosed as closed:
            self.close(closed)
            error = closed
        except EtcdError as unplaced:
            error = unplaced
        except Exception as mistake:  # ours: rather an error for all than silence
            self.close(mistake)
            raise
        finally:
            trip.outbox.close()
            with self.lock:
                self._threads.discard(threading.current_thread())
        self._tell_of(trip, lambda now: self._machine.broke(error, now))

    def _ride(self, trip: _BlockingTrip[Q]) -> EtcdError | None:
        """Open the stream and read it to its end; return why it ended."""
        link = self._run(self._place(trip))
        failed: CallFailed | None = None
        try:
            trip.board(link, trip.move)
            self._last_endpoint = trip.endpoint
            stream = link.callable(self._rpc)(
                iter(trip.outbox), metadata=trip.metadata(self._metadata)
            )
            self._read(trip, stream)
        except grpc.RpcError as error:
            # Of a stream that was cancelled here, grpc waits for details that never come
            failed = None if trip.left_by_us else call_failed(error)
        except ValueError:  # grpc's word for a channel that was closed meanwhile
            failed = trip.closed_failure
        except CallFailed as error:
            failed = error
        finally:
            ended = trip.leave(failed)
        return ended

    def _read(self, trip: _BlockingTrip[Q], stream: Any) -> None:
        with self.lock:
            trip.stream = stream
            if trip.left_by_us:
                stream.cancel()
                return
        self._tell_of(trip, self._machine.opened)
        for message in stream:
            trip.answered()
            self._tell_of(trip, partial(self._machine.received, message))

    def _tell_of(self, trip: _BlockingTrip[Q], event: Callable[[float], Actions[Q]]) -> None:
        """Tell the machine of a trip, unless it has dropped that one."""
        self.tell(lambda now: event(now) if trip.dropped is None else ())

    def _revision_read(self, header: ResponseHeader | None) -> None:
        self.tell(partial(self._machine.revision_read, header))


class BlockingStreams(Streams[BlockingPump[Any, Any]]):
    """A client's streams, and the alarms that they share."""

    def __init__(self, world: BlockingWorld, call: Call) -> None:
        super().__init__(world, call)
        self.run = world.run
        self._world = world
        self._alarms = Alarms()

    def join(self) -> None:
        """Wait for the threads of closed streams to end."""
        for pump in self._pumps():
            pump.join()
        self._alarms.join()

    def _pump(
        self, rpc: Rpc[Any, Any], machine: StreamMachine[Any, Any], metadata: Metadata
    ) -> BlockingPump[Any, Any]:
        return BlockingPump(self._world, self.call, rpc, machine, self._alarms, metadata)


def _thread(name: str, work: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=work, name=f"etcd-pinwheel {name}", daemon=True)
