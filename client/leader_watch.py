"""What following an election's leaders is to its user, in both worlds, but for the waiting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from random import Random
from typing import Any

from . import claim
from .errors import Compacted, EtcdError, InvalidArgument, WaitTimedOut
from .recipe import Open, Recipe, ask, next_batch, rest
from .results import KeyValue
from .standings import Standings
from .stream import Backoff
from .streams import Streams
from .watch import WatchOptions, watch
from .watch_handle import WatchHandle


class LeaderWatchHandle:
    """The standings of an election, and the watch that keeps them up to date."""

    def __init__(
        self,
        streams: Streams[Any],
        prefix: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams = streams
        self._prefix = prefix
        self._clock = clock
        self._backoff = Backoff(Random())
        self._standings = Standings()
        self._following: WatchHandle[Any] | None = None
        """None: the standings have to be read (again) first."""
        self._begun = self._closed = self._news = False

    @property
    def leader(self) -> KeyValue | None:
        """Who leads, as far as is known; None: nobody, or it is not open."""
        return self._standings.leader

    @property
    def revision(self) -> int:
        """As of when this is so; 0: it is not open."""
        return self._standings.revision

    def __repr__(self) -> str:
        what = self._prefix[:-1].decode(errors="replace")
        return f"<{type(self).__name__} {what} at {self.revision}>"

    # For the face

    def _watch(self, options: WatchOptions) -> WatchHandle[Any]:
        """Make the world's own watch."""
        raise NotImplementedError

    def _open(self) -> Recipe[None]:
        if self._begun:
            raise InvalidArgument("it can be opened once; make another one")
        self._begun = True
        yield from self._begin()

    def _next(self, seconds: float | None) -> Recipe[bool]:
        """Wait for news, and take it in; False: it was closed."""
        if not self._begun:
            raise InvalidArgument("open it first: with client.election(...).observe() as leaders")
        deadline = math.inf if seconds is None else self._clock() + seconds
        while not self._closed:
            if self._news:
                self._news = False
                return True
            yield from self._proceed(deadline)
        return False

    def _close(self) -> None:
        self._closed = True
        if self._following is not None:
            self._following._remove()

    # Inner workings

    def _proceed(self, deadline: float) -> Recipe[None]:
        """Take in what the watch has next; where it cannot go on, read how things stand."""
        following = self._following
        if following is None or following.revision > self._standings.revision:
            # In the latter case Ctrl-C came between a batch and its being taken in
            yield from self._begin_patiently(deadline)
            return
        left = deadline - self._clock()
        try:
            batch = yield from next_batch(following, None if left == math.inf else max(left, 0.0))
        except Compacted:
            self._following = None
            following._remove()
            return
        except WaitTimedOut:
            raise WaitTimedOut("no news of the leader in time; the watch goes on") from None
        if batch is not None:
            self._news = self._standings.take(batch)

    def _begin_patiently(self, deadline: float) -> Recipe[None]:
        try:
            yield from self._begin()
        except EtcdError as error:
            if not claim.passes(error):
                raise
            left = deadline - self._clock()
            if left <= 0:
                raise WaitTimedOut("the leader could not be read in time") from error
            yield from ask(rest(min(self._backoff.pause_seconds(), left)))
        else:
            self._backoff.reset()

    def _begin(self) -> Recipe[None]:
        """Read how things stand, and follow from there."""
        call = self._streams.call
        found = yield from ask(claim.claims(call, self._prefix))
        start = found.revision + 1
        following = self._watch(watch(call, self._prefix, prefix=True, start_revision=start))
        try:
            yield Open(following)
            earlier, self._following = self._following, following
            self._news = self._standings.read(found, found.revision)
        except BaseException:
            following._remove()
            raise
        if earlier is not None:
            earlier._remove()
        if self._closed:
            following._remove()
