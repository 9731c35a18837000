"""A member whose every step is planned: the driver of the real parts on virtual time.

It does what :mod:`etcd_pinwheel.server_stub.consensus` does, in the same order, and asks the same
objects for every decision; in between are the points at which a run may cut its power.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.cluster import removed_members
from etcd_pinwheel.server_stub.mvcc.restoring import restore
from etcd_pinwheel.server_stub.raft.core import Raft, Ready, Role
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.raft.node import ProposalDropped
from etcd_pinwheel.server_stub.storage.wal import WalFailed

from .booting import Parts, Refusing, boot
from .disk import CrashingBackend, Disk
from .service import Service

if TYPE_CHECKING:
    from .world import World

STEPS = (
    "before send",
    "between messages",
    "before save",
    "during save",
    "after save",
    "before apply",
    "between entries",
    "after apply",
    "before install",
    "during install",
    "after install",
    "before mark",
    "after mark",
    "after release",
)
"""Where a crash can be armed."""


class PowerCut(Exception):
    """The member ends here and now."""


class Member:
    """One member, up or down; its disk outlives its crashes."""

    def __init__(self, world: World, member_id: int, disk: Disk) -> None:
        self.world = world
        self.id = member_id
        self.name = f"m{member_id}"
        self.disk = disk
        self.incarnation = 0
        self.is_up = False
        self.is_paused = False
        self.armed: str | None = None
        """The step at which its power is cut next."""
        self.tick_rate = 1.0
        """Its clock against the world's."""
        self._clock_base = self._clock_since = 0.0
        self.disk_seconds = world.profile.disk_seconds
        self.parts: Parts
        self.service: Service
        self.saving: Ready | None = None
        self._backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._applying = False

    @property
    def raft(self) -> Raft:
        return self.parts.raft

    @property
    def now(self) -> float:
        """Its own clock, in seconds."""
        return self._clock_base + (self.world.clock.now - self._clock_since) * self.tick_rate

    def skew(self, rate: float) -> None:
        """Have its clock run at another rate from now on."""
        self._clock_base, self._clock_since = self.now, self.world.clock.now
        self.tick_rate = rate

    # Up and down

    def start(self) -> None:
        """Boot from what the disk has; a member that refuses stays down."""
        world = self.world
        try:
            self.parts = boot(world, self.id, self.disk)
        except Refusing as refusing:
            world.trace.note(self.name, f"does not start: {refusing}")
            world.clock.after(0.2, world.revive, self)
            return
        self.incarnation += 1
        self.is_up, self.is_paused, self.armed = True, False, None
        self.saving, self._applying = None, False
        self._backlog.clear()
        self.service = Service(self)
        raft = self.raft
        world.trace.note(
            self.name,
            f"starts: term {raft.term} vote {raft.vote} commit {raft.commit_index}"
            f" applied {raft.applied_index} last {raft.log.last_index}",
        )
        world.rules.started(self)
        profile = world.profile
        self.after(world.random.random() * profile.tick_seconds, self._tick)
        self.after(profile.backend_commit_seconds * world.random.random(), self._commit_backend)
        self.enter(self.incarnation, self._pump, ())

    def crash(self, why: str) -> None:
        """Lose power, with whatever was not synced."""
        if not self.is_up:
            return
        self.is_up = False
        self.service.stop()
        saving, self.saving = self.saving, None
        self.disk.fails = True  # what is not synced by now stays so
        with suppress(WalFailed):
            if saving is not None and saving.snapshot is None and self.world.random.random() < 0.5:
                self.world.rules.durable[self.id].tries(saving.entries)
                self.parts.wal.save(saving.hard_state, saving.entries)
        with suppress(WalFailed):
            self.parts.wal.close()
        left = "all"
        if self.world.random.random() < 0.6:
            left = self.disk.cut_power(self.world.random)
        else:
            self.disk.kill()
        self.world.trace.note(self.name, f"CRASHES ({why}); of the unsynced is left: {left}")
        self.world.crashed(self)

    def stop(self) -> None:
        """End for good: this member was removed."""
        if self.world.is_troubled:
            self.crash("it was removed")

    def knows_it_is_removed(self) -> bool:
        """Whether the state that it left behind says so."""
        return self.id in removed_members(self.disk.backend)

    def discard(self) -> None:
        """Close its files, at the end of a run."""
        if self.is_up:
            self.is_up = False
            self.disk.fails = False
            self.parts.wal.close()

    def pause(self) -> None:
        """Stand still while time goes on."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on with everything that came meanwhile."""
        self.is_paused = False
        backlog, self._backlog = self._backlog, []
        for action, arguments in backlog:
            self.enter(self.incarnation, action, arguments)

    # Doors: everything that happens to a member comes through one of these

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Plan something for this life of the member."""
        self.world.clock.after(seconds, self.enter, self.incarnation, action, arguments)

    def enter(
        self, incarnation: int, action: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Do something, unless the member died meanwhile; hold it against the rules afterwards."""
        if not self.is_up or incarnation != self.incarnation:
            return
        if self.is_paused:
            self._backlog.append((action, arguments))
            return
        try:
            action(*arguments)
        except PowerCut as cut:
            self.crash(str(cut))
        except WalFailed:
            self.crash("its disk failed")
        else:
            self.world.rules.check(self)

    def receive(self, message: Message) -> None:
        """Take a message from the network."""
        self.enter(self.incarnation, self._step, (message,))

    def point(self, step: str) -> None:
        """Pass a step at which the power may be cut."""
        if self.armed == step:
            self.armed = None
            raise PowerCut(step)

    # What happens

    def _tick(self) -> None:
        self.after(self.world.profile.tick_seconds / self.tick_rate, self._tick)
        self.raft.tick()
        self.service.tick()
        self._pump()

    def _step(self, message: Message) -> None:
        if message.sender in self.parts.membership.removed:
            return
        self.world.trace.note(self.name, f"gets {told(message)}")
        self.raft.step(message)
        self._pump()

    def snapshot_arrives(self, message: Message, state: CrashingBackend) -> None:
        """Take another member's whole state."""
        assert message.snapshot is not None
        metadata = message.snapshot.metadata
        self.disk.arrived[metadata.index, metadata.term] = state
        self.receive(message)

    def propose(self, data: bytes) -> bool:
        """Propose for a client; False when it was turned away."""
        try:
            self.raft.propose(data)
        except ProposalDropped:
            return False
        self._pump()
        return True

    def pump(self) -> None:
        """Do what is due after something was asked of the core."""
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent, save what must be saved, apply what is committed."""
        self._send()
        self._save_next()
        self._hear_reads()
        if not self._applying and self._has_committed():
            self._applying = True
            self.after(self.world.apply_delay(), self._apply)

    def _has_committed(self) -> bool:
        log = self.raft.log
        return log.handed < min(log.committed, log.saved) and log.snapshot is None

    def _disk_delay(self) -> float:
        return self.disk_seconds * (0.5 + self.world.random.random())

    def _hear_reads(self) -> None:
        self.service.leader_is(self.raft.leader)
        for answer in self.raft.reads():
            self.service.answered(answer.context, answer.index)

    # Sending

    def _send(self) -> None:
        messages = self.raft.messages()
        if not messages:
            return
        self.point("before send")
        for number, message in enumerate(messages):
            if number:
                self.point("between messages")
            if message.type == raftpb.MsgSnap:
                self._send_snapshot(message)
                continue
            self.world.rules.sends(self, message)
            if not self.world.send(message) and self.world.random.random() < 0.3:
                self.raft.report_unreachable(message.to)

    def _send_snapshot(self, message: Message) -> None:
        """Send the state as it is now, with the index of that copy."""
        replica = self.parts.replica
        message = replace(message, snapshot=replica.snapshot())
        self.world.rules.sends(self, message)
        replica.begin_transfer()
        state = self.disk.backend.copy()
        self.world.send_snapshot(self, message, state)

    def snapshot_sent(self, to: int, ok: bool) -> None:
        """Hear what became of a state that was sent."""
        self.parts.replica.end_transfer()
        self.raft.report_snapshot(to, ok)
        self._pump()

    # Saving

    def _save_next(self) -> None:
        """Give the disk what is to be saved, if it has nothing to do."""
        ready = self.raft.ready()
        if ready is not None:
            self.saving = ready
            self.after(self._disk_delay(), self._save, ready)

    def _save(self, ready: Ready) -> None:
        self.point("before save")
        if ready.snapshot is not None:
            self._install(ready, ready.snapshot)
        elif self.armed == "during save":
            raise PowerCut("during save")  # what crash does with a save under way
        else:
            self.world.rules.durable[self.id].tries(ready.entries)
            self.parts.wal.save(ready.hard_state, ready.entries)
            if ready.must_sync:
                self.world.rules.saved(self, ready.hard_state, ready.entries)
        self.point("after save")
        self.saving = None
        self.raft.saved(ready)
        self._pump()

    def _install(self, ready: Ready, snapshot: raftpb.Snapshot) -> None:
        """Put another member's state in the place of this one's."""
        metadata, wal = snapshot.metadata, self.parts.wal
        state = self.disk.arrived[metadata.index, metadata.term]
        restored = restore(state)
        self.point("before install")
        assert ready.hard_state is not None
        wal.install_snapshot(ready.hard_state, metadata.index, metadata.term, metadata.conf_state)
        self.world.rules.installed(self, ready.hard_state, snapshot)
        self.point("during install")
        self.disk.backend.become(state)
        for key in [each for each in self.disk.arrived if each[0] <= metadata.index]:
            del self.disk.arrived[key]
        self.point("after install")
        wal.save(None, ready.entries)
        self.world.rules.saved(self, None, ready.entries)
        self.parts.replica.installed(restored)

    # Applying

    def _apply(self) -> None:
        self._applying = False
        self.point("before apply")
        for number in range(self.world.random.randint(1, 8)):
            if number:
                self.point("between entries")
            done = self.parts.replica.apply(1, self.now)
            if not done:
                break
            for applied in done:
                self.world.rules.applied(self, applied)
                self.service.applied(applied)
                self.world.rules.check(self)
        self.point("after apply")
        self.service.caught_up()
        self._mark_snapshot()
        self._pump()

    def _mark_snapshot(self) -> None:
        """Let the backend stand for the log, when that is due."""
        replica, wal = self.parts.replica, self.parts.wal
        if self.saving is not None:
            return
        snapshot = replica.due_snapshot()
        if snapshot is None:
            return
        self.disk.backend.commit()
        self.point("before mark")
        metadata = snapshot.metadata
        wal.save_commit(metadata.index)
        wal.save_snapshot(metadata.index, metadata.term, metadata.conf_state)
        self.world.rules.marked(self, snapshot)
        self.point("after mark")
        replica.snapshot_saved(snapshot)
        wal.release_to(metadata.index, 2)
        self.point("after release")

    def _commit_backend(self) -> None:
        self.disk.backend.commit()
        self.after(self.world.profile.backend_commit_seconds, self._commit_backend)

    @property
    def is_leader(self) -> bool:
        return self.is_up and self.raft.role is Role.LEADER


def told(message: Message) -> str:
    """A message, in a line."""
    line = f"{raftpb.MessageType.Name(message.type)[3:]} from m{message.sender} t{message.term}"
    if message.entries:
        line += f" {message.index}/{message.log_term}+{len(message.entries)}"
    else:
        line += f" {message.index}/{message.log_term}"
    if message.reject:
        line += f" REJECT hint {message.reject_hint}"
    if message.snapshot is not None:
        line += f" snapshot {message.snapshot.metadata.index}"
    return f"{line} c{message.commit}"
