"""Messages between members, over real sockets: order, batches, bounds, loss and repair."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from socket import create_server
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.local import FaultProxy
from etcd_pinwheel.server_stub.peers import PeerLimits
from etcd_pinwheel.server_stub.peers.connection import Connection
from etcd_pinwheel.server_stub.peers.frames import Kind, framed
from etcd_pinwheel.server_stub.peers.wire import Encoder

from .conftest import CLUSTER, A, B, C, append, heartbeat, snapshot, soon


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all writes of all members."""
    sizes: list[int] = []
    original = Connection.write

    def write(self: Connection, parts: Any) -> None:
        sizes.append(sum(map(len, parts)))
        original(self, parts)

    monkeypatch.setattr(Connection, "write", write)
    return sizes


@pytest.fixture
def proxies() -> Iterator[list[FaultProxy]]:
    made: list[FaultProxy] = []
    yield made
    for each in made:
        each.__exit__()


def through_proxy(proxies: list[FaultProxy], station: Any) -> str:
    """The URL of a proxy before a member."""
    proxy = FaultProxy(f"127.0.0.1:{station.port}")
    proxy.__enter__()
    proxies.append(proxy)
    return f"http://{proxy.endpoint}"


def entries(count: int, size: int = 100) -> list[raftpb.Entry]:
    return [raftpb.Entry(Term=1, Index=index, Data=bytes(size)) for index in range(1, count + 1)]


async def test_messages_arrive_whole_and_in_order(pair: Any) -> None:
    a, b = pair
    log = [raftpb.Entry(Term=1, Index=i, Data=bytes(i)) for i in range(1, 200)]
    sent = [append(A, B, log[i : i + 10], index=i) for i in range(0, 190, 10)]
    a.peers.send(sent)
    await b.receiver.until(lambda: len(b.receiver.messages) == len(sent))
    assert b.receiver.messages == sent
    b.peers.send([heartbeat(B, A, commit=5)])
    await a.receiver.until(lambda: a.receiver.messages)
    assert a.receiver.messages == [heartbeat(B, A, commit=5)]


async def test_a_turn_of_the_loop_is_one_write(pair: Any, writes: list[int]) -> None:
    a, b = pair
    for _ in range(20):
        a.peers.send([heartbeat(A, B), heartbeat(A, B)])
    await b.receiver.until(lambda: len(b.receiver.messages) == 40)
    one = len(heartbeat_frame())
    assert [size for size in writes if size >= one * 2] == [40 * one]


def heartbeat_frame() -> bytes:
    return b"".join(framed(Kind.MESSAGE, *Encoder().encode(heartbeat(A, B))))


async def test_large_messages(pair: Any) -> None:
    a, b = pair
    sent = [append(A, B, entries(2, size=3 << 20), index=index) for index in range(3)]
    a.peers.send(sent)
    await b.receiver.until(lambda: len(b.receiver.messages) == 3)
    assert b.receiver.messages == sent
    assert a.peers.traffic[B].sent_bytes > 18 << 20
    assert b.peers.traffic[A].received_bytes > 18 << 20


async def test_heartbeats_pass_appends_that_do_not_move(
    make: Any, proxies: list[FaultProxy]
) -> None:
    limits = PeerLimits(connect_seconds=10, max_queued_bytes=4 << 20, max_write_bytes=64 << 10)
    a, b = await make(A, limits=limits), await make(B)
    a.know(b)
    await a.connected(B)
    await soon(lambda: a.peers.traffic[B].connections == 2)
    # B reads no appends any more: the kernel's buffers fill, then ours.
    accepted = b.peers._accepted[A, 2].connection
    accepted.pause_reading()
    large = [append(A, B, entries(1, size=1 << 20), index=index) for index in range(64)]
    for message in large:
        a.peers.send([message])
        await asyncio.sleep(0)
    await a.receiver.until(lambda: a.receiver.lost)
    stream = a.peers._outgoing[B][2]
    assert stream._queue.bytes <= 4 << 20
    assert stream.link.connection.unsent_bytes <= (1 << 20) + (64 << 10) + 100
    assert a.peers.traffic[B].dropped_messages > 0
    a.peers.send([heartbeat(A, B)])
    await b.receiver.until(lambda: heartbeat(A, B) in b.receiver.messages)
    accepted.resume_reading()
    expected = a.peers.traffic[B].sent_messages
    await b.receiver.until(lambda: len(b.receiver.messages) == expected)
    arrived = [each.index for each in b.receiver.messages if each.entries]
    assert arrived == sorted(arrived)
    assert len(arrived) + a.peers.traffic[B].dropped_messages == 64


async def test_too_many_messages_are_dropped_and_said_so(make: Any) -> None:
    a, b = await make(A, limits=PeerLimits(max_queued_messages=10)), await make(B)
    a.know(b)
    await a.connected(B)
    a.peers.send([heartbeat(A, B, commit=index) for index in range(15)])
    assert a.receiver.lost == []  # not within the call
    await a.receiver.until(lambda: a.receiver.lost)
    await b.receiver.until(lambda: len(b.receiver.messages) == 10)
    assert a.receiver.lost == [B]
    assert a.peers.traffic[B].dropped_messages == 5
    assert [each.commit for each in b.receiver.messages] == list(range(10))


async def test_a_message_above_the_limit_is_not_sent(make: Any) -> None:
    a, b = await make(A, limits=PeerLimits(max_frame_bytes=1000)), await make(B)
    a.know(b)
    await a.connected(B)
    a.peers.send([append(A, B, entries(1, size=2000)), append(A, B, entries(1))])
    await a.receiver.until(lambda: a.receiver.lost == [B])
    await b.receiver.until(lambda: b.receiver.messages)
    assert b.receiver.messages == [append(A, B, entries(1))]


async def test_what_is_sent_while_connecting_arrives(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.know(b)
    a.peers.send([heartbeat(A, B), append(A, B, entries(3))])
    await b.receiver.until(lambda: len(b.receiver.messages) == 2)
    assert a.receiver.lost == []


async def test_what_waits_is_dropped_when_nobody_answers(make: Any) -> None:
    a = await make(A)
    a.peers.set_members({B: ["http://127.0.0.1:1"]})
    a.peers.send([heartbeat(A, B), append(A, B), append(A, B)])
    await soon(lambda: all(each._down for each in a.peers._outgoing[B].values()))
    assert a.peers.traffic[B].dropped_messages == 3
    assert not any(each._queue for each in a.peers._outgoing[B].values())
    await a.receiver.until(lambda: a.receiver.lost)


async def test_to_somebody_absent_nothing_waits(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.know(b)
    await a.connected(B)
    await b.peers.close()
    await a.disconnected(B)
    streams = a.peers._outgoing[B].values()
    await soon(lambda: all(each._down for each in streams) and not a.peers._station._unreachable)
    a.receiver.lost.clear()
    a.peers.send([heartbeat(A, B)])
    await a.receiver.until(lambda: a.receiver.lost == [B])
    assert a.peers.traffic[B].dropped_messages == 1
    assert a.peers.traffic[B].connection_failures >= 2
    a.peers.send([heartbeat(A, 0xDEAD)])
    await a.receiver.until(lambda: a.receiver.lost == [B, 0xDEAD])


async def test_a_cut_connection_is_made_again(make: Any, proxies: list[FaultProxy]) -> None:
    a, b = await make(A), await make(B)
    a.peers.set_members({B: [through_proxy(proxies, b)]})
    await a.connected(B)
    first = a.peers.connected_since(B)
    for _ in range(3):
        await soon(lambda: all(each.link for each in a.peers._outgoing[B].values()))
        links = [each.link for each in a.peers._outgoing[B].values()]
        a.receiver.lost.clear()
        proxies[0].cut()
        for link in links:
            await link.connection.wait_closed()
        await a.receiver.until(lambda: a.receiver.lost)
        await a.connected(B)
        a.peers.send([heartbeat(A, B)])
        await b.receiver.until(lambda: b.receiver.messages)
        b.receiver.messages.clear()
    assert first is not None
    assert a.peers.connected_since(B) > first
    proxies[0].refuse()
    await a.disconnected(B)
    proxies[0].heal()
    await a.connected(B)


async def test_a_silent_peer_is_given_up(make: Any, proxies: list[FaultProxy]) -> None:
    """Nothing is closed, nothing moves: only the pings tell, to both sides."""
    options: Any = {"limits": PeerLimits(connect_seconds=1.0, silent_ticks=3)}
    a = await make(A, election_timeout_seconds=0.1, **options)
    b = await make(B, election_timeout_seconds=0.1, **options)
    a.peers.set_members({B: [through_proxy(proxies, b)]})
    await a.connected(B)
    await soon(lambda: a.peers.traffic[B].connections == 2)
    accepted = list(b.peers._accepted.values())
    assert accepted
    proxies[0].stall()
    await a.disconnected(B)
    async with asyncio.timeout(20):
        for link in accepted:
            await link.connection.wait_closed()
    proxies[0].heal()
    await a.connected(B)


async def test_a_busy_peer_is_not_taken_for_a_silent_one(make: Any) -> None:
    """While a long queue moves the pings behind it are not missed; when it stops they are."""
    limits = PeerLimits(connect_seconds=10, max_write_bytes=64 << 10, silent_ticks=3)
    a, b = await make(A, limits=limits, election_timeout_seconds=1000), await make(B)
    a.know(b)
    await a.connected(B)
    await soon(lambda: a.peers.traffic[B].connections == 2)
    accepted = b.peers._accepted[A, 2].connection
    accepted.pause_reading()
    a.peers.send([append(A, B, entries(1, size=60 << 20))])
    link = a.peers._outgoing[B][2].link
    await soon(lambda: link.connection.unsent_bytes)
    for _ in range(10):
        before = link.connection.sent_bytes
        accepted.resume_reading()
        await soon(partial(sent_more, link, before))
        accepted.pause_reading()
        link.tick()
        assert link.connection.is_open
    assert link.connection.unsent_bytes > 0

    def tick() -> bool:
        link.tick()
        return not link.connection.is_open

    await soon(tick)


def sent_more(link: Any, before: int) -> bool:
    return bool(link.connection.sent_bytes > before)


async def test_round_trips_are_measured(make: Any) -> None:
    a, b = await make(A, election_timeout_seconds=0.0), await make(B)
    a.know(b)
    await a.connected(B)
    # Every tick has a ping, and an answer to a question comes after the answers to pings before it.
    while a.peers.traffic[B].round_trip_seconds is None:
        await a.peers.ask(B, "kind", b"", 20)
    assert 0 < a.peers.traffic[B].round_trip_seconds < 20


async def test_urls_change(make: Any, proxies: list[FaultProxy]) -> None:
    a, b = await make(A), await make(B)
    dead = "http://127.0.0.1:1"
    a.peers.set_members({B: [dead]})
    await a.receiver.until(lambda: B in a.receiver.lost)
    assert a.peers.connected_since(B) is None
    a.peers.set_members({B: [dead, b.url]})  # all are tried
    await a.connected(B)
    since = a.peers.connected_since(B)
    a.peers.set_members({B: [dead, b.url]})
    assert a.peers.connected_since(B) == since
    moved = through_proxy(proxies, b)
    a.peers.set_members({B: [moved]})
    await a.disconnected(B)
    await a.connected(B)
    assert proxies[0].accepted >= 1


async def test_a_member_that_leaves_the_cluster(make: Any) -> None:
    a, b, c = await make(A), await make(B), await make(C)
    for each in (a, b, c):
        each.know(a, b, c)
    for each, other in ((a, B), (a, C), (b, A), (b, C), (c, A), (c, B)):
        await each.connected(other)
    await soon(lambda: all(len(each.peers._accepted) == 4 for each in (a, b)))
    for each in (a, b):
        each.receiver.removed_ids.add(C)
        each.know(a, b)
        assert each.peers.connected_since(C) is None
    await c.receiver.until(lambda: c.receiver.told_removed)
    for other in (A, B):
        await c.disconnected(other)
    assert c.receiver.told_removed == 1
    await soon(lambda: all(len(each.peers._accepted) == 2 for each in (a, b)))
    assert a.receiver.lost == b.receiver.lost == [], "nobody asks for one who has left"
    a.peers.send([heartbeat(A, B)])
    await b.receiver.until(lambda: b.receiver.messages)


async def test_nothing_is_heard_from_a_member_once_it_has_left(pair: Any) -> None:
    """Not even what came together with the message that removed it."""
    a, b = pair
    step = b.receiver.step

    def leave(message: Any) -> None:
        step(message)
        b.know()

    b.receiver.step = leave
    a.peers.send([heartbeat(A, B), heartbeat(A, B), heartbeat(A, B)])
    await a.disconnected(B)
    assert b.receiver.messages == [heartbeat(A, B)]


async def test_a_newer_member_is_answered_where_it_called(make: Any) -> None:
    """B has not applied that A joined: it knows no URL, and A may be the leader it needs."""
    a, b = await make(A), await make(B)
    a.know(b)
    await a.connected(B)
    a.peers.send([heartbeat(A, B)])
    await b.receiver.until(lambda: b.receiver.messages)
    b.peers.send([heartbeat(B, A)])
    await a.receiver.until(lambda: a.receiver.messages == [heartbeat(B, A)])
    assert await b.peers.ask(A, "kind", b"abc", 20) == b"cba"


async def test_versions_are_told(pair: Any) -> None:
    a, b = pair
    assert a.peers.server_version(B) == b.peers.server_version(A) == (3, 7, 0)
    assert a.peers.server_version(C) is None


async def test_members_that_start_one_by_one_find_each_other_at_once(make: Any) -> None:
    """Whoever starts last calls the others, and they call back without waiting."""
    limits = PeerLimits(first_pause_seconds=1000, longest_pause_seconds=1000)
    a = await make(A, limits=limits)
    b = await make(B, limits=limits)
    b.peers._listener.close()  # not yet up
    a.know(b)
    await soon(lambda: all(each._down for each in a.peers._outgoing[B].values()))
    await b.listen()
    b.know(a)
    await b.connected(A)
    await a.connected(B)  # long before its pause is over
    a.peers.send([heartbeat(A, B)])
    await b.receiver.until(lambda: b.receiver.messages)


async def test_an_answer_waits_while_the_caller_is_called_back(make: Any) -> None:
    """The vote for a member that has just started must not be lost."""
    pauses = {"first_pause_seconds": 1000, "longest_pause_seconds": 1000}
    a = await make(A, limits=PeerLimits(connect_seconds=0.5, **pauses))
    b = await make(B)
    b.peers._listener.close()  # not yet up
    with closing(create_server(("127.0.0.1", 0))) as silent:
        detour = f"http://127.0.0.1:{silent.getsockname()[1]}"  # takes all of the half second
        a.peers.set_members({B: [detour, b.url]})
        await soon(lambda: all(each._down for each in a.peers._outgoing[B].values()))
        await b.listen()
        b.know(a)
        await b.connected(A)
        for _ in range(10):
            await asyncio.sleep(0)
        assert a.peers.connected_since(B) is None
        a.peers.send([heartbeat(A, B)])
        await b.receiver.until(lambda: b.receiver.messages)


async def test_a_restarted_member_takes_the_place_of_its_old_connections(make: Any) -> None:
    a, b = await make(A), await make(B)
    b.know(a)
    await soon(lambda: len(a.peers._accepted) == 2)
    older = list(a.peers._accepted.values())
    for stream in b.peers._outgoing[A].values():
        stream._task.cancel()  # as if it had lost its power: nothing is closed
    other = await make(B)
    other.know(a)
    await other.connected(A)
    other.peers.send([heartbeat(B, A)])
    await a.receiver.until(lambda: a.receiver.messages)
    for link in older:
        await link.connection.wait_closed()
    await soon(lambda: len(a.peers._accepted) == 2)


async def test_close_sends_what_was_sent(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.know(b)
    await a.connected(B)
    a.peers.send([heartbeat(A, B, commit=index) for index in range(100)])
    await a.peers.close()
    await b.receiver.until(lambda: len(b.receiver.messages) == 100)
    assert a.receiver.lost == []


async def test_nothing_goes_to_another_cluster(make: Any) -> None:
    a, b = await make(A), await make(B, cluster_id=CLUSTER + 1)
    a.know(b)
    b.know(a)
    await a.receiver.until(lambda: B in a.receiver.lost)
    await b.receiver.until(lambda: A in b.receiver.lost)
    a.peers.send([heartbeat(A, B), snapshot(A, B)])
    assert a.peers.connected_since(B) is None
    assert b.receiver.messages == []
