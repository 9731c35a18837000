"""The store against a naive twin: a list of all changes that were ever made.

Programs are drawn from a seed, which hypothesis picks and prints: its own state machines leave out
rules at random (swarm testing), and then hardly any history comes about.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import TypeAlias

import google_crc32c
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etcd_pinwheel.protos.errors import COMPACTED, FUTURE_REVISION, Refusal, Refused
from etcd_pinwheel.protos.mvccpb import KeyValue
from etcd_pinwheel.server_stub.mvcc import store as store_module
from etcd_pinwheel.server_stub.mvcc.backend import Backend, Bucket
from etcd_pinwheel.server_stub.mvcc.compaction import Compaction
from etcd_pinwheel.server_stub.mvcc.revision import Revision, encode
from etcd_pinwheel.server_stub.mvcc.store import Store, WriteTxn
from etcd_pinwheel.server_stub.storage.backend import LmdbBackend
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

NAMES = [b"a", b"aa", b"ab", b"b", b"b\0", b"c", b"\xff", b"\xff\xff"]
ENDS = [b"", b"", b"\0", *NAMES, b"\xff\xff\xff"]
Op: TypeAlias = tuple[bytes, bytes, int] | tuple[bytes, bytes]
"""A put (key, value, lease) or a deletion (key, end)."""


class Book:
    """A lessor of two leases."""

    def __init__(self) -> None:
        self.attached: dict[bytes, int] = {}

    def exists(self, lease_id: int) -> bool:
        return lease_id in (7, 8)

    def attach(self, lease_id: int, key: bytes) -> None:
        assert self.exists(lease_id)
        self.attached[key] = lease_id

    def detach(self, key: bytes) -> None:
        self.attached.pop(key, None)

    def lease_of(self, key: bytes) -> int:
        return self.attached.get(key, 0)


@dataclass(frozen=True)
class Change:
    revision: Revision
    kv: KeyValue
    """A tombstone has only its key."""

    @property
    def is_tombstone(self) -> bool:
        return not self.kv.version


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


@dataclass
class Twin:
    """Every change ever made, and what follows from that."""

    changes: list[Change] = field(default_factory=list)
    revision: int = 1
    compacted: int = -1

    def state(self, main: int) -> dict[bytes, Change]:
        """What is to be seen at a revision, by key in order."""
        seen = {c.kv.key: c for c in self.changes if c.revision.main <= main}
        return {key: seen[key] for key in sorted(seen) if not seen[key].is_tombstone}

    def refusal(self, main: int) -> Refusal | None:
        if main > self.revision:
            return FUTURE_REVISION
        return COMPACTED if 0 < main < self.compacted else None

    def range(self, key: bytes, end: bytes, main: int) -> list[KeyValue]:
        state = self.state(main or self.revision)
        return [change.kv for name, change in state.items() if in_range(name, key, end)]

    def hash(self, main: int) -> int:
        """The recipe of HashKV, over all that was ever written."""
        kept = {change.revision for change in self.state(main).values()}
        kept = kept or {change.revision for change in self.state(self.compacted).values()}
        checksum: int = google_crc32c.extend(0, b"key")
        for change in self.changes:
            if change.revision.main > main:
                break
            if change.revision.main > self.compacted or change.revision in kept:
                row = encode(change.revision, change.is_tombstone) + change.kv.SerializeToString()
                checksum = google_crc32c.extend(checksum, row)
        return checksum

    def put(self, main: int, sub: int, key: bytes, value: bytes, lease: int) -> None:
        before = next((c.kv for c in reversed(self.changes) if c.kv.key == key), KeyValue())
        kv = KeyValue(
            key=key,
            value=value,
            lease=lease,
            mod_revision=main,
            create_revision=before.create_revision or main,
            version=before.version + 1,
        )
        self.changes.append(Change(Revision(main, sub), kv))

    def delete_range(self, main: int, sub: int, key: bytes, end: bytes) -> int:
        names = [name for name in self.state(main) if in_range(name, key, end)]
        for number, name in enumerate(names):
            self.changes.append(Change(Revision(main, sub + number), KeyValue(key=name)))
        return len(names)


class Program:
    """A random order of writes, reads, compactions (finished or not) and restarts."""

    def __init__(self, seed: int, path: Path | None) -> None:
        self.random = Random(seed)
        self.path = path
        self.backend: Backend = LmdbBackend(path) if path else MemoryBackend()
        self.book = Book()
        self.store = Store(self.backend, self.book)
        self.twin = Twin()
        self.compactions: list[Compaction] = []

    def run(self, steps: int) -> None:
        weights: dict[Callable[[], None], int] = {
            self.write: 12,
            self.read: 6,
            self.compact: 2,
            self.step_compaction: 4,
            self.finish_compactions: 1,
            self.restart: 2,
            self.hash_some: 3,
            self.commit: 3,
        }
        for action in self.random.choices(list(weights), list(weights.values()), k=steps):
            action()
            self.check()
        for action in (self.finish_compactions, self.restart, self.hash_some):
            action()
            self.check()

    def draw_op(self) -> Op:
        random = self.random
        key = random.choice(NAMES)
        if random.random() < 0.25:
            return key, random.choice(ENDS)
        return key, random.randbytes(random.randrange(3)), random.choice([0, 0, 7, 8])

    def write(self) -> None:
        random = self.random
        ops = [self.draw_op() for _ in range(random.choice([1, 1, 1, 2, 4]))]
        key, end = random.choice(NAMES), random.choice(ENDS)
        main, sub = self.twin.revision + 1, 0
        with self.store.write() as txn:
            for op in ops:
                sub += self.apply(txn, main, sub, op)
                assert txn.revision == self.twin.revision + (1 if sub else 0)
                expected = self.twin.range(key, end, main)
                assert txn.range(key, end).kvs == expected
                assert len(txn.changes) == sub
        self.twin.revision += 1 if sub else 0

    def apply(self, txn: WriteTxn, main: int, sub: int, op: Op) -> int:
        """Do one operation on both; return how many changes it made."""
        if len(op) == 3:
            txn.put(*op)
            self.twin.put(main, sub, *op)
            return 1
        deleted = self.twin.delete_range(main, sub, *op)
        assert txn.delete_range(*op) == deleted
        return deleted

    def read(self) -> None:
        random = self.random
        key, end, limit = random.choice(NAMES), random.choice(ENDS), random.randrange(4)
        back = random.randrange(-1, 12)
        main = max(self.twin.revision - back, 0)
        refusal = self.twin.refusal(main)
        if refusal is not None:
            with pytest.raises(Refused) as caught:
                self.store.range(key, end, revision=main)
            assert caught.value.refusal == refusal
            return
        expected = self.twin.range(key, end, main)
        page = expected[:limit] if limit else expected
        found = self.store.range(key, end, revision=main, limit=limit)
        assert (found.kvs, found.count, found.revision) == (
            page,
            len(expected),
            self.twin.revision,
        )
        stored = self.store.range_stored(key, end, revision=main, limit=limit)
        assert [KeyValue.FromString(value) for value in stored.values] == page
        counted = self.store.range(key, end, revision=main, limit=limit, count_only=True)
        assert (counted.kvs, counted.count) == ([], len(expected))
        first = self.store.page_stored(key, end, revision=main, limit=limit + 1)
        assert first == [kv.SerializeToString() for kv in expected[: limit + 1]]

    def compact(self) -> None:
        main = max(self.twin.revision - self.random.randrange(-1, 9), 0)
        if main <= self.twin.compacted or main > self.twin.revision:
            with pytest.raises(Refused) as caught:
                self.store.compact(main)
            expected = FUTURE_REVISION if main > self.twin.revision else COMPACTED
            assert caught.value.refusal == expected
            return
        compaction = self.store.compact(main)
        compaction._batch_limit = 2
        self.compactions.append(compaction)
        self.twin.compacted = main

    def step_compaction(self) -> None:
        if not self.compactions:
            return
        compaction = self.random.choice(self.compactions)
        for _ in range(self.random.randrange(1, 5)):
            more = compaction.step()
            assert more != compaction.is_done
        self.compactions = [one for one in self.compactions if not one.is_done]

    def finish_compactions(self) -> None:
        """Afterwards nothing is stored but what can be seen, and tombstones at the boundary."""
        for compaction in self.compactions:
            while compaction.step():
                pass
        self.compactions.clear()
        main = self.twin.compacted
        newest = {c.kv.key: c for c in self.twin.changes if c.revision.main <= main}
        expected = [
            encode(change.revision, change.is_tombstone)
            for change in self.twin.changes
            if change.revision.main > main
            or (
                change is newest[change.kv.key]
                and (change.revision.main == main or not change.is_tombstone)
            )
        ]
        assert [key for key, _ in self.backend.range(Bucket.KEY, b"")] == expected

    def restart(self) -> None:
        """Compactions in flight die with the process; one takes over the work of all."""
        if isinstance(self.backend, LmdbBackend):
            self.backend.close()
            assert self.path
            self.backend = LmdbBackend(self.path)
        fresh = Book()
        self.store = Store(self.backend, fresh)
        assert fresh.attached == self.book.attached
        self.book = fresh
        unfinished = self.store.unfinished_compaction
        assert (unfinished is None) or bool(self.compactions)
        self.compactions = [] if unfinished is None else [unfinished]

    def commit(self) -> None:
        if isinstance(self.backend, LmdbBackend) and self.random.random() < 0.5:
            self.backend.hand_over()
        else:
            self.backend.commit()

    def hash_some(self) -> None:
        main = max(self.twin.revision - self.random.randrange(7), self.twin.compacted, 1)
        found = self.store.hash_by_revision(main)
        assert found.hash == self.twin.hash(main)
        assert found[1:] == (self.twin.compacted, main, self.twin.revision)

    def check(self) -> None:
        self.store._check()
        assert self.store.revision == self.twin.revision
        assert self.store.compacted_revision == self.twin.compacted
        attached = {kv.key: kv.lease for kv in self.twin.range(b"\0", b"\0", 0) if kv.lease}
        assert self.book.attached == attached


SEEDED = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@settings(SEEDED, max_examples=300)
@given(
    seed=st.integers(0, 2**64),
    few=st.sampled_from([1, 4, 5_000]),
    few_keys=st.sampled_from([0, 0, 3, 5_000]),
    keys_a_change=st.sampled_from([1, 1, 40]),
)
def test_in_memory(
    seed: int, few: int, few_keys: int, keys_a_change: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as small:
        small.setattr(store_module, "_FEW_CHANGES", few)
        small.setattr(store_module, "_FEW_KEYS", few_keys)
        small.setattr(store_module, "_KEYS_A_CHANGE", keys_a_change)
        Program(seed, None).run(steps=60)


@pytest.mark.slow
@settings(SEEDED, max_examples=60)
@given(seed=st.integers(0, 2**64))
def test_on_a_disk(seed: int, tmp_path: Path) -> None:
    program = Program(seed, Path(mkdtemp(dir=tmp_path)) / "db")
    assert isinstance(program.backend, LmdbBackend)
    try:
        program.run(steps=60)
    finally:
        program.backend.close()
