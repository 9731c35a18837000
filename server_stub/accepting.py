"""Accepting connections: whenever it ends, no socket is lost or left open.

asyncio's own server is not used for that. Closed in the turn of the loop that has accepted a
connection, it leaves the socket to the garbage collector; closed during a TLS handshake, it lets
the connection begin afterwards, when nobody counts on it any more.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .complaints import Complaints

log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_ACCEPTED_AT_ONCE: Final = 32
_OUT_OF_SOCKETS_SECONDS: Final = 0.1
_COMPLAINT_SECONDS: Final = 30.0
_RESERVED: Final = 150
"""Descriptors kept from clients: as many as etcd keeps."""

Receive = Callable[[socket.socket, str, ssl.SSLContext | None], None]


def descriptors_for_clients() -> int:
    """Return how many descriptors of this process, the first ones, are there for clients too.

    A member that finds no descriptor for a file of its log has to stop, so the last ones are not
    for clients; where there are few in all, the last quarter.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft - min(_RESERVED, soft // 4)


async def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket, with SO_REUSEADDR and without SO_REUSEPORT: a port is not shared.

    A name is bound at one of its addresses, IPv4 if there is one, as Go does; no host means every
    address. Raises OSError, naming the address.
    """
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


class Acceptor:
    """Listening sockets; whatever they accept is handed to ``receive``, and is the receiver's."""

    def __init__(self, receive: Receive, descriptors: Callable[[], int] | None = None) -> None:
        """``receive`` gets a socket, who called (``host:port``), and its port's TLS, if any.

        What is accepted with a descriptor behind the first ``descriptors()`` is closed at once.
        The kernel gives the lowest that is free. So all of those are taken then, by whatever it
        may be, and those behind them stay free for other uses, however many call.
        """
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._descriptors = descriptors
        self._listeners: list[socket.socket] = []
        self._complaints = Complaints(log, _COMPLAINT_SECONDS, self._loop.time)

    def add(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept on this socket too, and close it in the end."""
        listener.setblocking(False)
        self._listeners.append(listener)
        self._resume(listener, tls)

    def close(self) -> None:
        """Accept no more."""
        for each in self._listeners:
            self._loop.remove_reader(each)
            each.close()
        self._listeners.clear()

    def _resume(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener, tls)

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, caller = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                where = _text(listener.getsockname())
                self._complaints.say(where, "cannot accept connections at %s: %s", where, error)
                self._loop.remove_reader(listener)
                self._loop.call_later(_OUT_OF_SOCKETS_SECONDS, self._resume, listener, tls)
                return
            if self._descriptors is not None and accepted.fileno() >= self._descriptors():
                accepted.close()
                self._complain_of_many(_text(listener.getsockname()))
                continue
            accepted.setblocking(False)
            self._receive(accepted, _text(caller), tls)

    def _complain_of_many(self, where: str) -> None:
        text = "closed a connection at %s at once: there are too many"
        self._complaints.say((where, "many"), text, where)


class ProtocolServer:
    """Gives a protocol made by ``make_protocol`` to every connection that it accepts.

    It accepts those whose descriptor is among the first ``descriptors()``, see :class:`Acceptor`.
    """

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        descriptors: Callable[[], int] | None = None,
    ) -> None:
        self._make_protocol = make_protocol
        self._acceptor = Acceptor(self._receive, descriptors)
        self._arriving: dict[asyncio.Task[None], socket.socket] = {}
        self._is_closed = False

    def serve(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept on this socket from now on, and close it in the end."""
        self._acceptor.add(listener, tls)

    async def close(self) -> None:
        """Accept no more; when it returns no connection begins any more.

        Those that were about to are dropped; the others belong to their protocols.
        """
        self._is_closed = True
        self._acceptor.close()
        for accepted in self._arriving.values():
            with suppress(OSError):  # the other side may have closed it
                accepted.shutdown(socket.SHUT_RDWR)  # which ends a handshake
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _receive(self, accepted: socket.socket, _: str, tls: ssl.SSLContext | None) -> None:
        task = asyncio.ensure_future(self._arrive(accepted, tls))
        self._arriving[task] = accepted
        task.add_done_callback(self._arriving.pop)

    async def _arrive(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        if self._is_closed:
            accepted.close()
            return
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol, accepted, ssl=tls
            )
        except OSError:  # TLS errors are some: the other side's affair
            return
        if self._is_closed:
            transport.abort()


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
