"""Maintenance, Cluster, Auth, health and HTTP over a member in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from inprocess.served import PATIENCE_SECONDS, Served

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import (
    BAD_LEADER_TRANSFEREE,
    COMPACTED,
    FUTURE_REVISION,
    INVALID_DOWNGRADE_TARGET,
    NO_DOWNGRADE,
    UNKNOWN_METHOD,
    WRONG_DOWNGRADE_FORMAT,
    Code,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import CORRUPT, NOSPACE, Member
from etcd_pinwheel.server_stub.api.call import Call
from etcd_pinwheel.server_stub.api.maintenance import (
    BLOB_BYTES,
    LEAST_BYTES_PER_SECOND,
    NOT_TAKEN,
    SNAPSHOTS_AT_A_TIME,
    STALLED_SECONDS,
    TOO_MANY_SNAPSHOTS,
    Allowance,
    Maintenance,
)
from etcd_pinwheel.server_stub.version import SERVER_VERSION


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Served(tmp_path / "data") as served:
        yield served


async def test_a_fresh_member_is_where_etcd_is(served: Served) -> None:
    """A change of membership, the election's empty entry, the name, the version: four entries."""
    status = await served(rpcs.MAINTENANCE_STATUS)
    assert (status.raftTerm, status.raftIndex, status.raftAppliedIndex) == (2, 4, 4)
    assert status.leader == status.header.member_id == served.member.id
    assert status.version == SERVER_VERSION
    assert 0 < status.dbSizeInUse <= status.dbSize
    assert not status.errors
    await served.restart()
    status = await served(rpcs.MAINTENANCE_STATUS)
    assert (status.raftTerm, status.raftIndex) == (3, 6)


async def test_the_one_member(served: Served) -> None:
    listed = await served(rpcs.CLUSTER_MEMBER_LIST)
    assert listed.header.revision == 0
    assert list(listed.members) == [
        Member(
            ID=served.member.id,
            name="default",
            peerURLs=["http://localhost:2380"],
            clientURLs=["http://localhost:2379"],
        )
    ]


async def test_alarms_are_raised_seen_and_cleared(served: Served) -> None:
    for alarm in (NOSPACE, CORRUPT):
        (raised,) = (await served(rpcs.MAINTENANCE_ALARM, action=1, memberID=9, alarm=alarm)).alarms
        assert (raised.memberID, raised.alarm) == (9, alarm)
    status = await served(rpcs.MAINTENANCE_STATUS)
    assert list(status.errors) == ["memberID:9 alarm:NOSPACE ", "memberID:9 alarm:CORRUPT "]
    sick = await served.http("/health")
    assert (sick.status, json.loads(sick.body)["reason"]) == (503, "ALARM NOSPACE")
    sick = await served.http("/health", exclude=["NOSPACE"])
    assert (sick.status, json.loads(sick.body)["reason"]) == (503, "ALARM CORRUPT")
    assert (await served.http("/health", exclude=["NOSPACE", "CORRUPT"])).status == 200
    for alarm in (NOSPACE, CORRUPT):
        await served(rpcs.MAINTENANCE_ALARM, action=2, memberID=9, alarm=alarm)
    assert not (await served(rpcs.MAINTENANCE_ALARM)).alarms
    assert (await served.http("/health")).status == 200


async def test_hashes(served: Served) -> None:
    for number in range(10):
        await served.put(b"k", b"%d" % number)
    now = await served(rpcs.MAINTENANCE_HASH_KV)
    assert (now.hash_revision, now.compact_revision, now.header.revision) == (11, -1, 11)
    assert (await served(rpcs.MAINTENANCE_HASH_KV, revision=11)).hash == now.hash
    assert (await served(rpcs.MAINTENANCE_HASH_KV, revision=5)).hash != now.hash
    assert await served.refusal(rpcs.MAINTENANCE_HASH_KV, revision=12) is FUTURE_REVISION
    await served(rpcs.KV_COMPACT, revision=6)
    assert await served.refusal(rpcs.MAINTENANCE_HASH_KV, revision=5) is COMPACTED
    whole = (await served(rpcs.MAINTENANCE_HASH)).hash
    await served.put(b"k", b"more")
    assert (await served(rpcs.MAINTENANCE_HASH)).hash != whole


async def test_defragment_has_no_header_and_loses_nothing(served: Served) -> None:
    await served.put(b"k", b"v")
    before = (await served(rpcs.MAINTENANCE_HASH_KV)).hash
    assert not (await served(rpcs.MAINTENANCE_DEFRAGMENT)).HasField("header")
    assert (await served(rpcs.MAINTENANCE_HASH_KV)).hash == before


async def test_a_snapshot_is_a_member_that_starts(served: Served, tmp_path: Path) -> None:
    for number in range(200):
        await served.put(b"k%d" % number, b"x" * 1_000)
    replies = await served.replies(rpcs.MAINTENANCE_SNAPSHOT)
    data = b"".join(reply.blob for reply in replies[:-1])
    assert len(data) % 512 == 0
    assert replies[-1].blob == hashlib.sha256(data).digest()
    assert replies[-1].remaining_bytes == replies[-2].remaining_bytes == 0
    assert replies[0].remaining_bytes == len(data) - len(replies[0].blob)
    assert all(0 < len(reply.blob) <= 32 * 1024 for reply in replies)
    assert {reply.version for reply in replies} == {SERVER_VERSION}
    assert [path.name for path in served.settings.snap_path.glob("*") if "snap" in path.name] == []
    from etcd_pinwheel.server_stub.lease.lessor import Lessor
    from etcd_pinwheel.server_stub.mvcc.store import Store
    from etcd_pinwheel.server_stub.storage.backend import LmdbBackend

    copy = tmp_path / "copy"
    copy.write_bytes(data)
    backend = LmdbBackend(copy)
    assert Store(backend, Lessor(2)).revision == 201
    backend.close()


async def test_a_client_that_leaves_during_a_snapshot_leaves_no_file(served: Served) -> None:
    for number in range(100):
        await served.put(b"k%d" % number, b"x" * 1_000)
    serve = served.methods[rpcs.MAINTENANCE_SNAPSHOT.path].serve
    before = set(served.settings.snap_path.iterdir())

    async def first_piece() -> None:
        await anext(serve(rpcs.MAINTENANCE_SNAPSHOT.request(), Call({})))

    for turns in range(0, 12, 2):
        reading = asyncio.create_task(first_piece())
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert set(served.settings.snap_path.iterdir()) == before


async def test_there_are_only_so_many_copies_for_snapshots(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take the space of the log: what comes on top waits until one was taken."""
    copied: list[Path] = []
    snapshot = served.member.backend.snapshot

    def counted(directory: Path) -> Path:
        copied.append(snapshot(directory))
        return copied[-1]

    monkeypatch.setattr(served.member.backend, "snapshot", counted)
    serve = served.methods[rpcs.MAINTENANCE_SNAPSHOT.path].serve
    streams = [
        serve(rpcs.MAINTENANCE_SNAPSHOT.request(), Call({})) for _ in range(SNAPSHOTS_AT_A_TIME + 1)
    ]
    for stream in streams[:-1]:
        await anext(stream)
    late = asyncio.create_task(anext(streams[-1]))
    await asyncio.sleep(0)
    async with served.member.backend_file:  # nobody makes a copy
        assert len(copied) == SNAPSHOTS_AT_A_TIME
    await streams[0].aclose()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await late).blob
    assert len(copied) == SNAPSHOTS_AT_A_TIME + 1
    for stream in streams:
        await stream.aclose()


async def test_who_does_not_take_a_snapshot_loses_it(served: Served) -> None:
    for number in range(100):
        await served.put(b"k%d" % number, b"x" * 1_000)
    impatient = Maintenance(served.member, stalled_seconds=0.0)

    def asked() -> AsyncIterator[Any]:
        return impatient.Snapshot(rpcs.MAINTENANCE_SNAPSHOT.request(), Call({}))

    stalled = [asked() for _ in range(SNAPSHOTS_AT_A_TIME)]
    for stream in stalled:
        assert (await anext(stream)).remaining_bytes
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert [reply async for reply in asked()][-1].remaining_bytes == 0
    for stream in stalled:
        with pytest.raises(Refused) as caught:
            await anext(stream)
        assert caught.value.refusal is NOT_TAKEN


@pytest.mark.parametrize(
    ("bytes_per_second", "is_taken"),
    [(0.9 * LEAST_BYTES_PER_SECOND, False), (1.1 * LEAST_BYTES_PER_SECOND, True)],
)
@pytest.mark.parametrize("pieces_at_once", [1, 16])
def test_a_snapshot_may_be_taken_in_fits_but_not_too_slowly(
    bytes_per_second: float, pieces_at_once: int, *, is_taken: bool
) -> None:
    allowance = Allowance(STALLED_SECONDS)
    pause_seconds = pieces_at_once * BLOB_BYTES / bytes_per_second
    seconds: list[float] = []
    for piece in range(10_000):
        waited_seconds = 0 if piece % pieces_at_once else pause_seconds
        seconds.append(allowance.seconds - waited_seconds)
        allowance.taken(BLOB_BYTES, waited_seconds)
    assert max(seconds) <= STALLED_SECONDS
    assert (min(seconds) > 0) is is_taken


async def test_who_takes_a_piece_just_before_each_stall_is_too_long_loses_the_snapshot(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        await served.put(b"k%d" % number, b"x" * 10_000)
    loop, passed = asyncio.get_running_loop(), [0.0]
    loop_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: loop_time() + passed[0])
    stream = Maintenance(served.member).Snapshot(rpcs.MAINTENANCE_SNAPSHOT.request(), Call({}))

    async def piece_after(seconds: float) -> Any:
        passed[0] += seconds
        for _ in range(5):  # what is due by now happens
            await asyncio.sleep(0)
        return await anext(stream)

    assert (await piece_after(0.0)).remaining_bytes > 3 * BLOB_BYTES
    assert (await piece_after(0.9 * STALLED_SECONDS)).blob
    with pytest.raises(Refused) as caught:
        await piece_after(0.9 * STALLED_SECONDS)
    assert caught.value.refusal is NOT_TAKEN


async def test_who_waits_too_long_for_a_snapshot_is_told(served: Served) -> None:
    maintenance = Maintenance(served.member, wait_seconds=0.0)

    def asked() -> AsyncIterator[Any]:
        return maintenance.Snapshot(rpcs.MAINTENANCE_SNAPSHOT.request(), Call({}))

    streams: list[Any] = [asked() for _ in range(SNAPSHOTS_AT_A_TIME)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Refused) as caught:
        await anext(asked())
    assert caught.value.refusal is TOO_MANY_SNAPSHOTS
    await streams[0].aclose()
    assert [reply async for reply in asked()][-1].remaining_bytes == 0
    for stream in streams:
        await stream.aclose()


REFUSED: list[tuple[Any, dict[str, Any], Refusal]] = [
    (rpcs.MAINTENANCE_MOVE_LEADER, {"targetID": 5}, BAD_LEADER_TRANSFEREE),
    (rpcs.MAINTENANCE_DOWNGRADE, {"version": "nonsense"}, WRONG_DOWNGRADE_FORMAT),
    (rpcs.MAINTENANCE_DOWNGRADE, {"version": "3.7.0"}, INVALID_DOWNGRADE_TARGET),
    (rpcs.MAINTENANCE_DOWNGRADE, {"version": "2.6"}, INVALID_DOWNGRADE_TARGET),
    (rpcs.MAINTENANCE_DOWNGRADE, {"action": 2}, NO_DOWNGRADE),
    (rpcs.MAINTENANCE_DOWNGRADE, {"action": 9, "version": "3.6.0"}, UNKNOWN_METHOD),
    (rpcs.MAINTENANCE_ALARM, {"action": 9}, UNKNOWN_METHOD),
    (rpcs.MAINTENANCE_ALARM, {"action": 1, "alarm": 9}, UNKNOWN_METHOD),
]


@pytest.mark.parametrize(("rpc", "fields", "refusal"), REFUSED)
async def test_what_is_refused(
    served: Served, rpc: Any, fields: dict[str, Any], refusal: Refusal
) -> None:
    assert await served.refusal(rpc, **fields) is refusal


async def test_a_downgrade_can_be_asked_about(served: Served) -> None:
    assert (await served(rpcs.MAINTENANCE_DOWNGRADE, version="3.6")).version == "3.7.0"
    assert (await served(rpcs.MAINTENANCE_DOWNGRADE, version="3.6.0")).version == "3.7.0"
    refusal = await served.refusal(rpcs.MAINTENANCE_DOWNGRADE, action=1, version="3.6.0")
    assert refusal.code is Code.UNIMPLEMENTED


async def test_moving_leadership_to_the_leader_is_nothing(served: Served) -> None:
    reply = await served(rpcs.MAINTENANCE_MOVE_LEADER, targetID=served.member.id)
    assert not reply.HasField("header")


async def test_every_rpc_is_answered(served: Served) -> None:
    """Those that are not there yet say so; none is forgotten."""
    assert {rpc.path for rpc in rpcs.ALL} <= served.methods.keys()
    absent = [
        rpc
        for rpc in rpcs.ALL
        if rpc.path.split("/")[1] in ("etcdserverpb.Auth", "v3lockpb.Lock", "v3electionpb.Election")
    ]
    absent.remove(rpcs.AUTH_AUTH_STATUS)
    for rpc in absent:
        ask = served.replies if rpc.server_streaming else served
        with pytest.raises(
            Refused, match=r"etcdserver: .* (not supported|one member only)"
        ) as caught:
            await ask(rpc)
        assert caught.value.refusal.code is Code.UNIMPLEMENTED


async def test_authentication_is_off(served: Served) -> None:
    status = await served(rpcs.AUTH_AUTH_STATUS)
    assert (status.enabled, status.authRevision) == (False, 1)


async def test_health_by_grpc(served: Served) -> None:
    check = served.methods["/grpc.health.v1.Health/Check"]
    watch = served.methods["/grpc.health.v1.Health/Watch"]
    request = check.rpc.request
    assert (await check.serve(request(), Call({}))).status == 1
    with pytest.raises(Refused, match="unknown service"):
        await check.serve(request(service="etcd"), Call({}))
    stream = watch.serve(request(), Call({}))
    assert (await anext(stream)).status == 1
    served.member.consensus.fail(OSError("no disk"))
    assert (await anext(stream)).status == 2
    assert (await check.serve(request(), Call({}))).status == 2
    await stream.aclose()
    unknown = watch.serve(request(service="etcd"), Call({}))
    assert (await anext(unknown)).status == 3
    await unknown.aclose()


async def test_version_and_methods_of_http(served: Served) -> None:
    assert json.loads((await served.http("/version")).body) == {
        "etcdserver": "3.7.0",
        "etcdcluster": "3.7.0",
        "storage": "3.7.0",
    }
    assert json.loads((await served.http("/health", serializable=["true"])).body) == {
        "health": "true",
        "reason": "",
    }
    for path in ("/health", "/version", "/metrics"):
        assert (await served.http(path, "POST")).status == 405


async def test_metrics_tell_what_was_done(served: Served) -> None:
    for _ in range(3):
        await served.put(b"k")
    await served(rpcs.KV_DELETE_RANGE, key=b"k")
    await served.http("/health")
    body = (await served.http("/metrics")).body.decode()
    seen = {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in body.splitlines())
        if name and not name.startswith("#")
    }
    assert seen["etcd_mvcc_put_total"] == 3
    assert seen["etcd_mvcc_delete_total"] == 1
    assert seen["etcd_debugging_mvcc_current_revision"] == 5
    assert seen["etcd_server_has_leader"] == seen["etcd_server_is_leader"] == 1
    assert seen["etcd_server_health_success"] == 1
    assert seen["etcd_server_proposals_applied_total"] == 8
    assert seen["etcd_disk_wal_fsync_duration_seconds_count"] >= 4
    assert seen['etcd_cluster_version{cluster_version="3.7"}'] == 1
