"""Elections and locks of both clients against both servers.

Each complaint about other clients that touches them is a test that cites its number: python-etcd3's
unless another repository is named.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from etcd_pinwheel import (
    AsyncClient,
    CallError,
    ClaimLost,
    Client,
    ClientClosed,
    InvalidArgument,
    LossReason,
    NotSent,
    WaitTimedOut,
    put,
)
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
SOON = 30.0
SHORT = 0.3
TTL = 60


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Do something on another thread, while the test goes on."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def candidates(client: Any, count: int, name: str = "job") -> None:
    """Wait until so many stand."""
    with client.watch(f"{name}/", prefix=True) as watch:
        while client.count(f"{name}/", prefix=True) != count:
            watch.next_event(SOON)


# Elections


def test_a_campaign_is_won_and_resigned(etcd: Any, direct: Client) -> None:
    election = etcd.election("job")
    assert election.leader() is None
    with election.campaign("me", ttl=TTL) as leadership:
        leader = direct.election("job").leader()
        assert leader is not None
        assert (leader.key, leader.value) == (leadership.key, b"me")
        assert leader.create_revision == leadership.fence
        assert leadership.key == b"job/%x" % leader.lease
        assert not leadership.lost.is_set()
        leadership.lost.check()
        assert not leadership.lost.wait(0.01)
        with pytest.raises(InvalidArgument, match="opened once"):
            leadership.open()
        leadership.lost.check()
    assert election.leader() is None
    assert leadership.lost.reason is LossReason.RESIGNED
    assert leader.lease not in direct.leases.list()
    with pytest.raises(InvalidArgument, match="opened once"):
        leadership.open()


def test_each_leads_in_its_turn(etcd: Any, direct: Client, beside: Any) -> None:
    first = etcd.election("job").campaign("first", ttl=TTL)
    first.open()
    second = etcd.election("job").campaign("second", ttl=TTL)
    waiting = beside(second.open)
    candidates(direct, 2)
    third = direct.election("job").campaign("third", ttl=TTL)
    waiting_too = beside(third.open)
    candidates(direct, 3)
    first.resign()
    first.resign()
    waiting.result(SOON)
    assert etcd.election("job").leader().value == b"second"
    assert second.fence > first.fence
    assert not waiting_too.done()
    second.resign()
    assert waiting_too.result(SOON) is third
    assert third.fence > second.fence
    third.resign()
    assert direct.count("job/", prefix=True) == 0


def test_a_candidate_that_leaves_the_line_lets_the_next_one_up(
    etcd: Any, direct: Client, beside: Any
) -> None:
    with etcd.election("job").campaign("first", ttl=TTL) as first:
        with direct.lease(ttl=TTL) as lease:
            middle = direct.election("job").campaign("middle", lease=lease)
            leaving = beside(middle.open)
            candidates(direct, 2)
            last = etcd.election("job").campaign("last", ttl=TTL)
            waiting = beside(last.open)
            candidates(direct, 3)
        with pytest.raises(ClaimLost):
            leaving.result(SOON)
        candidates(direct, 2)
        assert not waiting.done()
        first.resign()
        waiting.result(SOON)
    assert last.fence > 0
    last.resign()


@pytest.mark.parametrize("timeout", [0, SHORT])
def test_time_is_up_and_nothing_is_left(etcd: Any, direct: Client, timeout: float) -> None:
    """#599: the block was entered without the lock after 10 s."""
    leases = set(direct.leases.list())
    with direct.election("job").campaign("first", ttl=TTL):
        with (
            pytest.raises(WaitTimedOut, match="given up"),
            etcd.election("job").campaign("me", ttl=TTL, timeout=timeout),
        ):
            raise AssertionError("entered")
        assert direct.count("job/", prefix=True) == 1
    assert set(direct.leases.list()) == leases
    with etcd.election("job").campaign("me", ttl=TTL, timeout=timeout) as leadership:
        assert leadership.fence


def test_values_are_proclaimed_and_observed(etcd: Any, direct: Client) -> None:
    with etcd.election("job").observe() as leaders:
        assert leaders.next_leader(SOON) is None
        with direct.election("job").campaign("a", ttl=TTL) as leadership:
            assert leaders.next_leader(SOON).value == b"a"
            leadership.proclaim("b")
            leadership.proclaim("c")
            assert leaders.next_leader(SOON).value == b"b"
            assert leaders.next_leader(SOON).value == b"c"
            assert leaders.leader.create_revision == leadership.fence
            with direct.lease(ttl=TTL) as lease:
                direct.put("job/later", "", lease=lease)
                with pytest.raises(WaitTimedOut):
                    leaders.next_leader(SHORT)
        assert leaders.next_leader(SOON) is None
        assert leaders.revision > leadership.fence
    with pytest.raises(ClaimLost, match="resigned"):
        leadership.proclaim("d")
    with pytest.raises(InvalidArgument, match="closed"):
        leaders.next_leader()


def test_leaders_are_iterated_over(etcd: Any, direct: Client, beside: Any) -> None:
    observer = etcd.election("job").observe()
    observer.open()
    seen = []
    for leader in observer:
        seen.append(leader and leader.value)
        if len(seen) == 1:
            leadership = direct.election("job").campaign("a", ttl=TTL).open()
        elif len(seen) == 2:
            leadership.resign()
        else:
            beside(observer.close)
    assert seen == [None, b"a", None]


def test_a_leader_proclaims_as_itself_writing(etcd: Any) -> None:
    """Both faces can lead."""
    with etcd.election("job").campaign("a", ttl=TTL) as leadership:
        leadership.proclaim(b"\xff")
        assert etcd.election("job").leader().value == b"\xff"
        leadership.proclaim("b", timeout=SOON)
        leader = etcd.election("job").leader()
        assert (leader.value, leader.version) == (b"b", 3)
        assert leader.lease, "still on its lease"


def test_the_fence_guards_writes(etcd: Any) -> None:
    with etcd.election("job").campaign("a", ttl=TTL) as first:
        guarded = etcd.txn().when(first.condition)
        assert guarded.then(put("state", "by the first")).commit().succeeded
    with etcd.election("job").campaign("b", ttl=TTL) as second:
        assert second.fence > first.fence
        assert not guarded.then(put("state", "late")).commit().succeeded
        assert etcd.txn().when(second.condition).then(put("state", "2nd")).commit().succeeded
    assert etcd.get("state").value == b"2nd"


# How a leadership ends


def test_who_loses_the_key_loses_the_lead(etcd: Any, direct: Client) -> None:
    """microsoft/etcd3#176, #158: two leaders; the lease alone does not tell."""
    told: list[LossReason] = []
    with etcd.election("job").campaign("a", ttl=TTL) as leadership:
        leadership.lost.add_callback(told.append)
        direct.delete(leadership.key)
        assert leadership.lost.wait(SOON)
        with pytest.raises(ClaimLost, match="deleted"):
            leadership.lost.check()
        with pytest.raises(ClaimLost):
            leadership.proclaim("b")
        assert told == [LossReason.DELETED]
    assert direct.count("job/", prefix=True) == 0


def test_who_loses_the_lease_loses_the_lead(etcd: Any, direct: Client) -> None:
    with etcd.election("job").campaign("a", ttl=TTL) as leadership:
        direct.leases.revoke(int(leadership.key.rpartition(b"/")[2], 16))
        assert leadership.lost.wait(SOON)
        assert leadership.lost.reason in (LossReason.DELETED, LossReason.EXPIRED)


def test_lost_before_others_lead(
    proxy: FaultProxy, connect: Connect, direct: Client, beside: Any
) -> None:
    """microsoft/etcd3#110: unnoticed on a half-open connection."""
    with connect([proxy.endpoint]).election("job").campaign("a", ttl=4) as leadership:
        proxy.stall()
        assert leadership.lost.wait(SOON)
        assert leadership.lost.reason is LossReason.UNANSWERED
        assert direct.get(leadership.key) is not None, "lost for us before it is for others"
        with direct.election("job").campaign("b", ttl=TTL, timeout=SOON) as next_one:
            assert next_one.fence > leadership.fence
        proxy.heal()


def test_a_lease_of_ones_own_outlives_the_claim(etcd: Any, direct: Client) -> None:
    with etcd.lease(ttl=TTL) as lease:
        mine = getattr(lease, "_inner", lease)
        with etcd.election("job").campaign("a", lease=mine) as leadership:
            assert leadership.key == b"job/%x" % lease.id
            with etcd.lock("other", lease=mine) as lock:
                assert lock.key == b"other/%x" % lease.id
        assert direct.count("job/", prefix=True) == direct.count("other/", prefix=True) == 0
        assert not lease.lost.is_set()
        assert direct.leases.time_to_live(lease.id).ttl > 0
        with etcd.election("job").campaign("b", lease=mine) as again:
            assert again.fence > leadership.fence
            lease.revoke()
            assert again.lost.wait(SOON)
            assert again.lost.reason is LossReason.REVOKED
    with pytest.raises(ClaimLost), etcd.election("job").campaign("c", lease=mine):
        raise AssertionError("entered")


def test_nobody_there(connect: Connect) -> None:
    client = connect(["127.0.0.1:1"], timeout=SHORT)
    with pytest.raises(NotSent):
        client.election("job").campaign("a", ttl=TTL).open()
    with pytest.raises(NotSent):
        client.election("job").observe().open()
    with pytest.raises(NotSent):
        client.election("job").leader()


def test_leaving_while_nobody_answers_raises_nothing(proxy: FaultProxy, connect: Connect) -> None:
    """Then the claim goes with its lease."""
    client = connect([proxy.endpoint], timeout=0.5)

    def lead() -> None:
        with client.election("job").campaign("a", ttl=TTL):
            proxy.refuse()
            raise KeyError("the block's own")

    with pytest.raises(KeyError, match="the block's own"):
        lead()


def test_leaving_on_a_lease_that_lives_on_tells_of_a_failure(
    proxy: FaultProxy, connect: Connect
) -> None:
    """For then the claim stays, until it can be given up."""
    client = connect([proxy.endpoint], timeout=0.5)
    lease = client.lease(ttl=TTL)
    lease.open()
    leadership = client.election("job").campaign("a", lease=getattr(lease, "_inner", lease))
    with pytest.raises(CallError), leadership:
        proxy.refuse()
    proxy.heal()
    leadership.resign(timeout=SOON)
    assert client.count("job/", prefix=True, timeout=SOON) == 0


@pytest.mark.parametrize("role", ["leader", "candidate", "observer"])
def test_closing_the_client_ends_it(
    role: str, server: LocalMember, connect: Connect, direct: Client, beside: Any
) -> None:
    client = connect([server.endpoint])
    if role == "leader":
        leadership = client.election("job").campaign("a", ttl=TTL)
        leadership.open()
        waiting = beside(leadership.lost.wait)
        client.close()
        assert waiting.result(SOON)
        assert leadership.lost.reason is LossReason.CLOSED
        return
    with direct.election("job").campaign("first", ttl=TTL):
        if role == "candidate":
            waiting = beside(client.election("job").campaign("a", ttl=TTL).open)
            candidates(direct, 2)
        else:
            observer = client.election("job").observe()
            observer.open()
            observer.next_leader(SOON)
            waiting = beside(observer.next_leader)
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(SOON)


# Cancelling


async def test_a_cancelled_candidacy_is_withdrawn(server: LocalMember, direct: Client) -> None:
    """aetcd, etcd3aio: a cancelled acquire left its key in the line until the lease ended."""
    async with AsyncClient([server.endpoint]) as client:
        leases = set(await client.leases.list())
        async with client.election("job").campaign("first", ttl=TTL):
            waiting = asyncio.ensure_future(client.election("job").campaign("a", ttl=TTL).open())
            await asyncio.to_thread(candidates, direct, 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await client.count("job/", prefix=True) == 1
        assert set(await client.leases.list()) == leases


async def test_a_cancelled_observer_loses_nothing(server: LocalMember) -> None:
    async with (
        AsyncClient([server.endpoint]) as client,
        client.election("job").observe() as leaders,
    ):
        assert await leaders.next_leader(SOON) is None
        for number in range(5):
            waiting = asyncio.ensure_future(leaders.next_leader())
            await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            async with client.election("job").campaign(str(number), ttl=TTL):
                leader = await leaders.next_leader(SOON)
                assert leader is not None
                assert leader.value == str(number).encode()
            assert await leaders.next_leader(SOON) is None


def test_ctrl_c_withdraws_a_candidacy(server: LocalMember, direct: Client) -> None:
    script = """
        import sys, threading, time
        from etcd_pinwheel import Client
        def tell(candidacy):
            while candidacy._waiting is None:
                time.sleep(0.01)
            print("waiting", flush=True)
        try:
            with Client([sys.argv[1]]) as client:
                candidacy = client.election("job").campaign("a", ttl=60)
                threading.Thread(target=tell, args=[candidacy]).start()
                with candidacy:
                    print("leads", flush=True)
        except KeyboardInterrupt:
            left = [t for t in threading.enumerate() if "pinwheel" in t.name]
            print("interrupted", left, flush=True)
    """
    with direct.election("job").campaign("first", ttl=TTL) as first:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), server.endpoint],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            with direct.watch("job/", prefix=True, start_revision=first.fence + 1) as watch:
                process.send_signal(signal.SIGINT)
                if not select.select([process.stdout], [], [], SOON)[0]:
                    # Python misses a signal that comes just before a wait; the next one it hears
                    process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == "interrupted []\n"
                assert process.wait(SOON) == 0
                while (event := watch.next_event(SOON)) and event.type.name != "DELETE":
                    pass
            assert direct.count("job/", prefix=True) == 1


# Locks


def test_a_lease_has_one_place_in_a_line(etcd: Any) -> None:
    """The key is the lease's: a second claim would find it, and share the hold."""
    with etcd.lease(ttl=TTL) as lease:
        mine = getattr(lease, "_inner", lease)
        with etcd.lock("door", lease=mine) as lock:
            for claim in (
                etcd.lock("door", lease=mine),
                etcd.election("door").campaign(lease=mine),
            ):
                with pytest.raises(InvalidArgument, match="door"):
                    claim.open()
            with etcd.lock("window", lease=mine):
                assert not lock.lost.is_set()
        with etcd.lock("door", lease=mine) as again:
            assert again.fence > lock.fence


def test_a_lock_is_held_by_one_at_a_time(etcd: Any, direct: Client) -> None:
    """#369: many waiters; #1107: the deletion between the read and the watch went unseen."""
    inside: list[int] = []
    most = 0

    def work(client: Any) -> None:
        nonlocal most
        for _ in range(4):
            with client.lock("l", ttl=TTL, timeout=SOON) as lock:
                inside.append(lock.fence)
                most = max(most, len(inside))
                inside.remove(lock.fence)

    threads = [threading.Thread(target=work, args=(each,)) for each in (etcd, etcd, direct, direct)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert direct.count("l/", prefix=True) == 0


def test_a_lock_is_released_and_tells_its_loss(etcd: Any, direct: Client) -> None:
    with etcd.lock("l", ttl=TTL) as lock:
        assert direct.get(lock.key).value == b""
        with pytest.raises(WaitTimedOut):
            direct.lock("l", ttl=TTL, timeout=0).open()
        lock.release()
        with direct.lock("l", ttl=TTL, timeout=0) as next_one:
            assert next_one.fence > lock.fence
            assert not etcd.txn().when(lock.condition).then(put("k", "v")).commit().succeeded
    with etcd.lock("l", ttl=TTL) as lock:
        direct.delete("l/", prefix=True)
        assert lock.lost.wait(SOON)
