"""Watches that random programs do not reach: big batches, fragments, long catching up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lockstep.pair import EVERYTHING, Pair
from lockstep.watches import History, WatchPair

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

BIG = b"x" * 900_000

OpenWatch = Callable[[], WatchPair]


@pytest.fixture
def open_watch(pair: Pair) -> Iterator[OpenWatch]:
    """Open watch streams on both servers; they are ended, with a last comparison, afterwards."""
    history = History(pair)
    opened: list[WatchPair] = []

    def open_one() -> WatchPair:
        opened.append(WatchPair(pair, history))
        return opened[-1]

    yield open_one
    for watch in opened:
        watch.close()
    history.close()


def create(watch: WatchPair, **fields: Any) -> None:
    watch.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(**fields)))


def cancel(watch: WatchPair, watch_id: int) -> None:
    watch.send(pb.WatchRequest(cancel_request={"watch_id": watch_id}))


def put(pair: Pair, key: bytes, value: bytes = b"", **fields: Any) -> int:
    return int(pair.call(rpcs.KV_PUT, key=key, value=value, **fields).reply.header.revision)


@pytest.mark.parametrize("fragment", [False, True])
def test_a_batch_larger_than_a_message(pair: Pair, open_watch: OpenWatch, fragment: bool) -> None:
    for number in range(5):
        put(pair, b"k%d" % number, BIG)
    watch = open_watch()
    create(watch, start_revision=pair.base_revision + 1, fragment=fragment, **EVERYTHING)
    watch.end()


def test_fragments_of_one_revision(pair: Pair, open_watch: OpenWatch) -> None:
    puts = [{"request_put": {"key": b"k%d" % n, "value": b"x" * 300_000}} for n in range(5)]
    watch = open_watch()
    create(watch, fragment=True, prev_kv=True, **EVERYTHING)
    for _ in range(2):
        pair.call(rpcs.KV_TXN, success=puts)
        watch.settle()
    watch.end()


def test_catching_up_over_more_than_a_thousand_revisions(pair: Pair, open_watch: OpenWatch) -> None:
    for number in range(2100):
        put(pair, b"k%d" % (number % 7))
    watch = open_watch()
    create(watch, start_revision=pair.base_revision, **EVERYTHING)
    create(watch, key=b"k3", start_revision=pair.base_revision + 50, prev_kv=True)
    put(pair, b"k3")
    watch.settle()
    watch.end()


def test_catching_up_while_writes_go_on(pair: Pair) -> None:
    """Batches are a matter of luck then; the events and their order are not."""
    for number in range(500):
        put(pair, b"k%d" % (number % 3))
    create = pb.WatchRequest(create_request={"start_revision": pair.base_revision, **EVERYTHING})
    streams = []
    for side in pair.sides:
        streams.append(side.stream(rpcs.WATCH_WATCH))
        streams[-1].send(create)
        puts = [pb.PutRequest(key=b"k%d" % (number % 5)) for number in range(500)]
        for outcome in [side.begin(rpcs.KV_PUT, request) for request in puts]:
            assert outcome().status == "OK"

    def is_there(stream: Any) -> bool:
        return sum(len(reply.events) for reply in stream.replies) >= 1001

    seen = []
    for stream in streams:
        assert stream.wait_for(is_there, pair.settle_seconds)
        seen.append([event.kv.mod_revision for reply in stream.replies for event in reply.events])
        assert all(r.header.revision >= e.kv.mod_revision for r in stream.replies for e in r.events)
        stream.close()
    assert seen[0] == seen[1] == list(range(pair.base_revision, pair.base_revision + 1001))


def test_many_watchers_on_one_stream(pair: Pair, open_watch: OpenWatch) -> None:
    watch = open_watch()
    for number in range(100):
        create(watch, key=b"k%d" % (number % 10), prev_kv=number % 2 == 0)
    for number in range(10):
        put(pair, b"k%d" % number)
    pair.call(rpcs.KV_DELETE_RANGE, key=b"k", range_end=b"l")
    watch.settle()
    watch.end()


def test_a_watch_of_the_future(pair: Pair, open_watch: OpenWatch) -> None:
    watch = open_watch()
    create(watch, start_revision=pair.revision + 3, **EVERYTHING)
    for number in range(6):
        put(pair, b"k%d" % number)
        watch.settle()
    watch.end()


def test_a_watch_of_the_compacted(pair: Pair, open_watch: OpenWatch) -> None:
    for number in range(6):
        put(pair, b"k%d" % number)
    pair.call(rpcs.KV_COMPACT, revision=pair.base_revision + 4, physical=True)
    watch = open_watch()
    for offset in range(1, 7):
        create(watch, start_revision=pair.base_revision + offset, prev_kv=True, **EVERYTHING)
    create(watch, key=b"k1", start_revision=1)
    watch.end()


def test_ids_taken_canceled_and_taken_again(pair: Pair, open_watch: OpenWatch) -> None:
    watch = open_watch()
    for watch_id in (5, 0, 1, 5, 0, 2**62, 2**63 - 1, -7):
        create(watch, key=b"a", watch_id=watch_id)
    cancel(watch, 5)
    cancel(watch, 5)
    cancel(watch, 404)
    create(watch, key=b"b", watch_id=5)
    for key in (b"a", b"b"):
        put(pair, key)
    watch.settle()
    watch.end()


def test_the_id_of_a_watch_of_the_compacted_stays_taken(pair: Pair, open_watch: OpenWatch) -> None:
    watch = open_watch()
    for _ in range(2):
        create(watch, key=b"a", watch_id=5, start_revision=1)
        create(watch, key=b"a", watch_id=5)
        put(pair, b"a")
        cancel(watch, 5)
        cancel(watch, 5)
    create(watch, key=b"a", watch_id=5)
    put(pair, b"a")
    watch.settle()
    watch.end()


def test_a_stream_that_is_half_closed_goes_on(pair: Pair, open_watch: OpenWatch) -> None:
    watch = open_watch()
    create(watch, key=b"a")
    for stream in (watch.etcd, watch.ours):
        stream.half_close()
    put(pair, b"a")
    watch.settle()
    assert watch.etcd.ended is watch.ours.ended is None


def test_progress_of_watchers_that_are_up_to_date(pair: Pair, open_watch: OpenWatch) -> None:
    watch = open_watch()
    create(watch, key=b"a")
    create(watch, key=b"b", start_revision=pair.revision + 1)
    for _ in range(3):
        put(pair, b"a")
        watch.settle()
        watch.send(pb.WatchRequest(progress_request={}))
    watch.end()


def test_filters_and_several_changes_in_one_revision(pair: Pair, open_watch: OpenWatch) -> None:
    ops = [{"request_put": {"key": b"a"}}, {"request_put": {"key": b"b"}}]
    ops += [{"request_delete_range": {"key": b"c", "range_end": b"z"}}]
    put(pair, b"c")
    put(pair, b"d")
    watch = open_watch()
    for filters in ([], [0], [1], [0, 1], [7]):
        create(watch, filters=filters, prev_kv=True, key=b"a", range_end=b"z")
    pair.call(rpcs.KV_TXN, success=ops)
    watch.settle()
    watch.end()


@pytest.mark.parametrize(
    ("key", "range_end"),
    [
        (b"", b""),
        (b"", b"\0"),
        (b"", b"b"),
        (b"\0", b""),
        (b"a", b"a"),
        (b"b", b"a"),
        (b"b", b"\0"),
        (b"\0", b"\0"),
        (b"\xff", b"\0"),
    ],
)
def test_ranges(pair: Pair, open_watch: OpenWatch, key: bytes, range_end: bytes) -> None:
    watch = open_watch()
    create(watch, key=key, range_end=range_end)
    for each in (b"\0", b"a", b"b", b"\xff", b"\xff\xff"):
        put(pair, each)
        watch.settle()
    watch.end()


@pytest.mark.parametrize("start_revision", [1, 2**63 - 1])
def test_odd_starts(pair: Pair, open_watch: OpenWatch, start_revision: int) -> None:
    watch = open_watch()
    create(watch, start_revision=start_revision, **EVERYTHING)
    put(pair, b"a")
    watch.settle()
    watch.end()
