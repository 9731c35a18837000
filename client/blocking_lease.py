"""A lease that is kept alive, in the world of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from ..protos.rpcs import LEASE_LEASE_KEEP_ALIVE
from . import lease as flows
from .blocking import wait_seconds
from .blocking_streams import BlockingStreams
from .errors import EtcdError
from .flow import blocking
from .keep_alive import Keeper, LossReason
from .keys import LeaseLike, to_lease_id
from .lease import LeaseRevocation, LeaseTimeToLive, Loss, Opening
from .lease_handle import LeaseHandle
from .streams import streaming


class LostSignal(Loss):
    """Tells that a lease is lost: like a threading.Event, with a reason."""

    def __init__(self, keeper: Keeper, refresh: Callable[[], None]) -> None:
        super().__init__(keeper, refresh)
        self._event = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is lost; False when ``timeout`` seconds passed before."""
        return self._event.wait(None if timeout is None else wait_seconds(timeout))

    def tell(self) -> None:
        self._event.set()
        super().tell()


class Lease(LeaseHandle[LostSignal]):
    """A lease, made with :meth:`Client.lease`; use it in ``with``.

    Entering has it granted, and from then on it is renewed in the background; leaving revokes it,
    which deletes its keys. Pass it as ``lease=`` to put. Whoever relies on it watches
    :attr:`lost`: it is set when the server says that the lease is gone, and no later than the
    server lets go of it when no renewal is answered.
    """

    def __init__(
        self,
        streams: BlockingStreams,
        opening: Opening,
        *,
        revoke_on_exit: bool = True,
    ) -> None:
        super().__init__(streams, opening, revoke_on_exit=revoke_on_exit)
        self._run = streams.run

    def open(self) -> Self:
        """Have it granted and begin to renew it; entering ``with`` does this.

        May be tried again when it failed.
        """
        with self._opens():
            self._keep(*self._run(self._opening()))
        return self

    def time_to_live(self, *, keys: bool = False, timeout: float | None = None) -> LeaseTimeToLive:
        """Ask the server how long it has still to live; ``keys``: and what is attached to it."""
        return self._run(flows.time_to_live(self._call, self.id, keys=keys, timeout=timeout))

    def revoke(self, *, timeout: float | None = None) -> LeaseRevocation:
        """End it now, and delete its keys. Raises LeaseNotFound."""
        self._stop(LossReason.REVOKED)
        return self._run(flows.revoke(self._call, self.id, timeout=timeout))

    def close(self) -> None:
        """Stop renewing it, and leave it, with its keys, to expire or to somebody else."""
        self._stop(LossReason.CLOSED)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._to_revoke:
            with suppress(EtcdError):  # then it expires, for nobody renews it any more
                self.revoke()
        else:
            self.close()

    def _signal(self, keeper: Keeper) -> LostSignal:
        return LostSignal(keeper, self._look)


class Leases:
    """The calls about leases: ``client.leases``."""

    def __init__(self, streams: BlockingStreams) -> None:
        self._streams = streams
        self._call = streams.call
        self._run = streams.run

    grant = blocking(flows.grant)
    revoke = blocking(flows.revoke)
    time_to_live = blocking(flows.time_to_live)
    list = blocking(flows.list_)
    keep_alive = streaming(flows.keep_alive, partial(Lease, revoke_on_exit=False))

    def keep_alive_once(self, lease: LeaseLike, *, timeout: float | None = None) -> int:
        """Renew a lease one time; return the seconds that it lives from now on.

        Travels on the stream that all of the client's leases share. Raises LeaseNotFound,
        and Unauthenticated when name or password are wrong.
        """
        keeper = Keeper(to_lease_id(lease), None, once=True)
        allowed_seconds = self._call.allowance(timeout)
        self._streams.begin()
        machine, pump = self._streams.keeping()
        answered = threading.Event()
        pump.on_wake(keeper, answered.set)
        try:
            pump.tell(lambda now: machine.add(keeper, now))
            in_time = keeper.loss is not None or answered.wait(wait_seconds(allowed_seconds))
        finally:
            pump.on_wake(keeper, None)
            pump.tell(lambda now: machine.remove(keeper, LossReason.CLOSED, now))
        if not in_time:  # and from here on it is not sent any more
            raise self._streams.unanswered(
                machine, LEASE_LEASE_KEEP_ALIVE, allowed_seconds, keeper.attempts
            )
        return flows.once_result(keeper)
