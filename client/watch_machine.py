"""Many watches on one stream, resumed after any disconnect. Pure; see stream.py for the rules.

Creations are serialised: the next one is sent when the last one has been answered, and the server
gives the ids. Asking for ids of our own would save round trips, but a refused creation is answered
with id -1 whatever was asked for, and etcd's grpc-proxy ignores the ids asked for: with several
creations under way nobody could tell whose answer it is.

A watch whose buffer is full is *parked*: it is cancelled on the server, and created again at its
place when half of the buffer has been taken. So a slow or forgotten consumer costs a bounded
amount of memory here, nothing on the server, and never holds up the other watches on the stream,
as it would if the pump stopped reading. It loses nothing either, unless the history it still needs
is compacted away meanwhile: then it gets :class:`~.errors.Compacted`, after what was buffered.

A stream speaks for whomever its token names for as long as it is open, while tokens expire. A watch
that is refused for that is created on another stream, with another token. etcd 3.5 does not say so:
to it a watch with an old token is one without permission. Then a read of the same keys tells, for
calls get new tokens by themselves: only if it is refused as well is the watch at its end.
"""

from __future__ import annotations

import re
from collections import deque
from random import Random
from typing import Final

from ..protos import errors as table
from ..protos.errors import Code
from ..protos.etcdserverpb import (
    ResponseHeader,
    WatchCancelRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from ..protos.rpcs import WATCH_WATCH
from .error_handler import diagnose, error_class, is_about_token, nothing_came_of
from .errors import (
    CallError,
    Compacted,
    HistoryLost,
    NotEtcd,
    OutcomeUnknown,
    PermissionDenied,
    Refused,
    ReplyTooLarge,
    TimedOut,
    Unauthenticated,
    WatchCanceled,
    WatchInterrupted,
)
from .flow import CallFailed
from .stream import (
    TOKENS_TRIED,
    Actions,
    HangUp,
    Phase,
    ReadRevision,
    StreamMachine,
    TryToRead,
    Wake,
)
from .watcher import NO_ID, Taken, Watcher, WatcherState

CREATE_PATIENCE_SECONDS: Final = 5.0
"""A creation unanswered for so long means a member that hangs: try another."""
RECHECK_SECONDS: Final = 1.0
PROGRESS_PATIENCE_SECONDS: Final = 0.5
"""A server forgets a question for progress while any watch of the stream is behind: ask again."""
FATAL: Final = (NotEtcd, PermissionDenied, ReplyTooLarge, Unauthenticated)
"""Ends of a stream that every further stream would come to as well."""


class WatchMachine(StreamMachine[WatchRequest, WatchResponse]):
    """All watches of a client that travel on one stream."""

    def __init__(
        self, random: Random, *, linger_seconds: float = 5.0, has_password: bool = False
    ) -> None:
        super().__init__(random, linger_seconds=linger_seconds)
        self._has_password = has_password
        """Whether there are other tokens to be had."""
        self._doubted: dict[Watcher, tuple[CallError, int]] = {}
        """Denied, perhaps for an old token; with the denial, and on which stream it was."""
        self._opened = 0
        """The number of the stream."""
        self._tokens_refused = 0
        """How many streams in a row were refused for their token."""
        self._queue: deque[Watcher] = deque()
        self._creating: Watcher | None = None
        """Sent and unanswered; its user may have ended it meanwhile."""
        self._created_by = 0.0
        self._live: dict[int, Watcher] = {}
        self._parked: set[Watcher] = set()
        self._progress_wanted: set[Watcher] = set()
        self._ask_again_at: float | None = None
        """When the question for progress counts as forgotten; None: none is under way."""
        self._cancelled: set[int] = set()
        """Ids that the server was told to cancel, and whose events may still come in."""
        self._behind: dict[Watcher, int] = {}
        """Created by a member that knew less than this; to be judged by the next read."""
        self._judging: dict[Watcher, int] | None = None
        """Whom the read that is under way will tell about; None: none is under way.

        By what was known before it began: it says nothing of what came about meanwhile.
        """
        self._recheck_at: float | None = None
        self._outage_check_at = _NEVER
        """Invariant: no later than the end of patience of any watch that is not served."""

    # What the users of watches ask for

    def add(self, watcher: Watcher, now: float) -> Actions[WatchRequest]:
        """Begin to watch."""
        if self.closed_by is not None:
            watcher.end(self.closed_by)
        else:
            self._enqueue(watcher, now)
        return self._settle(now)

    def remove(self, watcher: Watcher, now: float) -> Actions[WatchRequest]:
        """End a watch because its user is done with it."""
        self._end(watcher, None)
        watcher.discard()
        return self._settle(now)

    def take(self, watcher: Watcher, now: float) -> tuple[Taken | None, Actions[WatchRequest]]:
        """Hand out a watch's oldest revision, if there is one."""
        taken = watcher.take()
        if watcher.state is not WatcherState.PARKED or not watcher.roomy:
            return taken, ()
        self._parked.discard(watcher)
        self._enqueue(watcher, now)
        return taken, self._settle(now)

    def ask_progress(self, watcher: Watcher, now: float) -> Actions[WatchRequest]:
        """Have the server say how far this watch has got; it comes as an empty revision."""
        if watcher.state is WatcherState.ENDED:
            return ()
        self._progress_wanted.add(watcher)
        if watcher.state is WatcherState.LIVE:
            self._ask_for_progress(now)
        return self._settle(now)

    def revision_read(self, header: ResponseHeader | None, now: float) -> Actions[WatchRequest]:
        """Take in the answer to ReadRevision; None: there was none to be had."""
        judged, self._judging = self._judging or {}, None
        # One that is not live is judged when it is created again
        asked = {w: known for w, known in judged.items() if w.state is WatcherState.LIVE}
        if header is None:
            self._behind = asked | self._behind
            self._recheck_at = now + RECHECK_SECONDS
        else:
            for watcher, known_revision in asked.items():
                if known_revision > header.revision:
                    self._end(watcher, _history_lost(watcher, known_revision, header))
            self._read_revision()
        return self._settle(now)

    def read_tried(
        self, whom: object, error: Exception | None, now: float
    ) -> Actions[WatchRequest]:
        """Take in whether the keys of a watch that was denied may be read; None: they may."""
        for watcher in [each for each in self._doubted if each is whom]:
            denial, stream = self._doubted.pop(watcher)
            if isinstance(error, PermissionDenied):
                self._end(watcher, denial)
            elif isinstance(error, FATAL):
                self._end(watcher, error)
            else:
                watcher.was_doubted = error is None
                if stream == self._opened:  # else it is left already
                    self._leave_stream(HangUp(token_refused=error is None), None, now)
                self._requeue(watcher, now)
        return self._settle(now)

    def broke(self, error: Exception | None, now: float) -> Actions[WatchRequest]:
        """Take in that the stream ended; one that was refused for its token is no good sign."""
        if is_about_token(error):
            self._tokens_refused += 1
        return super().broke(error, now)

    # Hooks of the stream

    def _wanted(self) -> bool:
        return bool(self._queue or self._creating or self._live or self._doubted)

    def _on_open(self, now: float) -> None:
        self._opened += 1
        self._ask_again_at = None
        self._create_next(now)

    def _on_message(self, message: WatchResponse, now: float) -> None:
        if message.created:
            self._on_created(message, now)
        elif message.canceled:
            self._on_canceled(message, now)
        elif message.watch_id == NO_ID:
            self._on_manual_progress(message)
        elif watcher := self._live.get(message.watch_id):
            self._on_news(watcher, message)
        else:
            self._cancel_on_server(message.watch_id)

    def _on_loss(self, error: Exception | None, now: float) -> None:
        orphans = [self._creating] if self._creating else []
        if self._creating and nothing_came_of(error, self._requests):
            self._creating.attempts -= 1
        orphans += self._live.values()
        self._creating = None
        self._live.clear()
        self._cancelled.clear()
        self._behind.clear()
        self._recheck_at = None
        for watcher in orphans:
            watcher.interrupt()
            if watcher.state is WatcherState.LIVE:
                self._mark_down(watcher, now)
            if watcher.state is not WatcherState.ENDED:
                watcher.state = WatcherState.QUEUED
                self._queue.append(watcher)
        if self._is_fatal(error):
            for watcher in list(self._queue):
                self._end(watcher, error)

    def _on_time(self, now: float) -> None:
        if self._outage_check_at <= now:
            self._end_outages(now)
        if self._creating and self.phase is Phase.OPEN and self._created_by <= now:
            self._give_up_on_stream(_unanswered(), now)
        if self._recheck_at is not None and self._recheck_at <= now:
            self._recheck_at = None
            self._read_revision()
        if self._ask_again_at is not None and self._is_progress_awaited():
            self._ask_for_progress(now)

    def _on_close(self, error: Exception) -> None:
        for watcher in [*self._waiting(), *self._live.values(), *self._parked]:
            self._end(watcher, error)

    def _next_time(self) -> float | None:
        times = [self._outage_check_at]
        if self._creating and self.phase is Phase.OPEN:
            times.append(self._created_by)
        if self._recheck_at is not None:
            times.append(self._recheck_at)
        if self._ask_again_at is not None and self._is_progress_awaited():
            times.append(self._ask_again_at)
        earliest = min(times, default=_NEVER)
        return None if earliest == _NEVER else earliest

    # What the server says

    def _on_created(self, response: WatchResponse, now: float) -> None:
        watcher, self._creating = self._creating, None
        self._served(now)
        if response.canceled:
            self._recreate_namesake(response.watch_id, now)
        if watcher is None or watcher.state is WatcherState.ENDED:
            if not response.canceled:
                self._cancel_on_server(response.watch_id)
        elif response.canceled:
            self._refused(watcher, watch_refusal(response), now)
        elif _another_cluster(watcher, response.header):
            self._cancel_on_server(response.watch_id)
            self._end(watcher, _history_lost(watcher, watcher.known_revision, response.header))
        else:
            self._admit(watcher, response)
        if self.phase is Phase.OPEN:
            self._create_next(now)

    def _admit(self, watcher: Watcher, response: WatchResponse) -> None:
        self._tokens_refused = 0
        behind = response.header.revision < watcher.known_revision
        watcher.accept(response.watch_id, response.header)
        self._live[response.watch_id] = watcher
        self._do(Wake(watcher))
        if behind:
            # This member lags, or the cluster has lost its data: then the watch would be silent
            # until the revisions catch up with the past. A linearizable read tells which.
            self._behind[watcher] = watcher.known_revision
            self._read_revision()

    def _on_canceled(self, response: WatchResponse, now: float) -> None:
        self._cancelled.discard(response.watch_id)
        if watcher := self._live.pop(response.watch_id, None):
            watcher.interrupt()
            self._mark_down(watcher, now)
            self._refused(watcher, watch_refusal(response), now)

    def _refused(self, watcher: Watcher, error: CallError, now: float) -> None:
        """End a watch that the server does not serve, unless it may do so for another token."""
        watcher.state = WatcherState.CREATING
        if not self._has_password:
            self._end(watcher, error)
        elif is_about_token(error) and watcher.tokens_refused < TOKENS_TRIED:
            watcher.tokens_refused += 1
            self._leave_stream(HangUp(token_refused=True), None, now)
            self._requeue(watcher, now)
        elif isinstance(error, PermissionDenied) and not watcher.was_doubted:
            self._doubted[watcher] = error, self._opened
            keys = watcher.request
            self._do(TryToRead(watcher, keys.key, keys.range_end))
        else:
            self._end(watcher, error)

    def _recreate_namesake(self, watch_id: int, now: float) -> None:
        """Create anew whom a refused creation was confused with.

        etcd 3.5 answers a watch without permission with id 0, not -1, and from then on keeps back
        the events of the watch that has that id.
        """
        if watcher := self._live.get(watch_id):
            self._leave(watcher)
            watcher.interrupt()
            self._enqueue(watcher, now)

    def _on_manual_progress(self, response: WatchResponse) -> None:
        self._ask_again_at = None
        for watcher in [w for w in self._progress_wanted if w.state is WatcherState.LIVE]:
            self._progress_wanted.discard(watcher)
            watcher.progressed(response.header.revision, exact=False)
            self._do(Wake(watcher))

    def _on_news(self, watcher: Watcher, response: WatchResponse) -> None:
        if not response.events and not response.fragment:
            watcher.progressed(response.header.revision, exact=True)
            self._do(Wake(watcher))
        elif watcher.append(response.events, complete=not response.fragment):
            self._do(Wake(watcher))
        if watcher.full:
            self._park(watcher)

    # What is said to the server

    def _enqueue(self, watcher: Watcher, now: float) -> None:
        watcher.state = WatcherState.QUEUED
        self._mark_down(watcher, now)
        self._queue.append(watcher)
        if self.phase is Phase.OPEN and self._creating is None:
            self._create_next(now)

    def _requeue(self, watcher: Watcher, now: float) -> None:
        """Create a watch anew, whose time of being down goes on."""
        watcher.state = WatcherState.QUEUED
        self._queue.append(watcher)
        if self.phase is Phase.OPEN and self._creating is None:
            self._create_next(now)

    def _create_next(self, now: float) -> None:
        if self._creating is None and self._queue:
            self._creating = watcher = self._queue.popleft()
            watcher.state = WatcherState.CREATING
            watcher.attempts += 1
            self._created_by = now + CREATE_PATIENCE_SECONDS
            self._send(WatchRequest(create_request=watcher.creation()))
        elif self._creating is None and self._is_progress_awaited():
            self._ask_for_progress(now)

    def _ask_for_progress(self, now: float) -> None:
        """Ask once for all watches that want it, unless the answer may be on its way."""
        if self._ask_again_at is None or self._ask_again_at <= now:
            self._ask_again_at = now + PROGRESS_PATIENCE_SECONDS
            self._send(WatchRequest(progress_request=WatchProgressRequest()))

    def _is_progress_awaited(self) -> bool:
        """Tell whether an answer would be news to anybody; who is not served asks when it is."""
        return any(watcher.state is WatcherState.LIVE for watcher in self._progress_wanted)

    def _cancel_on_server(self, watch_id: int) -> None:
        if watch_id not in self._cancelled:
            self._cancelled.add(watch_id)
            self._send(WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch_id)))

    def _park(self, watcher: Watcher) -> None:
        self._leave(watcher)
        watcher.interrupt()
        watcher.state = WatcherState.PARKED
        self._parked.add(watcher)

    def _read_revision(self) -> None:
        if self._behind and self._judging is None:
            self._judging, self._behind = self._behind, {}
            self._do(ReadRevision())

    # Inner workings

    def _end(self, watcher: Watcher, error: Exception | None) -> None:
        """End a watch, on the server too; one that is being created when that is answered."""
        if watcher.state is WatcherState.QUEUED:
            self._queue.remove(watcher)
        self._leave(watcher)
        self._parked.discard(watcher)
        self._doubted.pop(watcher, None)
        self._behind.pop(watcher, None)
        self._progress_wanted.discard(watcher)
        watcher.end(error)
        self._do(Wake(watcher))

    def _leave(self, watcher: Watcher) -> None:
        if self._live.get(watcher.watch_id) is watcher:
            del self._live[watcher.watch_id]
            self._cancel_on_server(watcher.watch_id)

    def _mark_down(self, watcher: Watcher, now: float) -> None:
        watcher.down_since = now
        self._outage_check_at = min(self._outage_check_at, _outage_ends(watcher))

    def _end_outages(self, now: float) -> None:
        for watcher in [w for w in self._waiting() if _outage_ends(w) <= now]:
            self._end(watcher, _interrupted(watcher, self.last_error))
        self._outage_check_at = min(map(_outage_ends, self._waiting()), default=_NEVER)

    def _waiting(self) -> list[Watcher]:
        """List the watches that the server does not serve yet, or not at the moment."""
        creating = self._creating
        pending = [creating] if creating and creating.state is WatcherState.CREATING else []
        return [*pending, *self._queue, *self._doubted]

    def _is_fatal(self, error: Exception | None) -> bool:
        if self._has_password and is_about_token(error):
            return self._tokens_refused > TOKENS_TRIED
        return isinstance(error, FATAL)


# Why a watch ends

_STATUS_PREFIX: Final = re.compile(r"rpc error: code = \w+ desc = ")
"""Authorization failures come as the text of a whole gRPC status (etcd's watch.go)."""


def watch_refusal(response: WatchResponse) -> CallError:
    """Find the error that a response with ``canceled`` stands for."""
    if response.compact_revision:
        compacted = Compacted(
            table.COMPACTED.text, code=table.COMPACTED.code, rpc=WATCH_WATCH.path, attempts=1
        )
        compacted.compact_revision = response.compact_revision
        return compacted
    text = _STATUS_PREFIX.sub("", response.cancel_reason, count=1) or table.WATCH_CANCELED.text
    trouble = diagnose(CallFailed(Code.UNKNOWN, text), time_left=True)
    made = error_class(trouble)
    if made in (Refused, OutcomeUnknown):
        made = WatchCanceled
    return made(text, code=trouble.code, rpc=WATCH_WATCH.path, attempts=1)


_NEVER: Final = float("inf")


def _unanswered() -> TimedOut:
    text = f"watch not created within {CREATE_PATIENCE_SECONDS} s"
    return TimedOut(text, code=Code.DEADLINE_EXCEEDED, rpc=WATCH_WATCH.path, attempts=1)


def _outage_ends(watcher: Watcher) -> float:
    limit = watcher.max_outage_seconds
    return _NEVER if limit is None else watcher.down_since + limit


def _interrupted(watcher: Watcher, cause: Exception | None) -> WatchInterrupted:
    error = WatchInterrupted(
        f"no member served this watch for {watcher.max_outage_seconds} s",
        next_revision=watcher.next_revision,
    )
    error.__cause__ = cause
    return error


def _another_cluster(watcher: Watcher, header: ResponseHeader) -> bool:
    known = watcher.cluster_id
    return bool(known and header.cluster_id and known != header.cluster_id)


def _history_lost(watcher: Watcher, known_revision: int, header: ResponseHeader) -> HistoryLost:
    return HistoryLost(
        known_revision=known_revision,
        revision=header.revision,
        same_cluster=not _another_cluster(watcher, header),
    )
