"""What all connections of one front share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from ..api.call import HttpHandler, Method
from .deadlines import Deadlines
from .limits import Limits


class Closable(Protocol):
    """A connection that can be asked to end."""

    async def close(self, grace_seconds: float) -> None:
        """End in good order: what is in flight has ``grace_seconds`` to finish."""

    def abort(self) -> None:
        """End at once, without a word to the client."""


class Serving:
    """Methods and routes, the limits, the deadlines, and who is connected."""

    def __init__(
        self, methods: Mapping[str, Method], routes: Mapping[str, HttpHandler], limits: Limits
    ) -> None:
        self.methods = methods
        self.services = frozenset(path.rpartition("/")[0][1:] for path in methods)
        self.routes = routes
        self.limits = limits
        self.deadlines = Deadlines(time.monotonic)
        self.connections: set[Closable] = set()


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Where a client calls from, as logs say it."""
    address = transport.get_extra_info("peername")
    if not isinstance(address, tuple):
        return "an unknown address"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
