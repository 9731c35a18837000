"""One endpoint's connection, and what lives on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..balancers.api import Health, Standing
from ..protos.errors import Code
from ..protos.rpc import Rpc
from .endpoints import Endpoint
from .flow import LINK_CLOSED, CallFailed

if TYPE_CHECKING:
    from .connections import Connections


class LinkState(Enum):
    """Where a connection is; grpc's connectivity states, as far as they matter here."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    READY = "ready"
    FAILING = "failing"


class Link:
    """One endpoint's connection, and what has been made on it."""

    __slots__ = (
        "callables",
        "calls",
        "channel",
        "endpoint",
        "failures",
        "gone",
        "health",
        "reason",
        "retired",
        "seats",
        "state",
        "under_way",
        "url",
        "watcher",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.url = endpoint.url
        self.channel: Any = None
        """The world's own; None while there is none."""
        self.watcher: Any = None
        """Whatever the world watches the channel's state with."""
        self.callables = Callables(self)
        """The channel's callables by RPC, unary or streaming; see :class:`Callables`."""
        self.state = LinkState.CLOSED
        self.reason = ""
        self.calls = 0
        self.failures = 0
        self.health: Health | None = None
        """The last probe's answer."""
        self.under_way = 0
        """How many picks of it are yet to be paid back."""
        self.seats: set[Seat] = set()
        """The streams that live on it, and the calls that go there and nowhere else."""
        self.retired = False
        """Whether nobody is sent to it any more, and it closes with the last of what is on it."""

        self.gone = False
        """Whether its endpoint is no longer one, or has become another: streams leave, too."""

    @property
    def busy(self) -> bool:
        """Whether calls or streams are on it."""
        return bool(self.under_way or self.seats)

    def callable(self, rpc: Rpc[Any, Any]) -> Callable[..., Any]:
        """The channel's callable for the RPC. Raises CallFailed when it has just been closed."""
        return self.callables[rpc]


class Callables(dict[Rpc[Any, Any], Callable[..., Any]]):
    """A channel's callables, each made when it is first asked for.

    Raises CallFailed when the connection has just been closed.
    """

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def __missing__(self, rpc: Rpc[Any, Any]) -> Callable[..., Any]:
        channel = self._link.channel
        if channel is None:
            raise CallFailed(Code.UNAVAILABLE, LINK_CLOSED)
        make = getattr(channel, _MAKERS[rpc.client_streaming, rpc.server_streaming])
        made: Callable[..., Any] = make(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.reply.FromString,
        )
        self[rpc] = made
        return made


_MAKERS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, True): "stream_stream",
}


class Seat:
    """A long-lived stream's place on a link: who to tell when it has to move.

    Made by :meth:`Connections.take_seat`, given back once with :meth:`leave`.
    """

    __slots__ = ("_connections", "link", "on_drain")

    def __init__(self, connections: Connections, link: Link, on_drain: Callable[[], None]) -> None:
        self._connections = connections
        self.link = link
        self.on_drain = on_drain
        """Called from any thread, without locks: move off, or end if the client is closed."""

    @property
    def endpoint(self) -> str:
        return self.link.url

    def leave(self) -> None:
        """Give the seat back; the stream has ended."""
        self._connections.leave_seat(self)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """How an endpoint stands, for people and for metrics."""

    url: str
    state: LinkState
    reason: str
    """Why it is not connected, when it is not and that is known."""
    calls: int
    failures: int
    streams: int
    """Those on a connection that took its leave, and lives on for them alone, included."""
    standing: Standing
    """The balancer's opinion."""
    health: Health | None = None
    """What the last probe found out, if the balancer has asked for any; ``health_aware`` does."""

    @property
    def trouble(self) -> str:
        """Why no call goes there that needs a quorum; empty where one would."""
        if self.state is not LinkState.READY:
            return self.reason or f"{self.state.value}, no reason known"
        if not self.standing.eligible:
            return f"connected, but {self.standing.reason or 'not in use'}"
        return ""
