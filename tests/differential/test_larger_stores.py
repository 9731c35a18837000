"""Thousands of keys: ranges, pages, sorting, deletion and hashes of more than a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lockstep.pair import EVERYTHING, Pair

from etcd_pinwheel.protos import rpcs

KEYS = 3000
BATCH = 100


@pytest.fixture(scope="module")
def full(living_pair: Callable[[], Pair]) -> Pair:
    """A store of some thousand keys in several versions, partly compacted."""
    pair = living_pair()
    pair.start_afresh()
    for version in range(3):
        for start in range(0, KEYS, BATCH * (version + 1)):
            put_batch(pair, start, b"%d" % (start % 7))
    pair.call(rpcs.KV_DELETE_RANGE, key=b"k00100", range_end=b"k00200", prev_kv=True)
    pair.call(rpcs.KV_COMPACT, revision=pair.revision - 20, physical=True)
    put_batch(pair, 100, b"again")
    return pair


def put_batch(pair: Pair, start: int, value: bytes) -> None:
    numbers = range(start, start + BATCH)
    puts = [{"request_put": {"key": b"k%05d" % n, "value": value + b"%d" % n}} for n in numbers]
    pair.call(rpcs.KV_TXN, success=puts)


RANGES: list[dict[str, Any]] = [
    {},
    {"limit": 10},
    {"limit": KEYS - 1},
    {"limit": KEYS + 1},
    {"count_only": True},
    {"keys_only": True},
    {"keys_only": True, "limit": 100},
    {"sort_target": 4, "sort_order": 1, "limit": 50},
    {"sort_order": 2, "limit": 7},
]


@pytest.mark.parametrize("fields", RANGES, ids=str)
def test_ranges(full: Pair, fields: dict[str, Any]) -> None:
    for revision in (0, full.revision - 1, full.revision - 10):
        full.call(rpcs.KV_RANGE, revision=revision, **EVERYTHING, **fields)


@pytest.mark.parametrize("limit", [0, 500])
@pytest.mark.parametrize(("target", "field"), [(1, "version"), (3, "mod_revision")])
def test_sorting_of_equals(full: Pair, target: int, field: str, limit: int) -> None:
    """The order among equals is a known difference (order-of-equals); all else is not."""
    asked = {"sort_target": target, "sort_order": 2, "limit": limit, **EVERYTHING}
    request = rpcs.KV_RANGE.request(**asked)
    etcd, ours = full.on_each(lambda side: side.call(rpcs.KV_RANGE, request).reply)
    assert [getattr(kv, field) for kv in etcd.kvs] == [getattr(kv, field) for kv in ours.kvs]
    assert (etcd.count, etcd.more, etcd.header) == (ours.count, ours.more, ours.header)
    if not limit:
        theirs, our = (sorted(reply.kvs, key=lambda kv: kv.key) for reply in (etcd, ours))
        assert theirs == our


def test_paging(full: Pair) -> None:
    """The way of a client: page by page, at one revision, to the end."""
    key, seen = b"\0", 0
    while True:
        page = full.call(
            rpcs.KV_RANGE, key=key, range_end=b"\0", limit=333, revision=full.revision
        ).reply
        seen += len(page.kvs)
        if not page.more:
            break
        key = page.kvs[-1].key + b"\0"
    assert seen > KEYS


def test_hashes(full: Pair) -> None:
    for revision in range(full.compacted_revision, full.revision + 1):
        full.call(rpcs.MAINTENANCE_HASH_KV, revision=revision)


def test_deleting_all_of_it(full: Pair) -> None:
    full.call(rpcs.KV_DELETE_RANGE, prev_kv=True, **EVERYTHING)
    full.call(rpcs.KV_RANGE, **EVERYTHING)
    full.call(rpcs.MAINTENANCE_HASH_KV)
    full.call(rpcs.KV_COMPACT, revision=full.revision, physical=True)
    put_batch(full, 0, b"after")
    full.call(rpcs.MAINTENANCE_HASH_KV)
