"""The seam between the services and whatever carries them.

A service is a class with one ``async`` method per RPC; a front carries it and knows no more of it
than this page: a :class:`Method` to run, a :class:`Call` to hand it, and :class:`Refused` or a
reply to bring back. Rules, one line each:

- a unary method takes ``(request, call)`` and returns a reply, or raises ``Refused``;
- a server-streaming method takes ``(request, call)`` and is an async generator of replies;
- a bidirectional method takes ``(requests, call)``, where ``requests`` is an async iterator that
  ends when the client half-closes, and is an async generator of replies;
- a reply is pulled, never pushed: a generator is resumed only when its last reply was taken by a
  client that keeps up, so a slow client holds back its producer and nothing else;
- when the client goes away or its deadline passes, the front cancels the task that runs the method.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...protos.rpc import Rpc


@dataclass(slots=True)
class Call:
    """What a service may know about the call it serves."""

    metadata: Mapping[str, str | bytes]
    """The client's own metadata, lower-case keys; ``-bin`` values are decoded bytes."""
    peer: str = ""
    """Where the client called from, for logs."""
    deadline: float | None = None
    """On the clock of ``time.monotonic()``; None: the client set none."""

    @property
    def requires_leader(self) -> bool:
        """Whether the client wants "no leader" at once rather than to wait for one."""
        return self.metadata.get("hasleader") == "true"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC and the bound service method that serves it; ``rpc`` tells its shape."""

    rpc: Rpc[Any, Any]
    serve: Callable[[Any, Call], Any]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request of HTTP/1.1 on the client port."""

    method: str
    path: str
    """Without the query."""
    query: Mapping[str, list[str]] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Its answer; the front adds length and connection headers."""

    status: int
    body: bytes
    content_type: str = "application/json"


HttpHandler = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Serves one path; looked up by the exact path, 404 when there is none."""
