"""Elections, in the world of threads."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from .blocking_claim import Leadership, follow
from .blocking_lease import Lease
from .blocking_streams import BlockingStreams
from .blocking_watch import Watch
from .claim import holder, prefix_of
from .errors import InvalidArgument
from .keys import KeyLike, to_bytes
from .leader_watch import LeaderWatchHandle
from .results import KeyValue
from .watch import WatchOptions


class LeaderWatch(LeaderWatchHandle):
    """The leaders of an election, one after the other; made with :meth:`Election.observe`.

    Use it in ``with``, and iterate over it in one thread; any other may close it. It yields how
    things stand first, and then each change: another leader, another value, or None while nobody
    leads. Nothing is repeated, nor left out, whatever happens to the stream; only when the history
    it needs was compacted away does it go on with how things stand then.
    """

    def __init__(self, streams: BlockingStreams, prefix: bytes) -> None:
        super().__init__(streams, prefix)
        self._blocking_streams = streams

    def open(self) -> Self:
        """Read how things stand, and watch from there; entering ``with`` does this."""
        follow(self._blocking_streams, self._open())
        return self

    def close(self) -> None:
        """End it; iterations over it end. Closing twice is fine."""
        self._close()

    def next_leader(self, timeout: float | None = None) -> KeyValue | None:
        """Wait for the next leader, or the next value of the leader's; None: nobody leads now.

        Raises WaitTimedOut when there is no news within ``timeout`` seconds; it goes on after it.
        """
        if not follow(self._blocking_streams, self._next(timeout)):
            raise InvalidArgument("it is closed")
        return self.leader

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> KeyValue | None:
        if not follow(self._blocking_streams, self._next(None)):
            raise StopIteration
        return self.leader

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _watch(self, options: WatchOptions) -> Watch:
        return Watch(self._blocking_streams, options)


class Election:
    """An election, by its name: who leads, and a candidacy of one's own."""

    def __init__(self, streams: BlockingStreams, name: KeyLike) -> None:
        self._streams = streams
        self._prefix = prefix_of(name)
        self.name = to_bytes(name)

    def campaign(
        self,
        value: KeyLike = b"",
        *,
        ttl: int | None = None,
        lease: Lease | None = None,
        timeout: float | None = None,
    ) -> Leadership:
        """Stand for the lead, with a value for others to see; see :class:`Leadership`.

        ``ttl``: seconds that the candidacy outlives this process, on a lease of its own. ``lease``:
        one that is kept alive already, to live by that one. ``timeout``: seconds to wait for those
        ahead, 0: only if there is nobody; None: for ever. Other calls have the client's timeout.
        """
        return Leadership(self._streams, self.name, value, ttl, lease, timeout)

    def leader(self, *, timeout: float | None = None) -> KeyValue | None:
        """Read who leads now: its key, value, lease and revisions; None: nobody."""
        return self._streams.run(holder(self._streams.call, self._prefix, timeout=timeout))

    def observe(self) -> LeaderWatch:
        """Follow who leads; see :class:`LeaderWatch`."""
        return LeaderWatch(self._streams, self._prefix)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name.decode(errors='replace')}>"
