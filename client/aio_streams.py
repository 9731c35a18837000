"""Streams in the world of asyncio: a task reads each open stream, and grpc's own writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic

import grpc
import grpc.aio

from ..protos.etcdserverpb import ResponseHeader
from ..protos.rpc import Rpc
from .aio import AsyncioWorld
from .call import Call
from .callbacks import call_back
from .channels import call_failed
from .errors import ClientClosed, EtcdError
from .flow import CallFailed, Metadata
from .pump import Pump, Trip
from .stream import Actions, HangUp, Q, R, StreamMachine
from .streams import Streams


class _Outbox(Generic[Q]):
    """The requests of a stream, as grpc's writing task takes them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Q | None] = asyncio.Queue()

    def put(self, message: Q) -> None:
        self._queue.put_nowait(message)

    def close(self) -> None:
        """Let the writing task end."""
        self._queue.put_nowait(None)

    def __aiter__(self) -> _Outbox[Q]:
        return self

    async def __anext__(self) -> Q:
        message = await self._queue.get()
        if message is None:
            raise StopAsyncIteration
        return message


class _AsyncTrip(Trip, Generic[Q]):
    """A trip with the means to write to it and to end it."""

    def __init__(self, call: Call, rpc: Rpc[Any, Any]) -> None:
        super().__init__(call, rpc)
        self.outbox: _Outbox[Q] = _Outbox()

    def cancel(self) -> None:
        if self.stream is not None:
            self.stream.cancel()


class AsyncPump(Pump[Q, R]):
    """Serves one machine with tasks of one event loop."""

    def __init__(
        self,
        world: AsyncioWorld,
        call: Call,
        rpc: Rpc[Any, Any],
        machine: StreamMachine[Q, R],
        metadata: Metadata,
    ) -> None:
        super().__init__(world, call, rpc, machine, metadata)
        self._run = world.run
        self._trip: _AsyncTrip[Q] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wakers: dict[object, Callable[[], None]] = {}
        self._alarm: asyncio.TimerHandle | None = None

    # For those who use the machine

    def tell(self, event: Callable[[float], Actions[Q]]) -> None:
        for whom in self._perform(event(self._clock())):
            if wake := self._wakers.get(whom):
                call_back(wake)

    def on_wake(self, whom: object, wake: Callable[[], None] | None) -> None:
        if wake is None:
            self._wakers.pop(whom, None)
        else:
            self._wakers[whom] = wake

    async def join(self) -> None:
        """Wait for the tasks of a closed pump to end."""
        while others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)

    # What the machine wants

    def _send(self, message: Q) -> None:
        if self._trip is not None:
            self._trip.outbox.put(message)

    def _wake_at(self, moment: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if moment is not None:
            delay_seconds = max(0.0, moment - self._clock())
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(delay_seconds, self._wake_machine)

    def _wake_machine(self) -> None:
        self._alarm = None
        self._woken()

    def _open(self) -> None:
        trip: _AsyncTrip[Q] = _AsyncTrip(self.call, self._rpc)
        self._trip = trip
        task = asyncio.get_running_loop().create_task(self._travel(trip), name=self._rpc.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hang_up(self, how: HangUp) -> None:
        trip, self._trip = self._trip, None
        if trip is not None:
            trip.drop(how)

    def _revision_read(self, header: ResponseHeader | None) -> None:
        self.tell(partial(self._machine.revision_read, header))

    # The task of a stream

    async def _travel(self, trip: _AsyncTrip[Q]) -> None:
        """See a stream through from its opening to its end."""
        error: Exception | None
        try:
            error = await self._ride(trip)
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
        self._tell_of(trip, lambda now: self._machine.broke(error, now))

    async def _ride(self, trip: _AsyncTrip[Q]) -> EtcdError | None:
        """Open the stream and read it to its end; return why it ended."""
        link = await self._run(self._place(trip))
        failed: CallFailed | None = None
        try:
            trip.board(link, trip.move)
            self._last_endpoint = trip.endpoint
            trip.stream = link.callable(self._rpc)(
                trip.outbox, metadata=trip.metadata(self._metadata)
            )
            await self._read(trip)
        except grpc.RpcError as error:
            failed = None if trip.left_by_us else call_failed(error)
        except grpc.aio.UsageError:  # the channel was closed meanwhile
            failed = trip.closed_failure
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            if not trip.left_by_us:  # the channel was closed under it
                failed = trip.closed_failure
        except CallFailed as error:
            failed = error
        finally:
            trip.cancel()
            trip.stream = None  # a call that is kept keeps its channel from ending
            ended = trip.leave(failed)
        return ended

    async def _read(self, trip: _AsyncTrip[Q]) -> None:
        if trip.left_by_us:
            return
        self._tell_of(trip, self._machine.opened)
        async for message in trip.stream:
            trip.answered()
            self._tell_of(trip, partial(self._machine.received, message))

    def _tell_of(self, trip: _AsyncTrip[Q], event: Callable[[float], Actions[Q]]) -> None:
        """Tell the machine of a trip, unless it has dropped that one."""
        if trip.dropped is None:
            self.tell(event)


class AsyncStreams(Streams[AsyncPump[Any, Any]]):
    """An AsyncClient's streams."""

    def __init__(self, world: AsyncioWorld, call: Call) -> None:
        super().__init__(world, call)
        self.run = world.run
        self._world = world

    async def join(self) -> None:
        """Wait for the tasks of closed streams to end."""
        for pump in self._pumps():
            await pump.join()

    def _pump(
        self, rpc: Rpc[Any, Any], machine: StreamMachine[Any, Any], metadata: Metadata
    ) -> AsyncPump[Any, Any]:
        return AsyncPump(self._world, self.call, rpc, machine, metadata)
