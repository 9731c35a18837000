"""Ranges: limits, filters, orders, and the quirks that clients may have come to rely on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos.etcdserverpb import RangeRequest
from etcd_pinwheel.server_stub.apply.ranges import of_stored, read_range
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

Pairs = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def store() -> Store:
    """Keys a, b, c with mod revisions 5, 3, 4, create revisions 2, 3, 4, values z, y, x."""
    store = Store(MemoryBackend(), Lessor(2))
    for key, value in ((b"a", b"0"), (b"b", b"y"), (b"c", b"x"), (b"a", b"z")):
        with store.write() as txn:
            txn.put(key, value)
    return store


def keys(store: Store, **options: Any) -> tuple[bytes, bool]:
    request = RangeRequest(key=b"a", range_end=b"z", **options)
    reply = read_range(store, request)
    assert reply.count == 3
    assert reply.header.revision == 5
    return b"".join(pair.key for pair in reply.kvs), reply.more


KEY, VERSION, CREATE, MOD, VALUE = range(5)
NONE, ASCEND, DESCEND = range(3)
ROWS: list[tuple[dict[str, Any], tuple[bytes, bool]]] = [
    ({}, (b"abc", False)),
    ({"limit": 2}, (b"ab", True)),
    ({"limit": 3}, (b"abc", False)),
    ({"limit": -1}, (b"abc", False)),
    ({"sort_order": DESCEND}, (b"cba", False)),
    ({"sort_order": DESCEND, "limit": 1}, (b"c", True)),
    ({"sort_order": ASCEND, "limit": 1}, (b"a", True)),
    ({"sort_target": MOD, "sort_order": ASCEND}, (b"bca", False)),
    ({"sort_target": MOD, "sort_order": DESCEND, "limit": 2}, (b"ac", True)),
    ({"sort_target": VALUE, "sort_order": ASCEND}, (b"cba", False)),
    ({"sort_target": CREATE, "sort_order": DESCEND}, (b"cba", False)),
    ({"sort_target": VERSION, "sort_order": ASCEND}, (b"bca", False)),
    ({"sort_target": VERSION, "sort_order": DESCEND}, (b"abc", False)),
    # A target without an order sorts, but only what was fetched without it.
    ({"sort_target": MOD}, (b"bca", False)),
    ({"sort_target": MOD, "limit": 1}, (b"b", True)),
    ({"sort_target": VALUE, "limit": 1}, (b"b", True)),
    ({"min_mod_revision": 4}, (b"ac", False)),
    ({"max_mod_revision": 4}, (b"bc", False)),
    ({"min_mod_revision": 4, "max_mod_revision": 4}, (b"c", False)),
    ({"min_create_revision": 3}, (b"bc", False)),
    ({"max_create_revision": 3, "limit": 1}, (b"a", True)),
    ({"max_create_revision": 1}, (b"", False)),
    ({"count_only": True}, (b"", False)),
    ({"count_only": True, "limit": 1}, (b"", False)),
    ({"keys_only": True, "limit": 2}, (b"ab", True)),
]


@pytest.mark.parametrize(("options", "expected"), ROWS)
def test_what_is_returned(
    store: Store, options: dict[str, Any], expected: tuple[bytes, bool]
) -> None:
    assert keys(store, **options) == expected


def test_keys_only_clears_the_value_and_nothing_else(store: Store) -> None:
    request = RangeRequest(key=b"a", keys_only=True)
    (pair,) = read_range(store, request).kvs
    assert (pair.value, pair.version, pair.create_revision, pair.mod_revision) == (b"", 2, 2, 5)


def test_the_past_is_read_and_the_header_tells_of_now(store: Store) -> None:
    reply = read_range(store, RangeRequest(key=b"a", range_end=b"\0", revision=3))
    assert [(pair.key, pair.value) for pair in reply.kvs] == [(b"a", b"0"), (b"b", b"y")]
    assert (reply.header.revision, reply.count) == (5, 2)


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=4))
def test_stored_values_become_a_response(values: list[bytes]) -> None:
    """Lengths on both sides of every size that their encoding has."""
    from etcd_pinwheel.protos.mvccpb import KeyValue

    pairs = [KeyValue(key=b"k", value=value) for value in values]
    assert list(of_stored(pair.SerializeToString() for pair in pairs).kvs) == pairs
