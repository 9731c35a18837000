"""Leases in a cluster: answered by the leader, whomever one asks, and revoked by it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from etcd_pinwheel.protos.errors import (
    LEADER_CHANGED,
    LEASE_NOT_FOUND,
    NO_LEADER,
    TIMEOUT,
    TIMEOUT_APPLIED_INDEX,
    UNKNOWN_METHOD,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, LeaseTimeToLiveRequest
from etcd_pinwheel.server_stub import lease_duties
from etcd_pinwheel.server_stub.answers import Answers
from etcd_pinwheel.server_stub.leadership import Leadership, Tenure
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.lease_duties import LeaseDuties
from etcd_pinwheel.server_stub.peers.receiver import PeerUnreachable

ELECTION_SECONDS = 1.0
TIMEOUT_SECONDS = 7.0
PATIENCE_SECONDS = 20


class Member:
    """What leases need of a member, and the log that all of them share."""

    def __init__(self, own_id: int, cluster: Cluster) -> None:
        self.id, self.cluster = own_id, cluster
        self.leader, self.term, self.index, self.commit_index, self.applied_term = 0, 1, 0, 0, 1
        self.lessor = Lessor(2, retry_seconds=TIMEOUT_SECONDS, checkpoints=True)
        tenure = Tenure(
            own_id,
            self.lessor,
            election_timeout_seconds=ELECTION_SECONDS,
            heartbeat_seconds=0.1,
            now=0.0,
        )
        self.leadership = Leadership(
            tenure,
            self,
            FakeApplier(self),
            self,
            self.clock,
            election_timeout_seconds=ELECTION_SECONDS,
        )
        self.duties = LeaseDuties(
            self.lessor,
            self.leadership,
            self,
            FakeApplier(self),
            self.clock,
            ask=self.ask,
            propose=self.propose,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self.answers = Answers()
        self.duties.answer_others(self.answers)
        self.confirmations = 0
        self.refusal: Refusal | None = None
        self.refusal_of_proposals: Refusal | None = None
        self.proposed: list[InternalRaftRequest] = []
        self.asked: list[int] = []

    def clock(self) -> float:
        return self.cluster.now

    async def confirmation(self) -> None:
        self.confirmations += 1
        if self.refusal is not None:
            raise Refused(self.refusal)

    def led_by(self, leader: int) -> None:
        pass

    def term_began(self) -> None:
        pass

    async def ask(self, member: int, kind: str, payload: bytes, timeout_seconds: float) -> bytes:
        self.asked.append(member)
        assert timeout_seconds > 0
        if member in self.cluster.unreachable:
            raise PeerUnreachable
        return await self.cluster.members[member].answers.answer(self.id, kind, payload)

    async def propose(self, request: InternalRaftRequest) -> None:
        if self.refusal_of_proposals is not None:
            raise Refused(self.refusal_of_proposals)
        self.proposed.append(request)
        await asyncio.sleep(0)
        for member in self.cluster.members.values():
            if request.HasField("lease_revoke"):
                member.lessor.remove(request.lease_revoke.ID)
            for each in request.lease_checkpoint.checkpoints:
                member.lessor.checkpoint(each.ID, each.remaining_TTL, self.cluster.now)
            member.leadership.applied()
            member.duties.applied()


class FakeApplier:
    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def term(self) -> int:
        return self._member.applied_term

    @property
    def index(self) -> int:
        return self._member.index


class Cluster:
    def __init__(self) -> None:
        self.now = 100.0
        self.unreachable: set[int] = set()
        self.members = {number: Member(number, self) for number in (1, 2, 3)}
        for member in self.members.values():
            member.leadership.ticked()
            member.leadership.tenure.proof.given(self.now)

    def __getitem__(self, number: int) -> Member:
        return self.members[number]

    def led_by(self, leader: int, *, applied: bool = True) -> None:
        for member in self.members.values():
            member.leader = leader
            member.term += 1
            member.leadership.look()
        if applied:
            self.apply_term()

    def apply_term(self) -> None:
        for member in self.members.values():
            member.applied_term = member.term
            member.leadership.applied()
            member.duties.applied()

    def grant(self, lease_id: int, ttl_seconds: int) -> None:
        for member in self.members.values():
            member.lessor.grant(lease_id, ttl_seconds, self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with ticks."""
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            for member in self.members.values():
                member.leadership.ticked()


@pytest.fixture
async def cluster() -> Any:
    cluster = Cluster()
    cluster.led_by(1)
    cluster.grant(7, 60)
    yield cluster
    for member in cluster.members.values():
        member.leadership.stop()


async def refusal_of(wait: Any) -> Refusal | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            await wait
        except Refused as refused:
            return refused.refusal
    return None


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def look_at(lease_id: int, keys: bool = False) -> LeaseTimeToLiveRequest:
    return LeaseTimeToLiveRequest(ID=lease_id, keys=keys)


@pytest.mark.parametrize("asked", [1, 2, 3])
async def test_whoever_is_asked_the_leader_renews(cluster: Cluster, asked: int) -> None:
    cluster.pass_time(40)
    assert await cluster[asked].duties.renew(7) == 60
    assert cluster[1].lessor.time_to_live(7, cluster.now) == 60
    assert await refusal_of(cluster[asked].duties.renew(8)) is LEASE_NOT_FOUND


@pytest.mark.parametrize("asked", [1, 2, 3])
async def test_whoever_is_asked_the_leader_knows_what_is_left(cluster: Cluster, asked: int) -> None:
    for member in cluster.members.values():
        member.lessor.attach(7, b"b")
        member.lessor.attach(7, b"a")
    cluster.pass_time(40)
    looked = await cluster[asked].duties.time_to_live(look_at(7, keys=True))
    assert (looked.ID, looked.TTL, looked.grantedTTL) == (7, 20, 60)
    assert list(looked.keys) == [b"a", b"b"]
    assert not (await cluster[asked].duties.time_to_live(look_at(7))).keys
    gone = await cluster[asked].duties.time_to_live(look_at(8))
    assert (gone.ID, gone.TTL, gone.grantedTTL) == (8, -1, 0)


async def test_a_follower_asks_until_there_is_a_leader(cluster: Cluster) -> None:
    cluster.led_by(0)
    renewing = asyncio.create_task(cluster[2].duties.renew(7))
    await turns()
    assert cluster[2].asked == []
    cluster.led_by(3)
    assert await renewing == 60
    assert cluster[2].asked == [3]


async def test_a_member_that_becomes_leader_meanwhile_answers_itself(cluster: Cluster) -> None:
    cluster.led_by(2, applied=False)
    renewing = asyncio.create_task(cluster[2].duties.renew(7))
    looking = asyncio.create_task(cluster[2].duties.time_to_live(look_at(7)))
    await turns()
    cluster.apply_term()
    assert await renewing == 60
    assert (await looking).TTL == 60
    assert cluster[2].asked == []


async def test_a_leader_that_is_not_in_office_yet_is_asked_again(cluster: Cluster) -> None:
    cluster.led_by(3, applied=False)
    renewing = asyncio.create_task(cluster[2].duties.renew(7))
    await turns()
    cluster.apply_term()
    assert await renewing == 60
    assert cluster[2].asked == [3, 3]


async def test_there_is_an_end_to_asking(cluster: Cluster) -> None:
    cluster.unreachable.add(1)
    renewing = asyncio.create_task(cluster[2].duties.renew(7))
    await turns()
    cluster.now += TIMEOUT_SECONDS
    assert await refusal_of(renewing) is TIMEOUT
    cluster.led_by(0)
    looking = asyncio.create_task(cluster[2].duties.time_to_live(look_at(7)))
    await turns()
    cluster.now += TIMEOUT_SECONDS
    assert await refusal_of(looking) is NO_LEADER


async def test_a_leader_that_was_stopped_renews_nothing_before_it_proves_itself(
    cluster: Cluster,
) -> None:
    cluster.now += 30
    leader = cluster[1]
    leader.refusal = LEADER_CHANGED
    assert await refusal_of(leader.duties.renew(7)) is LEADER_CHANGED
    assert await refusal_of(leader.duties.time_to_live(look_at(7))) is LEADER_CHANGED
    assert leader.lessor.time_to_live(7, cluster.now) == 30
    leader.refusal = None
    assert await leader.duties.renew(7) == 60


async def test_a_lease_that_is_not_applied_yet_is_waited_for(cluster: Cluster) -> None:
    leader = cluster[1]
    leader.commit_index = 5
    assert await leader.duties.renew(7) == 60, "known: no need to wait"
    renewing = asyncio.create_task(leader.duties.renew(8))
    await turns()
    cluster.grant(8, 30)
    leader.index = 5
    assert await renewing == 30
    leader.commit_index = 6
    looking = asyncio.create_task(leader.duties.time_to_live(look_at(9)))
    await turns()
    cluster.pass_time(2)
    assert await refusal_of(looking) is TIMEOUT_APPLIED_INDEX


async def test_who_loses_the_lead_while_it_waits_says_so(cluster: Cluster) -> None:
    leader = cluster[1]
    leader.commit_index = 5
    looking = asyncio.create_task(leader.duties.time_to_live(look_at(7)))
    await turns()
    cluster.led_by(2)
    leader.index = 5
    assert await refusal_of(looking) is LEADER_CHANGED


async def test_an_expired_lease_is_answered_for_once_it_is_gone(cluster: Cluster) -> None:
    cluster.pass_time(61)
    renewing = asyncio.create_task(cluster[2].duties.renew(7))
    await turns()
    assert not renewing.done()
    await cluster[1].duties._revoke_expired()
    assert await refusal_of(renewing) is LEASE_NOT_FOUND


async def test_an_expired_lease_of_a_leader_that_is_deposed_lives_on(cluster: Cluster) -> None:
    cluster.pass_time(61)
    renewing = asyncio.create_task(cluster[2].duties.renew(7))
    await turns()
    cluster.led_by(3)
    assert await renewing == 60
    assert cluster[3].lessor.time_to_live(7, cluster.now) == 60


# What the leader does by itself


async def test_only_the_leader_revokes_and_once(cluster: Cluster) -> None:
    cluster.grant(8, 100)
    cluster.pass_time(61)
    for member in cluster.members.values():
        await member.duties._revoke_expired()
        await member.duties._revoke_expired()
    revoked = [each.lease_revoke.ID for each in cluster[1].proposed]
    assert revoked == [7]
    assert cluster[2].proposed == cluster[3].proposed == []
    assert not any(member.lessor.exists(7) for member in cluster.members.values())


async def test_a_change_of_leader_gives_a_lease_its_span_and_an_election_more(
    cluster: Cluster,
) -> None:
    cluster.pass_time(59)
    cluster.led_by(2)
    cluster.pass_time(60.5)
    for member in cluster.members.values():
        await member.duties._revoke_expired()
        assert member.proposed == []
    cluster.pass_time(1)
    for member in cluster.members.values():
        await member.duties._revoke_expired()
    assert [each.lease_revoke.ID for each in cluster[2].proposed] == [7]
    assert cluster[1].proposed == []


async def test_a_revocation_that_waits_for_its_turn_is_dropped_with_the_lead(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was named while this member led must not be proposed by one that does not."""
    monkeypatch.setattr(lease_duties, "CONCURRENT_REVOKES", 1)
    cluster.grant(8, 60)
    cluster.pass_time(61)
    leader = cluster[1]
    revoking = asyncio.create_task(leader.duties._revoke_expired())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(leader.proposed) == 1
    cluster.led_by(2)
    cluster.led_by(1)
    await revoking
    assert len(leader.proposed) == 1


async def test_what_the_core_knows_counts_before_anybody_was_told(cluster: Cluster) -> None:
    """A message may have deposed the leader, and the turn that tells of it is still to come."""
    leader = cluster[1]
    cluster.pass_time(61)
    cluster.grant(8, 60)
    leader.leader, leader.term = 2, leader.term + 1
    await leader.duties._revoke_expired()
    assert leader.proposed == []
    assert not leader.lessor.is_primary
    leader.leader, leader.term = 1, leader.term + 1
    leader.leadership.look()
    leader.applied_term = leader.term
    leader.leadership.applied()
    leader.leader, leader.term = 0, leader.term + 1
    assert await refusal_of(leader.duties.renew(8)) is LEADER_CHANGED


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    monkeypatch.setattr(lease_duties, "EXPIRY_SCAN_SECONDS", 0.0)
    return turns


async def test_a_leader_with_nothing_to_do_asks_nothing(cluster: Cluster, scans: Any) -> None:
    cluster.now += 59
    running = asyncio.create_task(cluster[1].duties.run())
    await turns(50)
    running.cancel()
    assert cluster[1].confirmations == 0


async def test_a_leader_that_was_stopped_revokes_nothing_before_it_proves_itself(
    cluster: Cluster, scans: Any
) -> None:
    leader = cluster[1]
    leader.refusal = TIMEOUT
    cluster.now += 90
    running = asyncio.create_task(leader.duties.run())
    await turns(50)
    assert leader.confirmations > 0
    assert leader.proposed == []
    leader.refusal = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while leader.lessor.exists(7):  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()
    assert [each.lease_revoke.ID for each in leader.proposed] == [7]


async def test_long_leases_are_checkpointed_and_renewing_clears_it(
    cluster: Cluster, scans: Any
) -> None:
    cluster.grant(9, 1000)
    cluster.led_by(1)
    cluster.now += 301
    for member in cluster.members.values():
        member.leadership.tenure.proof.given(cluster.now)
    running = [asyncio.create_task(each.duties.run()) for each in cluster.members.values()]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while cluster[2].lessor.lease(9).remaining_seconds == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for task in running:
        task.cancel()
    assert cluster[2].lessor.lease(9).remaining_seconds == 700
    cluster.led_by(3)
    assert await cluster[2].duties.time_to_live(look_at(9)) is not None
    assert cluster[3].lessor.time_to_live(9, cluster.now) == 701
    assert await cluster[1].duties.renew(9) == 1000
    assert {each.lessor.lease(9).remaining_seconds for each in cluster.members.values()} == {0}


def checkpoint(cluster: Cluster, lease_id: int, remaining_seconds: int) -> None:
    """Have the log say what is left of a lease, and a leader go on from there."""
    for member in cluster.members.values():
        member.lessor.checkpoint(lease_id, remaining_seconds, cluster.now)
    cluster.led_by(1)


def remaining(cluster: Cluster, lease_id: int) -> set[int]:
    return {each.lessor.lease(lease_id).remaining_seconds for each in cluster.members.values()}


async def test_nothing_is_renewed_whose_checkpoint_could_not_be_cleared(cluster: Cluster) -> None:
    """The next leader would not know of it."""
    cluster.grant(9, 1000)
    checkpoint(cluster, 9, 10)
    leader = cluster[1]
    leader.refusal_of_proposals = LEADER_CHANGED
    assert await refusal_of(leader.duties.renew(9)) is LEADER_CHANGED
    assert leader.lessor.time_to_live(9, cluster.now) == 11
    assert remaining(cluster, 9) == {10}
    leader.refusal_of_proposals = None
    assert await leader.duties.renew(9) == 1000
    assert leader.lessor.time_to_live(9, cluster.now) == 1000
    assert remaining(cluster, 9) == {0}
    assert await leader.duties.renew(9) == 1000
    assert len(leader.proposed) == 1, "there was nothing left to clear"


async def test_a_lease_that_ends_while_its_checkpoint_is_cleared_is_not_renewed(
    cluster: Cluster,
) -> None:
    cluster.grant(9, 1000)
    checkpoint(cluster, 9, 10)
    leader = cluster[1]
    renewing = asyncio.create_task(leader.duties.renew(9))
    await asyncio.sleep(0)
    assert len(leader.proposed) == 1
    cluster.pass_time(12)
    await turns()
    assert not renewing.done(), "it is told when the keys are gone"
    await leader.duties._revoke_expired()
    assert await refusal_of(renewing) is LEASE_NOT_FOUND


async def test_a_checkpoint_that_is_under_way_is_cleared_as_well(cluster: Cluster) -> None:
    cluster.grant(9, 1000)
    leader = cluster[1]
    cluster.pass_time(301)
    due = leader.lessor.due_checkpoints(cluster.now)
    checkpointing = asyncio.create_task(leader.duties._checkpoint_due(due))
    await asyncio.sleep(0)
    assert await leader.duties.renew(9) == 1000
    await checkpointing
    assert [each.lease_checkpoint.checkpoints[0].ID for each in leader.proposed] == [9, 9]
    assert remaining(cluster, 9) == {0}
    assert leader.lessor.time_to_live(9, cluster.now) == 1000


async def test_a_checkpoint_that_failed_is_due_again(cluster: Cluster) -> None:
    cluster.grant(9, 1000)
    leader = cluster[1]
    cluster.pass_time(301)
    leader.refusal_of_proposals = LEADER_CHANGED
    await leader.duties._checkpoint_due(leader.lessor.due_checkpoints(cluster.now))
    assert leader.lessor.due_checkpoints(cluster.now) == []
    cluster.pass_time(TIMEOUT_SECONDS + 0.1)
    assert leader.lessor.due_checkpoints(cluster.now) == [(9, 692)]


async def test_questions_of_an_unknown_kind_are_refused(cluster: Cluster) -> None:
    assert await refusal_of(cluster[1].answers.answer(2, "nonsense", b"")) is UNKNOWN_METHOD
