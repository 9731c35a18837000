"""Clients that watch: every event, once, in order, from any member, across crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcd_pinwheel.protos.mvccpb import Event
from etcd_pinwheel.server_stub.mvcc.watch_stream import WatchBatch, WatchStream

from .violation import demand

if TYPE_CHECKING:
    from .member import Member
    from .world import World

POLL_SECONDS = 0.07
_EVERYTHING = (b"\0", b"\0")


class Watcher:
    """Watches one key, or all, at one member after the other."""

    def __init__(self, world: World, name: str, key: bytes | None) -> None:
        """``key`` of None watches all."""
        self.world = world
        self.name = name
        self.key = key
        self.seen = 1
        """Everything up to this revision was told, as far as this watch wants it."""
        self.events = 0
        self.member: Member | None = None
        """Where it watches."""
        self._incarnation = 0
        self._stream: WatchStream | None = None

    def begin(self) -> None:
        """Look now and then what there is, and go elsewhere when the member is gone."""
        self.look()
        self.world.clock.after(POLL_SECONDS, self.begin)

    def look(self) -> None:
        """Take what there is."""
        member = self.member
        if member is None or not member.is_up or member.incarnation != self._incarnation:
            self._attach()
        elif not member.is_paused and self._stream is not None:
            for batch in self._stream.take():
                self._hear(batch)
            if self.world.random.random() < 0.2 and self._stream is not None:
                self._stream.request_progress()

    def moves(self) -> None:
        """Watch elsewhere from now on."""
        if self._stream is not None and self.member is not None and self.member.is_up:
            self._stream.close()
        self.member = None

    def _attach(self) -> None:
        world = self.world
        up = [
            world.members[each]
            for each in world.serving()
            if world.members[each].is_up and not world.members[each].is_paused
        ]
        if not up:
            return
        self.member = member = world.random.choice(up)
        self._incarnation = member.incarnation
        self._stream = member.parts.store.watch_stream(lambda: None)
        key, end = _EVERYTHING if self.key is None else (self.key, b"")
        self._stream.watch(key, end, start_revision=self.seen + 1)
        world.trace.note(self.name, f"watches at {member.name} from {self.seen + 1}")

    def _hear(self, batch: WatchBatch) -> None:
        if batch.compact_revision:
            demand(
                batch.compact_revision > self.seen + 1,
                "a watch ends only when its past is compacted",
                f"{self.name} wants {self.seen + 1}, compacted is {batch.compact_revision}",
            )
            self.seen = batch.compact_revision - 1
            self.member = None
            return
        by_revision: dict[int, list[tuple[bytes, bytes | None]]] = {}
        for event in batch.events:
            value = event.kv.value if event.type == Event.PUT else None
            by_revision.setdefault(event.kv.mod_revision, []).append((event.kv.key, value))
            self.events += 1
        for revision, changes in by_revision.items():
            self._hear_revision(revision, changes)
        if batch.progress:
            missed = self.world.ledger.model.next_change(self.key, self.seen)
            demand(
                missed is None or missed > batch.revision,
                "progress comes after events",
                f"{self.name} is told of progress {batch.revision}, not of revision {missed}",
            )

    def _hear_revision(self, revision: int, changes: list[tuple[bytes, bytes | None]]) -> None:
        model = self.world.ledger.model
        wanted = model.next_change(self.key, self.seen)
        demand(
            revision == wanted,
            "watched once, in order, without gaps",
            f"{self.name} is told of revision {revision} after {self.seen}; next is {wanted}",
        )
        happened = [each for each in model.events[revision] if self.key in (None, each[0])]
        demand(
            changes == happened,
            "watched as it was written",
            f"{self.name} at revision {revision}: {changes}, not {happened}",
        )
        self.seen = revision
