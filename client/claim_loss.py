"""How the holder of a claim learns that it is over: from the lease, or from the claim's own key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .callbacks import call_all
from .claim import still_held
from .errors import ClaimLost, ClientClosed, ClientForked, Compacted
from .flow import Flow, Sleep
from .keep_alive import LossReason
from .lease import Loss
from .results import KeyValue
from .streams import Streams
from .watch import WatchFilter, watch
from .watcher import Taken, Watcher, WatcherState

_TOLD: Final = (LossReason.EXPIRED, LossReason.UNANSWERED, LossReason.DELETED)
"""What callbacks are for; the rest its holder does itself."""
PAUSE_SECONDS: Final = 1.0


class ClaimLoss:
    """Whether a claim is lost, why, and who wants to know."""

    def __init__(self, key: bytes, lease_loss: Loss, ended: Callable[[], None]) -> None:
        self._key = key
        self._lease_loss = lease_loss
        self._ended = ended
        self._own_reason: LossReason | None = None
        self.cause: BaseException | None = None
        """What it was lost by, where that is known."""
        self._callbacks: deque[Callable[[LossReason], object]] = deque()
        lease_loss.add_callback(self.end)

    @property
    def reason(self) -> LossReason | None:
        """Why it is lost; None: it is not."""
        if self._own_reason is None and (reason := self._lease_loss.reason):
            self.end(reason)
        return self._own_reason

    def is_set(self) -> bool:
        """Tell whether it is lost, or must be taken for lost."""
        return self.reason is not None

    def check(self) -> None:
        """Raise ClaimLost if it is lost."""
        if reason := self.reason:
            raise ClaimLost(self._key, reason.value) from self.cause

    def add_callback(self, callback: Callable[[LossReason], object]) -> None:
        """Call back once it is lost, or now if it is; not to block.

        Not when you end it yourself, by resigning, leaving the block, ending the lease or closing
        the client. A blocking client calls from a thread of its own, an asyncio one from the event
        loop.
        What it raises goes to ``threading.excepthook``, or the loop's exception handler.
        """
        self._callbacks.append(callback)
        if self._own_reason is not None:
            self.tell()

    def end(self, reason: LossReason, cause: BaseException | None = None) -> None:
        """Take in that it is over. The first reason stays, and a lease's own is the better one."""
        if self._own_reason is None:
            self._own_reason = self._lease_loss.reason or reason
            self.cause = cause or self._lease_loss.cause
            self._lease_loss.forget(self.end)
        self._ended()
        self.tell()

    def tell(self) -> None:
        """Tell all who want to know."""
        reason = self._own_reason
        if reason is not None and reason in _TOLD:
            call_all(self._callbacks, reason)


class Sentinel:
    """Watches a claim's own key for its deletion, for as long as the claim lives.

    The lease alone would not do: whoever deletes the key takes the claim away, and the next in line
    has it while the lease is alive and well. It works within the stream's pump, and so needs no
    thread, nor anybody who waits for it.
    """

    def __init__(
        self,
        streams: Streams[Any],
        own: KeyValue,
        gone: Callable[[BaseException | None], None],
    ) -> None:
        self._streams = streams
        self._own = own
        self._gone = gone
        self._machine, self._pump = streams.watching(require_leader=True)
        self._watcher: Watcher | None = None
        self._stopped = False

    def watch(self, after_revision: int) -> None:
        """Begin: up to this revision the key was there."""
        call, start = self._streams.call, after_revision + 1
        options = watch(call, self._own.key, start_revision=start, filters=[WatchFilter.NOPUT])
        self._watcher = watcher = options.watcher()
        self._pump.on_wake(watcher, lambda: self._look(watcher))
        self._pump.tell(lambda now: self._machine.add(watcher, now))

    def stop(self) -> None:
        """End; nothing is told any more."""
        self._stopped = True
        if isinstance(self._streams.call.connections.closed, ClientForked):
            return  # a lock's holder may not exist here
        if (watcher := self._watcher) is not None:
            self._pump.tell(lambda now: self._machine.remove(watcher, now))
            self._pump.on_wake(watcher, None)

    def _look(self, watcher: Watcher) -> None:
        deleted = False
        while (taken := self._take(watcher)) is not None:
            deleted = deleted or bool(taken.events)
        if self._stopped or watcher is not self._watcher:
            return
        if deleted:
            self._gone(None)
        elif watcher.state is WatcherState.ENDED:
            self._watcher = None
            self._pump.on_wake(watcher, None)
            self._begin_anew(watcher.error)

    def _take(self, watcher: Watcher) -> Taken | None:
        answers: list[Taken | None] = []

        def take(now: float) -> Any:
            taken, actions = self._machine.take(watcher, now)
            answers.append(taken)
            return actions

        self._pump.tell(take)
        return answers[0]

    def _begin_anew(self, error: Exception | None) -> None:
        """Read the key, since the watch cannot say what became of it, and watch from there."""
        if isinstance(error, ClientClosed) or self._streams.call.connections.closed:
            self._gone(error)
            return

        def begin(revision: int) -> None:
            if self._stopped:
                return
            if revision:
                self.watch(revision)
            else:
                self._gone(error)

        self._streams.spawn(self._recheck(error), begin)

    def _recheck(self, error: Exception | None) -> Flow[int]:
        """Read the key; quiet watches are often overtaken by a compaction, others must not spin."""
        if not isinstance(error, Compacted):
            yield Sleep(PAUSE_SECONDS)
        revision = yield from still_held(self._streams.call, self._own, lambda: not self._stopped)
        return revision
