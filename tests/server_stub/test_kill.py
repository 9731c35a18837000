"""kill -9 at any moment: what was acknowledged is there, and nothing is half applied."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import psutil
import pytest
from faults.torn_wal import tear, wal_of

from etcd_pinwheel.protos.etcdserverpb import (
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from etcd_pinwheel.protos.mvccpb import KeyValue
from etcd_pinwheel.protos.rpcs import KV_RANGE, KV_TXN
from etcd_pinwheel.server_stub.local import LocalMember, LocalMemberError
from etcd_pinwheel.server_stub.storage.wal_reader import read_wal

pytestmark = pytest.mark.process

WRITERS = 6
KILLS = 6


@dataclass
class Acknowledged:
    """What the writers were promised: the revision of each write, by its number."""

    revisions: dict[int, int] = field(default_factory=dict)
    attempted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_number(self) -> int:
        with self.lock:
            self.attempted += 1
            return self.attempted


def write_pairs(member: LocalMember, promised: Acknowledged, enough: threading.Event) -> None:
    """Write pairs of keys, each pair in one transaction, until the member is gone."""
    with grpc.insecure_channel(member.endpoint) as channel:
        txn = channel.unary_unary(
            KV_TXN.path, TxnRequest.SerializeToString, KV_TXN.reply.FromString
        )
        while not enough.is_set():
            number = promised.next_number()
            value = b"%d" % number * (number % 90 + 1)
            puts = [
                RequestOp(request_put=PutRequest(key=b"%s/%08d" % (side, number), value=value))
                for side in (b"left", b"right")
            ]
            try:
                reply = txn(TxnRequest(success=puts), timeout=20)
            except grpc.RpcError:
                return
            promised.revisions[number] = reply.header.revision


@contextmanager
def load(member: LocalMember, promised: Acknowledged) -> Iterator[None]:
    """Keep writers busy; leaving it, they end by themselves or are told to."""
    enough = threading.Event()
    writers = [
        threading.Thread(target=write_pairs, args=(member, promised, enough))
        for _ in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        enough.set()
        for writer in writers:
            writer.join()


def wait_for(condition: str, promised: Acknowledged, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(promised.revisions) < count:
        assert time.monotonic() < deadline, condition
        threading.Event().wait(0.001)


def everything(member: LocalMember) -> tuple[int, dict[bytes, KeyValue]]:
    """The store's revision, and all of its keys."""
    with grpc.insecure_channel(member.endpoint) as channel:
        stub = channel.unary_unary(
            KV_RANGE.path, RangeRequest.SerializeToString, KV_RANGE.reply.FromString
        )
        reply = stub(RangeRequest(key=b"\0", range_end=b"\0"), timeout=30)
        return reply.header.revision, {kv.key: kv for kv in reply.kvs}


def check(member: LocalMember, promised: Acknowledged) -> None:
    """Every promise is kept, and every pair is whole, promised or not."""
    revision, found = everything(member)
    for number, acknowledged_at in promised.revisions.items():
        for side in (b"left", b"right"):
            kv = found[b"%s/%08d" % (side, number)]
            assert kv.mod_revision == acknowledged_at
            assert kv.create_revision == acknowledged_at
            assert kv.version == 1
            assert kv.value == b"%d" % number * (number % 90 + 1)
    left = {kv.mod_revision: key[-8:] for key, kv in found.items() if key.startswith(b"left/")}
    right = {kv.mod_revision: key[-8:] for key, kv in found.items() if key.startswith(b"right/")}
    assert left == right
    assert sorted(left) == list(range(2, revision + 1)), "each revision is one pair"
    assert revision >= max(promised.revisions.values())


def test_kill_at_random_moments_loses_nothing() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    promised = Acknowledged()
    with LocalMember() as member:
        for _ in range(KILLS):
            before = len(promised.revisions)
            with load(member, promised):
                wait_for("the member serves", promised, before + moments.randrange(1, 150))
                threading.Event().wait(moments.random() * 0.02)
                member.kill()
            member.restart()
            check(member, promised)


@pytest.mark.slow
def test_kill_while_snapshots_are_taken() -> None:
    """One every 50 entries, so that most kills are near one."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    promised = Acknowledged()
    with LocalMember("--snapshot-count=50") as member:
        for _ in range(2 * KILLS):
            before = len(promised.revisions)
            with load(member, promised):
                wait_for("the member serves", promised, before + moments.randrange(1, 300))
                member.kill()
            member.restart()
            check(member, promised)


def test_a_tail_torn_by_the_kill_is_cut_and_told() -> None:
    promised = Acknowledged()
    with LocalMember() as member:
        with load(member, promised):
            wait_for("the member serves", promised, 20)
            member.kill()
        tear(member)
        member.restart()
        assert "cut an unfinished write" in member.output
        check(member, promised)
        member.kill()
        member.restart()
        assert "cut an unfinished write" not in member.output
        check(member, promised)


def test_damage_to_what_was_acknowledged_refuses_to_start() -> None:
    promised = Acknowledged()
    with LocalMember() as member:
        with load(member, promised):
            wait_for("the member serves", promised, 20)
            member.kill()
        contents, end = read_wal(wal_of(member))
        content = bytearray(end.path.read_bytes())
        entry = contents.entries[len(contents.entries) // 2].Data
        content[content.index(entry) + len(entry) // 2] ^= 0x10  # in padding it would be no damage
        end.path.write_bytes(content)
        with pytest.raises(LocalMemberError) as caught:
            member.restart()
        assert member.exit_code == 1
        assert f"corrupt write-ahead log: {end.path} at offset" in str(caught.value)


def test_a_disk_that_is_full_stops_the_member_and_loses_nothing() -> None:
    promised = Acknowledged()
    with LocalMember() as member:
        with load(member, promised):
            wait_for("the member serves", promised, 50)
            psutil.Process(member.pid).rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))
            assert member.wait() == 1
        assert "cannot write the write-ahead log" in member.output
        assert "File too large" in member.output
        member.restart()
        check(member, promised)


def test_a_stop_under_load_loses_nothing() -> None:
    promised = Acknowledged()
    with LocalMember() as member:
        with load(member, promised):
            wait_for("the member serves", promised, 50)
            assert member.stop() == 0
        member.restart()
        assert "cut an unfinished write" not in member.output
        check(member, promised)
