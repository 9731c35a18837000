"""What a client or a crash may see of the store, case by case."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from etcd_pinwheel.protos.errors import COMPACTED, Refused
from etcd_pinwheel.protos.etcdserverpb import RangeResponse
from etcd_pinwheel.protos.mvccpb import KeyValue
from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.mvcc.store import Counters, Store
from etcd_pinwheel.server_stub.storage.backend import LmdbBackend
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend


class NoLeases:
    """A lessor without leases."""

    def exists(self, lease_id: int) -> bool:
        return False

    def attach(self, lease_id: int, key: bytes) -> None:
        raise KeyError(lease_id)

    def detach(self, key: bytes) -> None:
        pass

    def lease_of(self, key: bytes) -> int:
        return 0


@pytest.fixture
def store() -> Store:
    return Store(MemoryBackend(), NoLeases())


def put(store: Store, *keys: bytes, value: bytes = b"v") -> None:
    """Put each key in a revision of its own."""
    for key in keys:
        with store.write() as txn:
            txn.put(key, value)


def finish(step: Callable[[], bool]) -> int:
    """Step to the end; return how many steps there were."""
    steps = 1
    while step():
        steps += 1
    return steps


def test_a_new_store(store: Store) -> None:
    assert (store.revision, store.compacted_revision) == (1, -1)
    assert store.range(b"\0", b"\0").kvs == []


def test_one_transaction_is_one_revision(store: Store) -> None:
    with store.write() as txn:
        assert txn.revision == 1
        txn.put(b"a", b"1")
        assert (txn.revision, store.revision) == (2, 2)
        txn.put(b"b", b"2")
        assert txn.delete_range(b"a", b"") == 1
    assert store.revision == 2
    assert [kv.mod_revision for kv in txn.changes] == [2, 2, 2]
    assert [kv.key for kv in store.range(b"\0", b"\0").kvs] == [b"b"]


def test_a_transaction_without_changes_is_none(store: Store) -> None:
    with store.write() as txn:
        assert txn.delete_range(b"\0", b"\0") == 0
        txn.range(b"a", b"")
    assert store.revision == 1
    assert txn.changes == []


def test_operations_are_counted_as_etcd_does(store: Store) -> None:
    """A DeleteRange counts once, whatever it deletes; a single operation makes no txn."""
    put(store, b"a", b"b")
    assert store.counters.txns == 0
    with store.write() as txn:
        txn.put(b"c", b"")
        txn.range(b"c", b"")
        txn.delete_range(b"\0", b"\0")
    assert store.counters == Counters(ranges=1, puts=3, deletes=1, txns=1)


def test_what_an_error_leaves_is_a_revision(store: Store) -> None:
    """Nothing can be undone; but the store stays whole."""
    with contextlib.suppress(ZeroDivisionError), store.write() as txn:
        txn.put(b"a", b"1")
        raise ZeroDivisionError
    put(store, b"b")
    assert [kv.mod_revision for kv in store.range(b"\0", b"\0").kvs] == [2, 3]
    store._check()


def test_the_ends_of_ranges(store: Store) -> None:
    put(store, b"a", b"a\0", b"b", b"\xff\xff")

    def keys(key: bytes, end: bytes) -> list[bytes]:
        return [kv.key for kv in store.range(key, end).kvs]

    assert keys(b"a", b"") == [b"a"]
    assert keys(b"a", b"b") == [b"a", b"a\0"]
    assert keys(b"a\0", b"\0") == [b"a\0", b"b", b"\xff\xff"]
    assert keys(b"\0", b"\0") == [b"a", b"a\0", b"b", b"\xff\xff"]
    assert keys(b"b", b"a") == []
    assert keys(b"b", b"b") == []


def test_stored_values_make_a_reply_without_parsing_each(store: Store) -> None:
    """A field's tag and length before each is all that a RangeResponse adds."""
    put(store, b"a", b"b")
    stored = store.range_stored(b"\0", b"\0")
    wire = b"".join(b"\x12" + bytes([len(value)]) + value for value in stored.values)
    assert list(RangeResponse.FromString(wire).kvs) == store.range(b"\0", b"\0").kvs


def test_compaction_goes_in_batches(store: Store) -> None:
    for _ in range(2_600):
        put(store, b"k")
    compaction = store.compact(store.revision)
    with pytest.raises(Refused) as caught:
        store.range(b"k", b"", revision=store.revision - 1)
    assert caught.value.refusal == COMPACTED
    left = []
    while compaction.step():
        left.append(len(store._backend.range(Bucket.KEY, b"")))
    assert left == [1_600, 600, 1]
    assert compaction.is_done


def test_a_compaction_of_many_keys_pauses_without_deleting(store: Store) -> None:
    for number in range(25_000):
        put(store, b"%05d" % number)
    assert finish(store.compact(store.revision).step) == 3


def test_a_compaction_is_resumed_after_a_crash(tmp_path: Path) -> None:
    """Whatever batches reached the disk: a copy of what is committed is what a crash leaves."""
    backend = LmdbBackend(tmp_path / "db")
    store = Store(backend, NoLeases())
    for number in range(300):
        put(store, b"%d" % (number % 70), value=b"%d" % number)
        if number % 11 == 0:
            with store.write() as txn:
                txn.delete_range(b"%d" % (number % 13), b"")
    backend.commit()
    main = store.revision - 40
    hashes = [store.hash_by_revision(at).hash for at in (main, main + 7, store.revision)]
    compaction = store.compact(main)
    compaction._batch_limit = 20
    expected = [store.hash_by_revision(at).hash for at in (main, main + 7, store.revision)]
    assert hashes != expected
    crashes = 0
    while compaction.step():
        backend.commit()
        crash = tmp_path / f"crash-{crashes}"
        crash.mkdir()
        backend.snapshot(crash).rename(crash / "db")
        check_resumed(LmdbBackend(crash / "db"), main, expected)
        crashes += 1
    assert crashes > 5
    backend.close()


def check_resumed(backend: LmdbBackend, main: int, expected: list[int]) -> None:
    """Open what a crash left; finish the compaction; compare hashes before and after."""
    for _ in range(2):
        store = Store(backend, NoLeases())
        store._check()
        ats = (main, main + 7, store.revision)
        assert [store.hash_by_revision(at).hash for at in ats] == expected
        if store.unfinished_compaction is not None:
            finish(store.unfinished_compaction.step)
            assert [store.hash_by_revision(at).hash for at in ats] == expected
    assert store.unfinished_compaction is None
    assert store.compacted_revision == main
    backend.close()


def test_a_revision_whose_changes_are_compacted_still_counts() -> None:
    """The last revisions may leave nothing; new ones must not be numbered like them."""
    backend = MemoryBackend()
    store = Store(backend, NoLeases())
    put(store, b"k")
    with store.write() as txn:
        txn.delete_range(b"k", b"")
    put(store, b"l")
    with store.write() as txn:
        txn.delete_range(b"l", b"")
    finish(store.compact(5).step)
    again = Store(backend, NoLeases())
    assert (again.revision, again.compacted_revision) == (5, 5)


class TestHashing:
    def test_in_steps_while_the_store_goes_on(self, store: Store) -> None:
        for number in range(25_000):
            put(store, b"%05d" % number)
        expected = store.hash_by_revision().hash
        hashing = store.hashing()
        steps = 0
        while hashing.step():
            put(store, b"news")
            steps += 1
        assert steps >= 3
        assert hashing.result()[:3] == (expected, -1, 25_001)

    def test_a_compaction_on_the_way_counts(self, store: Store) -> None:
        for _ in range(3):
            for number in range(8_000):
                put(store, b"%05d" % number)
        hashing = store.hashing()
        assert hashing.step()
        finish(store.compact(20_000).step)
        finish(hashing.step)
        assert hashing.result() == store.hash_by_revision()

    def test_a_compaction_past_it_ends_it(self, store: Store) -> None:
        put(store, b"a", b"b")
        hashing = store.hashing(2)
        store.compact(3)
        with pytest.raises(Refused) as caught:
            hashing.step()
        assert caught.value.refusal == COMPACTED

    def test_the_hash_of_all_leaves_out_what_differs_between_members(self, store: Store) -> None:
        put(store, b"a")
        before = store.hash()
        for name in (b"consistent_index", b"term", b"storageVersion"):
            store._backend.put(Bucket.META, name, b"mine")
        assert store.hash() == before
        store._backend.put(Bucket.ALARM, b"x", b"")
        assert store.hash() != before


def test_values_are_etcds_bytes(store: Store) -> None:
    put(store, b"a")
    put(store, b"a", value=b"")
    with store.write() as txn:
        txn.delete_range(b"a", b"")
    rows = store._backend.range(Bucket.KEY, b"")
    assert [KeyValue.FromString(value) for _, value in rows] == [
        KeyValue(key=b"a", create_revision=2, mod_revision=2, version=1, value=b"v"),
        KeyValue(key=b"a", create_revision=2, mod_revision=3, version=2),
        KeyValue(key=b"a"),
    ]
    assert [len(key) for key, _ in rows] == [17, 17, 18]
