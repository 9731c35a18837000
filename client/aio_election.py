"""Elections, in the world of asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from .aio_claim import AsyncLeadership, follow
from .aio_lease import AsyncLease
from .aio_streams import AsyncStreams
from .aio_watch import AsyncWatch
from .claim import holder, prefix_of
from .errors import InvalidArgument
from .keys import KeyLike, to_bytes
from .leader_watch import LeaderWatchHandle
from .results import KeyValue
from .watch import WatchOptions


class AsyncLeaderWatch(LeaderWatchHandle):
    """The leaders of an election, one after the other; made with :meth:`AsyncElection.observe`.

    Use it in ``async with``, and iterate over it in one task; any other may close it. It yields
    how things stand first, and then each change: another leader, another value, or None while
    nobody leads. Nothing is repeated, nor left out, whatever happens to the stream; only when the
    history it needs was compacted away does it go on with how things stand then. Cancelling a task
    that waits for it loses nothing.
    """

    def __init__(self, streams: AsyncStreams, prefix: bytes) -> None:
        super().__init__(streams, prefix)
        self._async_streams = streams

    async def open(self) -> Self:
        """Read how things stand, and watch from there; entering ``async with`` does this."""
        await follow(self._async_streams, self._open())
        return self

    async def close(self) -> None:
        """End it; iterations over it end. Closing twice is fine."""
        self._close()

    async def next_leader(self, timeout: float | None = None) -> KeyValue | None:  # noqa: ASYNC109
        """Wait for the next leader, or the next value of the leader's; None: nobody leads now.

        Raises WaitTimedOut when there is no news within ``timeout`` seconds; it goes on after it.
        """
        if not await follow(self._async_streams, self._next(timeout)):
            raise InvalidArgument("it is closed")
        return self.leader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KeyValue | None:
        if not await follow(self._async_streams, self._next(None)):
            raise StopAsyncIteration
        return self.leader

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _watch(self, options: WatchOptions) -> AsyncWatch:
        return AsyncWatch(self._async_streams, options)


class AsyncElection:
    """An election, by its name: who leads, and a candidacy of one's own."""

    def __init__(self, streams: AsyncStreams, name: KeyLike) -> None:
        self._streams = streams
        self._prefix = prefix_of(name)
        self.name = to_bytes(name)

    def campaign(
        self,
        value: KeyLike = b"",
        *,
        ttl: int | None = None,
        lease: AsyncLease | None = None,
        timeout: float | None = None,
    ) -> AsyncLeadership:
        """Stand for the lead, with a value for others to see; see :class:`AsyncLeadership`.

        ``ttl``: seconds that the candidacy outlives this process, on a lease of its own. ``lease``:
        one that is kept alive already, to live by that one. ``timeout``: seconds to wait for those
        ahead, 0: only if there is nobody; None: for ever. Other calls have the client's timeout.
        """
        return AsyncLeadership(self._streams, self.name, value, ttl, lease, timeout)

    async def leader(self, *, timeout: float | None = None) -> KeyValue | None:  # noqa: ASYNC109
        """Read who leads now: its key, value, lease and revisions; None: nobody."""
        return await self._streams.run(holder(self._streams.call, self._prefix, timeout=timeout))

    def observe(self) -> AsyncLeaderWatch:
        """Follow who leads; see :class:`AsyncLeaderWatch`."""
        return AsyncLeaderWatch(self._streams, self._prefix)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name.decode(errors='replace')}>"
