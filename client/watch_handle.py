"""What a watch is to its user, in both worlds, but for the waiting."""

from __future__ import annotations

from typing import Generic

from ..protos.rpcs import WATCH_WATCH
from .errors import ClientForked, InvalidArgument, WatchInterrupted
from .streams import AnyPump, Streams
from .watch import Reading, WatchOptions
from .watcher import WatcherState


class WatchHandle(Generic[AnyPump]):
    """A watch's place among the client's streams."""

    def __init__(self, streams: Streams[AnyPump], options: WatchOptions) -> None:
        self._streams = streams
        self._options = options
        self._watcher = options.watcher()
        self._reading = Reading()
        self._machine, self._pump = streams.watching(require_leader=options.require_leader)

    @property
    def revision(self) -> int:
        """All events up to here have been handed out: ``start_revision=watch.revision + 1`` goes
        on without loss. 0 before the first event or progress."""
        return self._reading.revision

    @property
    def established(self) -> bool:
        """Whether a member is serving it at the moment, or it only waits for its consumer."""
        return self._watcher.state in (WatcherState.LIVE, WatcherState.PARKED)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._watcher!r}>"

    def _begin(self) -> None:
        if self._watcher.state is not WatcherState.NEW:
            raise InvalidArgument("a watch can be opened once; make another one")
        self._streams.begin()
        self._pump.on_wake(self._watcher, self._notify)
        self._pump.tell(lambda now: self._machine.add(self._watcher, now))

    def _remove(self) -> None:
        if isinstance(self._streams.call.connections.closed, ClientForked):
            return  # a lock's holder may not exist here
        self._pump.tell(lambda now: self._machine.remove(self._watcher, now))
        self._pump.on_wake(self._watcher, None)

    def _ask_progress(self) -> None:
        self._pump.tell(lambda now: self._machine.ask_progress(self._watcher, now))

    def _notify(self) -> None:
        """Let those who wait look again."""
        raise NotImplementedError

    @property
    def _is_answered(self) -> bool:
        """Whether it was created, or never will be."""
        return self._watcher.created or self._watcher.state is WatcherState.ENDED

    def _check_created(self) -> None:
        """Raise why it was not created, if it was not."""
        watcher = self._watcher
        if watcher.created:
            return
        if watcher.error is not None:
            raise watcher.error
        if watcher.state is WatcherState.ENDED:
            raise WatchInterrupted("closed while it was being created", next_revision=0)
        raise self._streams.unanswered(
            self._machine, WATCH_WATCH, self._options.timeout_seconds, watcher.attempts
        )

    def _check_usable(self) -> None:
        closed = self._streams.call.connections.closed
        if isinstance(closed, ClientForked):
            raise closed  # before any lock, whose holder may not exist here
        if self._watcher.state is WatcherState.NEW:
            raise InvalidArgument("open the watch first: with client.watch(...) as watch")

    def _is_over(self) -> bool:
        """Tell whether nothing more will come. Raises why, if not because its user closed it."""
        if self._watcher.state is not WatcherState.ENDED:
            return False
        if self._watcher.error is not None:
            raise self._watcher.error.with_traceback(None)
        return True
