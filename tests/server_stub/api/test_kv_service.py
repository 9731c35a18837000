"""The KV service over a member in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from inprocess.served import Served

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import (
    COMPACTED,
    DUPLICATE_KEY,
    FUTURE_REVISION,
    KEY_NOT_PROVIDED,
    NO_SPACE,
    REQUEST_TOO_LARGE,
    TOO_MANY_OPS,
    Code,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import NOSPACE, RangeRequest, RangeResponse
from etcd_pinwheel.server_stub.api.call import Call


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Served(tmp_path / "data", max_request_bytes=100_000) as served:
        yield served


async def test_headers_say_who_answers_and_when(served: Served) -> None:
    header = (await served(rpcs.KV_PUT, key=b"k")).header
    member = served.member
    assert (header.member_id, header.cluster_id) == (member.id, member.cluster_id)
    assert (header.revision, header.raft_term) == (2, 2)
    calls: list[tuple[Any, dict[str, Any]]] = [
        (rpcs.KV_RANGE, {"key": b"k"}),
        (rpcs.KV_DELETE_RANGE, {"key": b"x"}),
        (rpcs.KV_TXN, {}),
        (rpcs.KV_TXN, {"success": [{"request_delete_range": {"key": b"x"}}]}),
        (rpcs.KV_COMPACT, {"revision": 1}),
    ]
    for rpc, fields in calls:
        assert (await served(rpc, **fields)).header == header, rpc.name


async def test_concurrent_writes_are_applied_in_order_and_all_answered(served: Served) -> None:
    revisions = await asyncio.gather(*(served.put(b"k%d" % n) for n in range(300)))
    assert list(revisions) == list(range(2, 302))
    assert (await served(rpcs.KV_RANGE, key=b"k", range_end=b"l", count_only=True)).count == 300


async def test_what_is_refused_before_it_is_proposed(served: Served) -> None:
    before = served.member.core.log.last_index
    assert await served.refusal(rpcs.KV_RANGE) is KEY_NOT_PROVIDED
    assert await served.refusal(rpcs.KV_PUT) is KEY_NOT_PROVIDED
    assert await served.refusal(rpcs.KV_DELETE_RANGE) is KEY_NOT_PROVIDED
    op = {"request_put": {"key": b"k"}}
    assert await served.refusal(rpcs.KV_TXN, success=[op, op]) is DUPLICATE_KEY
    assert await served.refusal(rpcs.KV_TXN, success=[op] * 129) is TOO_MANY_OPS
    assert await served.refusal(rpcs.KV_PUT, key=b"k", value=b"x" * 100_000) is REQUEST_TOO_LARGE
    assert served.member.core.log.last_index == before


async def test_a_transaction_that_only_reads_needs_no_entry(served: Served) -> None:
    await served.put(b"k", b"v")
    before = served.member.core.log.last_index
    ops = [{"request_range": {"key": b"k"}}]
    reply = await served(rpcs.KV_TXN, compare=[{"key": b"k", "version": 1}], success=ops)
    assert reply.succeeded
    assert reply.responses[0].response_range.kvs[0].value == b"v"
    future = [{"request_range": {"key": b"k", "revision": 9}}]
    assert await served.refusal(rpcs.KV_TXN, success=future) is FUTURE_REVISION
    assert served.member.core.log.last_index == before


async def test_a_physical_compaction_is_over_when_it_is_answered(served: Served) -> None:
    for _ in range(20):
        await served.put(b"k")
    await served(rpcs.KV_COMPACT, revision=20, physical=True)
    from etcd_pinwheel.server_stub.mvcc.backend import Bucket

    assert len(served.member.backend.range(Bucket.KEY, b"", None)) == 2
    assert await served.refusal(rpcs.KV_COMPACT, revision=20, physical=True) is COMPACTED
    assert await served.refusal(rpcs.KV_RANGE, key=b"k", revision=19) is COMPACTED


async def fill(served: Served) -> None:
    """Write until something is refused."""
    for number in range(1_000):
        await served.put(b"k%d" % number, b"x" * 5_000)
        await served.member.backend.commit_async()


async def first_refusal(doing: Awaitable[None]) -> Refusal:
    with pytest.raises(Refused) as caught:
        await doing
    return caught.value.refusal


async def test_over_the_quota_the_alarm_is_raised_before_the_answer(tmp_path: Path) -> None:
    async with Served(tmp_path / "small", quota_backend_bytes=200_000) as served:
        assert await first_refusal(fill(served)) is NO_SPACE
        (alarm,) = (await served(rpcs.MAINTENANCE_ALARM)).alarms
        assert (alarm.memberID, alarm.alarm) == (served.member.id, NOSPACE)
        assert await served.refusal(rpcs.KV_PUT, key=b"k") is NO_SPACE
        assert await served.refusal(rpcs.LEASE_LEASE_GRANT, TTL=5) is NO_SPACE
        await served(rpcs.KV_DELETE_RANGE, key=b"k", range_end=b"l")
        await served(rpcs.KV_COMPACT, revision=served.member.store.revision, physical=True)
        await served(rpcs.MAINTENANCE_DEFRAGMENT)
        await served(rpcs.MAINTENANCE_ALARM, action=2, memberID=alarm.memberID, alarm=NOSPACE)
        await served.put(b"k")


# RangeStream


def merged(replies: list[Any]) -> RangeResponse:
    whole = RangeResponse()
    for reply in replies:
        whole.MergeFrom(reply.range_response)
    return whole


STREAMED: list[dict[str, Any]] = [
    {},
    {"limit": 1},
    {"limit": 10},
    {"limit": 11},
    {"limit": 150},
    {"limit": 200},
    {"limit": 201},
    {"revision": 50},
    {"keys_only": True},
    {"count_only": True},
    {"sort_order": RangeRequest.ASCEND, "limit": 60},
    {"key": b"k100", "range_end": b""},
    {"key": b"nothing", "range_end": b""},
    {"key": b"x", "range_end": b"z"},
    {"key": b"z", "range_end": b"a"},
    {"key": b"\0", "range_end": b"\0"},
]


@pytest.mark.parametrize("options", STREAMED)
async def test_a_range_in_pieces_is_the_range(served: Served, options: dict[str, Any]) -> None:
    for number in range(200):
        await served.put(b"k%03d" % number, b"x" * 1_000)
    request = {"key": b"k", "range_end": b"l", **options}
    replies = await served.replies(rpcs.KV_RANGE_STREAM, **request)
    assert merged(replies) == await served(rpcs.KV_RANGE, **request)
    *all_but_last, last = [reply.range_response for reply in replies]
    assert last.HasField("header")
    for piece in all_but_last:
        assert not piece.HasField("header")
        assert (piece.count, piece.more) == (0, False)
        assert 0 < piece.ByteSize() < 3 * served.settings.max_request_bytes


async def test_a_stream_starts_small_and_grows(served: Served) -> None:
    for number in range(200):
        await served.put(b"k%03d" % number)
    replies = await served.replies(rpcs.KV_RANGE_STREAM, key=b"k", range_end=b"l")
    assert [len(reply.range_response.kvs) for reply in replies] == [10, 20, 40, 80, 50]


async def test_a_stream_shows_one_revision_whatever_happens_meanwhile(served: Served) -> None:
    for number in range(50):
        await served.put(b"k%03d" % number, b"old")
    serve = served.methods[rpcs.KV_RANGE_STREAM.path].serve
    stream = serve(RangeRequest(key=b"k", range_end=b"l"), Call({}))
    pieces = [await anext(stream)]
    for number in range(60):
        await served.put(b"k%03d" % number, b"new")
    pieces += [piece async for piece in stream]
    whole = merged(pieces)
    assert {pair.value for pair in whole.kvs} == {b"old"}
    assert (whole.count, len(whole.kvs), whole.header.revision) == (50, 50, 51)


async def test_a_stream_ends_when_its_revision_is_compacted(served: Served) -> None:
    for number in range(50):
        await served.put(b"k%03d" % number)
    serve = served.methods[rpcs.KV_RANGE_STREAM.path].serve
    stream = serve(RangeRequest(key=b"k", range_end=b"l"), Call({}))
    await anext(stream)
    revision = await served.put(b"k")
    await served(rpcs.KV_COMPACT, revision=revision)
    with pytest.raises(Refused) as caught:
        await anext(stream)
    assert caught.value.refusal is COMPACTED


@pytest.mark.parametrize(
    "options",
    [
        {"sort_order": RangeRequest.DESCEND},
        {"sort_target": RangeRequest.MOD},
        {"min_mod_revision": 1},
        {"max_create_revision": 1},
    ],
)
async def test_a_stream_has_no_orders_and_no_filters(
    served: Served, options: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as caught:
        await served.replies(rpcs.KV_RANGE_STREAM, key=b"k", **options)
    assert caught.value.refusal.code is Code.UNIMPLEMENTED
