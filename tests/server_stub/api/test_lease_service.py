"""The Lease service over a member in this process, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from inprocess.served import Served

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import LEASE_EXISTS, LEASE_NOT_FOUND, LEASE_TTL_TOO_LARGE
from etcd_pinwheel.server_stub import member


class Clock:
    """The real one, set forward at will."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds

    def time_ns(self) -> int:
        return time.time_ns()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of members, but not of the event loop."""
    clock = Clock()
    monkeypatch.setattr(member, "time", clock)
    return clock


@pytest.fixture
async def served(tmp_path: Path, clock: Clock) -> AsyncIterator[Served]:
    async with Served(tmp_path / "data") as served:
        yield served


async def test_grant_list_look_and_revoke(served: Served) -> None:
    granted = await served(rpcs.LEASE_LEASE_GRANT, TTL=60)
    assert granted.ID > 0
    assert (granted.TTL, granted.header.revision) == (60, 1)
    await served(rpcs.LEASE_LEASE_GRANT, TTL=30, ID=7)
    listed = await served(rpcs.LEASE_LEASE_LEASES)
    assert [lease.ID for lease in listed.leases] == [7, granted.ID]
    for key in (b"b", b"a"):
        await served.put(key, lease=7)
    looked = await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7, keys=True)
    assert (looked.grantedTTL, list(looked.keys)) == (30, [b"a", b"b"])
    assert 28 <= looked.TTL <= 30
    assert not (await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7)).keys
    revoked = await served(rpcs.LEASE_LEASE_REVOKE, ID=7)
    assert revoked.header.revision == 4
    assert (await served(rpcs.KV_RANGE, key=b"a", range_end=b"c")).count == 0
    gone = await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7)
    assert (gone.TTL, gone.grantedTTL, gone.header.revision) == (-1, 0, 4)


async def test_what_is_refused(served: Served) -> None:
    await served(rpcs.LEASE_LEASE_GRANT, TTL=60, ID=7)
    assert await served.refusal(rpcs.LEASE_LEASE_GRANT, TTL=60, ID=7) is LEASE_EXISTS
    too_long = 9_000_000_001
    assert await served.refusal(rpcs.LEASE_LEASE_GRANT, TTL=too_long) is LEASE_TTL_TOO_LARGE
    assert await served.refusal(rpcs.LEASE_LEASE_REVOKE, ID=8) is LEASE_NOT_FOUND


async def test_new_ids_differ(served: Served) -> None:
    granted = await asyncio.gather(*(served(rpcs.LEASE_LEASE_GRANT, TTL=9) for _ in range(50)))
    assert len({reply.ID for reply in granted}) == 50
    assert all(reply.ID > 0 for reply in granted)


async def test_keep_alive_renews_and_says_when_a_lease_is_gone(
    served: Served, clock: Clock
) -> None:
    await served(rpcs.LEASE_LEASE_GRANT, TTL=60, ID=7)
    stream = served.stream(rpcs.LEASE_LEASE_KEEP_ALIVE)
    clock.ahead_seconds = 40
    assert (await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7)).TTL <= 20
    renewed = await stream.ask(ID=7)
    assert (renewed.ID, renewed.TTL, renewed.header.revision) == (7, 60, 1)
    assert (await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7)).TTL > 55
    unknown = await stream.ask(ID=8)
    assert (unknown.ID, unknown.TTL) == (8, 0)
    stream.half_close()
    with pytest.raises(StopAsyncIteration):
        await stream.next()


async def test_an_expired_lease_is_revoked_with_its_keys(served: Served, clock: Clock) -> None:
    await served(rpcs.LEASE_LEASE_GRANT, TTL=60, ID=7)
    watch = served.stream(rpcs.WATCH_WATCH)
    await watch.ask(create_request={"key": b"k"})
    await served.put(b"k", lease=7)
    assert (await watch.next()).events[0].kv.lease == 7
    clock.ahead_seconds = 61
    keep_alive = served.stream(rpcs.LEASE_LEASE_KEEP_ALIVE)
    answer = await keep_alive.ask(ID=7)
    assert answer.TTL == 0
    assert (await served(rpcs.KV_RANGE, key=b"k")).count == 0, "told only once it is gone"
    assert (await watch.next()).events[0].type == 1


async def test_many_leases_expire(served: Served, clock: Clock) -> None:
    for lease_id in range(1, 41):
        await served(rpcs.LEASE_LEASE_GRANT, TTL=60, ID=lease_id)
    clock.ahead_seconds = 61
    keep_alive = served.stream(rpcs.LEASE_LEASE_KEEP_ALIVE)
    for lease_id in range(1, 41):
        assert (await keep_alive.ask(ID=lease_id)).TTL == 0
    assert served.member.lessor.leases() == []


async def test_a_restart_renews_what_is_left(served: Served) -> None:
    await served(rpcs.LEASE_LEASE_GRANT, TTL=60, ID=7)
    await served.put(b"k", lease=7)
    await served.restart()
    looked = await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7, keys=True)
    assert (looked.grantedTTL, list(looked.keys)) == (60, [b"k"])
    assert 60 <= looked.TTL <= 61
