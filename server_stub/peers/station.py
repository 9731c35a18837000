"""What all connections of one member share."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ..complaints import Complaints
from .connection import Connection
from .greeting import Version
from .limits import PeerLimits
from .receiver import Receiver
from .traffic import Traffic
from .wire import Encoder

log = logging.getLogger(__package__)


@dataclass(slots=True)
class Station:
    """A member's own side of every connection: who it is, and who listens to it."""

    own_id: int
    cluster_id: int
    receiver: Receiver
    limits: PeerLimits
    server_version: Version
    tls_server: ssl.SSLContext | None = None
    tls_client: ssl.SSLContext | None = None
    on_connected: Callable[[int], None] = lambda _: None
    encoder: Encoder = field(default_factory=Encoder)
    traffic: dict[int, Traffic] = field(default_factory=lambda: defaultdict(Traffic))
    versions: dict[int, Version] = field(default_factory=dict)
    """Which server each peer last said it is."""
    connections: set[Connection] = field(default_factory=set)
    """All that are open; closed with the station."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    closing: bool = False
    """The receiver is told nothing any more."""
    complaints: Complaints = field(init=False)
    _unreachable: set[int] = field(default_factory=set)
    _removed: bool = False

    def __post_init__(self) -> None:
        now = asyncio.get_running_loop().time
        self.complaints = Complaints(log, self.limits.complaint_seconds, now)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the station."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task between members has failed", exc_info=task.exception())

    def adopt(self, connection: Connection) -> None:
        """Take over a connection that was just made: it ends with the station."""
        if self.closing:
            connection.abort()
        self.connections.add(connection)
        connection.closed.add_done_callback(lambda _: self.connections.discard(connection))

    def unreachable(self, peer_id: int) -> None:
        """Tell the receiver, in the next turn of the loop, that messages were lost."""
        if not self._unreachable:
            asyncio.get_running_loop().call_soon(self._report_unreachable)
        self._unreachable.add(peer_id)

    def _report_unreachable(self) -> None:
        lost, self._unreachable = self._unreachable, set()
        if not self.closing:
            for peer_id in sorted(lost):
                self.receiver.unreachable(peer_id)

    def told_removed(self) -> None:
        """Tell the receiver, once, that a peer says it was removed."""
        if not self._removed and not self.closing:
            self._removed = True
            self.receiver.removed()
