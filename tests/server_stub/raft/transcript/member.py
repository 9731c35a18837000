"""One member as the tests drive it: a core, what its disk holds, and what it has applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.confchange import ChangeRefused, decode_change
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft, Ready
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message


class State(NamedTuple):
    """What all entries up to `index` make: their data in order, and the configuration."""

    index: int
    term: int
    conf_state: raftpb.ConfState
    data: tuple[bytes, ...]

    def after(self, entry: raftpb.Entry, conf_state: raftpb.ConfState | None) -> State:
        data = (entry.Data,) if entry.Type == raftpb.EntryNormal and entry.Data else ()
        return State(entry.Index, entry.Term, conf_state or self.conf_state, (*self.data, *data))

    def to_snapshot(self) -> raftpb.Snapshot:
        metadata = raftpb.SnapshotMetadata(
            conf_state=self.conf_state, index=self.index, term=self.term
        )
        return raftpb.Snapshot(metadata=metadata, data=b"\0".join(self.data))

    @classmethod
    def from_snapshot(cls, snapshot: raftpb.Snapshot) -> State:
        data = tuple(snapshot.data.split(b"\0")) if snapshot.data else ()
        metadata = snapshot.metadata
        return cls(metadata.index, metadata.term, metadata.conf_state, data)


@dataclass(slots=True)
class Disk:
    """What a restart finds."""

    compacted: tuple[int, int] = (0, 0)
    """Index and term before the first of the entries."""
    entries: list[raftpb.Entry] = field(default_factory=list)
    hard_state: raftpb.HardState = field(default_factory=raftpb.HardState)

    @property
    def last_index(self) -> int:
        return self.compacted[0] + len(self.entries)

    def term(self, index: int) -> int:
        """Return the term of an entry; 0 for one that is not here any more or not yet."""
        if index == self.compacted[0]:
            return self.compacted[1]
        position = index - self.compacted[0] - 1
        return self.entries[position].Term if 0 <= position < len(self.entries) else 0

    def write(self, ready: Ready) -> None:
        """Write as a WAL does: entry i discards what was there from i on."""
        if ready.snapshot is not None:
            self.compacted = (ready.snapshot.metadata.index, ready.snapshot.metadata.term)
            self.entries = []
        if ready.entries:
            start = ready.entries[0].Index - self.compacted[0] - 1
            assert 0 <= start <= len(self.entries), "a hole in the log"
            self.entries[start:] = ready.entries
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state


class Member:
    """One member; nothing happens in it unless it is told to."""

    def __init__(
        self,
        config: Config,
        state: State,
        terms: Sequence[int] = (),
        term: int = 0,
        draw: Callable[[int], int] | None = None,
    ) -> None:
        """Start with a log of entries of these terms behind `state`, all saved.

        ``draw(n)`` is the core's randomness; without it the core draws `jitter`.
        """
        self.draw = draw or (lambda n: min(self.jitter, n - 1))
        self.config = config
        self.states = {state.index: state}
        """Every state that it has passed through, for snapshots of the past and restarts."""
        self.disk = Disk(
            (state.index, state.term),
            [
                raftpb.Entry(Index=index, Term=entry_term, Data=b"t%d" % entry_term)
                for index, entry_term in enumerate(terms, state.index + 1)
            ],
            raftpb.HardState(term=max([term, state.term, *terms]), commit=state.index),
        )
        self.saving: Ready | None = None
        self.jitter = 0
        """What the core draws for its election timeout, in ticks beyond the shortest."""
        self.offered: int | None = None
        """Index of the snapshot that it offers to others; None: of all that it has applied."""
        self.snapshots_available = True
        self.on_apply: Callable[[raftpb.Entry], None] = lambda entry: None
        self.reads: list[tuple[int, bytes]] = []
        self.raft = self.booted(state.index)

    def booted(self, applied: int) -> Raft:
        """Return a core made from the disk and from the state at `applied`."""
        log = Log(list(self.disk.entries), compacted=self.disk.compacted)
        log.committed = log.applied = applied
        return Raft(
            self.config,
            log,
            copy_of(self.disk.hard_state),
            self.states[applied].conf_state,
            self.draw,
            self.snapshot,
        )

    @property
    def state(self) -> State:
        return self.states[self.raft.applied_index]

    def snapshot(self) -> raftpb.Snapshot | None:
        """Give the core the snapshot that it asks for, if one is to be had."""
        if not self.snapshots_available:
            return None
        return self.states[self.offered or self.raft.applied_index].to_snapshot()

    def restart(self, applied: int | None = None) -> None:
        """Lose everything but the disk and the state at `applied` (None: the last one)."""
        self.saving = None
        applied = max(self.states) if applied is None else applied
        self.states = {index: state for index, state in self.states.items() if index <= applied}
        self.raft = self.booted(applied)

    def begin_save(self) -> bool:
        """Take what is to be saved; return whether there is anything."""
        assert self.saving is None, "one save at a time"
        self.saving = self.raft.ready()
        if self.saving is None:
            return False
        self.check_save(self.saving)
        return True

    def check_save(self, ready: Ready) -> None:
        """A commit index on record is proof that the entries up to it were durable before."""
        durable = self.disk.last_index
        if ready.snapshot is not None:
            durable = max(durable, ready.snapshot.metadata.index)
        if ready.hard_state is not None:
            assert ready.hard_state.commit <= durable, "commit on record before its entries"
            assert ready.hard_state.term >= self.disk.hard_state.term, "term goes back"
        changed = ready.hard_state is not None and (
            ready.hard_state.term != self.disk.hard_state.term
            or ready.hard_state.vote != self.disk.hard_state.vote
        )
        assert ready.must_sync or not (changed or ready.entries), "saved without a sync"

    def end_save(self) -> None:
        """Write what was taken, install a snapshot in it, and tell the core."""
        ready, self.saving = self.saving, None
        assert ready is not None, "nothing was being saved"
        self.disk.write(ready)
        if ready.snapshot is not None:
            state = State.from_snapshot(ready.snapshot)
            self.states[state.index] = state
        self.raft.saved(ready)

    def apply(self, limit: int = 1000) -> int:
        """Apply what is committed and saved; return how many entries."""
        entries = self.raft.committed(limit)
        for entry in entries:
            self.apply_one(entry)
        if entries:
            self.raft.applied(entries[-1].Index)
        return len(entries)

    def apply_one(self, entry: raftpb.Entry) -> None:
        before = self.states[entry.Index - 1]
        self.on_apply(entry)
        conf_state = None if entry.Type == raftpb.EntryNormal else self.change(entry)
        self.states[entry.Index] = before.after(entry, conf_state)

    def change(self, entry: raftpb.Entry) -> raftpb.ConfState:
        """Carry out a change, or veto it if it does not fit what came before it."""
        try:
            return self.raft.apply_change(decode_change(entry))
        except ChangeRefused:
            return self.raft.apply_change(raftpb.ConfChange())

    def compact(self, index: int) -> None:
        """Forget the entries up to `index`, in memory and on disk."""
        term = self.raft.log.term(index)
        self.raft.log.compact(index)
        del self.disk.entries[: index - self.disk.compacted[0]]
        self.disk.compacted = (index, term)

    def sent(self) -> list[Message]:
        """Take what the core sends, and check that it may: nothing is promised from memory."""
        self.reads += [(read.index, read.context) for read in self.raft.reads()]
        messages = self.raft.messages()
        for message in messages:
            self.check_promise(message)
        return [replace(message, entries=tuple(message.entries)) for message in messages]

    def check_promise(self, message: Message) -> None:
        """What a message promises must survive a crash: votes, terms and acknowledged entries."""
        assert message.sender == self.config.id, "signed by somebody else"
        hard_state = self.disk.hard_state
        match message.type:
            case raftpb.MsgAppResp if not message.reject:
                assert message.index <= self.disk.last_index, "acknowledged before it was saved"
                assert message.term <= hard_state.term, "acknowledged in a term not saved"
            case raftpb.MsgVoteResp if not message.reject:
                promised = (hard_state.term, hard_state.vote) == (message.term, message.to)
                assert promised or hard_state.term > message.term, "voted before it was saved"
            case raftpb.MsgVote | raftpb.MsgApp | raftpb.MsgHeartbeat | raftpb.MsgSnap:
                assert message.term <= hard_state.term, "campaigns or leads in a term not saved"


def copy_of(hard_state: raftpb.HardState) -> raftpb.HardState:
    return raftpb.HardState.FromString(hard_state.SerializeToString())
