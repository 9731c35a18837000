"""The transport of one member: every connection to and from the others."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from ...protos import raftpb
from ..raft.messages import Message
from ..version import SERVER_VERSION
from .connection import Connection
from .frames import Kind, framed
from .greeting import Channel, Hello, Verdict, Version
from .inquiry import answer_inquiry
from .limits import PeerLimits
from .link import Link
from .listening import Listener
from .outgoing import Outgoing
from .receiver import PeerUnreachable, Receiver
from .snapshot_receiving import SnapshotInbox
from .snapshot_sending import SnapshotFailed, send_snapshot
from .station import Station
from .traffic import Traffic

log = logging.getLogger(__package__)

_WITH_ENTRIES: Final = frozenset({raftpb.MsgApp, raftpb.MsgProp})
_TICKS: Final = 0.25, 1.0
"""Bounds in seconds: a busy machine is not silent, and members may be configured differently."""
_CHANNELS: Final = (Channel.CONTROL, Channel.APPENDS)


class Peers:
    """Carries messages, questions and snapshots between a member and the others.

    Every member dials every other one: what it says goes over the connections that it made.
    Used from the loop's thread only.
    """

    def __init__(
        self,
        own_id: int,
        cluster_id: int,
        receiver: Receiver,
        *,
        snapshot_dir: Path,
        election_timeout_seconds: float = 1.0,
        tls_server: ssl.SSLContext | None = None,
        tls_client: ssl.SSLContext | None = None,
        allowed_names: Collection[str] = (),
        on_connected: Callable[[int], None] = lambda _: None,
        limits: PeerLimits | None = None,
    ) -> None:
        """``snapshot_dir``: where received snapshots go. A silent connection is given up after
        three election timeouts or so. ``allowed_names``: common names, one of which a caller's
        certificate must bear; none: any. ``on_connected`` is told when ``connected_since`` is no
        longer None for a member.
        """
        self._station = Station(
            own_id,
            cluster_id,
            receiver,
            limits or PeerLimits(),
            _version(SERVER_VERSION),
            tls_server,
            tls_client,
            on_connected,
        )
        self._listener = Listener(
            self._station, self._admit, self._welcome, allowed_names=frozenset(allowed_names)
        )
        self._inbox = SnapshotInbox(self._station, snapshot_dir)
        self._urls: dict[int, tuple[str, ...]] = {}
        self._outgoing: dict[int, dict[Channel, Outgoing]] = {}
        self._accepted: dict[tuple[int, Channel], Link] = {}
        self._snapshots_in = 0
        self._snapshots_out = 0
        self._tick_seconds = min(max(election_timeout_seconds / 2, _TICKS[0]), _TICKS[1])
        self._ticking: asyncio.TimerHandle | None = None
        self._tick()

    # Life

    async def listen(self, urls: Iterable[str]) -> list[tuple[str, int]]:
        """Accept connections at these URLs; return the hosts and ports bound, e.g. for port 0.

        Raises ``OSError``, or ValueError for a URL that cannot be listened on.
        """
        self._inbox.clean()
        return [await self._listener.listen(url) for url in urls]

    def set_members(self, members: Mapping[int, Sequence[str]]) -> None:
        """Talk to these members from now on: their ids and peer URLs. Our own is left out."""
        if self._station.closing:
            return
        wanted = {
            peer_id: tuple(urls)
            for peer_id, urls in members.items()
            if peer_id != self._station.own_id
        }
        for peer_id in self._urls.keys() - wanted.keys():
            self._forget(peer_id)
        for peer_id, urls in wanted.items():
            streams = self._outgoing.get(peer_id)
            if streams is None:
                self._outgoing[peer_id] = {
                    channel: Outgoing(self._station, peer_id, channel, urls)
                    for channel in _CHANNELS
                }
                continue
            for stream in streams.values():
                stream.set_urls(urls)
        self._urls = wanted

    async def close(self) -> None:
        """End everything: what was sent before has a moment to leave. Tells the receiver nothing.

        When it returns no task, socket or file is left.
        """
        station = self._station
        station.closing = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._listener.close()
        for streams in self._outgoing.values():
            for stream in streams.values():
                stream.close()
        for task in list(station.tasks):
            task.cancel()
        await asyncio.gather(*station.tasks, return_exceptions=True)
        connections = list(station.connections)
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()
        await asyncio.gather(*station.tasks, return_exceptions=True)

    # Messages

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages, each to the member it names; never blocks.

        What one turn of the loop sends to a member is one write. What cannot be sent is dropped,
        and the receiver learns it by ``unreachable`` afterwards. Snapshots go another way.
        """
        station = self._station
        for message in messages:
            frame = framed(Kind.MESSAGE, *station.encoder.encode(message))
            traffic = station.traffic[message.to]
            if self._send(message, frame):
                traffic.sent_messages += 1
            else:
                traffic.dropped_messages += 1
                station.unreachable(message.to)

    def _send(self, message: Message, frame: Sequence[bytes]) -> bool:
        if sum(map(len, frame)) > self._station.limits.max_frame_bytes:
            self._station.complaints.say("frame", "a message is too large to be sent")
            return False
        channel = Channel.APPENDS if message.type in _WITH_ENTRIES else Channel.CONTROL
        streams = self._outgoing.get(message.to)
        if streams is not None:
            return streams[channel].send(frame)
        # A member that is newer than what we have applied has no URL here: answer where it called.
        link = self._accepted.get((message.to, Channel.CONTROL))
        if link is None or link.connection.paused:
            return False
        link.connection.write_soon(frame)
        return True

    # Questions

    async def ask(self, peer_id: int, kind: str, payload: bytes, timeout_seconds: float) -> bytes:
        """Ask a member, and wait for what its receiver answers.

        Raises ``Refused`` with the other side's refusal, or ``PeerUnreachable``: not connected
        (at once), lost, or no answer in time.
        """
        if len(payload) + len(kind) > self._station.limits.max_question_bytes:
            raise ValueError(f"a question of {len(payload)} bytes")
        link = self._link(peer_id)
        if link is None:
            raise PeerUnreachable(f"not connected to member {peer_id:x}")
        return await link.ask(kind, payload, timeout_seconds)

    # Snapshots

    async def send_snapshot(self, message: Message, open_copy: Callable[[], BinaryIO]) -> bool:
        """Send a ``MsgSnap`` with the file that ``open_copy`` opens (called in a thread).

        Returns when it is over, and has told the receiver by ``snapshot_status`` whether the
        other side has taken it over.
        """
        ok = False

        async def send() -> None:
            nonlocal ok
            ok = await self._try_to_send_snapshot(message, open_copy)

        sending = self._station.spawn(send())
        try:
            await asyncio.wait({sending})
        finally:
            sending.cancel()
        if not self._station.closing:
            self._station.receiver.snapshot_status(message.to, ok)
        return ok

    async def _try_to_send_snapshot(
        self, message: Message, open_copy: Callable[[], BinaryIO]
    ) -> bool:
        target = message.to
        traffic = self._station.traffic[target]
        try:
            await self._send_snapshot(message, open_copy)
        except SnapshotFailed as error:
            traffic.snapshot_send_failures += 1
            self._station.complaints.say(
                (target, "snapshot"), "cannot send a snapshot to member %x: %s", target, error
            )
            return False
        traffic.sent_snapshots += 1
        return True

    async def _send_snapshot(self, message: Message, open_copy: Callable[[], BinaryIO]) -> None:
        urls = self._urls.get(message.to)
        if urls is None:
            raise SnapshotFailed("its URLs are not known")
        if self._snapshots_out >= self._station.limits.max_snapshots:
            raise SnapshotFailed("enough others are on their way")
        self._snapshots_out += 1
        try:
            await send_snapshot(self._station, urls, message, open_copy)
        finally:
            self._snapshots_out -= 1

    # Facts

    def connected_since(self, peer_id: int) -> float | None:
        """When our connection to a member was made (``time.monotonic``); None: there is none."""
        streams = self._outgoing.get(peer_id)
        return streams[Channel.CONTROL].connected_since if streams is not None else None

    def server_version(self, peer_id: int) -> Version | None:
        """Which server a member last said it is, as (major, minor, patch)."""
        return self._station.versions.get(peer_id)

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        """The counters, by member id."""
        return self._station.traffic

    # Inside

    def _link(self, peer_id: int) -> Link | None:
        streams = self._outgoing.get(peer_id)
        if streams is not None:
            return streams[Channel.CONTROL].link
        return self._accepted.get((peer_id, Channel.CONTROL))

    def _tick(self) -> None:
        """Watch all connections, twice in an election timeout."""
        for streams in self._outgoing.values():
            for stream in streams.values():
                stream.tick()
        for link in list(self._accepted.values()):
            link.tick()
        loop = asyncio.get_running_loop()
        self._ticking = loop.call_later(self._tick_seconds, self._tick)

    def _forget(self, peer_id: int) -> None:
        for stream in self._outgoing.pop(peer_id).values():
            stream.close()
        for channel in _CHANNELS:
            link = self._accepted.get((peer_id, channel))
            if link is not None:
                link.connection.close("not a member any more")

    def _admit(self, hello: Hello) -> Verdict:
        """Judge whether there is room for a caller."""
        limits = self._station.limits
        if hello.channel == Channel.SNAPSHOT:
            return Verdict.BUSY if self._snapshots_in >= limits.max_snapshots else Verdict.WELCOME
        if hello.channel == Channel.INQUIRY:
            return Verdict.WELCOME
        if hello.channel not in _CHANNELS:
            return Verdict.BAD_CALLER
        unknown = {peer_id for peer_id, _ in self._accepted} - self._urls.keys()
        if hello.sender in self._urls or len(unknown) < limits.max_unknown_members:
            return Verdict.WELCOME
        return Verdict.WELCOME if hello.sender in unknown else Verdict.BUSY

    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        """Take over the connection of a caller that was bidden welcome."""
        if hello.channel == Channel.INQUIRY:
            answer_inquiry(self._station, connection)
        elif hello.channel == Channel.SNAPSHOT:
            self._snapshots_in += 1
            try:
                await self._inbox.receive(connection, hello)
            finally:
                self._snapshots_in -= 1
                self._forget_stranger(hello.sender)
        else:
            self._accept(connection, hello)

    def _accept(self, connection: Connection, hello: Hello) -> None:
        """Serve a member's stream; it takes the place of an older one."""
        peer_id, channel = hello.sender, Channel(hello.channel)
        self._station.versions[peer_id] = hello.server_version
        older = self._accepted.get((peer_id, channel))
        link = Link(self._station, connection, peer_id, dialed=False)
        self._accepted[peer_id, channel] = link
        if older is not None:
            older.connection.abort("a newer connection takes its place")

        def lost(reason: str) -> None:
            if self._accepted.get((peer_id, channel)) is link:
                del self._accepted[peer_id, channel]
            self._forget_stranger(peer_id)
            log.debug("member %x is gone from its %s stream: %s", peer_id, channel.name, reason)

        link.on_lost = lost
        link.start()
        for stream in self._outgoing.get(peer_id, {}).values():
            stream.hurry()

    def _forget_stranger(self, peer_id: int) -> None:
        """Keep no facts about a caller that was never a member: it may be anybody's invention."""
        if peer_id not in self._urls and not any(
            (peer_id, channel) in self._accepted for channel in _CHANNELS
        ):
            self._station.traffic.pop(peer_id, None)
            self._station.versions.pop(peer_id, None)


def _version(text: str) -> Version:
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch
