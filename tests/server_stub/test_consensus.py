"""The driver of a replica: what waits for the disk and what does not, and how it fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from inprocess.served import PATIENCE_SECONDS, until

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, PutRequest
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.apply.quota import Quota
from etcd_pinwheel.server_stub.cluster import Cluster, ClusterMember
from etcd_pinwheel.server_stub.consensus import Consensus
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import LogLost, Raft, ReadState, Ready, Role
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.replica import Applied, Replica
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend
from etcd_pinwheel.server_stub.storage.wal import Wal

OWN, SECOND, THIRD = 1, 2, 3
FOUNDERS = Cluster(9, tuple(ClusterMember(each, (f"http://{each}",)) for each in (1, 2, 3)))
PUT = InternalRaftRequest(put=PutRequest(key=b"k")).SerializeToString()


class Disk:
    """A log whose saves can be held up, or fail."""

    def __init__(self, directory: Path) -> None:
        self.wal = Wal.create(
            directory / "wal", FOUNDERS.metadata(OWN), FOUNDERS.bootstrap_entries()
        )
        self.is_free = threading.Event()
        self.is_free.set()
        self.saves: list[int] = []
        self.error: Exception | None = None
        self._save = self.wal.save
        self.wal.save = self._held  # type: ignore[method-assign]

    def _held(
        self, hard_state: raftpb.HardState | None, entries: Iterable[raftpb.Entry] = ()
    ) -> None:
        assert self.is_free.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        entries = list(entries)
        self.saves.append(len(entries))
        self._save(hard_state, entries)


class Driven:
    """A driver with a test at both ends of it."""

    def __init__(self, directory: Path, tick_seconds: float = 1000.0) -> None:
        self.disk = Disk(directory)
        backend, lessor = MemoryBackend(), Lessor(1)
        self.store = Store(backend, lessor)
        membership, quota = Membership(backend, 9), Quota(backend, 0)
        applier = Applier(backend, self.store, lessor, membership, quota, lambda _: None)
        log = Log(FOUNDERS.bootstrap_entries())
        self.raft = Raft(
            Config(id=OWN),
            log,
            raftpb.HardState(term=1, commit=3),
            raftpb.ConfState(),
            lambda limit: limit - 1,
        )
        replica = Replica(self.raft, applier, snapshot_every=1000, catch_up_entries=1000)
        replica.apply(10, 0.0)
        self.sent: list[Message] = []
        self.snapshots: list[Message] = []
        self.told: list[str] = []
        self.done: list[Applied] = []
        self.answers: list[ReadState] = []
        self.ticks = 0
        self.held: list[bytes] = []
        self.clock = time.monotonic
        self.consensus = Consensus(
            replica,
            self.disk.wal,
            lambda: self.clock(),
            tick_seconds=tick_seconds,
            post=self,
            listener=self,
            install=self.install,
        )

    # What it is to the driver

    def send(self, messages: Iterable[Message]) -> None:
        self.sent += messages

    def send_snapshot(self, message: Message) -> None:
        self.snapshots.append(message)

    async def install(self, ready: Ready) -> None:
        raise NotImplementedError

    def before_turn(self) -> None:
        while self.held and not self.consensus.is_gathering:
            self.raft.propose(self.held.pop(0))

    def ticked(self) -> None:
        self.ticks += 1

    def state_changed(self) -> None:
        self.told.append(f"{self.raft.role.value} of {self.raft.leader}")

    def applied(self, done: list[Applied]) -> None:
        self.done += done

    def read_indexes(self, answers: list[ReadState]) -> None:
        self.answers += answers

    def installed(self) -> None:
        self.told.append("installed")

    def failed(self, error: BaseException) -> None:
        self.told.append(f"failed: {error}")

    # What a test does

    def hear(self, kind: raftpb.MessageType, sender: int = SECOND, **fields: object) -> None:
        """Have a message of another member arrive."""
        term = fields.pop("term", self.raft.term)
        self.consensus.step(Message(kind, OWN, sender, term=term, **fields))  # type: ignore[arg-type]

    def take(self, kind: raftpb.MessageType) -> list[Message]:
        """Take the messages of one kind that were sent."""
        found = [message for message in self.sent if message.type == kind]
        self.sent = [message for message in self.sent if message.type != kind]
        return found

    async def sending(self, kind: raftpb.MessageType) -> list[Message]:
        """Wait for messages of a kind; take them."""
        await until(lambda: any(message.type == kind for message in self.sent))
        return self.take(kind)

    async def lead(self) -> None:
        """Win an election, and commit the first entry of the term."""
        self.raft.campaign()
        self.consensus.wake()
        (asked, _) = await self.sending(raftpb.MsgPreVote)
        self.hear(raftpb.MsgPreVoteResp, term=asked.term)
        await self.sending(raftpb.MsgVote)
        self.hear(raftpb.MsgVoteResp)
        await until(lambda: self.raft.role is Role.LEADER)
        await self.sending(raftpb.MsgApp)
        self.hear(raftpb.MsgAppResp, index=self.raft.log.last_index)
        await until(lambda: self.raft.committed_in_term and self.consensus._idle.is_set())
        self.sent.clear()


@pytest.fixture
async def driven(tmp_path: Path) -> AsyncIterator[Driven]:
    driven = Driven(tmp_path)
    driven.consensus.start()
    yield driven
    driven.disk.is_free.set()
    await driven.consensus.stop()
    driven.disk.wal.close()


async def test_a_leader_sends_while_it_writes(driven: Driven) -> None:
    await driven.lead()
    driven.disk.saves.clear()
    driven.disk.is_free.clear()
    driven.raft.propose(PUT)
    driven.consensus.wake()
    appends = await driven.sending(raftpb.MsgApp)
    assert {(each.to, len(each.entries)) for each in appends} >= {(SECOND, 1)}
    assert driven.disk.saves == []
    assert driven.store.revision == 1
    driven.hear(raftpb.MsgAppResp, index=driven.raft.log.last_index)
    driven.hear(raftpb.MsgAppResp, THIRD, index=driven.raft.log.last_index)
    await asyncio.sleep(0)
    assert driven.store.revision == 1, "committed by the others, but not yet here"
    driven.disk.is_free.set()
    await until(lambda: driven.store.revision == 2)


async def test_a_follower_acknowledges_what_is_durable(driven: Driven) -> None:
    entry = raftpb.Entry(Term=2, Index=4, Data=PUT)
    driven.disk.is_free.clear()
    driven.hear(raftpb.MsgApp, term=2, index=3, log_term=1, entries=[entry], commit=3)
    await asyncio.sleep(0.02)
    assert not driven.take(raftpb.MsgAppResp)
    driven.disk.is_free.set()
    (answer,) = await driven.sending(raftpb.MsgAppResp)
    assert (answer.to, answer.index, answer.reject) == (SECOND, 4, False)
    assert driven.store.revision == 1
    driven.hear(raftpb.MsgHeartbeat, commit=4)
    await until(lambda: driven.store.revision == 2)


async def test_heartbeats_and_reads_wait_for_no_disk(driven: Driven) -> None:
    await driven.lead()
    driven.disk.is_free.clear()
    driven.raft.propose(PUT)
    driven.consensus.wake()
    await driven.sending(raftpb.MsgApp)
    driven.raft.read_index(b"question")
    driven.consensus.wake()
    beats = await driven.sending(raftpb.MsgHeartbeat)
    assert {each.to for each in beats} == {SECOND, THIRD}
    driven.hear(raftpb.MsgHeartbeatResp, context=beats[0].context)
    await until(lambda: bool(driven.answers))
    assert [(each.index, each.context) for each in driven.answers] == [(4, b"question")]


async def test_a_vote_waits_for_the_disk(driven: Driven) -> None:
    driven.disk.is_free.clear()
    driven.hear(raftpb.MsgVote, term=5, index=9, log_term=4)
    await asyncio.sleep(0.02)
    assert not driven.sent
    driven.disk.is_free.set()
    (vote,) = await driven.sending(raftpb.MsgVoteResp)
    assert (vote.to, vote.reject) == (SECOND, False)
    driven.disk.wal.close()
    _, contents = Wal.open(driven.disk.wal.directory)
    assert (contents.hard_state.term, contents.hard_state.vote) == (5, SECOND)


async def test_what_comes_during_a_save_is_one_batch(driven: Driven) -> None:
    await driven.lead()
    driven.disk.saves.clear()
    driven.disk.is_free.clear()
    began = time.monotonic()
    driven.clock = lambda: began  # what is gathered waits for the disk, however slow the test is
    driven.held.append(PUT)
    driven.consensus.wake()
    await driven.sending(raftpb.MsgApp)
    for _ in range(20):
        driven.held.append(PUT)
        driven.consensus.wake()
        await asyncio.sleep(0)
    assert not driven.take(raftpb.MsgApp), "what is gathered is sent with its own save"
    driven.clock = time.monotonic
    driven.disk.is_free.set()
    appends = await driven.sending(raftpb.MsgApp)
    assert max(len(each.entries) for each in appends) == 20
    await until(lambda: sum(driven.disk.saves) == 21)
    assert [size for size in driven.disk.saves if size] == [1, 20]


async def test_a_disk_that_stalls_holds_up_nobody_else(driven: Driven) -> None:
    await driven.lead()
    driven.disk.is_free.clear()
    driven.held.append(PUT)
    driven.consensus.wake()
    await driven.sending(raftpb.MsgApp)
    await until(lambda: not driven.consensus.is_gathering)
    driven.held.append(PUT)
    driven.consensus.wake()
    await driven.sending(raftpb.MsgApp)


async def test_a_change_of_leader_is_told_before_its_answers(driven: Driven) -> None:
    driven.hear(raftpb.MsgHeartbeat, term=2)
    driven.hear(raftpb.MsgReadIndexResp, index=3, context=b"question")
    await until(lambda: bool(driven.answers))
    assert driven.told == [f"follower of {SECOND}"]


@pytest.mark.parametrize("kind", [raftpb.MsgApp, raftpb.MsgVote])
async def test_a_disk_that_fails_ends_it_before_anything_is_promised(
    driven: Driven, kind: raftpb.MessageType
) -> None:
    driven.disk.error = OSError("no disk")
    entry = raftpb.Entry(Term=2, Index=4, Data=PUT)
    driven.hear(kind, term=2, index=3, log_term=1, entries=[entry])
    with pytest.raises(OSError, match="no disk"):
        await asyncio.wait_for(asyncio.shield(driven.consensus.failure), PATIENCE_SECONDS)
    assert "failed: no disk" in driven.told
    driven.hear(raftpb.MsgHeartbeat, term=3)
    await asyncio.sleep(0)
    assert not driven.sent
    assert driven.raft.term == 2, "it hears nothing any more"


async def test_a_log_that_was_lost_ends_it(driven: Driven) -> None:
    driven.hear(raftpb.MsgHeartbeat, term=2, commit=1_000)
    with pytest.raises(LogLost):
        await asyncio.wait_for(asyncio.shield(driven.consensus.failure), PATIENCE_SECONDS)


async def test_proposals_of_others_wait_while_the_lead_is_handed_over(driven: Driven) -> None:
    await driven.lead()
    driven.raft.transfer_leader(THIRD)
    driven.hear(raftpb.MsgProp, SECOND, term=0, entries=[raftpb.Entry(Data=PUT)])
    driven.hear(raftpb.MsgProp, THIRD, term=0, entries=[raftpb.Entry(Data=b"")])
    await asyncio.sleep(0)
    last = driven.raft.log.last_index
    assert driven.raft.dropped == 0
    driven.hear(raftpb.MsgHeartbeat, THIRD, term=driven.raft.term + 1)
    await until(lambda: len([m for m in driven.sent if m.type == raftpb.MsgProp]) == 2)
    handed_on = driven.take(raftpb.MsgProp)
    assert [(each.to, each.entries[0].Data) for each in handed_on] == [(THIRD, b""), (THIRD, PUT)]
    assert driven.raft.log.last_index == last


async def test_a_handing_over_that_comes_to_nothing(driven: Driven) -> None:
    await driven.lead()
    driven.raft.transfer_leader(THIRD)
    driven.hear(raftpb.MsgProp, SECOND, term=0, entries=[raftpb.Entry(Data=PUT)])
    last = driven.raft.log.last_index
    driven.raft.transferee = 0
    driven.consensus.wake()
    await until(lambda: driven.raft.log.last_index == last + 1)


async def test_ticks_that_were_missed_are_not_made_up_for(tmp_path: Path) -> None:
    driven = Driven(tmp_path, tick_seconds=0.02)
    driven.consensus.start()
    await until(lambda: driven.ticks == 2)
    time.sleep(0.3)  # noqa: ASYNC251 (a process that is stopped)
    late = driven.ticks
    for _ in range(5):
        await asyncio.sleep(0)
    assert driven.ticks <= late + 1
    await driven.consensus.stop()
    driven.disk.wal.close()


async def test_it_stops_after_the_save_under_way(driven: Driven) -> None:
    driven.disk.is_free.clear()
    driven.hear(raftpb.MsgVote, term=5, index=9, log_term=4)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stopping = asyncio.create_task(driven.consensus.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    driven.disk.is_free.set()
    await stopping
    assert not driven.sent
