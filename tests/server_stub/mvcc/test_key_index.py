"""One key's generations, as transcripts: revisions are their main numbers, ``x`` ends one."""

import pytest

from etcd_pinwheel.server_stub.mvcc.index import Index
from etcd_pinwheel.server_stub.mvcc.key_index import KeyIndex
from etcd_pinwheel.server_stub.mvcc.revision import main_of, revision_key


def build(history: str) -> KeyIndex:
    """Build an index from "2 5 6x 9": puts at 2, 5 and 9, a deletion at 6."""
    index = KeyIndex()
    for word in history.split():
        revision = revision_key(int(word.rstrip("x")))
        if word.endswith("x"):
            index.end_generation(revision)
        else:
            index.put(revision)
        index._check()
    return index


def written(index: KeyIndex) -> str:
    """Write an index as :func:`build` reads it, generations divided by ``|``."""
    generations = [" ".join(str(main_of(key)) for key in one) for one in index.generations]
    return " | ".join([f"{one}x" for one in generations[:-1]] + generations[-1:])


def stored(keys: list[bytes]) -> str:
    """Write keys of the B+tree as :func:`build` reads them."""
    return " ".join(f"{main_of(key)}{key[17:].replace(b't', b'x').decode()}" for key in keys)


HISTORY = "2 5 6x 9 12 13x 15"


@pytest.mark.parametrize(
    ("at", "seen"),
    [
        (1, None),
        (2, 2),
        (4, 2),
        (5, 5),
        (6, None),
        (8, None),
        (9, 9),
        (12, 12),
        (13, None),
        (15, 15),
        (99, 15),
    ],
)
def test_reading_the_past(at: int, seen: int | None) -> None:
    found = build(HISTORY).newest_before(revision_key(at + 1))
    assert (None if found is None else main_of(found)) == seen


@pytest.mark.parametrize(
    ("at", "left", "deleted"),
    [
        (1, "2 5 6x | 9 12 13x | 15", ""),
        (2, "2 5 6x | 9 12 13x | 15", ""),
        (5, "5 6x | 9 12 13x | 15", "2"),
        (6, "6x | 9 12 13x | 15", "2 5"),
        (7, "9 12 13x | 15", "2 5 6x"),
        (9, "9 12 13x | 15", "2 5 6x"),
        (12, "12 13x | 15", "2 5 6x 9"),
        (13, "13x | 15", "2 5 6x 9 12"),
        (14, "15", "2 5 6x 9 12 13x"),
        (99, "15", "2 5 6x 9 12 13x"),
    ],
)
def test_compacting(at: int, left: str, deleted: str) -> None:
    index = build(HISTORY)
    assert stored(index.compact(at)) == deleted
    assert written(index) == left
    index._check()
    assert index.compact(at) == []


@pytest.mark.parametrize(("at", "is_empty"), [(6, False), (7, True)])
def test_a_deleted_key_is_forgotten_behind_its_tombstone(at: int, is_empty: bool) -> None:
    index = build("2 5 6x")
    index.compact(at)
    assert index.is_empty is is_empty


def test_create_revision_and_version() -> None:
    index = build("2 5")
    assert index.put(revision_key(7)) == (2, 3)
    index.end_generation(revision_key(8))
    assert index.put(revision_key(9)) == (9, 1)


def test_they_survive_compaction_and_restoring() -> None:
    index = build("2 5 7")
    index.compact(7)
    assert index.put(revision_key(8)) == (2, 4)
    restored = KeyIndex.restored(revision_key(7), created=2, version=3)
    assert restored.put(revision_key(8)) == (2, 4)


def test_a_tombstone_alone_is_restored_as_a_generation() -> None:
    index = KeyIndex.restored_tombstone(revision_key(6))
    index._check()
    assert written(index) == "6x | "
    assert index.newest() is None
    assert stored(index.compact(7)) == "6x"


def test_keys_with_one_version_take_no_object() -> None:
    """The memory of a large store depends on it, also after compaction and restoring."""
    index = Index()
    index.put(b"once", revision_key(2))
    index.restore_put(b"restored", revision_key(3), 3, 1)
    index.put(b"deleted", revision_key(4))
    index.tombstone(b"deleted", revision_key(5))
    index.put(b"deleted", revision_key(6))
    assert isinstance(index._tree[b"deleted"], KeyIndex)
    index.compact_behind(b"", 6, 10)
    assert [type(entry) for entry in index._tree.values()] == [bytes, bytes, bytes]
    index._check()
