"""Those who wait for their proposals: when these are handed over, and what callers are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.errors import (
    LEADER_CHANGED,
    MEMBER_NOT_FOUND,
    REQUEST_TOO_LARGE,
    STOPPED,
    TIMEOUT,
    TIMEOUT_CONNECTION_LOST,
    TIMEOUT_LEADER_FAILURE,
    TOO_MANY_REQUESTS,
    UNHEALTHY,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, PutResponse
from etcd_pinwheel.server_stub.proposals import MAX_UNAPPLIED_ENTRIES, Proposals, Timings
from etcd_pinwheel.server_stub.raft.core import ProposalDropped, Role
from etcd_pinwheel.server_stub.replica import Applied
from etcd_pinwheel.server_stub.request_ids import RequestIds


class Core:
    """A core that notes what it is given, or takes nothing."""

    def __init__(self) -> None:
        self.id = 1
        self.role = Role.FOLLOWER
        self.commit_index = 10
        self.takes = True
        self.taken: list[bytes] = []
        self.changes: list[raftpb.ConfChange] = []

    def propose(self, data: bytes) -> None:
        if not self.takes:
            raise ProposalDropped("nobody leads")
        self.taken.append(data)

    def propose_change(self, change: raftpb.ConfChange) -> None:
        if not self.takes:
            raise ProposalDropped("nobody leads")
        self.changes.append(change)


class Desk:
    """Proposals, with a core and a clock of the test's own."""

    def __init__(self) -> None:
        self.core = Core()
        self.now = 100.0
        self.index = 10
        self.is_connected = True
        self.timings = Timings(1.0, 0.0, lambda since: self.is_connected)
        self.proposals = Proposals(
            self.core,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            RequestIds(1, 0),
            lambda: self.now,
            self.timings,
            timeout_seconds=7.0,
            max_request_bytes=1000,
            wake=lambda: None,
        )

    def put(self, key: bytes = b"k", value: bytes = b"v") -> asyncio.Future[Any]:
        return self.proposals.propose(InternalRaftRequest(put={"key": key, "value": value}))

    def turn(self) -> None:
        self.proposals.hand_over()

    def applied(self, data: bytes, refused: Refused | None = None) -> None:
        """Apply an entry of this data."""
        reply = PutResponse() if refused is None else None
        entry = raftpb.Entry(Data=data)
        self.proposals.applied([Applied(entry, reply=reply, refused=refused)])


@pytest.fixture
async def desk() -> Desk:
    return Desk()


def refusal(waiting: asyncio.Future[Any]) -> Refusal:
    error = waiting.exception()
    assert isinstance(error, Refused)
    return error.refusal


async def test_proposals_are_answered_when_they_are_applied(desk: Desk) -> None:
    first, second = desk.put(b"1"), desk.put(b"2")
    desk.turn()
    assert len(set(desk.core.taken)) == 2
    assert desk.proposals.pending == 2
    desk.applied(desk.core.taken[1])
    assert (first.done(), second.done()) == (False, True)
    desk.applied(b"of another member")
    desk.applied(desk.core.taken[0])
    assert isinstance(await first, PutResponse)
    assert desk.proposals.pending == 0


async def test_without_a_leader_they_wait_in_their_order(desk: Desk) -> None:
    desk.core.takes = False
    waiting = [desk.put(b"%d" % number) for number in range(3)]
    desk.turn()
    assert desk.core.taken == []
    desk.core.takes = True
    waiting.append(desk.put(b"3"))
    desk.turn()
    keys = [InternalRaftRequest.FromString(data).put.key for data in desk.core.taken]
    assert keys == [b"0", b"1", b"2", b"3"]
    assert not any(each.done() for each in waiting)


async def test_what_was_handed_over_is_never_handed_over_again(desk: Desk) -> None:
    desk.put()
    for _ in range(3):
        desk.turn()
        desk.core.takes = not desk.core.takes
    assert len(desk.core.taken) == 1


async def test_what_has_expired_is_not_handed_over_any_more(desk: Desk) -> None:
    desk.core.takes = False
    late = desk.put()
    desk.now += 6.9
    in_time = desk.put()
    desk.proposals.expire()
    assert not late.done()
    desk.now += 0.2
    desk.proposals.expire()
    assert refusal(late) is TIMEOUT
    desk.core.takes = True
    desk.turn()
    assert len(desk.core.taken) == 1
    assert not in_time.done()
    assert desk.proposals.failed == 1


@pytest.mark.parametrize(
    ("leader_since", "is_connected", "told"),
    [
        (0.0, True, TIMEOUT),
        (99.0, True, TIMEOUT),
        (101.0, True, TIMEOUT_LEADER_FAILURE),
        (101.9, False, TIMEOUT_LEADER_FAILURE),
        (102.1, True, TIMEOUT),
        (0.0, False, TIMEOUT_CONNECTION_LOST),
    ],
)
async def test_what_a_late_caller_is_told(
    desk: Desk, leader_since: float, is_connected: bool, told: Refusal
) -> None:
    """It began at 100; a leader elected within two timeouts after that explains the delay."""
    waiting, change = desk.put(), desk.proposals.propose_change(raftpb.ConfChange())
    desk.turn()
    desk.timings.leader_since, desk.is_connected = leader_since, is_connected
    desk.now += 7.0
    desk.proposals.expire()
    assert refusal(waiting) is refusal(change) is told


async def test_too_much_that_is_not_applied_turns_requests_away(desk: Desk) -> None:
    for_leases = [
        InternalRaftRequest(lease_revoke={"ID": 1}),
        InternalRaftRequest(lease_checkpoint={"checkpoints": [{"ID": 1}]}),
    ]
    desk.core.commit_index = desk.index + MAX_UNAPPLIED_ENTRIES
    desk.put()
    desk.core.commit_index += 1
    with pytest.raises(Refused) as caught:
        desk.put()
    assert caught.value.refusal is TOO_MANY_REQUESTS
    for request in for_leases:
        desk.proposals.propose(request)
    desk.core.commit_index += MAX_UNAPPLIED_ENTRIES
    for request in for_leases:
        with pytest.raises(Refused) as caught:
            desk.proposals.propose(request)
        assert caught.value.refusal is TOO_MANY_REQUESTS


async def test_a_request_that_is_too_large(desk: Desk) -> None:
    with pytest.raises(Refused) as caught:
        desk.put(value=bytes(1000))
    assert caught.value.refusal is REQUEST_TOO_LARGE
    assert desk.proposals.pending == 0


async def test_changes_of_the_membership_wait_apart(desk: Desk) -> None:
    added, removed = (
        desk.proposals.propose_change(raftpb.ConfChange(node_id=number)) for number in (1, 2)
    )
    desk.turn()
    first, second = desk.core.changes
    assert first.id != second.id
    done = Applied(raftpb.Entry(), change=first)
    refused = Applied(raftpb.Entry(), change=second, refused=Refused(MEMBER_NOT_FOUND))
    stranger = Applied(raftpb.Entry(), change=raftpb.ConfChange(id=77))
    desk.proposals.applied([done, refused, stranger])
    assert await added is None
    assert refusal(removed) is MEMBER_NOT_FOUND


async def test_a_change_that_waits_is_admitted_again(desk: Desk) -> None:
    """What came before it may have changed what can be afforded."""
    refusals: list[Refused] = []

    def admit() -> None:
        if refusals:
            raise refusals.pop()

    desk.core.takes = False
    first, second, third = (
        desk.proposals.propose_change(raftpb.ConfChange(node_id=number), admit)
        for number in (1, 2, 3)
    )
    desk.turn()
    desk.core.takes = True
    refusals.append(Refused(UNHEALTHY))
    desk.turn()
    assert [change.node_id for change in desk.core.changes] == [2, 3]
    assert refusal(first) is UNHEALTHY
    assert (second.done(), third.done(), desk.proposals.pending) == (False, False, 2)


async def test_a_change_that_is_not_admitted_does_not_wait(desk: Desk) -> None:
    def admit() -> None:
        raise Refused(UNHEALTHY)

    with pytest.raises(Refused) as caught:
        desk.proposals.propose_change(raftpb.ConfChange(), admit)
    assert caught.value.refusal is UNHEALTHY
    desk.turn()
    assert (desk.core.changes, desk.proposals.pending) == ([], 0)


async def test_a_leader_proposes_at_once_or_never(desk: Desk) -> None:
    request = InternalRaftRequest(lease_revoke={"ID": 1})
    with pytest.raises(Refused) as caught:
        await desk.proposals.propose_as_leader(request)
    assert caught.value.refusal is LEADER_CHANGED
    desk.core.role = Role.LEADER
    desk.core.takes = False
    with pytest.raises(Refused) as caught:
        await desk.proposals.propose_as_leader(request)
    assert caught.value.refusal is LEADER_CHANGED
    assert desk.proposals.pending == 0
    desk.core.takes = True
    proposing = asyncio.create_task(desk.proposals.propose_as_leader(request))
    await asyncio.sleep(0)
    assert len(desk.core.taken) == 1, "without waiting for a turn"
    desk.applied(desk.core.taken[0])
    assert isinstance(await proposing, PutResponse)


async def test_what_a_leader_proposes_does_not_wait_for_what_is_held(desk: Desk) -> None:
    """Under load something is always held; and what is held may be too much for the core."""
    desk.core.role = Role.LEADER
    waiting = [desk.put(b"1"), desk.put(b"2")]
    revokes = [InternalRaftRequest(lease_revoke={"ID": number}) for number in (1, 2)]
    propose = desk.proposals.propose_as_leader
    proposing = [asyncio.create_task(propose(revoke)) for revoke in revokes]
    await asyncio.sleep(0)
    assert len(desk.core.taken) == 2
    desk.turn()
    assert len(desk.core.taken) == 4
    keys = [InternalRaftRequest.FromString(data).put.key for data in desk.core.taken]
    assert keys == [b"", b"", b"1", b"2"]
    for data in desk.core.taken:
        desk.applied(data)
    await asyncio.gather(*waiting, *proposing)


async def test_what_a_leader_could_not_propose_is_never_handed_on(desk: Desk) -> None:
    desk.core.role = Role.LEADER
    desk.core.takes = False
    waiting = desk.put()
    with pytest.raises(Refused) as caught:
        await desk.proposals.propose_as_leader(InternalRaftRequest(lease_revoke={"ID": 1}))
    assert caught.value.refusal is LEADER_CHANGED
    desk.core.role = Role.FOLLOWER
    desk.core.takes = True
    desk.turn()
    (data,) = desk.core.taken
    assert InternalRaftRequest.FromString(data).put.key == b"k"
    assert not waiting.done()


async def test_an_end_answers_everybody(desk: Desk) -> None:
    desk.core.takes = False
    waiting, change = desk.put(), desk.proposals.propose_change(raftpb.ConfChange())
    await desk.proposals.finish(0.0)
    assert not waiting.done()
    desk.proposals.give_up()
    assert refusal(waiting) is refusal(change) is STOPPED
    for propose in (desk.put, lambda: desk.proposals.propose_change(raftpb.ConfChange())):
        with pytest.raises(Refused) as caught:
            propose()
        assert caught.value.refusal is STOPPED


async def test_callers_that_have_gone_are_no_matter(desk: Desk) -> None:
    gone, other = desk.put(), desk.put()
    desk.turn()
    gone.cancel()
    for data in desk.core.taken:
        desk.applied(data)
    assert isinstance(await other, PutResponse)
