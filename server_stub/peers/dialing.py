"""Calling another member: its URLs one after the other, TLS, and the greetings."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .connection import Connection
from .greeting import PROTOCOL_VERSION, Channel, Hello, NotAPeer, Verdict, Welcome
from .limits import PeerLimits


class DialFailed(Exception):
    """No URL led to the member; the text says why, URL by URL."""


class TurnedAway(DialFailed):
    """Somebody has answered and does not serve us.

    ``removed``: it is the member called, and says that we were removed from its cluster.
    """

    def __init__(self, text: str, *, removed: bool = False) -> None:
        super().__init__(text)
        self.removed = removed


async def dial(
    urls: Sequence[str],
    hello: Hello,
    *,
    tls: ssl.SSLContext | None,
    limits: PeerLimits,
    opened: Callable[[Connection], None] = lambda _: None,
) -> tuple[Connection, Welcome, str]:
    """Connect to the first of ``urls`` that answers as the member that ``hello`` calls.

    Returns the connection, the answer, and which URL it was. Each has ``limits.connect_seconds``.
    ``opened`` is told of every connection made, also of those that come to nothing. Raises
    ``DialFailed``.
    """
    failures = []
    turned_away = removed = False
    for url in urls:
        try:
            async with asyncio.timeout(limits.connect_seconds):
                return *await _dial(url, hello, tls, limits, opened), url
        except TurnedAway as error:
            turned_away = True
            removed = removed or error.removed
            failures.append(f"{url}: {error}")
        except TimeoutError:
            failures.append(f"{url}: no answer within {limits.connect_seconds:g} s")
        except (OSError, ValueError, DialFailed, NotAPeer) as error:
            failures.append(f"{url}: {error}")
    text = "; ".join(failures) or "it has no URL"
    raise TurnedAway(text, removed=removed) if turned_away else DialFailed(text)


async def _dial(
    url: str,
    hello: Hello,
    tls: ssl.SSLContext | None,
    limits: PeerLimits,
    opened: Callable[[Connection], None],
) -> tuple[Connection, Welcome]:
    connection = await _connect(urlsplit(url), tls, limits)
    opened(connection)
    try:
        connection.write([hello.encode()])
        first_bytes = await connection.greeting()
        if not first_bytes:
            raise DialFailed("the connection was closed without an answer")
        welcome = Welcome.decode(first_bytes)
        _check(hello, welcome)
    except BaseException:
        connection.abort()
        raise
    return connection, welcome


async def _connect(url: SplitResult, tls: ssl.SSLContext | None, limits: PeerLimits) -> Connection:
    if url.scheme not in {"http", "https"} or not url.hostname or url.port is None:
        raise ValueError("not the URL of a member")
    if url.scheme == "https" and tls is None:
        raise ValueError("TLS is asked for, and not configured")
    secure = url.scheme == "https"
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(limits),
        url.hostname,
        url.port,
        ssl=tls if secure else None,
        ssl_handshake_timeout=limits.handshake_seconds if secure else None,
        ssl_shutdown_timeout=limits.farewell_seconds if secure else None,
    )
    return connection


def _check(hello: Hello, welcome: Welcome) -> None:
    """Raise ``TurnedAway`` unless the right member bids us welcome."""
    if welcome.protocol_version != PROTOCOL_VERSION:
        raise TurnedAway(f"it speaks version {welcome.protocol_version} of the protocol")
    if hello.channel != Channel.INQUIRY:
        if welcome.cluster_id != hello.cluster_id:
            raise TurnedAway(f"it is in cluster {welcome.cluster_id:x}, not {hello.cluster_id:x}")
        if welcome.member_id != hello.target:
            raise TurnedAway(f"it is member {welcome.member_id:x}, not {hello.target:x}")
    if welcome.verdict != Verdict.WELCOME:
        why = _WHY_NOT.get(welcome.verdict, f"verdict {welcome.verdict}")
        raise TurnedAway(why, removed=welcome.verdict == Verdict.REMOVED)


_WHY_NOT: Final[dict[int, str]] = {
    Verdict.WRONG_VERSION: "it does not speak our version of the protocol",
    Verdict.FOREIGN_CLUSTER: "it takes us for a member of another cluster",
    Verdict.WRONG_MEMBER: "it says that it is not the member called",
    Verdict.REMOVED: "it says that this member was removed from the cluster",
    Verdict.BUSY: "it is busy",
    Verdict.BAD_CALLER: "it does not believe that we are who we say",
}
