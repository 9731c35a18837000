"""What clients are told of their leases holds, whoever leads next and whatever time does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.errors import Refused
from etcd_pinwheel.server_stub.leadership import Leadership, Tenure
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.lease_duties import LeaseDuties
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.reads import Reads

FIRST, SECOND, THIRD = 1, 2, 3
LEASE, TTL_SECONDS = 7, 2
ELECTION_SECONDS, HEARTBEAT_SECONDS = 1.0, 0.1
TIMEOUT_SECONDS = 7.0


class Member:
    """A real core and real leases, which save in no time, and apply as late as they are told to."""

    def __init__(self, number: int, seed: int, clock: Callable[[], float]) -> None:
        self.core = Raft(
            Config(id=number),
            Log(),
            raftpb.HardState(),
            raftpb.ConfState(voters=[FIRST, SECOND, THIRD]),
            Random(10 * seed + number).randrange,
        )
        self.index = self.term = 0
        """Of the last entry that was applied."""
        self.lag_seconds = 0.0
        """How long after it was committed an entry is applied."""
        self._clock = clock
        self._to_apply: deque[tuple[float, raftpb.Entry]] = deque()
        """What is committed, and since when."""
        self.lessor = Lessor(TTL_SECONDS)
        self.lessor.grant(LEASE, TTL_SECONDS, 0.0)
        tenure = Tenure(
            number,
            self.lessor,
            election_timeout_seconds=ELECTION_SECONDS,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            now=0.0,
        )
        self.reads = Reads(
            self.core, self, clock, 0, timeout_seconds=TIMEOUT_SECONDS, wake=lambda: None
        )
        self.leadership = Leadership(
            tenure, self.core, self, self.reads, clock, election_timeout_seconds=ELECTION_SECONDS
        )
        nobody: Any = None
        self.duties = LeaseDuties(
            self.lessor,
            self.leadership,
            self.core,
            self,
            clock,
            ask=nobody,
            propose=nobody,
            timeout_seconds=TIMEOUT_SECONDS,
        )

    def tick(self) -> None:
        self.core.tick()
        self.leadership.ticked()

    def turn(self) -> list[Message]:
        """Do what there is to do; return what is to be sent."""
        self.leadership.look()
        self.reads.before_turn()
        messages = self.core.messages()
        if ready := self.core.ready():
            self.core.saved(ready)
            messages += self.core.messages()
        for entry in self.core.committed(100):
            self.core.applied(entry.Index)
            self._to_apply.append((self._clock(), entry))
        while self._to_apply and self._to_apply[0][0] + self.lag_seconds <= self._clock():
            _, entry = self._to_apply.popleft()
            self.index, self.term = entry.Index, entry.Term
        self.leadership.applied()
        self.reads.applied()
        self.reads.answered([(answer.index, answer.context) for answer in self.core.reads()])
        return messages

    def stop(self) -> None:
        self.leadership.stop()
        self.reads.stop()


class World:
    """Three members, of which the first leads, and a client that renews with it all the time."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.members = {
            number: Member(number, seed, lambda: self.now) for number in (FIRST, SECOND, THIRD)
        }
        self.tick_seconds = dict.fromkeys(self.members, HEARTBEAT_SECONDS)
        self.answers_take_seconds = 0.0
        self.is_written_to = False
        """Whether other clients have the first member propose something with every tick."""
        self.is_cut_off = False
        """Whether nothing leaves the first member any more, or reaches it that is sent now."""
        self.promised = 0.0
        """Until when the lease lives, as the client was told by the first member."""
        self.questions = 0
        self._next_tick = dict(self.tick_seconds)
        self._under_way: list[tuple[float, Message]] = []
        self._renewing: asyncio.Task[int] | None = None
        self.members[FIRST].core.campaign()

    async def pass_time_until(self, end: float) -> None:
        while (now := min(self._next_tick.values())) < end:
            self.now = now
            for number, at in self._next_tick.items():
                if at <= now:
                    self._next_tick[number] = now + self.tick_seconds[number]
                    self.members[number].tick()
            if self.is_written_to:
                self.members[FIRST].core.propose(b"")
            await self.settle()

    async def settle(self) -> None:
        """Let everybody do all there is to do now."""
        for _ in range(10):
            while self._deliver():
                pass
            await asyncio.sleep(0)
            self._look_at_client()

    def _deliver(self) -> bool:
        for member in self.members.values():
            for message in member.turn():
                is_lost = self.is_cut_off and FIRST in (message.sender, message.to)
                delay = self.answers_take_seconds if message.to == FIRST else 0.0
                self.questions += message.type == raftpb.MsgHeartbeat and bool(message.context)
                if not is_lost:
                    self._under_way.append((self.now + delay, message))
        arrived = [each for each in self._under_way if each[0] <= self.now]
        for each in arrived:
            self._under_way.remove(each)
            self.members[each[1].to].core.step(each[1])
        return bool(arrived)

    def _look_at_client(self) -> None:
        if self._renewing is None:
            if self.members[FIRST].leadership.tenure.is_in_office:
                self._renewing = asyncio.create_task(self.members[FIRST].duties._renew_here(LEASE))
        elif self._renewing.done():
            if self._renewing.exception() is None:
                self.promised = self.now + self._renewing.result()
            else:
                assert isinstance(self._renewing.exception(), Refused)
            self._renewing = None

    async def lease_ends(self) -> float:
        """Return when a successor of the first member lets the lease run out."""
        successors = [self.members[SECOND].lessor, self.members[THIRD].lessor]
        while not (found := [each for each in successors if each.is_primary]):
            await self.pass_time_until(self.now + 1.0)
        end = found[0].lease(LEASE).expiry
        await self.pass_time_until(end)
        assert found[0].is_primary
        return end

    async def stop(self) -> None:
        for member in self.members.values():
            member.stop()
        if self._renewing is not None:
            await asyncio.wait([self._renewing])
            self._renewing.exception()


Make = Callable[[int], Awaitable[World]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make a world whose client has been told something."""
    made: list[World] = []

    async def make(seed: int) -> World:
        made.append(World(seed))
        await made[-1].settle()
        assert made[-1].promised == TTL_SECONDS
        return made[-1]

    yield make
    for world in made:
        await world.stop()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tick_seconds", [0.1, 0.19, 0.29, 0.5])
async def test_ticks_of_a_leader_that_are_always_late(
    make: Make, tick_seconds: float, seed: int
) -> None:
    """It takes itself for the leader too long, when it has lost its followers."""
    world = await make(seed)
    world.tick_seconds[FIRST] = tick_seconds
    start = 3 + seed / 7
    await world.pass_time_until(start)
    world.is_cut_off = True
    assert await world.lease_ends() >= world.promised > start


async def test_a_successor_that_was_asked_to_lead(make: Make) -> None:
    """It is elected at once, when its predecessor was just proved to lead and hears nothing."""
    world = await make(0)
    await world.pass_time_until(3.0)
    questions = world.questions
    for _ in range(20):
        if world.questions == questions:
            await world.pass_time_until(world.now + 1.5 * HEARTBEAT_SECONDS)
    start = world.now
    first, second = world.members[FIRST].core, world.members[SECOND].core
    first.transfer_leader(SECOND)
    for message in first.messages():
        if message.to == SECOND:
            second.step(message)
    world.is_cut_off = True
    await world.settle()
    assert world.members[SECOND].lessor.is_primary
    assert await world.lease_ends() >= world.promised > start


@pytest.mark.parametrize("seed", range(8))
async def test_answers_that_are_long_on_their_way(make: Make, seed: int) -> None:
    """They tell a leader of followers that it had once."""
    world = await make(seed)
    world.answers_take_seconds = 0.8
    start = 3 + seed / 7
    await world.pass_time_until(start)
    world.is_cut_off = True
    assert await world.lease_ends() >= world.promised > start


async def test_a_leader_that_was_stopped(make: Make) -> None:
    world = await make(0)
    await world.pass_time_until(3.0)
    world.is_cut_off = True
    world.tick_seconds[FIRST] = world._next_tick[FIRST] = 60.0
    end = await world.lease_ends()
    world.now = end + 60
    world.members[FIRST].tick()
    await world.settle()
    assert world.promised <= end


@pytest.mark.parametrize("lag_seconds", [0.5, 1.5, 30.0])
async def test_a_leader_that_applies_late_renews_in_time(make: Make, lag_seconds: float) -> None:
    """What it has yet to apply tells nothing of whether it leads."""
    world = await make(0)
    world.is_written_to = True
    await world.pass_time_until(2.0)
    first = world.members[FIRST]
    first.lag_seconds = lag_seconds
    for second in range(3, 20):
        await world.pass_time_until(second)
        assert first.index < first.core.commit_index
        assert world.promised >= second - HEARTBEAT_SECONDS + TTL_SECONDS - ELECTION_SECONDS
        assert not first.lessor.has_expired(LEASE, world.now)
    world.is_written_to = False
    world.is_cut_off = True
    assert await world.lease_ends() >= world.promised


@pytest.mark.parametrize("tick_seconds", [0.1, 0.29, 0.5])
async def test_to_be_sure_costs_a_question_for_each_election_timeout(
    make: Make, tick_seconds: float
) -> None:
    world = await make(0)
    world.tick_seconds[FIRST] = tick_seconds
    await world.pass_time_until(30.0)
    assert world.promised >= 29 + TTL_SECONDS
    assert 0 < world.questions / 2 <= 30 / ELECTION_SECONDS
