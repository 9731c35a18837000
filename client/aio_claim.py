"""Leaderships and locks, in the world of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from .aio_lease import AsyncLease
from .aio_streams import AsyncStreams
from .aio_watch import AsyncWatch
from .claim_handle import ClaimHandle, lease_of_its_own, options
from .claim_loss import ClaimLoss
from .keys import KeyLike
from .lease import Loss
from .recipe import Ask, Open, Recipe, Step
from .watch import WatchOptions

T = TypeVar("T")


async def follow(streams: AsyncStreams, recipe: Recipe[T]) -> T:
    """Do a recipe's steps, to its end."""
    try:
        step = next(recipe)
        while True:
            try:
                outcome = await _do(streams, step)
            except BaseException as error:
                step = recipe.throw(error)
            else:
                step = recipe.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _do(streams: AsyncStreams, step: Step) -> Any:
    if isinstance(step, Ask):
        return await streams.run(step.flow)
    handle: Any = step.handle  # of this world, as whoever made it is
    if isinstance(step, Open):
        return await handle.open()
    return await handle.next_batch(step.seconds)


class AsyncClaimLostSignal(ClaimLoss):
    """Tells that a claim is lost: like a asyncio.Event, with a reason."""

    def __init__(self, key: bytes, lease_loss: Loss, ended: Callable[[], None]) -> None:
        super().__init__(key, lease_loss, ended)
        self._event = asyncio.Event()

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Wait until it is lost; False when ``timeout`` seconds passed before."""
        if not self.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._event.wait()
        return self.is_set()

    def tell(self) -> None:
        self._event.set()
        super().tell()


class AsyncClaim(ClaimHandle[AsyncClaimLostSignal]):
    """What only one can hold; use it in ``async with``."""

    def __init__(
        self,
        streams: AsyncStreams,
        name: KeyLike,
        value: KeyLike,
        ttl: int | None,
        lease: AsyncLease | None,
        timeout: float | None,
    ) -> None:
        asked = options(name, value, ttl, lease, timeout)
        if lease is None:
            lease = AsyncLease(streams, lease_of_its_own(streams.call, ttl))
        super().__init__(streams, asked, lease)
        self._async_streams = streams

    async def open(self) -> Self:
        """Claim it, and wait until it is held; entering ``async with`` does this.

        Raises WaitTimedOut when those ahead did not go in time, ClaimLost when the lease or the
        claim's key went while it waited, InvalidArgument when this client claims the same thing
        on the same lease already. Whatever it raises, the claim is withdrawn; where it could not
        be, and ``lease`` lives on, that is tried again in the background.
        """
        self._begin()
        try:
            await self._follow(self._obtain())
        except BaseException:
            self._abandon()
            raise
        return self

    async def _give_up(self, timeout: float | None) -> None:  # noqa: ASYNC109
        self._held()
        await self._follow(self._withdraw(timeout))

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._follow(self._end(failing=kind is not None))
        finally:
            self._abandon()

    async def _follow(self, recipe: Recipe[T]) -> T:
        return await follow(self._async_streams, recipe)

    def _signal(self, key: bytes) -> AsyncClaimLostSignal:
        return AsyncClaimLostSignal(key, self._lease.lost, self._lost_now)

    def _watch(self, options: WatchOptions) -> AsyncWatch:
        return AsyncWatch(self._async_streams, options)


class AsyncLeadership(AsyncClaim):
    """The lead of an election, made with :meth:`AsyncElection.campaign`; use it in ``async with``.

    Entering waits in line until it is held; leaving resigns. From entering on, :attr:`lost` says
    whether it is held still. Writes that only a leader may do belong in a transaction with
    ``when(leadership.condition)``: between a look at ``lost`` and a write anything may happen.
    """

    async def proclaim(self, value: KeyLike, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Tell another value to those who observe.

        Raises ClaimLost. After OutcomeUnknown it may be repeated: it is carried out at most once.
        """
        await self._follow(self._rename(value, timeout))

    async def resign(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Give the lead to the next in line; leaving ``async with`` does this. Twice is fine.

        Where it fails, and ``lease`` lives on, it is tried again in the background.
        """
        await self._give_up(timeout)


class AsyncLock(AsyncClaim):
    """A lock, made with :meth:`AsyncClient.lock`; use it in ``async with``.

    Entering waits in line until it is held; leaving releases it. From entering on, :attr:`lost`
    says whether it is held still. Writes that only its holder may do belong in a transaction with
    ``when(lock.condition)``: between a look at ``lost`` and a write anything may happen.
    """

    async def release(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Give it to the next in line; leaving ``async with`` does this. Twice is fine.

        Where it fails, and ``lease`` lives on, it is tried again in the background.
        """
        await self._give_up(timeout)
