"""What a client asks of its surroundings: threads or an event loop.

Two make it true: :class:`.BlockingWorld` and :class:`.AsyncioWorld`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

from .flow import Flow
from .links import Link, LinkState

T = TypeVar("T")

LinkChanged: TypeAlias = Callable[[Link, LinkState, str], None]


class World(Protocol):
    """What connections need done that takes time. Nothing here blocks for long."""

    def open(self, link: Link, changed: weakref.WeakMethod[LinkChanged]) -> None:
        """Give the link a channel that connects and reconnects by itself, and watch its state.

        Each change is told to ``changed``, which is weak: a client that was dropped without
        being closed must not be kept alive by its own connections.
        """
        ...

    def close(self, link: Link) -> None:
        """Stop watching, and close the channel with what is on it."""
        ...

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None:
        """Call ``wake`` at that time of the clock, instead of at any earlier wish's."""
        ...

    def spawn(self, flow: Flow[T], then: Callable[[T], None]) -> None:
        """Run a flow in the background and hand its result on."""
        ...
