"""A watch in the world of threads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from .blocking import wait_seconds
from .blocking_streams import BlockingPump, BlockingStreams
from .watch import WatchBatch, WatchEvent, WatchOptions, wait_error
from .watch_handle import WatchHandle
from .watcher import Taken


class Watch(WatchHandle[BlockingPump[Any, Any]]):
    """A watch, made with :meth:`Client.watch`; use it in ``with``, and iterate over it.

    Entering returns when the server has created it: nothing that happens from then on is missed.
    Iteration yields events; :meth:`batches` yields whole revisions. Whatever happens to the
    stream, the watch goes on where it was, without loss or repetition. Iteration ends when the
    watch is closed, and raises Compacted, HistoryLost, PermissionDenied, WatchInterrupted, ...
    when it cannot go on, after everything that came before that.

    Any thread may use or close it. It may be made, used and closed inside the loop over another.
    """

    def __init__(self, streams: BlockingStreams, options: WatchOptions) -> None:
        super().__init__(streams, options)
        self._news = threading.Condition(self._pump.lock)

    def open(self) -> Self:
        """Have the server create it; entering ``with`` does this.

        Raises NotSent or TimedOut when that takes longer than its timeout.
        """
        self._begin()
        try:
            self._await_creation()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the watch, on the server too; iterations over it end. Closing twice is fine."""
        self._remove()

    cancel = close

    def request_progress(self) -> None:
        """Have the server say how far this watch has got; it comes as a batch without events.

        It is asked again until every watch of the client has caught up, for only then does it
        answer; the bundled server and recent etcd (PR 20229) also wait for each ``start_revision``
        that lies in the future. etcd before 3.4.25 and 3.5.8 answers at once, and the answer may
        overtake events that are on their way (etcd issue 15220).
        """
        self._ask_progress()

    def next_event(self, timeout: float | None = None) -> WatchEvent | None:
        """Wait for the next event; None: the watch was closed.

        Raises TimeoutError when there is none within ``timeout`` seconds, beside what ends
        iterations. The watch goes on after either.
        """
        deadline = _deadline(timeout)
        self._check_usable()
        with self._news:
            while (event := self._reading.next_event()) is None:
                taken = self._take(deadline)
                if taken is None:
                    return None
                self._reading.begin(taken)
        return event

    def next_batch(self, timeout: float | None = None) -> WatchBatch | None:
        """Wait for the next revision, whole, or progress; as :meth:`next_event` otherwise.

        After events were taken one by one, the rest of their revision comes first.
        """
        deadline = _deadline(timeout)
        self._check_usable()
        with self._news:
            if rest := self._reading.rest():
                return rest
            taken = self._take(deadline)
            return None if taken is None else self._reading.batch(taken)

    def batches(self) -> Iterator[WatchBatch]:
        """Iterate over revisions, whole, and progress, which is a batch without events."""
        while (batch := self.next_batch()) is not None:
            yield batch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        event = self.next_event()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Waiting

    def _notify(self) -> None:
        with self._news:
            self._news.notify_all()

    def _await_creation(self) -> None:
        deadline = _deadline(self._options.timeout_seconds)
        with self._news:
            while not self._is_answered and self._wait(deadline):
                pass
        self._check_created()

    def _take(self, deadline: float) -> Taken | None:
        """Wait, with the lock held, for a revision; None: closed by its user."""
        while True:
            taken = self._pump.ask(lambda now: self._machine.take(self._watcher, now))
            if taken is not None or self._is_over():
                return taken
            if not self._wait(deadline):
                raise wait_error()

    def _wait(self, deadline: float) -> bool:
        """Wait for news with the lock held; False: time is up. Ctrl-C interrupts it."""
        if deadline == math.inf:
            return self._news.wait()
        left = deadline - time.monotonic()
        return left > 0 and (self._news.wait(wait_seconds(left)) or True)


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout
