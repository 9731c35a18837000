"""A watch in the world of asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from .aio_streams import AsyncPump, AsyncStreams
from .watch import WatchBatch, WatchEvent, WatchOptions, wait_error
from .watch_handle import WatchHandle
from .watcher import Taken


class AsyncWatch(WatchHandle[AsyncPump[Any, Any]]):
    """A watch, made with :meth:`AsyncClient.watch`; use it in ``async with``, and iterate over it.

    Entering returns when the server has created it: nothing that happens from then on is missed.
    Iteration yields events; :meth:`batches` yields whole revisions. Whatever happens to the
    stream, the watch goes on where it was, without loss or repetition. Iteration ends when the
    watch is closed, and raises Compacted, HistoryLost, PermissionDenied, WatchInterrupted, ...
    when it cannot go on, after everything that came before that.

    It may be made, used and closed inside the loop over another. Cancelling a task that waits for
    it loses nothing.
    """

    def __init__(self, streams: AsyncStreams, options: WatchOptions) -> None:
        super().__init__(streams, options)
        self._news = asyncio.Event()

    async def open(self) -> Self:
        """Have the server create it; entering ``async with`` does this.

        Raises NotSent or TimedOut when that takes longer than its timeout.
        """
        self._begin()
        try:
            await self._await_creation()
        except BaseException:
            self._remove()
            raise
        return self

    async def close(self) -> None:
        """End the watch, on the server too; iterations over it end. Closing twice is fine."""
        self._remove()

    cancel = close

    async def request_progress(self) -> None:
        """Have the server say how far this watch has got; it comes as a batch without events.

        It is asked again until every watch of the client has caught up, for only then does it
        answer; the bundled server and recent etcd (PR 20229) also wait for each ``start_revision``
        that lies in the future. etcd before 3.4.25 and 3.5.8 answers at once, and the answer may
        overtake events that are on their way (etcd issue 15220).
        """
        self._ask_progress()

    async def next_event(self, timeout: float | None = None) -> WatchEvent | None:  # noqa: ASYNC109
        """Wait for the next event; None: the watch was closed.

        Raises WaitTimedOut when there is none within ``timeout`` seconds, beside what ends
        iterations; the watch goes on after it.
        """
        self._check_usable()
        while (event := self._reading.next_event()) is None:
            taken = await self._take(timeout)
            if taken is None:
                return None
            self._reading.begin(taken)
        return event

    async def next_batch(self, timeout: float | None = None) -> WatchBatch | None:  # noqa: ASYNC109
        """Wait for the next revision, whole, or progress; as :meth:`next_event` otherwise.

        After events were taken one by one, the rest of their revision comes first.
        """
        self._check_usable()
        if rest := self._reading.rest():
            return rest
        taken = await self._take(timeout)
        return None if taken is None else self._reading.batch(taken)

    def batches(self) -> AsyncBatches:
        """Iterate over revisions, whole, and progress, which is a batch without events."""
        return AsyncBatches(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        event = await self.next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    # Waiting

    def _notify(self) -> None:
        self._news.set()

    async def _await_creation(self) -> None:
        try:
            async with asyncio.timeout(self._options.timeout_seconds):
                while not self._is_answered:
                    await self._wait()
        except TimeoutError:
            pass
        self._check_created()

    async def _take(self, timeout_seconds: float | None) -> Taken | None:
        """Wait for a revision; None: closed by its user."""
        limit = asyncio.timeout(timeout_seconds)
        try:
            async with limit:
                while (taken := self._ask()) is None and not self._is_over():
                    await self._wait()
        except TimeoutError:
            if limit.expired():
                raise wait_error() from None
            raise
        return taken

    def _ask(self) -> Taken | None:
        taken: list[Taken | None] = []

        def ask(now: float) -> Any:
            answer, actions = self._machine.take(self._watcher, now)
            taken.append(answer)
            return actions

        self._pump.tell(ask)
        return taken[0]

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


class AsyncBatches:
    """A watch's revisions, to iterate over."""

    def __init__(self, watch: AsyncWatch) -> None:
        self._watch = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        batch = await self._watch.next_batch()
        if batch is None:
            raise StopAsyncIteration
        return batch
