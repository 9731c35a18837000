"""A lease that is kept alive, in the world of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from ..protos.rpcs import LEASE_LEASE_KEEP_ALIVE
from . import lease as flows
from .aio_streams import AsyncStreams
from .errors import EtcdError
from .flow import awaiting
from .keep_alive import Keeper, LossReason
from .keys import LeaseLike, to_lease_id
from .lease import LeaseRevocation, LeaseTimeToLive, Loss, Opening
from .lease_handle import LeaseHandle
from .streams import streaming


class AsyncLostSignal(Loss):
    """Tells that a lease is lost: like an asyncio.Event, with a reason."""

    def __init__(self, keeper: Keeper, refresh: Callable[[], None]) -> None:
        super().__init__(keeper, refresh)
        self._event = asyncio.Event()

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Wait until it is lost; False when ``timeout`` seconds passed before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        return self._event.is_set()

    def tell(self) -> None:
        self._event.set()
        super().tell()


class AsyncLease(LeaseHandle[AsyncLostSignal]):
    """A lease, made with :meth:`AsyncClient.lease`; use it in ``async with``.

    Entering has it granted, and from then on it is renewed in the background; leaving revokes it,
    which deletes its keys. Pass it as ``lease=`` to put. Whoever relies on it watches
    :attr:`lost`: it is set when the server says that the lease is gone, and no later than the
    server lets go of it when no renewal is answered.
    """

    def __init__(
        self,
        streams: AsyncStreams,
        opening: Opening,
        *,
        revoke_on_exit: bool = True,
    ) -> None:
        super().__init__(streams, opening, revoke_on_exit=revoke_on_exit)
        self._run = streams.run

    async def open(self) -> Self:
        """Have it granted and begin to renew it; entering ``async with`` does this.

        May be tried again when it failed.
        """
        with self._opens():
            self._keep(*await self._run(self._opening()))
        return self

    async def time_to_live(
        self,
        *,
        keys: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> LeaseTimeToLive:
        """Ask the server how long it has still to live; ``keys``: and what is attached to it."""
        flow = flows.time_to_live(self._call, self.id, keys=keys, timeout=timeout)
        return await self._run(flow)

    async def revoke(self, *, timeout: float | None = None) -> LeaseRevocation:  # noqa: ASYNC109
        """End it now, and delete its keys. Raises LeaseNotFound."""
        self._stop(LossReason.REVOKED)
        return await self._run(flows.revoke(self._call, self.id, timeout=timeout))

    async def close(self) -> None:
        """Stop renewing it, and leave it, with its keys, to expire or to somebody else."""
        self._stop(LossReason.CLOSED)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._to_revoke:
            with suppress(EtcdError):  # then it expires, for nobody renews it any more
                await self.revoke()
        else:
            await self.close()

    def _signal(self, keeper: Keeper) -> AsyncLostSignal:
        return AsyncLostSignal(keeper, self._look)


class AsyncLeases:
    """The calls about leases: ``client.leases``."""

    def __init__(self, streams: AsyncStreams) -> None:
        self._streams = streams
        self._call = streams.call
        self._run = streams.run

    grant = awaiting(flows.grant)
    revoke = awaiting(flows.revoke)
    time_to_live = awaiting(flows.time_to_live)
    list = awaiting(flows.list_)
    keep_alive = streaming(flows.keep_alive, partial(AsyncLease, revoke_on_exit=False))

    async def keep_alive_once(
        self,
        lease: LeaseLike,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> int:
        """Renew a lease one time; return the seconds that it lives from now on.

        Travels on the stream that all of the client's leases share. Raises LeaseNotFound,
        and Unauthenticated when name or password are wrong.
        """
        keeper = Keeper(to_lease_id(lease), None, once=True)
        allowed_seconds = self._call.allowance(timeout)
        self._streams.begin()
        machine, pump = self._streams.keeping()
        answered = asyncio.Event()
        pump.on_wake(keeper, answered.set)
        try:
            pump.tell(lambda now: machine.add(keeper, now))
            if keeper.loss is None:
                async with asyncio.timeout(allowed_seconds):
                    await answered.wait()
        except TimeoutError:
            raise self._streams.unanswered(
                machine, LEASE_LEASE_KEEP_ALIVE, allowed_seconds, keeper.attempts
            ) from machine.last_error
        finally:
            pump.on_wake(keeper, None)
            pump.tell(lambda now: machine.remove(keeper, LossReason.CLOSED, now))
        return flows.once_result(keeper)
