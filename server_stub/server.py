"""The server as an object: a member and the ports that it serves, within a running event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Final, Self

from .accepting import bind
from .api import http_routes, services
from .config import Settings
from .config.values import Url
from .front import GRPC_OVERHEAD_BYTES, Front, Limits
from .member import Member
from .tls import TlsError, client_port_context

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 3.0
"""For calls in flight when the server is told to stop; a watch never ends by itself."""
GRPC_PINGS: Final = (7200.0, 20.0)
"""grpc's own interval and timeout, which etcd leaves in force when either is set to 0."""


class StartError(Exception):
    """The server cannot start; the text says what and where."""


class Server:
    """A member with its ports open.

    ``async with Server(settings) as server`` starts it and stops it. Any number of them may live in
    one event loop; signals and the process's log are nobody's business here.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.member: Member
        """There once the server has started."""
        self.client_addresses: list[tuple[str, int]] = []
        """What is bound for ``--listen-client-urls``, in that order."""
        self._fronts: list[Front] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the data directory, join the cluster, open the client ports.

        Returns when requests are served, which takes a quorum; to give up waiting for one, cancel
        the call. Raises ``StartError`` and what ``Member.start`` raises; nothing stays open then.
        """
        tls = self._tls()
        await _check_ports(self.settings)
        self.member = await Member.start(self.settings)
        try:
            await self._listen(tls)
        except BaseException:
            await self.member.stop()
            raise

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """End all connections, calls in flight within `grace_seconds`; then stop the member.

        Raises what ``Member.stop`` raises.
        """
        try:
            await self._close(grace_seconds)
        finally:
            await self.member.stop()

    async def abandon(self) -> None:
        """End as a killed process ends: no word to anybody, and nothing more is committed."""
        for front in self._fronts:
            await front.abort()
        self._fronts.clear()
        await self.member.abandon()

    async def failed(self) -> None:
        """Wait for ever, unless the member ends by itself; see :meth:`.member.Member.failed`."""
        await self.member.failed()

    def _tls(self) -> ssl.SSLContext | None:
        if self.settings.tls is None:
            return None
        try:
            return client_port_context(self.settings.tls)
        except TlsError as error:
            raise StartError(str(error)) from error

    async def _listen(self, tls: ssl.SSLContext | None) -> None:
        """Open every port; raises ``StartError`` naming the one that cannot be opened."""
        routes, limits = http_routes(self.member), limits_of(self.settings)
        client = Front(services(self.member), routes, limits)
        metrics = Front({}, routes, limits)
        self._fronts = [client, metrics]
        for url in self.settings.listen_client_urls:
            self.client_addresses.append(await self._open(client, url, tls))
        for url in self.settings.listen_metrics_urls:
            await self._open(metrics, url, tls)

    async def _open(self, front: Front, url: Url, tls: ssl.SSLContext | None) -> tuple[str, int]:
        try:
            return await front.listen(url.host, url.port, tls if url.scheme == "https" else None)
        except OSError as error:
            await self._close(0.0)
            raise StartError(_cannot_listen(url, error)) from error

    async def _close(self, grace_seconds: float) -> None:
        """End all connections; what goes wrong there must not keep the member from its own end."""
        ends = (front.close(grace_seconds) for front in self._fronts)
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(error, BaseException):
                log.warning("a connection ended badly", exc_info=error)
        self._fronts.clear()


async def _check_ports(settings: Settings) -> None:
    """Raise ``StartError`` for a port in use before anything is made or read on disk.

    Each is opened for a moment as it will be later: a name may have addresses that are not ours to
    bind, such as ``::1`` where IPv6 is off.
    """
    urls = settings.listen_client_urls + settings.listen_metrics_urls + settings.listen_peer_urls
    for url in urls:
        try:
            (await bind(url.host, url.port)).close()
        except OSError as error:
            raise StartError(_cannot_listen(url, error)) from error


def _cannot_listen(url: Url, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot listen on {url.host}:{url.port}: {reason}"


def limits_of(settings: Settings) -> Limits:
    """What the front grants a client."""
    pings = settings.grpc_keepalive_interval_seconds, settings.grpc_keepalive_timeout_seconds
    interval_seconds, timeout_seconds = pings if all(pings) else GRPC_PINGS
    return Limits(
        max_message_bytes=settings.max_request_bytes + GRPC_OVERHEAD_BYTES,
        max_concurrent_streams=settings.max_concurrent_streams,
        keepalive_min_seconds=settings.grpc_keepalive_min_time_seconds,
        keepalive_interval_seconds=interval_seconds,
        keepalive_timeout_seconds=timeout_seconds,
    )
