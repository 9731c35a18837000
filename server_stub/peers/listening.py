"""The side that is called: accepts connections, and tells members from everybody else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from ..accepting import Acceptor, bind
from .connection import Connection
from .greeting import PROTOCOL_VERSION, Channel, Hello, NotAPeer, Verdict, Welcome
from .station import Station

Guest = Callable[[Connection, Hello], Awaitable[None]]


class Listener:
    """The listening sockets, and the connections whose greeting has not come yet."""

    def __init__(
        self,
        station: Station,
        admit: Callable[[Hello], Verdict],
        welcome: Guest,
        *,
        allowed_names: frozenset[str] = frozenset(),
    ) -> None:
        """``admit`` judges a caller of our cluster; ``welcome`` takes over its connection.

        ``allowed_names``: with TLS, the common names (CN) of which a caller's certificate must
        bear one; empty: any.
        """
        self._station = station
        self._admit = admit
        self._welcome = welcome
        self._allowed_names = allowed_names
        self._acceptor = Acceptor(self._receive)
        self._strangers: dict[asyncio.Task[None], str] = {}

    async def listen(self, url: str) -> tuple[str, int]:
        """Open the port of a URL; return what was bound.

        Raises ``OSError``, or ValueError for a URL that cannot be listened on.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.port is None:
            raise ValueError(f"not the URL of a member: {url}")
        tls = self._station.tls_server if parts.scheme == "https" else None
        if parts.scheme == "https" and tls is None:
            raise ValueError(f"cannot listen on TLS for {url}: TLS is not configured")
        listener = await bind(parts.hostname or "", parts.port)
        self._acceptor.add(listener, tls)
        bound = listener.getsockname()
        return bound[0], bound[1]

    def close(self) -> None:
        """Accept no more; the station ends what was accepted."""
        self._acceptor.close()

    # Meeting

    def _receive(self, accepted: socket.socket, address: str, tls: ssl.SSLContext | None) -> None:
        """Begin to wait for a stranger's greeting; the one that waits longest gives way."""
        if len(self._strangers) >= self._station.limits.max_strangers:
            oldest = next(iter(self._strangers))
            self._complain(self._strangers.pop(oldest), "too many come without a greeting", "many")
            oldest.cancel()
        stranger = _Stranger(accepted, tls)
        task = self._station.spawn(self._meet(stranger, address))
        self._strangers[task] = address

        def ended(task: asyncio.Task[None]) -> None:
            self._strangers.pop(task, None)
            stranger.end()

        task.add_done_callback(ended)

    async def _meet(self, stranger: _Stranger, address: str) -> None:
        """Tell a stranger's connection: refuse it, or serve it."""
        station = self._station
        try:
            async with asyncio.timeout(station.limits.handshake_seconds):
                connection = await stranger.connect(station)
                hello = await self._hear(connection)
        except TimeoutError:
            self._complain(address, "no greeting in time", "late")
            return
        except (OSError, NotAPeer, DismissedCaller) as error:
            text = str(error) or type(error).__name__
            self._complain(address, text, getattr(error, "verdict", type(error)))
            return
        task = asyncio.current_task()
        assert task is not None
        self._strangers.pop(task, None)
        if hello is not None:
            stranger.stay()
            await self._welcome(connection, hello)

    async def _hear(self, connection: Connection) -> Hello | None:
        """Read the greeting and answer it; raises when the caller is not to be served."""
        first_bytes = await connection.greeting()
        if not first_bytes:
            return None  # somebody looked whether the port is open
        hello = Hello.decode(first_bytes)
        verdict, reason = self._judge(connection, hello)
        station = self._station
        welcome = Welcome(verdict, station.cluster_id, station.own_id, station.server_version)
        connection.write([welcome.encode()])
        if verdict != Verdict.WELCOME:
            connection.close()
            raise DismissedCaller(reason, verdict)
        return hello

    def _judge(self, connection: Connection, hello: Hello) -> tuple[Verdict, str]:
        station = self._station
        who = f"member {hello.sender:x}"
        if hello.protocol_version != PROTOCOL_VERSION:
            return Verdict.WRONG_VERSION, f"{who} speaks protocol {hello.protocol_version}"
        if self._allowed_names and not self._allowed_names & _common_names(connection):
            return Verdict.BAD_CALLER, "the certificate is for a name that is not allowed"
        if hello.channel == Channel.INQUIRY:
            return self._admit(hello), "busy"
        if hello.cluster_id != station.cluster_id:
            return Verdict.FOREIGN_CLUSTER, f"{who} is of another cluster, {hello.cluster_id:x}"
        if hello.target != station.own_id:
            return Verdict.WRONG_MEMBER, f"{who} wants member {hello.target:x}, which we are not"
        if hello.sender in (0, station.own_id):
            return Verdict.BAD_CALLER, f"the caller says that it is {who}"
        if station.receiver.is_removed(hello.sender):
            return Verdict.REMOVED, f"{who} was removed from the cluster"
        return self._admit(hello), f"{who} asks for more than there is room for"

    def _complain(self, address: str, reason: str, kind: object) -> None:
        """Log, once in a while for every host and kind of reason."""
        host = address.rpartition(":")[0]
        self._station.complaints.say(
            (host, kind), "refused a connection from %s to the peer port: %s", address, reason
        )


class DismissedCaller(Exception):
    """A greeting that was read and answered with no."""

    def __init__(self, text: str, verdict: Verdict) -> None:
        super().__init__(text)
        self.verdict = verdict


class _Stranger:
    """An accepted socket: closed at the end unless somebody keeps it."""

    def __init__(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._accepted = accepted
        self._tls = tls
        self._connection: Connection | None = None
        self._is_asyncios = False
        self._is_kept = False

    async def connect(self, station: Station) -> Connection:
        """Make a connection of it. Raises OSError, of which TLS errors are some."""
        self._is_asyncios = True
        limits = station.limits
        _, connection = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Connection(limits),
            self._accepted,
            ssl=self._tls,
            ssl_handshake_timeout=limits.handshake_seconds if self._tls else None,
            ssl_shutdown_timeout=limits.farewell_seconds if self._tls else None,
        )
        station.adopt(connection)
        self._connection = connection
        return connection

    def stay(self) -> None:
        """Leave the connection to somebody else."""
        self._is_kept = True

    def end(self) -> None:
        """Close the socket, unless it stays."""
        if not self._is_asyncios:
            self._accepted.close()
        elif self._connection is None:
            # Called off before its TLS begins, asyncio would go on with it, and for nobody.
            with suppress(OSError):  # closed by now, as a rule
                self._accepted.shutdown(socket.SHUT_RDWR)
        elif not self._is_kept and self._connection.is_open:
            self._connection.abort()


def _common_names(connection: Connection) -> frozenset[str]:
    certificate = connection.extra("peercert")
    if not isinstance(certificate, dict):
        return frozenset()
    parts = (part for group in certificate.get("subject", ()) for part in group)
    return frozenset(value for name, value in parts if name == "commonName")
