"""Leadership: when it begins and ends, how it is proved, and who cannot go on without a leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from etcd_pinwheel.protos import leasepb
from etcd_pinwheel.protos.errors import (
    LEADER_CHANGED,
    NO_LEADER,
    TIMEOUT,
    Refusal,
    Refused,
)
from etcd_pinwheel.server_stub.leadership import Leadership, Proof, Tenure
from etcd_pinwheel.server_stub.lease.lessor import REVOKES_PER_SECOND, Lessor

OWN, OTHER, THIRD = 1, 2, 3
ELECTION_SECONDS = 1.0
HEARTBEAT_SECONDS = 0.1
PATIENCE_SECONDS = 20


def tenure_of(lessor: Lessor) -> Tenure:
    return Tenure(
        OWN,
        lessor,
        election_timeout_seconds=ELECTION_SECONDS,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        now=0.0,
    )


def lessor_with(*ttls: int) -> Lessor:
    lessor = Lessor(2)
    lessor.recover(leasepb.Lease(ID=number, TTL=ttl) for number, ttl in enumerate(ttls, 1))
    return lessor


# In and out of office


def test_a_leader_takes_office_with_the_first_entry_of_its_own_term() -> None:
    lessor = lessor_with(10)
    tenure = tenure_of(lessor)
    tenure.led_by(OWN)
    assert not tenure.is_in_office
    tenure.applied(entry_term=4, current_term=5, now=50.0)
    assert not tenure.is_in_office, "an entry of the leader before it"
    tenure.applied(entry_term=5, current_term=5, now=100.0)
    assert tenure.is_in_office
    assert lessor.lease(1).expiry == 100.0 + 10 + ELECTION_SECONDS
    tenure.applied(entry_term=5, current_term=5, now=105.0)
    assert lessor.lease(1).expiry == 111.0, "leases are re-armed once"


def test_followers_never_take_office() -> None:
    tenure = tenure_of(lessor_with(10))
    tenure.led_by(OTHER)
    tenure.applied(entry_term=5, current_term=5, now=100.0)
    assert not tenure.is_in_office


@pytest.mark.parametrize("successor", [0, OTHER])
def test_who_loses_the_lead_is_out_of_office_at_once(successor: int) -> None:
    lessor = lessor_with(10)
    tenure = tenure_of(lessor)
    tenure.led_by(OWN)
    tenure.applied(5, 5, 100.0)
    tenure.led_by(successor)
    assert not tenure.is_in_office
    assert lessor.expired(1e9) == []
    tenure.led_by(OWN)
    assert not tenure.is_in_office, "not before an entry of its new term"
    tenure.applied(7, 7, 200.0)
    assert lessor.lease(1).expiry == 211.0


def test_a_checkpoint_is_where_a_new_leader_goes_on() -> None:
    lessor = Lessor(2)
    lessor.recover([leasepb.Lease(ID=1, TTL=1000, RemainingTTL=400)])
    tenure = tenure_of(lessor)
    tenure.led_by(OWN)
    tenure.applied(2, 2, 100.0)
    assert lessor.lease(1).expiry == 100.0 + 400 + ELECTION_SECONDS


def test_many_leases_are_spread_when_a_leader_takes_office() -> None:
    lessor = lessor_with(*[10] * (2 * REVOKES_PER_SECOND))
    tenure = tenure_of(lessor)
    tenure.led_by(OWN)
    tenure.applied(2, 2, 0.0)
    expiries = [lease.expiry for lease in lessor.leases()]
    assert min(expiries) >= 11.0
    assert max(expiries) > 12.0


def test_changes_of_leader_are_counted_when_there_is_one_again() -> None:
    tenure = tenure_of(lessor_with())
    for leader in (OTHER, 0, OTHER, THIRD, THIRD, 0, 0, OWN):
        tenure.led_by(leader)
    assert tenure.changes == 4


# How long a proof holds


def test_a_proof_holds_for_an_election_timeout_after_the_question() -> None:
    proof = Proof(ELECTION_SECONDS, 0.0)
    assert proof.holds(1.0)
    assert not proof.holds(1.1)
    proof.given(asked_at=5.0)
    assert proof.holds(6.0)
    assert not proof.holds(6.1)


def test_an_answer_to_an_earlier_question_takes_nothing_away() -> None:
    proof = Proof(ELECTION_SECONDS, 0.0)
    proof.given(asked_at=5.0)
    proof.given(asked_at=4.0)
    assert proof.holds(6.0)


def test_an_answer_proves_nothing_about_the_time_it_took() -> None:
    proof = Proof(ELECTION_SECONDS, 0.0)
    proof.given(asked_at=0.1)  # the answer had been waiting while the member was stopped
    assert not proof.holds(5.0)


def test_ticks_of_a_leader_that_come_late_are_told() -> None:
    tenure = tenure_of(lessor_with())
    tenure.led_by(OWN)
    assert [tenure.ticked(now) for now in (0.1, 0.3, 0.7, 0.8)] == [False, False, True, False]
    tenure.led_by(OTHER)
    assert not tenure.ticked(5.0)


# The edge


class FakeConsensus:
    """Core, applier and reads in one, all of them obedient."""

    def __init__(self) -> None:
        self.leader, self.term, self.index, self.commit_index = 0, 1, 0, 0
        self.applied_term = 1
        self.confirmations = 0
        self.refusal: Refusal | None = None
        self.in_confirmation: list[Any] = []
        self.told: list[int | str] = []

    async def confirmation(self) -> None:
        self.confirmations += 1
        for action in self.in_confirmation:
            action()
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise Refused(self.refusal)

    def led_by(self, leader: int) -> None:
        self.told.append(leader)

    def term_began(self) -> None:
        self.told.append("term")


class FakeApplier:
    def __init__(self, consensus: FakeConsensus) -> None:
        self._consensus = consensus

    @property
    def term(self) -> int:
        return self._consensus.applied_term

    @property
    def index(self) -> int:
        return self._consensus.index


class Bench:
    def __init__(self, *ttls: int) -> None:
        self.now = 0.0
        self.consensus = FakeConsensus()
        self.lessor = lessor_with(*ttls)
        self.tenure = tenure_of(self.lessor)
        self.leadership = Leadership(
            self.tenure,
            self.consensus,
            FakeApplier(self.consensus),
            self.consensus,
            lambda: self.now,
            election_timeout_seconds=ELECTION_SECONDS,
        )

    def led_by(self, leader: int) -> None:
        self.consensus.leader = leader
        self.consensus.term += 1
        self.leadership.look()

    def apply_term(self) -> None:
        self.consensus.applied_term = self.consensus.term
        self.leadership.applied()

    def take_office(self) -> None:
        self.led_by(OWN)
        self.apply_term()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(10)
    yield bench
    bench.leadership.stop()


async def refusal_of(wait: Any) -> Refusal | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            await wait
        except Refused as refused:
            return refused.refusal
    return None


async def test_news_are_passed_on_once(bench: Bench) -> None:
    bench.led_by(OTHER)
    bench.leadership.look()
    bench.leadership.applied()
    bench.apply_term()
    bench.leadership.applied()
    assert bench.consensus.told == [OTHER, "term"]


async def test_the_same_leader_of_a_later_term_is_another(bench: Bench) -> None:
    bench.take_office()
    assert bench.tenure.is_in_office
    bench.led_by(OWN)
    assert not bench.tenure.is_in_office
    assert bench.consensus.told == [OWN, "term", 0, OWN]
    bench.apply_term()
    assert bench.tenure.is_in_office


async def test_a_punctual_leader_needs_no_proof(bench: Bench) -> None:
    bench.take_office()
    await bench.leadership.prove()
    assert bench.consensus.confirmations == 0


async def test_one_proof_does_for_an_election_timeout(bench: Bench) -> None:
    bench.take_office()
    for asked_at, confirmations in [(5.0, 1), (5.5, 1), (6.0, 1), (6.5, 2), (7.5, 2), (7.6, 3)]:
        bench.now = asked_at
        bench.leadership.ticked()
        await bench.leadership.prove()
        assert bench.consensus.confirmations == confirmations
    assert bench.leadership.late_heartbeats == 5


async def test_who_is_not_in_office_cannot_prove_it(bench: Bench) -> None:
    bench.led_by(OWN)
    assert await refusal_of(bench.leadership.prove()) is LEADER_CHANGED
    bench.led_by(OTHER)
    assert await refusal_of(bench.leadership.prove()) is LEADER_CHANGED
    assert bench.consensus.confirmations == 0


async def test_a_leader_that_was_stopped_proves_itself_once(bench: Bench) -> None:
    bench.take_office()
    bench.now = 5.0
    await bench.leadership.prove()
    assert bench.consensus.confirmations == 1
    bench.leadership.ticked()
    await bench.leadership.prove()
    assert bench.consensus.confirmations == 1


async def test_a_proof_that_was_asked_before_a_stop_does_not_do(bench: Bench) -> None:
    bench.take_office()
    bench.now = 5.0

    def stop() -> None:
        bench.consensus.in_confirmation.clear()
        bench.now = 9.0
        bench.leadership.ticked()

    bench.consensus.in_confirmation.append(stop)
    await bench.leadership.prove()
    assert bench.consensus.confirmations == 2


@pytest.mark.parametrize("refusal", [TIMEOUT, LEADER_CHANGED])
async def test_a_proof_that_fails(bench: Bench, refusal: Refusal) -> None:
    bench.take_office()
    bench.now = 5.0
    bench.consensus.refusal = refusal
    assert await refusal_of(bench.leadership.prove()) is LEADER_CHANGED


@pytest.mark.parametrize("successors", [[OTHER], [0], [OTHER, OWN]])
async def test_a_change_during_the_proof(bench: Bench, successors: list[int]) -> None:
    bench.take_office()
    bench.now = 5.0

    def change() -> None:
        for leader in successors:
            bench.led_by(leader)
        bench.apply_term()

    bench.consensus.in_confirmation.append(change)
    assert await refusal_of(bench.leadership.prove()) is LEADER_CHANGED


async def test_waiting_for_a_leader(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.leadership.some_leader(deadline=7.0))
    await asyncio.sleep(0)
    bench.led_by(OTHER)
    assert await waiting == OTHER
    bench.led_by(0)
    bench.now = 7.0
    assert await refusal_of(bench.leadership.some_leader(deadline=7.0)) is NO_LEADER


# Cutting off


class Source:
    """A stream that yields what it is told to, and notes how it ended."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int | None] = asyncio.Queue()
        self.ended = False

    async def replies(self) -> Any:
        try:
            while (reply := await self.queue.get()) is not None:
                yield reply
        finally:
            self.ended = True


@pytest.fixture
def source() -> Source:
    return Source()


async def test_a_stream_goes_on_with_a_leader_and_ends_by_itself(
    bench: Bench, source: Source
) -> None:
    for reply in (1, 2, None):
        source.queue.put_nowait(reply)
    got = [reply async for reply in bench.leadership.while_led(source.replies())]
    assert got == [1, 2]
    assert source.ended


async def test_a_stream_that_waits_is_cut_off(bench: Bench, source: Source) -> None:
    stream = bench.leadership.while_led(source.replies())
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    bench.leadership._cut_all()
    assert await refusal_of(reading) is NO_LEADER
    assert source.ended
    assert not reading.cancelled()


async def test_a_stream_whose_reply_is_being_sent_is_cut_off_after_that(
    bench: Bench, source: Source
) -> None:
    source.queue.put_nowait(1)
    stream = bench.leadership.while_led(source.replies())
    assert await anext(stream) == 1
    bench.leadership._cut_all()
    reading = asyncio.create_task(anext(stream))
    for _ in range(5):
        await asyncio.sleep(0)
    assert reading.done(), "at once"
    assert await refusal_of(reading) is NO_LEADER
    assert source.ended


async def test_a_client_that_leaves_is_not_told_of_leaders(bench: Bench, source: Source) -> None:
    stream = bench.leadership.while_led(source.replies())
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    bench.leadership._cut_all()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.ended


async def test_the_cut_comes_after_three_elections_without_a_leader(
    bench: Bench, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed: list[tuple[float, Any]] = []
    loop_call_later = bench.leadership._loop.call_later

    def call_later(delay: float, callback: Any) -> Any:
        armed.append((delay, callback))
        return loop_call_later(3600.0, callback)

    monkeypatch.setattr(bench.leadership._loop, "call_later", call_later)
    bench.led_by(OTHER)
    assert armed == []
    bench.led_by(0)
    bench.led_by(0)
    assert [delay for delay, _ in armed] == [3 * ELECTION_SECONDS]
    timer = bench.leadership._cutting
    assert timer is not None
    bench.led_by(OTHER)
    assert timer.cancelled(), "an election that ends in time cuts nobody off"
