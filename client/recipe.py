"""How an undertaking of calls, leases and watches is written once and run in two worlds.

A :data:`Recipe` is to a flow what a flow is to a request: a generator that yields what it needs
done, one step at a time, and receives each step's outcome; a step that fails is thrown into it.
It never blocks and knows no world: :func:`~.blocking_claim.follow` and
:func:`~.aio_claim.follow` do the steps.

Rule 1: a recipe changes what it shares only between its steps, and whole, for it may end at each.
Rule 2: a step is plain data, so that tests can play the world.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from .flow import Flow, Sleep
from .lease_handle import LeaseHandle
from .watch import WatchBatch
from .watch_handle import WatchHandle

T = TypeVar("T")


class Ask(NamedTuple):
    """Run a flow; answers with its result."""

    flow: Flow[Any]


class Open(NamedTuple):
    """Have a lease granted, or a watch created; answers when it is."""

    handle: LeaseHandle[Any] | WatchHandle[Any]


class Next(NamedTuple):
    """Wait for a watch's next batch; answers None when the watch was closed.

    Throws WaitTimedOut when there is none within so many seconds.
    """

    handle: WatchHandle[Any]
    seconds: float | None


Step: TypeAlias = Ask | Open | Next

Recipe: TypeAlias = Generator[Step, Any, T]
"""An undertaking under way; returns a T."""


def ask(flow: Flow[T]) -> Recipe[T]:
    """Run a flow."""
    result: T = yield Ask(flow)
    return result


def next_batch(watch: WatchHandle[Any], seconds: float | None) -> Recipe[WatchBatch | None]:
    """Wait for a watch's next batch."""
    batch: WatchBatch | None = yield Next(watch, seconds)
    return batch


def rest(seconds: float) -> Flow[None]:
    """Let time pass."""
    yield Sleep(seconds)
