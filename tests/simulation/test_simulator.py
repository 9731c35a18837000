"""The simulator itself: the same seed is the same run, and what it is made of behaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.storage.wal import Wal, WalFailed
from tests.simulation.clock import Clock
from tests.simulation.disk import CrashingBackend, Disk
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Network
from tests.simulation.profile import CHANGES, FAULTS
from tests.simulation.run import run
from tests.simulation.sharding import SEEDS, SEEDS_PER_TEST, SHARDS, starts

ROOT = Path(__file__).parents[2]
SEED = 7


def test_a_seed_reproduces_its_run() -> None:
    first, second = run(SEED), run(SEED)
    assert not first.failed, str(first)
    assert (first.trace_hash, first.events) == (second.trace_hash, second.events)
    assert first.trace_tail == second.trace_tail
    assert run(SEED + 1).trace_hash != first.trace_hash


@pytest.mark.parametrize("hash_seed", ["1", "31337"])
def test_a_run_does_not_depend_on_the_hashes_of_strings(hash_seed: str) -> None:
    script = f"from tests.simulation.run import run; print(run({SEED}).trace_hash)"
    printed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(printed.stdout) == run(SEED).trace_hash


def test_every_seed_of_the_suite_is_in_one_shard() -> None:
    covered = [
        seed
        for shard in range(SHARDS)
        for first in starts(shard)
        for seed in range(first, first + SEEDS_PER_TEST)
    ]
    assert covered == list(range(SEEDS))
    for shard in range(SHARDS):
        assert (Path(__file__).parent / f"test_simulated_clusters_{shard}.py").exists()


def test_every_fault_is_a_thing_that_can_happen() -> None:
    for name in (*FAULTS, *CHANGES):
        assert callable(getattr(Nemesis, name))


def test_things_happen_when_they_are_due_and_in_the_order_they_were_planned() -> None:
    clock, happened = Clock(), []
    clock.after(2.0, happened.append, "later")
    clock.after(1.0, happened.append, "first")
    clock.after(1.0, happened.append, "second")
    clock.run_until(1.5)
    assert happened == ["first", "second"]
    assert clock.now == 1.5
    assert clock.step()
    assert happened[-1] == "later"
    assert not clock.step()


def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    entry = raftpb.Entry(Term=1, Index=1, Data=b"synced")
    lost = raftpb.Entry(Term=1, Index=2, Data=b"not synced")
    survivals = set()
    for seed in range(20):
        disk = Disk(tmp_path / str(seed))
        disk.path.mkdir()
        wal = Wal.create(disk.path / "wal", b"", segment_type=disk.segment_type)
        wal.save(raftpb.HardState(term=1), [entry])
        disk.fails = True
        with pytest.raises(WalFailed):
            wal.save(None, [lost])
        disk.cut_power(Random(seed))
        _, contents = Wal.open(disk.path / "wal", segment_type=disk.segment_type)
        assert contents.entries[0] == entry
        survivals.add(len(contents.entries))
    assert survivals == {1, 2}


def test_a_backend_loses_what_was_not_committed_and_nothing_else() -> None:
    backend = CrashingBackend()
    backend.put(Bucket.META, b"kept", b"1")
    backend.put(Bucket.META, b"gone", b"1")
    backend.commit()
    backend.put(Bucket.META, b"kept", b"2")
    backend.delete(Bucket.META, b"gone")
    backend.put(Bucket.META, b"new", b"1")
    copy = backend.copy()
    backend.lose_uncommitted()
    assert backend.range(Bucket.META, b"") == [(b"gone", b"1"), (b"kept", b"1")]
    assert copy.range(Bucket.META, b"") == [(b"kept", b"2"), (b"new", b"1")]
    backend.become(copy)
    backend.lose_uncommitted()
    assert backend.range(Bucket.META, b"") == [(b"kept", b"2"), (b"new", b"1")]


def test_a_network_is_cut_one_way_or_both_and_repeats_no_proposals() -> None:
    clock, arrived = Clock(), []
    network = Network(clock, Random(1))
    network.weather.duplicate = 1.0
    network.cut(({1}, {2}), one_way=True)
    assert not network.send(Message(raftpb.MsgApp, 2, 1), arrived.append)
    assert network.send(Message(raftpb.MsgApp, 1, 2), arrived.append)
    assert network.send(Message(raftpb.MsgProp, 1, 2), arrived.append)
    clock.run_until(1.0)
    kinds = [message.type for message in arrived]
    assert (kinds.count(raftpb.MsgApp), kinds.count(raftpb.MsgProp)) == (2, 1)
    network.cut(({1}, {2}))
    assert not network.send(Message(raftpb.MsgApp, 1, 2), arrived.append)
    network.mend()
    assert network.send(Message(raftpb.MsgApp, 1, 2), arrived.append)
