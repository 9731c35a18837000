"""One stream of messages to one member: dialed, kept, dialed again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from .connection import Connection
from .dialing import DialFailed, TurnedAway, dial
from .greeting import Channel, Hello, Welcome
from .link import Link
from .send_queue import SendQueue
from .station import Station

_STABLE_SECONDS: Final = 1.0
"""A connection that held for so long was no failure."""


class Outgoing:
    """A stream to a member, over one connection at a time.

    While the first attempt to connect (or to connect again) is under way, messages wait; once it
    has failed they are dropped, for the next one may take long and Raft repeats what matters.
    """

    def __init__(
        self, station: Station, peer_id: int, channel: Channel, urls: Sequence[str]
    ) -> None:
        self._station = station
        self._peer_id = peer_id
        self._channel = channel
        self._urls = tuple(urls)
        self._traffic = station.traffic[peer_id]
        limits = station.limits
        self._queue = SendQueue(limits.max_queued_messages, limits.max_queued_bytes)
        self._flushing = False
        self._down = False
        self._closed = False
        self._hurry = asyncio.Event()
        self._good_url = ""
        self.link: Link | None = None
        """The connection, while there is one."""
        self.connected_since: float | None = None
        """When it was made, on the loop's clock."""
        self._task = station.spawn(self._keep_connected())

    # Sending

    def send(self, frame: Sequence[bytes]) -> bool:
        """Queue a frame; False: dropped, for there is no connection or no room."""
        if self._down:
            return False
        if not self._queue.offer(frame):
            self._say("the queue to member %x is full: dropping messages")
            return False
        if not self._flushing and self.link is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        return True

    def _flush(self) -> None:
        """Write what has come up in this turn of the loop, as far as the socket takes it."""
        self._flushing = False
        link = self.link
        if link is None:
            return
        while self._queue and not link.connection.paused and link.connection.is_open:
            parts = self._queue.take(self._station.limits.max_write_bytes)
            link.connection.write(parts)
            self._traffic.sent_bytes += sum(map(len, parts))

    # Connecting

    def set_urls(self, urls: Sequence[str]) -> None:
        """Use other URLs; a connection made by the old ones is given up."""
        if self._urls == tuple(urls):
            return
        self._urls = tuple(urls)
        if self.link is not None:
            self.link.connection.close("the member has other URLs now")
        self._hurry.set()

    def hurry(self) -> None:
        """Try to connect now, not after the pause: there is reason to believe that it works."""
        if self.link is None:
            self._hurry.set()

    def tick(self) -> None:
        """Watch the connection."""
        if self.link is not None:
            self.link.tick()

    def close(self) -> None:
        """End the connection after what was queued, and connect no more. Tells nobody."""
        self._closed = True
        self._task.cancel()
        self._flush()
        if self.link is not None:
            self.link.connection.close()

    async def _keep_connected(self) -> None:
        pause_seconds = 0.0
        limits = self._station.limits
        while True:
            if pause_seconds:
                await self._pause(pause_seconds)
            pause_seconds = min(
                max(2 * pause_seconds, limits.first_pause_seconds), limits.longest_pause_seconds
            )
            try:
                connection, welcome = await self._dial()
            except DialFailed as error:
                self._failed(error)
                continue
            if await self._serve(connection, welcome):
                pause_seconds = limits.first_pause_seconds

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
            self._down = False  # this attempt is worth waiting for
        except TimeoutError:
            pass
        self._hurry.clear()

    async def _dial(self) -> tuple[Connection, Welcome]:
        station = self._station
        hello = Hello(
            self._channel, station.cluster_id, station.own_id, self._peer_id, station.server_version
        )
        urls = self._urls
        if self._good_url in urls:
            urls = (self._good_url, *(url for url in urls if url != self._good_url))
        connection, welcome, self._good_url = await dial(
            urls, hello, tls=station.tls_client, limits=station.limits, opened=station.adopt
        )
        return connection, welcome

    async def _serve(self, connection: Connection, welcome: Welcome) -> bool:
        """Use a connection until it is lost; tell whether it held for a while."""
        now = asyncio.get_running_loop().time
        link = Link(self._station, connection, self._peer_id, dialed=True)
        link.on_writable = self._flush
        link.on_lost = self._lost
        self._station.versions[self._peer_id] = welcome.server_version
        self._traffic.connections += 1
        self._down = False
        self.link = link
        since = self.connected_since = now()
        link.start()
        self._flush()
        if self._channel == Channel.CONTROL and self.link is link:
            self._say("connected to member %x", level=logging.INFO)
            self._station.on_connected(self._peer_id)
        await connection.wait_closed()
        return now() - since >= _STABLE_SECONDS

    def _lost(self, reason: str) -> None:
        self.link = None
        self.connected_since = None
        if not self._closed:
            self._say("lost the connection to member %x: %s", reason, level=logging.INFO)
            self._station.unreachable(self._peer_id)

    def _failed(self, error: DialFailed) -> None:
        self._traffic.connection_failures += 1
        self._traffic.dropped_messages += self._queue.clear()
        if not self._down:
            self._down = True
            self._station.unreachable(self._peer_id)
        self._say("cannot connect to member %x: %s", str(error))
        if isinstance(error, TurnedAway) and error.removed:
            self._station.told_removed()

    def _say(self, text: str, *args: object, level: int = logging.WARNING) -> None:
        key = (self._peer_id, text, *args)
        self._station.complaints.say(key, text, self._peer_id, *args, level=level)
