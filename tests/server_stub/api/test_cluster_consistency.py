"""What clients may rely on in a cluster: three members in this process, and a cuttable network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from inprocess.cuttable import CuttableCluster
from inprocess.served import PATIENCE_SECONDS, Served, until

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import (
    BAD_LEADER_TRANSFEREE,
    LEADER_CHANGED,
    LEADER_TRANSFER_TIMEOUT,
    NO_LEADER,
    NOT_ENOUGH_STARTED,
    NOT_LEADER,
    NOT_SUPPORTED_FOR_LEARNER,
    TIMEOUT,
    TIMEOUT_CONNECTION_LOST,
    TIMEOUT_LEADER_FAILURE,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.rpc import Rpc
from etcd_pinwheel.server_stub.api.call import Call


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[CuttableCluster]:
    async with CuttableCluster(tmp_path) as cluster:
        await cluster.settled()
        yield cluster


async def value(served: Served, key: bytes = b"k", **fields: Any) -> bytes | None:
    reply = await served(rpcs.KV_RANGE, key=key, **fields)
    return reply.kvs[0].value if reply.kvs else None


async def call(
    served: Served, rpc: Rpc[Any, Any], metadata: dict[str, str], **fields: Any
) -> Refusal | None:
    """Call a unary method; return what it was refused with."""
    try:
        await served.methods[rpc.path].serve(rpc.request(**fields), Call(metadata))
    except Refused as refused:
        return refused.refusal
    return None


async def outcome(task: asyncio.Task[Any]) -> Any:
    """What a call has returned, or was refused with."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            return await task
        except Refused as refused:
            return refused.refusal


# Reads


async def test_any_member_reads_what_any_member_has_written(cluster: CuttableCluster) -> None:
    for number in range(30):
        writer, reader = cluster.all[number % 3], cluster.all[(number + 1 + number // 3) % 3]
        revision = await writer.put(b"k", b"%d" % number)
        reply = await reader(rpcs.KV_RANGE, key=b"k")
        assert reply.kvs[0].value == b"%d" % number
        assert reply.header.revision >= revision


async def test_readers_of_all_members_at_once(cluster: CuttableCluster) -> None:
    async def read_after_write(number: int) -> None:
        key, writer, reader = b"k%d" % number, cluster.all[number % 3], cluster.all[number // 3 % 3]
        for round_number in range(10):
            await writer.put(key, b"%d" % round_number)
            assert await value(reader, key) == b"%d" % round_number

    await asyncio.gather(*(read_after_write(number) for number in range(18)))


async def test_a_leader_that_was_deposed_cannot_answer(cluster: CuttableCluster) -> None:
    old = cluster.leader
    await old.put(b"k", b"old")
    cluster.isolate(old)
    reading = asyncio.create_task(value(old))
    await cluster.settled()
    await cluster.leader.put(b"k", b"new")
    assert await value(old, serializable=True) == b"old"
    assert not reading.done()
    cluster.heal(old)
    assert await outcome(reading) in (b"new", LEADER_CHANGED)
    assert await value(old) == b"new"


async def test_a_leader_that_does_not_know_yet_that_it_is_deposed_cannot_answer(
    cluster: CuttableCluster,
) -> None:
    """As after a pause of its process: no time passes for it, and it goes on to believe."""
    old = cluster.leader
    await old.put(b"k", b"old")
    cluster.isolate(old)
    assert old.member.consensus._timer is not None
    old.member.consensus._timer.cancel()
    await cluster.settled()
    await cluster.leader.put(b"k", b"new")
    assert old.member.is_leader
    reading = [asyncio.create_task(value(old)) for _ in range(3)]
    looking = asyncio.create_task(old(rpcs.CLUSTER_MEMBER_LIST, linearizable=True))
    await asyncio.wait([*reading, looking], timeout=0.3)
    assert not any(each.done() for each in (*reading, looking))
    cluster.heal(old)
    old.member.consensus._tick()
    for each in reading:
        assert await outcome(each) in (b"new", LEADER_CHANGED)
    looked = await outcome(looking)
    assert looked is LEADER_CHANGED or len(looked.members) == 3


async def test_a_member_without_a_leader_reads_only_what_it_has(
    cluster: CuttableCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.leader.put(b"k", b"v")
    lonely = cluster.followers[0]
    assert await value(lonely) == b"v"
    cluster.isolate(lonely)
    await until(lambda: not lonely.member.has_leader)
    assert await value(lonely, serializable=True) == b"v"
    reading = asyncio.create_task(value(lonely))
    await asyncio.wait([reading], timeout=0.2)
    assert not reading.done()
    monkeypatch.setattr(lonely.member.reads, "_clock", lambda: lonely.member.clock() + 100.0)
    lonely.member.reads._look()
    with pytest.raises(Refused) as caught:
        await reading
    assert caught.value.refusal is TIMEOUT


# Writes and leaders


async def test_a_write_waits_for_a_leader(cluster: CuttableCluster) -> None:
    lonely = cluster.followers[0]
    cluster.isolate(lonely)
    await until(lambda: not lonely.member.has_leader)
    writing = asyncio.create_task(lonely.put(b"k", b"v"))
    await asyncio.wait([writing], timeout=0.2)
    assert not writing.done()
    cluster.heal(lonely)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await writing
    assert await value(cluster.leader) == b"v"


async def test_a_write_without_a_leader_gives_up(
    cluster: CuttableCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely = cluster.leader
    cluster.isolate(lonely)
    writing = asyncio.create_task(lonely.put(b"k", b"v"))
    await until(lambda: not lonely.member.has_leader)
    proposals = lonely.member.proposals
    monkeypatch.setattr(proposals, "_clock", lambda: lonely.member.clock() + 100.0)
    proposals.expire()
    with pytest.raises(Refused) as caught:
        await writing
    assert caught.value.refusal in (TIMEOUT, TIMEOUT_CONNECTION_LOST, TIMEOUT_LEADER_FAILURE)


async def test_who_requires_a_leader_is_told_at_once(cluster: CuttableCluster) -> None:
    lonely, requires = cluster.followers[0], {"hasleader": "true"}
    cluster.isolate(lonely)
    await until(lambda: not lonely.member.has_leader)
    assert await call(lonely, rpcs.KV_PUT, requires, key=b"k") is NO_LEADER
    assert await call(lonely, rpcs.KV_RANGE, requires, key=b"k", serializable=True) is NO_LEADER
    assert await call(lonely, rpcs.KV_RANGE, {}, key=b"k", serializable=True) is None
    for rpc in (rpcs.WATCH_WATCH, rpcs.LEASE_LEASE_KEEP_ALIVE):
        with pytest.raises(Refused) as caught:
            await lonely.stream(rpc, **requires).next()
        assert caught.value.refusal is NO_LEADER


async def test_streams_that_require_a_leader_are_cut_off(cluster: CuttableCluster) -> None:
    lonely = cluster.followers[0]
    asked = {"create_request": {"key": b"k"}}
    requiring = lonely.stream(rpcs.WATCH_WATCH, hasleader="true")
    patient = lonely.stream(rpcs.WATCH_WATCH)
    renewing = lonely.stream(rpcs.LEASE_LEASE_KEEP_ALIVE, hasleader="true")
    assert (await requiring.ask(**asked)).created
    assert (await patient.ask(**asked)).created
    waiting = [asyncio.create_task(stream.next()) for stream in (requiring, renewing)]
    staying = asyncio.create_task(patient.next())
    cluster.isolate(lonely)
    await until(lambda: not lonely.member.has_leader)
    assert not any(task.done() for task in waiting), "not at once"
    for task in waiting:
        with pytest.raises(Refused) as caught:
            await task
        assert caught.value.refusal is NO_LEADER
    assert not staying.done()
    cluster.heal(lonely)
    await cluster.settled()
    await cluster.leader.put(b"k", b"v")
    assert (await staying).events[0].kv.value == b"v"


async def test_an_election_in_time_cuts_nobody_off(cluster: CuttableCluster) -> None:
    watcher = cluster.followers[0]
    watcher.member.leadership._cut_off_seconds = PATIENCE_SECONDS  # however slow the machine is
    watching = watcher.stream(rpcs.WATCH_WATCH, hasleader="true")
    await watching.ask(create_request={"key": b"k"})
    cluster.isolate(cluster.leader)
    await cluster.settled()
    await cluster.leader.put(b"k", b"v")
    assert (await watching.next()).events[0].kv.value == b"v"


# Moving the lead


async def test_the_lead_is_moved(cluster: CuttableCluster) -> None:
    old, new = cluster.leader, cluster.followers[0]
    changes = new.member.leadership.tenure.changes
    refused = await call(new, rpcs.MAINTENANCE_MOVE_LEADER, {}, targetID=new.member.id)
    assert refused is NOT_LEADER
    refused = await call(old, rpcs.MAINTENANCE_MOVE_LEADER, {}, targetID=404)
    assert refused is BAD_LEADER_TRANSFEREE
    await old(rpcs.MAINTENANCE_MOVE_LEADER, targetID=old.member.id)
    assert old.member.is_leader, "to itself: nothing to do"
    await old(rpcs.MAINTENANCE_MOVE_LEADER, targetID=new.member.id)
    assert old.member.leader_id == new.member.id
    assert await cluster.settled() is new
    assert new.member.leadership.tenure.changes == changes + 1
    await old.put(b"k", b"v")
    assert await value(new) == b"v"


async def test_a_lead_that_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with CuttableCluster(tmp_path) as cluster:
        leader = await cluster.settled()
        target = cluster.followers[0]
        cluster.isolate(target)
        member = leader.member
        monkeypatch.setattr(type(member.settings), "request_timeout_seconds", 0.3)
        refused = await call(leader, rpcs.MAINTENANCE_MOVE_LEADER, {}, targetID=target.member.id)
        assert refused is LEADER_TRANSFER_TIMEOUT


# Leases


async def test_a_lease_is_renewed_through_any_member(cluster: CuttableCluster) -> None:
    await cluster.all[0](rpcs.LEASE_LEASE_GRANT, ID=7, TTL=60)
    await cluster.all[1].put(b"k", lease=7)
    for served in cluster.all:
        lease = cluster.leader.member.lessor.lease(7)
        lease.expiry -= 30
        stream = served.stream(rpcs.LEASE_LEASE_KEEP_ALIVE)
        reply = await stream.ask(ID=7)
        assert (reply.ID, reply.TTL, reply.header.member_id) == (7, 60, served.member.id)
        assert (await stream.ask(ID=8)).TTL == 0
        looked = await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7, keys=True)
        assert 58 <= looked.TTL <= 60
        assert list(looked.keys) == [b"k"]
        assert looked.header.member_id == served.member.id
        assert (await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=8)).TTL == -1


async def test_a_lease_outlives_its_leader_and_expires_once(cluster: CuttableCluster) -> None:
    old = cluster.leader
    await old(rpcs.LEASE_LEASE_GRANT, ID=7, TTL=60)
    await old.put(b"k", lease=7)
    old.member.lessor.lease(7).expiry -= 59
    cluster.isolate(old)
    new = await cluster.settled()
    assert new.member.lessor.time_to_live(7, new.member.clock()) >= 59, "armed anew"
    cluster.heal(old)
    await until(lambda: old.member.leader_id == new.member.id)
    assert not old.member.lessor.is_primary
    watching = old.stream(rpcs.WATCH_WATCH)
    await watching.ask(create_request={"key": b"k"})
    revision = (await old(rpcs.KV_RANGE, key=b"k")).header.revision
    lessor, now = new.member.lessor, new.member.clock()
    lessor.lease(7).expiry = now
    lessor._due[:] = [(now, 0, lessor.lease(7))]
    gone = await watching.next()
    assert [event.type for event in gone.events] == [1]
    for served in cluster.all:
        reply = await served(rpcs.KV_RANGE, key=b"k")
        assert (reply.count, reply.header.revision) == (0, revision + 1)
        assert not served.member.lessor.exists(7)
    assert sum(served.member.lessor.counters.expired for served in cluster.all) == 1


async def test_a_deposed_leader_revokes_nothing(cluster: CuttableCluster) -> None:
    """It believes that a lease has run out, which its successor keeps alive."""
    old = cluster.leader
    await old(rpcs.LEASE_LEASE_GRANT, ID=7, TTL=60)
    cluster.isolate(old)
    timer = old.member.consensus._timer
    assert timer is not None
    timer.cancel()
    new = await cluster.settled()
    lessor, now = old.member.lessor, old.member.clock()
    assert lessor.is_primary
    lessor.lease(7).expiry = now
    lessor._due[:] = [(now, 0, lessor.lease(7))]
    old.member.leadership.tenure.proof.given(now)  # as if it had no doubt
    revoking = asyncio.create_task(old.member.lease_duties._revoke_expired())
    await asyncio.wait([revoking], timeout=0.1)
    assert (await new.stream(rpcs.LEASE_LEASE_KEEP_ALIVE).ask(ID=7)).TTL == 60
    cluster.heal(old)
    old.member.consensus._tick()
    await until(lambda: old.member.leader_id == new.member.id)
    await new.put(b"k", b"v")
    await until(lambda: old.member.applier.index >= new.member.applier.index)
    assert all(served.member.lessor.exists(7) for served in cluster.all)
    revoking.cancel()


async def test_a_leader_that_was_stopped_renews_nothing(cluster: CuttableCluster) -> None:
    old = cluster.leader
    await old(rpcs.LEASE_LEASE_GRANT, ID=7, TTL=60)
    cluster.isolate(old)
    timer = old.member.consensus._timer
    assert timer is not None
    timer.cancel()
    await cluster.settled()
    assert old.member.lessor.is_primary
    await until(lambda: not old.member.leadership.tenure.proof.holds(old.member.clock()))
    renewing = asyncio.create_task(old.member.renew_lease(7))
    await asyncio.wait([renewing], timeout=0.3)
    assert not renewing.done()
    cluster.heal(old)
    old.member.consensus._tick()
    with pytest.raises(Refused) as caught:
        await renewing
    assert caught.value.refusal is LEADER_CHANGED


async def test_a_new_leader_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    async with CuttableCluster(tmp_path, lease_checkpoints=True) as cluster:
        old = await cluster.settled()
        await old(rpcs.LEASE_LEASE_GRANT, ID=7, TTL=1000)
        lessor, followers = old.member.lessor, cluster.followers
        for each in followers:
            await each(rpcs.KV_RANGE, key=b"k")  # it has applied the grant then
        lessor.lease(7).expiry -= 400
        lessor._next_checkpoint[7] = 0.0  # due
        for each in followers:
            await until(lambda lessor=each.member.lessor: lessor.lease(7).remaining_seconds > 0)
            assert 590 <= each.member.lessor.lease(7).remaining_seconds <= 600
        cluster.isolate(old)
        new = await cluster.settled()
        looked = await new(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7)
        assert 580 <= looked.TTL <= 601
        assert (await followers[0].stream(rpcs.LEASE_LEASE_KEEP_ALIVE).ask(ID=7)).TTL == 1000
        await new.put(b"behind the end of the checkpoint")
        for each in followers:
            assert (await each(rpcs.KV_RANGE, key=b"k")).count == 0
            assert each.member.lessor.lease(7).remaining_seconds == 0


# Learners


async def test_a_learner_serves_what_it_can(cluster: CuttableCluster) -> None:
    await cluster.leader.put(b"k", b"v")
    learner = await cluster.added_learner()
    await until(lambda: learner.member.applier.index >= cluster.leader.member.applier.index)
    assert await value(learner, serializable=True) == b"v"
    status = await learner(rpcs.MAINTENANCE_STATUS)
    assert status.isLearner
    assert status.leader == cluster.leader.member.id
    assert status.raftAppliedIndex <= status.raftIndex
    assert not (await cluster.leader(rpcs.MAINTENANCE_STATUS)).isLearner
    assert await learner.refusal(rpcs.KV_RANGE, key=b"k") is NOT_SUPPORTED_FOR_LEARNER
    assert await learner.refusal(rpcs.CLUSTER_MEMBER_LIST) is NOT_SUPPORTED_FOR_LEARNER
    with pytest.raises(Refused) as caught:
        await learner.stream(rpcs.WATCH_WATCH).next()
    assert caught.value.refusal is NOT_SUPPORTED_FOR_LEARNER
    health = learner.methods["/grpc.health.v1.Health/Check"]
    with pytest.raises(Refused) as caught:
        await health.serve(health.rpc.request(), Call({}))
    assert caught.value.refusal is NOT_SUPPORTED_FOR_LEARNER
    assert (await learner.http("/readyz/non_learner")).status == 503
    assert (await learner.http("/livez")).status == 200
    target = learner.member.id
    refused = await call(cluster.leader, rpcs.MAINTENANCE_MOVE_LEADER, {}, targetID=target)
    assert refused is BAD_LEADER_TRANSFEREE


async def test_a_learner_that_may_reads_up_to_date(cluster: CuttableCluster) -> None:
    learner = await cluster.added_learner(learner_reads="linearizable")
    watching = learner.stream(rpcs.WATCH_WATCH)
    assert (await watching.ask(create_request={"key": b"k"})).created
    for number in range(10):
        await cluster.all[number % 3].put(b"k", b"%d" % number)
        assert await value(learner) == b"%d" % number
        txn = await learner(rpcs.KV_TXN, success=[{"request_range": {"key": b"k"}}])
        assert txn.responses[0].response_range.kvs[0].value == b"%d" % number
    assert (await watching.next()).events[0].kv.value == b"0"
    listed = await learner(rpcs.CLUSTER_MEMBER_LIST, linearizable=True)
    assert [member.isLearner for member in listed.members].count(True) == 1
    assert await learner.refusal(rpcs.KV_PUT, key=b"k") is NOT_SUPPORTED_FOR_LEARNER
    cluster.isolate(learner)
    reading = asyncio.create_task(value(learner))
    await cluster.leader.put(b"k", b"new")
    await asyncio.wait([reading], timeout=0.2)
    assert not reading.done()
    assert await value(learner, serializable=True) == b"9"
    cluster.heal(learner)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await reading == b"new"


# The membership


async def test_of_two_that_are_removed_at_once_one_stays(tmp_path: Path) -> None:
    async with CuttableCluster(tmp_path, size=2) as cluster:
        leader = await cluster.settled()
        ids = [served.member.id for served in (*cluster.followers, leader)]
        removals = [call(leader, rpcs.CLUSTER_MEMBER_REMOVE, {}, ID=each) for each in ids]
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await asyncio.gather(*removals) == [None, NOT_ENOUGH_STARTED]
        await leader.put(b"k", b"v")
        await leader.restart()
        assert await value(leader) == b"v"


# Metrics


async def test_metrics_of_a_cluster(cluster: CuttableCluster) -> None:
    leader, follower = cluster.leader, cluster.followers[0]
    await follower.put(b"k", b"v")
    assert await value(follower) == b"v"
    await leader.refusal(rpcs.CLUSTER_MEMBER_PROMOTE, ID=404)
    page = (await leader.http("/metrics")).body.decode()
    other, own = f"{follower.member.id:x}", f"{leader.member.id:x}"
    assert "etcd_server_is_leader 1.0" in page
    assert "etcd_server_is_learner 0.0" in page
    assert f'etcd_network_active_peers{{Local="{own}",Remote="{other}"}} 1.0' in page
    assert f'etcd_network_known_peers{{Local="{own}",Remote="{other}"}} 1.0' in page
    counts = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert float(counts["etcd_server_leader_changes_seen_total"]) >= 1
    assert float(counts[f'etcd_network_peer_sent_bytes_total{{To="{other}"}}']) > 100
    assert float(counts[f'etcd_network_peer_received_bytes_total{{From="{other}"}}']) > 100
    round_trips = f'etcd_network_peer_round_trip_time_seconds_bucket{{To="{other}",le="+Inf"}}'
    assert round_trips in counts
    assert any(name.startswith("etcd_server_learner_promote_failures{") for name in counts)
    page = (await follower.http("/metrics")).body.decode()
    assert "etcd_server_is_leader 0.0" in page
