"""The Watch service over a member in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inprocess.served import Served, Stream

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.etcdserverpb import WatchCreateRequest, WatchResponse
from etcd_pinwheel.protos.mvccpb import Event
from etcd_pinwheel.server_stub.api.watch import (
    MAX_REQUESTS_A_TURN,
    MAX_UNREAD_REPLIES,
    fragments,
)
from etcd_pinwheel.server_stub.mvcc.watch_stream import WatchStream


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Served(tmp_path / "data") as served:
        yield served


@pytest.fixture
def stream(served: Served) -> Stream:
    return served.stream(rpcs.WATCH_WATCH)


async def create(stream: Stream, key: bytes = b"k", **fields: Any) -> Any:
    return await stream.ask(create_request={"key": key, **fields})


def told(reply: Any) -> list[tuple[int, bytes, bytes]]:
    return [(event.type, event.kv.key, event.kv.value) for event in reply.events]


async def test_a_watch_is_created_then_told(served: Served, stream: Stream) -> None:
    created = await create(stream)
    assert (created.created, created.watch_id, created.header.revision) == (True, 0, 1)
    await served.put(b"other")
    revision = await served.put(b"k", b"v")
    await served(rpcs.KV_DELETE_RANGE, key=b"k")
    first = await stream.next()
    assert (first.header.revision, told(first)) == (revision, [(Event.PUT, b"k", b"v")])
    second = await stream.next()
    assert told(second) == [(Event.DELETE, b"k", b"")]
    assert second.events[0].kv.mod_revision == revision + 1


async def test_a_transaction_is_told_at_once(served: Served, stream: Stream) -> None:
    await create(stream, range_end=b"\0")
    ops = [{"request_put": {"key": key}} for key in (b"ka", b"kb", b"kc")]
    await served(rpcs.KV_TXN, success=ops)
    assert [key for _, key, _ in told(await stream.next())] == [b"ka", b"kb", b"kc"]


async def test_the_past_is_told_before_the_present(served: Served, stream: Stream) -> None:
    for number in range(5):
        await served.put(b"k", b"%d" % number)
    created = await create(stream, start_revision=3)
    assert created.created
    await served.put(b"k", b"new")
    seen: list[bytes] = []
    while seen[-1:] != [b"new"]:
        seen += [value for _, _, value in told(await stream.next())]
    assert seen == [b"1", b"2", b"3", b"4", b"new"]


async def test_a_compacted_start_is_created_then_canceled(served: Served, stream: Stream) -> None:
    for _ in range(5):
        await served.put(b"k")
    await served(rpcs.KV_COMPACT, revision=4)
    created = await create(stream, start_revision=2)
    assert (created.created, created.canceled) == (True, False)
    canceled = await stream.next()
    assert (canceled.canceled, canceled.compact_revision) == (True, 4)
    assert (canceled.cancel_reason, canceled.header.revision) == ("", 0)
    assert (await create(stream, watch_id=created.watch_id)).watch_id != -1


async def test_filters_and_previous_values(served: Served, stream: Stream) -> None:
    await served.put(b"k", b"1")
    await create(stream, filters=[WatchCreateRequest.NODELETE], prev_kv=True)
    await create(stream, filters=[WatchCreateRequest.NOPUT])
    await served.put(b"k", b"2")
    await served(rpcs.KV_DELETE_RANGE, key=b"k")
    await served.put(b"k", b"3")
    replies = [await stream.next() for _ in range(3)]
    assert [(reply.watch_id, *told(reply)) for reply in replies] == [
        (0, (Event.PUT, b"k", b"2")),
        (1, (Event.DELETE, b"k", b"")),
        (0, (Event.PUT, b"k", b"3")),
    ]
    assert replies[0].events[0].prev_kv.value == b"1"
    assert not replies[1].events[0].HasField("prev_kv")
    assert not replies[2].events[0].HasField("prev_kv")


BAD_WATCHES: list[tuple[dict[str, Any], str]] = [
    ({"key": b"k", "range_end": b"k"}, "mvcc: watcher range is empty"),
    ({"key": b"k", "range_end": b"a"}, "mvcc: watcher range is empty"),
    (
        {"key": b"k", "watch_id": 5},
        "mvcc: duplicate watch ID provided on the WatchStream",
    ),
    (
        {"key": b"k", "start_revision": -1},
        "etcdserver: mvcc: required revision has been compacted",
    ),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_WATCHES)
async def test_a_watch_that_cannot_be(
    served: Served, stream: Stream, fields: dict[str, Any], reason: str
) -> None:
    assert (await create(stream, watch_id=5)).watch_id == 5
    reply = await stream.ask(create_request=fields)
    assert (reply.created, reply.canceled, reply.watch_id) == (True, True, -1)
    assert reply.cancel_reason == reason
    await served.put(b"k")
    assert (await stream.next()).watch_id == 5


async def test_no_key_is_the_smallest_key(served: Served, stream: Stream) -> None:
    await stream.ask(create_request={})
    await stream.ask(create_request={"range_end": b"\0"})
    await served.put(b"any")
    assert (await stream.next()).watch_id == 1
    await served.put(b"\0")
    assert {(await stream.next()).watch_id, (await stream.next()).watch_id} == {0, 1}


async def test_a_canceled_watch_hears_nothing_more(served: Served, stream: Stream) -> None:
    await create(stream)
    await served.put(b"k")
    stream.send(cancel_request={"watch_id": 0})
    stream.send(cancel_request={"watch_id": 0})
    stream.send(cancel_request={"watch_id": 77})
    replies = [await stream.next()]
    while not replies[-1].canceled:
        replies.append(await stream.next())
    await served.put(b"k")
    assert (await create(stream, b"x")).created


async def test_progress_is_told_on_request_behind_the_events(
    served: Served, stream: Stream
) -> None:
    await create(stream)
    revision = await served.put(b"k")
    stream.send(progress_request={})
    assert told(await stream.next())
    notice = await stream.next()
    assert (notice.watch_id, notice.header.revision, list(notice.events)) == (-1, revision, [])


async def test_progress_of_no_watch_is_nothing(served: Served, stream: Stream) -> None:
    stream.send(progress_request={})
    assert (await create(stream)).created


async def test_progress_is_that_of_the_watches_that_were_there_when_it_was_asked_for(
    served: Served, stream: Stream
) -> None:
    """Whatever the client asks for in the same breath."""
    await create(stream)
    revision = await served.put(b"past")
    stream.send(progress_request={})
    stream.send(create_request={"key": b"past", "start_revision": revision})
    notice, created = await stream.next(), await stream.next()
    assert (notice.watch_id, notice.header.revision) == (-1, revision)
    assert (created.created, created.watch_id) == (True, 1)
    assert told(await stream.next()) == [(Event.PUT, b"past", b"")]
    stream.send(progress_request={})
    stream.send(cancel_request={"watch_id": 0})
    stream.send(cancel_request={"watch_id": 1})
    replies = [await stream.next() for _ in range(3)]
    assert [(reply.watch_id, reply.canceled) for reply in replies] == [
        (-1, False),
        (0, True),
        (1, True),
    ]


async def test_every_request_for_progress_is_answered_and_few_looks_are_taken(
    served: Served, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is at every watch of the stream, and a request for it takes a few bytes."""
    await create(stream)
    looks: list[bool] = []
    look = WatchStream.request_progress

    def counted(watches: WatchStream) -> bool:
        looks.append(look(watches))
        return looks[-1]

    monkeypatch.setattr(WatchStream, "request_progress", counted)
    for _ in range(4 * MAX_UNREAD_REPLIES + 3):
        stream.send(progress_request={})
    for _ in range(4 * MAX_UNREAD_REPLIES + 3):
        notice = await stream.next()
        assert (notice.watch_id, notice.header.revision, list(notice.events)) == (-1, 1, [])
    assert looks == [True] * 5
    await served.put(b"k", b"v")
    assert told(await stream.next())


async def test_requests_for_progress_that_are_not_answered_are_not_read(
    served: Served, stream: Stream
) -> None:
    await create(stream)
    for _ in range(2 * MAX_UNREAD_REPLIES):
        stream.send(progress_request={})
    stream.send(create_request={"key": b"k"})
    assert (await stream.next()).watch_id == -1
    for _ in range(10):
        await asyncio.sleep(0)
    assert served.member.store.watcher_count == 1
    replies = [await stream.next() for _ in range(2 * MAX_UNREAD_REPLIES)]
    assert sum(reply.created for reply in replies) == 1


async def test_many_requests_leave_turns_to_others(served: Served, stream: Stream) -> None:
    await create(stream)
    for _ in range(50 * MAX_REQUESTS_A_TURN):
        stream.send(cancel_request={"watch_id": 77})
    answer = asyncio.create_task(create(stream))
    turns = 0
    while not answer.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await answer).created
    assert turns >= 50


async def test_quiet_watches_are_told_of_progress(tmp_path: Path) -> None:
    async with Served(tmp_path / "x", watch_progress_notify_interval_seconds=0.05) as served:
        stream = served.stream(rpcs.WATCH_WATCH)
        await create(stream, progress_notify=True)
        await create(stream)
        revision = await served.put(b"other")
        notices = [await stream.next() for _ in range(3)]
        assert [(notice.watch_id, len(notice.events)) for notice in notices] == [(0, 0)] * 3
        assert notices[-1].header.revision == revision


async def test_a_client_that_stops_asking_still_gets_events(served: Served, stream: Stream) -> None:
    await create(stream)
    stream.half_close()
    await served.put(b"k", b"v")
    assert told(await stream.next()) == [(Event.PUT, b"k", b"v")]


async def test_a_slow_client_holds_back_only_itself(served: Served, stream: Stream) -> None:
    await create(stream)
    quick = served.stream(rpcs.WATCH_WATCH)
    await create(quick)
    total = 400
    for number in range(total):
        await served.put(b"k", b"%d" % number)
        assert told(await quick.next()) == [(Event.PUT, b"k", b"%d" % number)]
    assert served.member.store.slow_watcher_count == 1
    seen: list[bytes] = []
    while len(seen) < total:
        seen += [value for _, _, value in told(await stream.next())]
    assert seen == [b"%d" % number for number in range(total)]


async def test_a_client_that_reads_no_answers_is_not_read(served: Served, stream: Stream) -> None:
    total = MAX_UNREAD_REPLIES + 50
    for _ in range(total):
        stream.send(create_request={"key": b"k"})
    assert (await stream.next()).created
    await asyncio.sleep(0)
    assert served.member.store.watcher_count <= MAX_UNREAD_REPLIES + 1
    for _ in range(total - 1):
        assert (await stream.next()).created
    assert served.member.store.watcher_count == total


async def test_closing_the_stream_forgets_its_watches(served: Served, stream: Stream) -> None:
    await create(stream)
    assert served.member.store.watcher_count == 1
    await stream.close()
    assert (served.member.store.watcher_count, served.member.store.stream_count) == (0, 0)


@given(sizes=st.lists(st.integers(0, 400), max_size=12), limit=st.integers(1, 1_000))
def test_fragments_are_the_whole_in_small_pieces(sizes: list[int], limit: int) -> None:
    whole = WatchResponse(watch_id=3)
    whole.header.revision = 7
    for number, size in enumerate(sizes, start=1):
        whole.events.add().kv.MergeFrom(
            Event(kv={"key": b"k", "mod_revision": number, "value": b"x" * size}).kv
        )
    parts = list(fragments(whole, limit))
    assert [part.fragment for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [event for part in parts for event in part.events] == list(whole.events)
    for part in parts:
        assert (part.watch_id, part.header.revision) == (3, 7)
        assert part.ByteSize() < limit or len(part.events) < 2


async def test_large_news_come_in_fragments(tmp_path: Path) -> None:
    async with Served(tmp_path / "x", max_request_bytes=300_000) as served:
        stream = served.stream(rpcs.WATCH_WATCH)
        for _ in range(10):
            await served.put(b"k", b"x" * 200_000)
        await create(stream, start_revision=1, fragment=True)
        parts = [await stream.next()]
        while parts[-1].fragment:
            parts.append(await stream.next())
        assert sum(len(part.events) for part in parts) == 10
        assert len(parts) > 1
