"""A live connection that carries messages and questions between two members."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final

from .connection import Connection
from .frames import BadFrame, Kind, framed
from .questions import Answering, Asked
from .station import Station
from .wire import MSG_SNAP, BadMessage, decode_from

_PING: Final = struct.Struct(">Q")


class Link:
    """One side of such a connection, whichever side dialed.

    It is watched by ``tick``: a side that hears nothing for some ticks gives up. Ticks are counted
    rather than seconds, so that a process that was stopped for a while does not blame its peers.
    """

    def __init__(
        self, station: Station, connection: Connection, peer_id: int, *, dialed: bool
    ) -> None:
        self.peer_id = peer_id
        self.connection = connection
        self.on_writable: Callable[[], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self._station = station
        self._dialed = dialed
        self._traffic = station.traffic[peer_id]
        self._asked = Asked()
        self._answering = Answering(self._answer, self._send, station.spawn, station.limits)
        self._silent_ticks = 0
        self._sent_bytes = 0
        self._pings = 0
        self._pinged_at: float | None = None
        self._handlers: dict[int, Callable[[bytes], None]] = {
            Kind.MESSAGE: self._on_message,
            Kind.PING: self._on_ping,
            Kind.PONG: self._on_pong,
            Kind.ASK: self._answering.asked,
            Kind.CANCEL: self._answering.cancelled,
            Kind.ANSWER: self._asked.answered,
            Kind.REFUSAL: self._asked.refused,
        }

    def start(self) -> None:
        """Begin to take frames."""
        self.connection.start(self)

    async def ask(self, kind: str, payload: bytes, timeout_seconds: float) -> bytes:
        """Ask the other side; raises ``Refused`` or ``PeerUnreachable``."""
        return await self._asked.ask(kind, payload, timeout_seconds, self._send)

    def tick(self) -> None:
        """Look whether the other side lives, and let it know that we do."""
        connection = self.connection
        sent_bytes = connection.sent_bytes
        # Behind a long queue a ping takes its time; but then the queue moves if anybody reads it.
        moving = connection.unsent_bytes > 0 and sent_bytes > self._sent_bytes
        self._sent_bytes = sent_bytes
        self._silent_ticks = 0 if connection.heard or moving else self._silent_ticks + 1
        connection.heard = False
        if self._silent_ticks > self._station.limits.silent_ticks:
            connection.abort("the other side is silent")
        elif self._dialed and not connection.paused:
            self._ping()

    def _ping(self) -> None:
        if self._pinged_at is None:
            self._pings += 1
            self._pinged_at = asyncio.get_running_loop().time()
        self._send(framed(Kind.PING, _PING.pack(self._pings)))

    def _send(self, parts: Sequence[bytes]) -> None:
        self._traffic.sent_bytes += sum(map(len, parts))
        self.connection.write_soon(parts)

    # What arrives

    def frame(self, kind: int, payload: bytes) -> None:
        self._traffic.received_bytes += len(payload)
        handler = self._handlers.get(kind)
        if handler is None:
            raise BadFrame(f"a frame of kind {kind}, which has no place here")
        try:
            handler(payload)
        except BadMessage as error:
            raise BadFrame(str(error)) from None

    def _on_message(self, payload: bytes) -> None:
        message = decode_from(payload, self.peer_id, self._station.own_id)
        if message.type == MSG_SNAP:
            raise BadFrame("a snapshot among messages")
        self._traffic.received_messages += 1
        self._station.receiver.step(message)

    def _on_ping(self, payload: bytes) -> None:
        if len(payload) != _PING.size:
            raise BadFrame("a ping of a wrong size")
        if not self.connection.paused:
            self._send(framed(Kind.PONG, payload))

    def _on_pong(self, payload: bytes) -> None:
        if self._pinged_at is None or payload != _PING.pack(self._pings):
            return
        now = asyncio.get_running_loop().time()
        self._traffic.count_round_trip(now - self._pinged_at)
        self._pinged_at = None

    async def _answer(self, kind: str, payload: bytes) -> bytes:
        return await self._station.receiver.answer(self.peer_id, kind, payload)

    def lost(self, reason: str) -> None:
        offence = self.connection.offence
        if offence is not None:
            self._station.complaints.say(
                (self.peer_id, offence),
                "closed a connection with member %x: it sent %s",
                self.peer_id,
                offence,
            )
        self._asked.lost(reason)
        self._answering.lost()
        if self.on_lost is not None:
            self.on_lost(reason)

    def writable(self) -> None:
        if self.on_writable is not None:
            self.on_writable()
