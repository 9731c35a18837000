"""Leaderships and locks, in the world of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from .blocking import wait_seconds
from .blocking_lease import Lease
from .blocking_streams import BlockingStreams
from .blocking_watch import Watch
from .claim_handle import ClaimHandle, lease_of_its_own, options
from .claim_loss import ClaimLoss
from .keys import KeyLike
from .lease import Loss
from .recipe import Ask, Open, Recipe, Step
from .watch import WatchOptions

T = TypeVar("T")


def follow(streams: BlockingStreams, recipe: Recipe[T]) -> T:
    """Do a recipe's steps, to its end."""
    try:
        step = next(recipe)
        while True:
            try:
                outcome = _do(streams, step)
            except BaseException as error:
                step = recipe.throw(error)
            else:
                step = recipe.send(outcome)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _do(streams: BlockingStreams, step: Step) -> Any:
    if isinstance(step, Ask):
        return streams.run(step.flow)
    handle: Any = step.handle  # of this world, as whoever made it is
    if isinstance(step, Open):
        return handle.open()
    return handle.next_batch(step.seconds)


class ClaimLostSignal(ClaimLoss):
    """Tells that a claim is lost: like a threading.Event, with a reason."""

    def __init__(self, key: bytes, lease_loss: Loss, ended: Callable[[], None]) -> None:
        super().__init__(key, lease_loss, ended)
        self._event = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is lost; False when ``timeout`` seconds passed before."""
        return self.is_set() or self._event.wait(None if timeout is None else wait_seconds(timeout))

    def tell(self) -> None:
        self._event.set()
        super().tell()


class Claim(ClaimHandle[ClaimLostSignal]):
    """What only one can hold; use it in ``with``."""

    def __init__(
        self,
        streams: BlockingStreams,
        name: KeyLike,
        value: KeyLike,
        ttl: int | None,
        lease: Lease | None,
        timeout: float | None,
    ) -> None:
        asked = options(name, value, ttl, lease, timeout)
        if lease is None:
            lease = Lease(streams, lease_of_its_own(streams.call, ttl))
        super().__init__(streams, asked, lease)
        self._blocking_streams = streams

    def open(self) -> Self:
        """Claim it, and wait until it is held; entering ``with`` does this.

        Raises WaitTimedOut when those ahead did not go in time, ClaimLost when the lease or the
        claim's key went while it waited, InvalidArgument when this client claims the same thing
        on the same lease already. Whatever it raises, the claim is withdrawn; where it could not
        be, and ``lease`` lives on, that is tried again in the background.
        """
        self._begin()
        try:
            self._follow(self._obtain())
        except BaseException:
            self._abandon()
            raise
        return self

    def _give_up(self, timeout: float | None) -> None:
        self._held()
        self._follow(self._withdraw(timeout))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._follow(self._end(failing=kind is not None))
        finally:
            self._abandon()

    def _follow(self, recipe: Recipe[T]) -> T:
        return follow(self._blocking_streams, recipe)

    def _signal(self, key: bytes) -> ClaimLostSignal:
        return ClaimLostSignal(key, self._lease.lost, self._lost_now)

    def _watch(self, options: WatchOptions) -> Watch:
        return Watch(self._blocking_streams, options)


class Leadership(Claim):
    """The lead of an election, made with :meth:`Election.campaign`; use it in ``with``.

    Entering waits in line until it is held; leaving resigns. From entering on, :attr:`lost` says
    whether it is held still. Writes that only a leader may do belong in a transaction with
    ``when(leadership.condition)``: between a look at ``lost`` and a write anything may happen.
    """

    def proclaim(self, value: KeyLike, *, timeout: float | None = None) -> None:
        """Tell another value to those who observe.

        Raises ClaimLost. After OutcomeUnknown it may be repeated: it is carried out at most once.
        """
        self._follow(self._rename(value, timeout))

    def resign(self, *, timeout: float | None = None) -> None:
        """Give the lead to the next in line; leaving ``with`` does this. Twice is fine.

        Where it fails, and ``lease`` lives on, it is tried again in the background.
        """
        self._give_up(timeout)


class Lock(Claim):
    """A lock, made with :meth:`Client.lock`; use it in ``with``.

    Entering waits in line until it is held; leaving releases it. From entering on, :attr:`lost`
    says whether it is held still. Writes that only its holder may do belong in a transaction with
    ``when(lock.condition)``: between a look at ``lost`` and a write anything may happen.
    """

    def release(self, *, timeout: float | None = None) -> None:
        """Give it to the next in line; leaving ``with`` does this. Twice is fine.

        Where it fails, and ``lease`` lives on, it is tried again in the background.
        """
        self._give_up(timeout)
