"""Deadlines on a clock that is told the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from etcd_pinwheel.server_stub.front.deadlines import Deadlines


class Due:
    def __init__(self, deadline: float) -> None:
        self.deadline: float | None = deadline
        self.tick = 0
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def deadlines(clock: Clock) -> AsyncIterator[Deadlines]:
    watched = Deadlines(clock)
    yield watched
    watched.close()


async def test_never_early_and_at_most_a_little_late(clock: Clock, deadlines: Deadlines) -> None:
    dues = [Due(1000.0 + n / 997) for n in range(1000)]
    for due in dues:
        deadlines.add(due)
    for step in range(120):
        clock.now = 1000.0 + step / 100
        deadlines.expire()
        for due in dues:
            assert due.deadline is not None
            if due.deadline > clock.now:
                assert due.expired == 0
            elif due.deadline < clock.now - 0.02:
                assert due.expired == 1


async def test_what_is_discarded_does_not_expire(clock: Clock, deadlines: Deadlines) -> None:
    kept, dropped = Due(1001.0), Due(1001.0)
    deadlines.add(kept)
    deadlines.add(dropped)
    deadlines.discard(dropped)
    clock.now = 1002.0
    deadlines.expire()
    assert (kept.expired, dropped.expired) == (1, 0)


async def test_what_was_watched_for_long_can_be_discarded(
    clock: Clock, deadlines: Deadlines
) -> None:
    """Long calls end too: neither they nor what they hold may stay until their deadline."""
    due = Due(1000.0 + 3600)
    deadlines.add(due)
    for _ in range(20):
        clock.now += 10
        deadlines.expire()
    deadlines.discard(due)
    assert not any(deadlines._ticks.values())
    clock.now = 1000.0 + 3601
    deadlines.expire()
    assert due.expired == 0


async def test_a_distant_deadline_is_kept_without_a_tick_of_its_own(
    clock: Clock, deadlines: Deadlines
) -> None:
    due = Due(1000.0 + 3600 * 99_999_999)
    near = Due(1000.0 + 150)
    deadlines.add(due)
    deadlines.add(near)
    for _ in range(20):
        clock.now += 10
        deadlines.expire()
        assert near.expired == (clock.now > 1150.0)
    assert due.expired == 0
    assert len(deadlines._ticks) == 1


async def test_the_loop_tells_the_time() -> None:
    loop = asyncio.get_running_loop()
    expired = loop.create_future()

    class Told(Due):
        def expire(self) -> None:
            expired.set_result(loop.time())

    deadlines = Deadlines(loop.time)
    due = Told(loop.time() + 0.05)
    deadlines.add(due)
    assert due.deadline is not None
    assert await asyncio.wait_for(expired, 10) >= due.deadline
    deadlines.close()
