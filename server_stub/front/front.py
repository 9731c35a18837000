"""The listener: gRPC over HTTP/2 and plain HTTP/1.1 on one port."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Mapping

from ..accepting import ProtocolServer, bind, descriptors_for_clients
from ..api.call import HttpHandler, Method
from .connection import UnknownConnection
from .limits import Limits
from .serving import Serving


class Front:
    """Carries services to clients: listens, serves, and ends in good order.

    ``methods`` are the RPCs by their path, ``routes`` the plain HTTP handlers by theirs. Runs on
    the loop that calls it, and is used from that loop only.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        routes: Mapping[str, HttpHandler] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._serving = Serving(methods, routes or {}, limits or Limits())
        self._server = ProtocolServer(
            lambda: UnknownConnection(self._serving), descriptors_for_clients
        )

    async def listen(
        self, host: str, port: int, ssl: tls.SSLContext | None = None
    ) -> tuple[str, int]:
        """Accept connections; return the host and port bound, e.g. for port 0.

        A name is bound at one of its addresses, IPv4 if there is one, as Go does; no host means
        every address. ``ssl`` is told to offer ``h2`` and ``http/1.1`` by ALPN. Raises OSError,
        naming the address, when it cannot be bound: a port is never shared. Call it again for
        further addresses.
        """
        listener = await bind(host, port)
        bound = listener.getsockname()
        self._server.serve(listener, _with_alpn(ssl))
        return bound[0], bound[1]

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Stop listening and end all connections.

        Clients are told to go elsewhere at once; calls in flight have the grace to finish, and
        are then refused with "etcdserver: server stopped" and cancelled.
        """
        await self._server.close()
        connections = list(self._serving.connections)
        await asyncio.gather(*(connection.close(grace_seconds) for connection in connections))
        self._serving.deadlines.close()

    async def abort(self) -> None:
        """Stop listening and drop all connections, without a word: the end of a killed process."""
        await self._server.close()
        for connection in list(self._serving.connections):
            connection.abort()
        await asyncio.sleep(0)  # asyncio tells them that they are lost, and their calls end
        self._serving.deadlines.close()


def _with_alpn(context: tls.SSLContext | None) -> tls.SSLContext | None:
    if context is not None:
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context
