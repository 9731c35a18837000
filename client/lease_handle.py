"""What a lease that is kept alive is to its user, in both worlds, but for the waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from .errors import ClientForked, InvalidArgument
from .keep_alive import Keeper, LossReason
from .lease import LeaseGrant, Loss, Opening
from .streams import Streams

AnyLoss = TypeVar("AnyLoss", bound=Loss)


class LeaseHandle(Generic[AnyLoss]):
    """A lease's place on the client's keep-alive stream."""

    def __init__(
        self,
        streams: Streams[Any],
        opening: Opening,
        *,
        revoke_on_exit: bool = True,
    ) -> None:
        self._call = streams.call
        self._streams = streams
        self._opening = opening
        self._revoke_on_exit = revoke_on_exit
        self._begun = False
        self._granted: LeaseGrant | None = None
        self._keeper: Keeper
        self._lost: AnyLoss

    @property
    def id(self) -> int:
        """The lease's id, the server's choice or the one asked for."""
        return self._opened().id

    @property
    def ttl(self) -> int:
        """Seconds it lives without being renewed, as the server granted it."""
        return self._opened().ttl

    @property
    def lost(self) -> AnyLoss:
        """Whether it is lost, and why."""
        self._opened()
        return self._lost

    def __repr__(self) -> str:
        granted = self._granted
        what = f"{granted.id:x} ttl {granted.ttl}" if granted else "not granted"
        return f"<{type(self).__name__} {what}>"

    def _signal(self, keeper: Keeper) -> AnyLoss:
        """Make the world's own signal of the lease's loss."""
        raise NotImplementedError

    @contextmanager
    def _opens(self) -> Iterator[None]:
        """Let it be opened, but by nobody else meanwhile, nor afterwards unless this fails."""
        if self._begun:
            raise InvalidArgument("a lease can be opened once; make another one")
        self._begun = True
        try:
            yield
        except BaseException:
            self._begun = False
            raise

    def _keep(self, granted: LeaseGrant, keeper: Keeper) -> None:
        """Begin to renew it."""
        machine, pump = self._streams.keeping()
        self._granted, self._keeper = granted, keeper
        self._lost = self._signal(keeper)
        pump.on_wake(keeper, self._lost.tell)
        pump.tell(lambda now: machine.add(keeper, now))

    def _look(self) -> None:
        """Have it taken for lost if its deadline has passed."""
        machine, pump = self._streams.keeping()
        pump.tell(machine.woken)

    def _stop(self, reason: LossReason) -> None:
        """Stop renewing it."""
        self._opened()
        if isinstance(self._call.connections.closed, ClientForked):
            return  # a lock's holder may not exist here
        machine, pump = self._streams.keeping()
        pump.tell(lambda now: machine.remove(self._keeper, reason, now))
        pump.on_wake(self._keeper, None)

    @property
    def _to_revoke(self) -> bool:
        """Whether leaving the block has to revoke it."""
        gone = self._keeper.loss in (LossReason.EXPIRED, LossReason.REVOKED)
        return self._revoke_on_exit and not gone

    def _opened(self) -> LeaseGrant:
        if self._granted is None:
            raise InvalidArgument("open the lease first: with client.lease(...) as lease")
        return self._granted
