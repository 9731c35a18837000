"""Callers that wait for a read index: one question for all of them, and one answer for each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from etcd_pinwheel.protos.errors import LEADER_CHANGED, STOPPED, TIMEOUT, Refusal, Refused
from etcd_pinwheel.server_stub.reads import RETRY_SECONDS, Reads

TIMEOUT_SECONDS = 7.0


class FakeCore:
    """A core that remembers what it was asked."""

    def __init__(self) -> None:
        self.id, self.leader, self.term = 1, 1, 5
        self.is_sole_voter = False
        self.commit_index = 0
        self.asked: list[bytes] = []

    def read_index(self, context: bytes) -> None:
        self.asked.append(context)


class FakeApplier:
    index = 0
    term = 5


class Bench:
    """A :class:`Reads` with nothing real around it."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.core, self.applier, self.now, self.woken = FakeCore(), FakeApplier(), 0.0, False
        self.reads = Reads(
            self.core,
            self.applier,
            lambda: self.now,
            1,
            timeout_seconds=timeout_seconds,
            wake=self._wake,
        )
        self.reads.led_by(1)

    def _wake(self) -> None:
        """Do as the driver of consensus does."""
        if not self.woken:
            self.woken = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.woken = False
        self.reads.before_turn()

    def read(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.reads.barrier())

    async def asked(self) -> bytes:
        """Wait for a question, which must come at once."""
        count = len(self.core.asked)
        for _ in range(20):
            if len(self.core.asked) > count:
                return self.core.asked[-1]
            await asyncio.sleep(0)
        raise AssertionError("nothing was asked")

    def answer(self, context: bytes, index: int) -> None:
        self.reads.answered([(index, context)])


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    bench.reads.stop()


async def outcome(read: asyncio.Task[None]) -> Refusal | None:
    async with asyncio.timeout(20):
        try:
            await read
        except Refused as refused:
            return refused.refusal
        return None


def run_once(read: Any) -> bool:
    """Run a coroutine without a loop; whether it ended at once."""
    try:
        read.send(None)
    except StopIteration:
        return True
    read.close()
    return False


async def test_the_only_voter_waits_for_nothing(bench: Bench) -> None:
    bench.core.is_sole_voter = True
    bench.core.commit_index = bench.applier.index = 9
    assert run_once(bench.reads.barrier())


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("is_sole_voter", False),
        ("leader", 0),
        ("leader", 2),
        ("term", 6),  # its log may hold more that was acknowledged than it knows
        ("commit_index", 10),  # a learner may have been told of entry 10
    ],
)
async def test_the_only_voter_waits_where_it_must(bench: Bench, fact: str, value: int) -> None:
    bench.core.is_sole_voter = True
    bench.core.commit_index = bench.applier.index = 9
    setattr(bench.core, fact, value)
    assert not run_once(bench.reads.barrier())


async def test_the_only_voter_needs_no_confirmation_however_late_it_applies(bench: Bench) -> None:
    bench.core.commit_index = 10
    assert not run_once(bench.reads.confirmation())
    bench.core.is_sole_voter = True
    assert run_once(bench.reads.confirmation())
    bench.core.leader = 2
    assert not run_once(bench.reads.confirmation())


async def test_a_confirmation_does_not_wait_for_the_applier(bench: Bench) -> None:
    read, confirmation = bench.read(), asyncio.create_task(bench.reads.confirmation())
    bench.answer(await bench.asked(), 3)
    assert await outcome(confirmation) is None
    assert not read.done()
    assert len(bench.core.asked) == 1, "they share the question"
    bench.applier.index = 3
    bench.reads.applied()
    assert await outcome(read) is None


async def test_reads_of_one_turn_share_a_question(bench: Bench) -> None:
    reads = [bench.read() for _ in range(50)]
    context = await bench.asked()
    bench.applier.index = 3
    bench.answer(context, 3)
    assert [await outcome(read) for read in reads] == [None] * 50
    assert len(bench.core.asked) == 1


async def test_a_read_waits_for_the_applier(bench: Bench) -> None:
    read = bench.read()
    bench.answer(await bench.asked(), 3)
    await asyncio.sleep(0)
    assert not read.done()
    bench.applier.index = 3
    bench.reads.applied()
    assert await outcome(read) is None


async def test_who_joined_meanwhile_is_asked_for_at_once(bench: Bench) -> None:
    first = bench.read()
    context = await bench.asked()
    second = bench.read()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(bench.core.asked) == 1
    bench.answer(context, 0)
    bench.answer(await bench.asked(), 0)
    assert await outcome(first) is None
    assert await outcome(second) is None


async def test_a_change_of_leader_is_told(bench: Bench) -> None:
    read = bench.read()
    await bench.asked()
    bench.reads.led_by(2)
    assert await outcome(read) is LEADER_CHANGED


async def test_what_came_without_a_leader_is_asked_of_the_next(bench: Bench) -> None:
    bench.reads.led_by(0)
    read = bench.read()
    for _ in range(3):
        await asyncio.sleep(0)
    assert bench.core.asked == []
    bench.reads.led_by(2)
    bench.answer(await bench.asked(), 0)
    assert await outcome(read) is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers that are due in the next turn of the loop."""
    loop_call_later = asyncio.BaseEventLoop.call_later

    def soon(self: Any, delay: float, callback: Any, *args: Any, **kwargs: Any) -> Any:
        return loop_call_later(self, 0 if delay < 1 else delay, callback, *args, **kwargs)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", soon)


@pytest.mark.usefixtures("impatient")
async def test_a_question_that_is_lost_is_asked_again(bench: Bench) -> None:
    read = bench.read()
    first = await bench.asked()
    bench.now = RETRY_SECONDS
    second = await bench.asked()
    assert second != first
    assert bench.reads.slow == 1
    bench.answer(first, 0)
    assert await outcome(read) is None


@pytest.mark.usefixtures("impatient")
async def test_a_read_gives_up(bench: Bench) -> None:
    read = bench.read()
    await bench.asked()
    bench.now = TIMEOUT_SECONDS
    assert await outcome(read) is TIMEOUT
    assert bench.reads.timed_out == 1


async def test_a_stop_answers_everybody(bench: Bench) -> None:
    read = bench.read()
    await bench.asked()
    bench.reads.stop()
    assert await outcome(read) is STOPPED
    assert await outcome(bench.read()) is STOPPED


async def test_a_caller_that_leaves_changes_nothing_for_others(bench: Bench) -> None:
    gone, read = bench.read(), bench.read()
    context = await bench.asked()
    gone.cancel()
    await asyncio.sleep(0)
    bench.answer(context, 0)
    assert await outcome(read) is None
    assert gone.cancelled()


async def test_the_first_entry_of_a_term_repeats_the_question(bench: Bench) -> None:
    bench.reads.term_began()
    assert bench.core.asked == []
    read = bench.read()
    first = await bench.asked()
    bench.reads.term_began()
    assert len(bench.core.asked) == 2
    bench.answer(first, 0)
    assert await outcome(read) is None
