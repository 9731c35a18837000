"""Carrying out changes of the membership, with members that are plain objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.errors import (
    BAD_MEMBER_URLS,
    LEARNER_NOT_READY,
    MEMBER_NOT_FOUND,
    NO_LEADER,
    NOT_A_LEARNER,
    NOT_ENOUGH_STARTED,
    NOT_LEADER,
    PEER_URLS_EXIST,
    TIMEOUT,
    TOO_MANY_LEARNERS,
    UNHEALTHY,
    Refusal,
    Refused,
)
from etcd_pinwheel.server_stub.answers import Answers
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.cluster import ClusterMember, member_id, removing, save_members
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.peers.receiver import PeerUnreachable
from etcd_pinwheel.server_stub.reconfiguration import PROMOTE, Reconfiguration
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

FIRST = ClusterMember(1, ("http://a:1",), "a", ("http://a:2",))
SECOND = ClusterMember(2, ("http://b:1",), "b", ("http://b:2",))
LEARNER = ClusterMember(3, ("http://c:1",), "c", ("http://c:2",), is_learner=True)


class Known:
    def __init__(self, match: int) -> None:
        self.match = match


class Core:
    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.progress: Mapping[int, Known] = {}


class Site:
    """Two members and a log that both of them apply at once; time stands still unless told."""

    def __init__(self, *members: ClusterMember, leader: int = 1, **settings: Any) -> None:
        self.now = 100.0
        self.connected: dict[int, float] = {member.id: 0.0 for member in members}
        self.log: list[raftpb.ConfChange] = []
        self.ahead: list[raftpb.ConfChange] = []
        """What is proposed already, and not applied yet."""
        self.unreachable = 0
        backend = MemoryBackend()
        save_members(backend, members)
        self.membership = Membership(backend, 7)
        self.cores = {1: Core(leader), 2: Core(leader)}
        self.answers = {1: Answers(), 2: Answers()}
        self.settings = Settings(**settings)
        self.sites = {own_id: self._site(own_id) for own_id in (1, 2)}
        self.matches(9, 9, 9)

    def _site(self, own_id: int) -> Reconfiguration:
        return Reconfiguration(
            own_id,
            self.membership,
            self.cores[own_id],
            self.settings,
            self._clock,
            ask=self._ask,
            propose_change=self._propose_change,
            connected_since=self.connected.get,
            answers=self.answers[own_id],
        )

    def matches(self, *indexes: int) -> None:
        leader = self.cores[self.cores[1].leader or 1]
        leader.progress = {number + 1: Known(index) for number, index in enumerate(indexes)}

    def _clock(self) -> float:
        self.now += 2.0
        return self.now

    async def _ask(self, target: int, kind: str, payload: bytes, timeout_seconds: float) -> bytes:
        assert timeout_seconds > 0
        if self.unreachable:
            self.unreachable -= 1
            raise PeerUnreachable
        return await self.answers[target].answer(2, kind, payload)

    async def _propose_change(self, change: raftpb.ConfChange, admit: Callable[[], None]) -> None:
        admit()
        for earlier in self.ahead:
            self.membership.change(earlier)
        self.ahead.clear()
        admit()
        self.membership.validate(change)
        self.membership.change(change)
        self.log.append(change)

    @property
    def ids(self) -> set[int]:
        return {member.id for member in self.membership.cluster.members}


async def refusal(awaitable: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value.refusal


# Adding


async def test_a_learner_is_added() -> None:
    site = Site(FIRST, SECOND)
    before = int(time.time())
    added = await site.sites[1].add(["http://d:2 ", "http://d:1"], is_learner=True)
    assert added.peer_urls == ("http://d:1", "http://d:2")
    assert added.id in {member_id(added.peer_urls, "", before + late) for late in range(30)}
    assert (added.name, added.is_learner) == ("", True)
    assert site.membership.cluster.member(added.id) == added
    assert site.log[0].type == raftpb.ConfChangeAddLearnerNode


async def test_a_voter_is_added_unless_learners_are_the_default() -> None:
    for by_default in (False, True):
        site = Site(FIRST, SECOND, learner_by_default=by_default)
        added = await site.sites[1].add(["http://d:1"], is_learner=False)
        assert added.is_learner is by_default


@pytest.mark.parametrize("urls", [[], [""], ["nonsense"], ["http://d:1", "http://e"]])
async def test_urls_that_are_none(urls: list[str]) -> None:
    site = Site(FIRST, SECOND)
    assert await refusal(site.sites[1].add(urls, is_learner=True)) is BAD_MEMBER_URLS
    assert await refusal(site.sites[1].update(1, urls)) is BAD_MEMBER_URLS
    assert site.log == []


async def test_what_is_refused_when_it_is_applied() -> None:
    site = Site(FIRST, SECOND, LEARNER)
    assert await refusal(site.sites[1].add(["http://b:1"], is_learner=True)) is PEER_URLS_EXIST
    assert await refusal(site.sites[1].add(["http://d:1"], is_learner=True)) is TOO_MANY_LEARNERS
    assert await refusal(site.sites[1].promote(2)) is NOT_A_LEARNER
    assert await refusal(site.sites[1].promote(404)) is MEMBER_NOT_FOUND
    assert await refusal(site.sites[1].remove(404)) is MEMBER_NOT_FOUND
    assert await refusal(site.sites[1].update(404, [])) is MEMBER_NOT_FOUND


async def test_the_strict_check_can_be_turned_off() -> None:
    for strict in (True, False):
        site = Site(FIRST, SECOND, strict_reconfig_check=strict)
        del site.connected[2]
        if strict:
            assert await refusal(site.sites[1].add(["http://d:1"], is_learner=True)) is UNHEALTHY
            assert await refusal(site.sites[1].remove(1)) is UNHEALTHY
            assert site.log == []
        else:
            await site.sites[1].add(["http://d:1"], is_learner=True)
            await site.sites[1].remove(1)
            assert len(site.log) == 2


@pytest.mark.parametrize("strict", [True, False])
async def test_what_waits_for_another_change_is_checked_behind_it(strict: bool) -> None:
    """Each removal alone leaves a quorum, both do not."""
    down = ClusterMember(4, ("http://d:1",), "d", ("http://d:2",))
    third = ClusterMember(5, ("http://e:1",), "e", ("http://e:2",))
    site = Site(FIRST, SECOND, third, down, strict_reconfig_check=strict)
    del site.connected[4]
    site.ahead = [removing(5)]
    if strict:
        assert await refusal(site.sites[1].remove(2)) is UNHEALTHY
        assert site.log == []
    else:
        await site.sites[1].remove(2)
        assert site.ids == {1, 4}


async def test_the_id_of_a_removed_member_is_not_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """etcd refuses such an addition, within the second in which the member was added."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    site = Site(FIRST, SECOND)
    first = await site.sites[1].add(["http://d:1"], is_learner=True)
    site.membership.change(removing(first.id))
    second = await site.sites[1].add(["http://d:1"], is_learner=True)
    assert second.id == member_id(["http://d:1"], "", 1001)
    assert site.ids == {1, 2, second.id}


# Removing and updating


async def test_a_member_is_removed() -> None:
    site = Site(FIRST, SECOND)
    await site.sites[1].remove(2)
    assert site.ids == {1}
    assert site.membership.removed == {2}


async def test_urls_are_updated() -> None:
    site = Site(FIRST, SECOND)
    await site.sites[1].update(2, ["http://z:1"])
    moved = site.membership.cluster.member(2)
    assert moved is not None
    assert moved.peer_urls == ("http://z:1",)
    assert await refusal(site.sites[1].update(2, ["http://a:1"])) is PEER_URLS_EXIST


# Promoting


@pytest.mark.parametrize("asked", [1, 2])
async def test_a_learner_is_promoted_whoever_is_asked(asked: int) -> None:
    site = Site(FIRST, SECOND, LEARNER)
    members = await site.sites[asked].promote(3)
    assert list(members) == list(site.membership.cluster.members)
    assert not any(member.is_learner for member in members)
    assert len(site.log) == 1


@pytest.mark.parametrize("asked", [1, 2])
async def test_a_learner_that_is_behind_is_not_promoted(asked: int) -> None:
    site = Site(FIRST, SECOND, LEARNER)
    site.matches(10, 10, 8)
    assert await refusal(site.sites[asked].promote(3)) is LEARNER_NOT_READY
    assert site.log == []


async def test_a_promotion_needs_started_members() -> None:
    unstarted = [ClusterMember(number, (f"http://u:{number}",)) for number in (4, 5)]
    site = Site(FIRST, *unstarted, LEARNER)
    site.matches(9, 9, 9, 9, 9)
    assert await refusal(site.sites[1].promote(3)) is NOT_ENOUGH_STARTED


async def test_a_promotion_is_asked_for_again_until_the_leader_is_found() -> None:
    site = Site(FIRST, SECOND, LEARNER)
    site.unreachable = 2
    await site.sites[2].promote(3)
    assert len(site.log) == 1


async def test_a_promotion_without_a_leader_times_out() -> None:
    for leader in (0, 2):
        site = Site(FIRST, SECOND, LEARNER, leader=leader)
        site.cores[2].leader = 0  # whoever is asked as the leader knows better
        assert await refusal(site.sites[1].promote(3)) is (TIMEOUT if leader else NO_LEADER)
        assert site.log == []


async def test_a_member_that_does_not_lead_answers_so() -> None:
    site = Site(FIRST, SECOND, LEARNER)
    question = site.answers[2].answer(1, PROMOTE, (3).to_bytes(8, "big"))
    assert await refusal(question) is NOT_LEADER
