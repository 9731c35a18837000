"""Alarms, quota, snapshots, and what is still there after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from lockstep.pair import EVERYTHING, Pair
from lockstep.remote import Remote
from lockstep.servers import Servers

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

NOSPACE, CORRUPT = 1, 2
ACTIVATE, DEACTIVATE = 1, 2
MIB = 1024 * 1024
REFUSED_BY_ALARMS: list[tuple[Any, dict[str, Any]]] = [
    (rpcs.KV_PUT, {"key": b"a", "value": b"1"}),
    (rpcs.KV_TXN, {"success": [{"request_put": {"key": b"a"}}]}),
    (rpcs.KV_TXN, {"success": [{"request_range": {"key": b"a"}}]}),
    (rpcs.KV_TXN, {"failure": [{"request_put": {"key": b"a"}}]}),
    (rpcs.KV_TXN, {"success": [{"request_delete_range": {"key": b"none"}}]}),
    (rpcs.KV_DELETE_RANGE, {"key": b"b"}),
    (rpcs.KV_DELETE_RANGE, {"key": b"none"}),
    (rpcs.KV_RANGE, {"key": b"a"}),
    (rpcs.KV_RANGE, {"key": b"a", "serializable": True}),
    (rpcs.LEASE_LEASE_GRANT, {"TTL": 100, "ID": 3}),
    (rpcs.LEASE_LEASE_REVOKE, {"ID": 1}),
    (rpcs.LEASE_LEASE_TIME_TO_LIVE, {"ID": 2}),
    (rpcs.LEASE_LEASE_LEASES, {}),
    (rpcs.KV_COMPACT, {"revision": 1}),
    (rpcs.MAINTENANCE_HASH_KV, {}),
    (rpcs.MAINTENANCE_STATUS, {}),
    (rpcs.MAINTENANCE_ALARM, {}),
    (rpcs.CLUSTER_MEMBER_LIST, {}),
    (rpcs.MAINTENANCE_DEFRAGMENT, {}),
]


@pytest.mark.parametrize("alarm", [NOSPACE, CORRUPT])
def test_what_goes_on_under_an_alarm(pair: Pair, alarm: int) -> None:
    for lease in (1, 2):
        pair.call(rpcs.LEASE_LEASE_GRANT, ID=lease, TTL=100)
    pair.call(rpcs.KV_PUT, key=b"a")
    pair.call(rpcs.KV_PUT, key=b"b", lease=1)
    member = pair.call(rpcs.MAINTENANCE_STATUS).reply.header.member_id
    for _ in range(2):
        pair.call(rpcs.MAINTENANCE_ALARM, action=ACTIVATE, memberID=member, alarm=alarm)
    for rpc, fields in REFUSED_BY_ALARMS:
        pair.call(rpc, **fields)
    for kind in (0, NOSPACE, CORRUPT):
        pair.call(rpcs.MAINTENANCE_ALARM, alarm=kind)
        pair.call(rpcs.MAINTENANCE_ALARM, alarm=kind, memberID=member)
    for _ in range(2):
        pair.call(rpcs.MAINTENANCE_ALARM, action=DEACTIVATE, memberID=member, alarm=alarm)
    for rpc, fields in REFUSED_BY_ALARMS:
        pair.call(rpc, **fields)


@pytest.mark.parametrize(
    ("rpc", "fields"),
    [
        (rpcs.CLUSTER_MEMBER_ADD, {}),
        (rpcs.CLUSTER_MEMBER_ADD, {"peerURLs": ["nonsense"]}),
        (rpcs.CLUSTER_MEMBER_ADD, {"peerURLs": ["http://127.0.0.1:9/path"]}),
        (rpcs.CLUSTER_MEMBER_REMOVE, {"ID": 404}),
        (rpcs.CLUSTER_MEMBER_PROMOTE, {"ID": 404}),
        (rpcs.CLUSTER_MEMBER_UPDATE, {"ID": 404, "peerURLs": ["http://127.0.0.1:9"]}),
        (rpcs.MAINTENANCE_MOVE_LEADER, {"targetID": 404}),
    ],
)
def test_changes_of_the_cluster_that_are_refused(
    pair: Pair, rpc: Any, fields: dict[str, Any]
) -> None:
    pair.call(rpc, **fields)
    pair.call(rpcs.CLUSTER_MEMBER_LIST, linearizable=True)


def test_alarms_of_others_and_of_both_kinds(pair: Pair) -> None:
    for member, alarm in ((7, NOSPACE), (5, NOSPACE), (7, CORRUPT)):
        pair.call(rpcs.MAINTENANCE_ALARM, action=ACTIVATE, memberID=member, alarm=alarm)
    pair.call(rpcs.MAINTENANCE_STATUS)
    for alarm in (0, NOSPACE, CORRUPT):
        fields: dict[str, Any] = {"alarm": alarm}
        asked = pb.AlarmRequest(**fields)
        listed = [side.call(rpcs.MAINTENANCE_ALARM, asked).reply for side in pair.sides]
        etcd, ours = (sorted((a.memberID, a.alarm) for a in reply.alarms) for reply in listed)
        assert etcd == ours  # etcd iterates over a map
    for member, alarm in ((7, CORRUPT), (404, CORRUPT), (7, NOSPACE), (5, NOSPACE)):
        pair.call(rpcs.MAINTENANCE_ALARM, action=DEACTIVATE, memberID=member, alarm=alarm)
    pair.call(rpcs.MAINTENANCE_ALARM)


def fill(side: Remote) -> list[str]:
    """Write until there is no space; answer how calls end then, and after space was made."""
    value = b"x" * MIB
    puts = (pb.PutRequest(key=b"k%03d" % number, value=value) for number in range(200))
    refused = (status for put in puts if (status := side.call(rpcs.KV_PUT, put).status) != "OK")
    ends = [next(refused)]

    def note(rpc: Any, **fields: Any) -> Any:
        outcome = side.call(rpc, rpc.request(**fields))
        ends.append(f"{rpc.name} {outcome.status}")
        return outcome

    alarms = note(rpcs.MAINTENANCE_ALARM).reply.alarms
    ends.append(str(alarms))
    note(rpcs.KV_PUT, key=b"tiny")
    note(rpcs.KV_TXN, success=[{"request_put": {"key": b"tiny"}}])
    note(rpcs.LEASE_LEASE_GRANT, TTL=10)
    note(rpcs.KV_RANGE, key=b"k001")
    ends.append(str(note(rpcs.MAINTENANCE_STATUS).reply.errors))
    revision = note(rpcs.KV_DELETE_RANGE, **EVERYTHING).reply.header.revision
    note(rpcs.KV_COMPACT, revision=revision, physical=True)
    note(rpcs.MAINTENANCE_DEFRAGMENT)
    note(rpcs.KV_PUT, key=b"tiny")
    note(rpcs.MAINTENANCE_ALARM, action=DEACTIVATE, memberID=alarms[0].memberID, alarm=NOSPACE)
    note(rpcs.KV_PUT, key=b"tiny")
    ends.append(str(note(rpcs.MAINTENANCE_STATUS).reply.errors))
    return ends


def test_no_space_and_space_again(start_servers: Callable[..., Servers]) -> None:
    """How much fits is each one's own; what happens then is not."""
    servers = start_servers(f"--quota-backend-bytes={16 * MIB}")
    etcd, ours = servers.pair.on_each(fill)
    assert etcd == ours


def test_a_snapshot_is_whole(pair: Pair) -> None:
    for number in range(20):
        pair.call(rpcs.KV_PUT, key=b"k%d" % number, value=b"x" * 50_000)
    for side in pair.sides:
        outcome = side.call(rpcs.MAINTENANCE_SNAPSHOT, pb.SnapshotRequest())
        assert outcome.status == "OK"
        assert_whole([(part.remaining_bytes, part.blob) for part in outcome.replies])


def assert_whole(parts: list[tuple[int, bytes]]) -> None:
    blobs = [blob for _, blob in parts]
    saved = b"".join(blobs)
    assert len(saved) % 512 == 32
    assert blobs[-1] == hashlib.sha256(saved[:-32]).digest()
    left = len(saved) - 32
    for remaining, blob in parts[:-1]:
        left -= len(blob)
        assert len(blob) <= 32 * 1024
        assert remaining == left
    assert parts[-1][0] == 0


def test_a_kill_loses_nothing(start_servers: Callable[..., Servers]) -> None:
    """What was answered is there after SIGKILL: keys, revisions, leases, alarms, hashes."""
    servers = start_servers()
    pair = servers.pair
    for lease in (1, 2):
        pair.call(rpcs.LEASE_LEASE_GRANT, ID=lease, TTL=1000 * lease)
    for number in range(50):
        pair.call(rpcs.KV_PUT, key=b"k%d" % (number % 7), value=b"%d" % number, lease=number % 3)
    pair.call(rpcs.KV_DELETE_RANGE, key=b"k3")
    pair.call(rpcs.KV_COMPACT, revision=pair.revision - 20, physical=True)
    pair.call(rpcs.MAINTENANCE_ALARM, action=ACTIVATE, memberID=7, alarm=CORRUPT)
    pair.call(rpcs.MAINTENANCE_ALARM, action=DEACTIVATE, memberID=7, alarm=CORRUPT)
    for _ in range(2):
        servers.restart_after_a_kill()
        look_at_everything(servers.pair)
        pair.call(rpcs.KV_PUT, key=b"k1", value=b"afterwards", prev_kv=True)


def look_at_everything(pair: Pair) -> None:
    pair.call(rpcs.KV_RANGE, **EVERYTHING)
    pair.call(rpcs.LEASE_LEASE_LEASES)
    for lease in (1, 2):
        pair.call(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=lease, keys=True)
    pair.call(rpcs.MAINTENANCE_ALARM)
    pair.call(rpcs.CLUSTER_MEMBER_LIST)
    for revision in range(pair.compacted_revision, pair.revision + 1):
        pair.call(rpcs.MAINTENANCE_HASH_KV, revision=revision)
        pair.call(rpcs.KV_RANGE, revision=revision, **EVERYTHING)
