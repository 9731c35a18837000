"""The applier: programs of requests as data, guards, and replay after a crash."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.errors import (
    COMPACTED,
    CORRUPT,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    NO_SPACE,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import CORRUPT as CORRUPT_ALARM
from etcd_pinwheel.protos.etcdserverpb import NOSPACE, AlarmRequest, InternalRaftRequest
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.apply.leases import recover_leases
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.apply.quota import Quota, txn_cost
from etcd_pinwheel.server_stub.cluster import ClusterMember
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.mvcc.compaction import Compaction
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend


class Machine:
    """An applier on a backend; made again from the same backend it is a restart."""

    def __init__(self, backend: MemoryBackend | None = None, quota_bytes: int = 0) -> None:
        self.backend = backend if backend is not None else MemoryBackend()
        self.lessor = Lessor(2)
        recover_leases(self.backend, self.lessor)
        self.store = Store(self.backend, self.lessor)
        self.compactions: list[Compaction] = []
        self.quota = Quota(self.backend, quota_bytes)
        self.applier = Applier(
            self.backend,
            self.store,
            self.lessor,
            Membership(self.backend, 1),
            self.quota,
            self.compactions.append,
        )

    def __call__(self, index: int | None = None, /, **request: Any) -> Any:
        """Apply a request as the next entry, or as the one given."""
        entry = self.applier.index + 1 if index is None else index
        return self.applier.apply(entry, 2, InternalRaftRequest(**request), now=0.0)

    def refusal(self, **request: Any) -> Any:
        with pytest.raises(Refused) as caught:
            self(**request)
        return caught.value.refusal

    def dump(self) -> dict[str, list[tuple[bytes, bytes]]]:
        return {bucket: self.backend.range(bucket, b"", None) for bucket in Bucket}


def put(key: bytes, value: bytes = b"v", **fields: Any) -> dict[str, Any]:
    return {"put": {"key": key, "value": value, **fields}}


Outcome = tuple[dict[str, Any], Any, int]
PROGRAM: list[Outcome] = [
    (put(b"a", b"1"), {"revision": 2}, 2),
    (put(b"a", b"2", prev_kv=True), {"revision": 3, "prev_kv": b"1"}, 3),
    (put(b"b", prev_kv=True), {"revision": 4, "prev_kv": b""}, 4),
    (put(b"x", b"", ignore_value=True), KEY_NOT_FOUND, 4),
    (put(b"a", lease=5), LEASE_NOT_FOUND, 4),
    ({"lease_grant": {"ID": 5, "TTL": 60}}, {}, 4),
    ({"lease_grant": {"ID": 5, "TTL": 60}}, LEASE_EXISTS, 4),
    (put(b"a", b"3", lease=5), {"revision": 5}, 5),
    (put(b"a", b"", ignore_value=True, ignore_lease=True), {"revision": 6}, 6),
    ({"delete_range": {"key": b"x"}}, {"revision": 6, "deleted": 0}, 6),
    ({"delete_range": {"key": b"b", "range_end": b"z"}}, {"revision": 7, "deleted": 1}, 7),
    ({"compaction": {"revision": 8}}, FUTURE_REVISION, 7),
    ({"compaction": {"revision": 5}}, {"revision": 7}, 7),
    ({"compaction": {"revision": 5}}, COMPACTED, 7),
    ({"lease_revoke": {"ID": 6}}, LEASE_NOT_FOUND, 7),
    ({"lease_revoke": {"ID": 5}}, {}, 8),
    ({"lease_revoke": {"ID": 5}}, LEASE_NOT_FOUND, 8),
]


def run(machine: Machine, index: int, step: Outcome) -> None:
    request, expected, revision = step
    if not isinstance(expected, dict):
        assert machine.refusal(**request) is expected
    else:
        reply = machine(index, **request)
        seen = {"revision": reply.header.revision}
        seen |= {name: getattr(reply, name) for name in ("deleted",) if hasattr(reply, name)}
        if "prev_kv" in expected:
            seen["prev_kv"] = reply.prev_kv.value
        assert {name: seen[name] for name in expected} == expected
    assert machine.store.revision == revision
    machine.lessor._check()


def test_a_program_of_requests() -> None:
    machine = Machine()
    for index, step in enumerate(PROGRAM, start=1):
        run(machine, index, step)
    assert machine.applier.index == len(PROGRAM)


@pytest.mark.parametrize("crash_after", range(0, len(PROGRAM) + 1, 3))
def test_replay_from_the_start_changes_nothing_that_was_applied(crash_after: int) -> None:
    """Whatever the backend has, reading the whole log again leads to the same bytes."""
    whole = Machine()
    for index, step in enumerate(PROGRAM, start=1):
        run(whole, index, step)
    crashed = Machine()
    for index, step in enumerate(PROGRAM[:crash_after], start=1):
        run(crashed, index, step)
    again = Machine(crashed.backend)
    assert again.applier.index == crash_after
    for index, step in enumerate(PROGRAM, start=1):
        if index <= crash_after:
            assert again(index, **step[0]) is None
        else:
            run(again, index, step)
    assert again.dump() == whole.dump()
    assert again.lessor.leases() == whole.lessor.leases()


def test_a_refused_entry_counts_as_applied() -> None:
    machine = Machine()
    assert machine.refusal(**put(b"a", lease=1)) is LEASE_NOT_FOUND
    assert Machine(machine.backend).applier.index == 1


def test_a_revoked_lease_takes_its_keys_along_in_one_revision() -> None:
    machine = Machine()
    machine(lease_grant={"ID": 5, "TTL": 60})
    for key in (b"b", b"a"):
        machine(**put(key, lease=5))
    machine(lease_revoke={"ID": 5})
    assert machine.store.revision == 4
    assert machine.store.range(b"a", b"\0").count == 0
    assert machine.backend.range(Bucket.LEASE, b"", None) == []
    tombstones = machine.backend.range(Bucket.KEY, b"", None)[-2:]
    assert [key[8:17][-1] for key, _ in tombstones] == [0, 1]


def test_leases_survive_with_their_ttl_and_their_keys() -> None:
    machine = Machine()
    machine(lease_grant={"ID": -5, "TTL": 60})
    machine(**put(b"a", lease=-5))
    machine(lease_checkpoint={"checkpoints": [{"ID": -5, "remaining_TTL": 20}, {"ID": 9}]})
    lease = Machine(machine.backend).lessor.lease(-5)
    assert (lease.ttl_seconds, lease.remaining_seconds, lease.keys) == (60, 20, {b"a"})


def test_a_transaction_is_one_revision_whatever_it_does() -> None:
    machine = Machine()
    machine(**put(b"a"))
    request: dict[str, Any] = {
        "txn": {
            "compare": [{"key": b"a", "version": 1}],
            "success": [
                {"request_put": {"key": b"b", "prev_kv": True}},
                {"request_range": {"key": b"a", "range_end": b"\0"}},
                {"request_txn": {"success": [{"request_delete_range": {"key": b"a"}}]}},
            ],
        }
    }
    reply = machine(**request)
    assert (reply.succeeded, reply.header.revision, machine.store.revision) == (True, 3, 3)
    put_reply, range_reply, nested = reply.responses
    assert put_reply.response_put.header.revision == 3
    assert [pair.key for pair in range_reply.response_range.kvs] == [b"a", b"b"]
    assert nested.response_txn.HasField("header")
    assert nested.response_txn.header.revision == 0
    assert nested.response_txn.responses[0].response_delete_range.deleted == 1


def test_a_transaction_that_is_refused_has_no_effect() -> None:
    machine = Machine()
    ops = [{"request_put": {"key": b"a"}}, {"request_put": {"key": b"b", "lease": 4}}]
    assert machine.refusal(txn={"success": ops}) is LEASE_NOT_FOUND
    assert machine.store.revision == 1
    assert machine.store.range(b"a", b"").count == 0


def raise_alarm(machine: Machine, alarm: Any, action: Any = AlarmRequest.ACTIVATE) -> Any:
    return machine(alarm=AlarmRequest(action=action, memberID=3, alarm=alarm)).alarms


NEEDS_SPACE: list[dict[str, Any]] = [
    put(b"k"),
    {"lease_grant": {"ID": 1, "TTL": 5}},
    {"txn": {"failure": [{"request_put": {"key": b"k"}}]}},
    {"txn": {"success": [{"request_txn": {"success": [{"request_put": {"key": b"k"}}]}}]}},
]
FREES_SPACE: list[dict[str, Any]] = [
    {"delete_range": {"key": b"k"}},
    {"txn": {"success": [{"request_delete_range": {"key": b"k"}}]}},
    {"compaction": {"revision": 1}},
    {"lease_revoke": {"ID": 9}},
]


@pytest.mark.parametrize("request_", NEEDS_SPACE)
def test_without_space_nothing_is_carried_out_that_takes_some(request_: dict[str, Any]) -> None:
    machine = Machine()
    raise_alarm(machine, NOSPACE)
    before = machine.dump()
    assert machine.refusal(**request_) is NO_SPACE
    after = machine.dump()
    assert before.pop("meta") != after.pop("meta")
    assert before == after
    raise_alarm(machine, NOSPACE, AlarmRequest.DEACTIVATE)
    machine(**request_)


@pytest.mark.parametrize("request_", FREES_SPACE)
def test_without_space_the_rest_goes_on(request_: dict[str, Any]) -> None:
    machine = Machine()
    machine(lease_grant={"ID": 9, "TTL": 5})
    raise_alarm(machine, NOSPACE)
    assert machine(**request_) is not None


@pytest.mark.parametrize("request_", [*NEEDS_SPACE, *FREES_SPACE])
def test_a_corrupt_cluster_changes_nothing(request_: dict[str, Any]) -> None:
    machine = Machine()
    raise_alarm(machine, CORRUPT_ALARM)
    assert machine.refusal(**request_) is CORRUPT


def test_what_exceeds_the_quota_is_applied_and_answered_with_no_space() -> None:
    machine = Machine(quota_bytes=2_000)
    machine(**put(b"a", b"x" * 1_000))
    assert machine.refusal(**put(b"b", b"x" * 1_000)) is NO_SPACE
    assert machine.store.range(b"b", b"").count == 1
    assert machine(delete_range={"key": b"b"}).deleted == 1


def test_alarms_are_kept_and_told_by_kind() -> None:
    machine = Machine()
    (raised,) = raise_alarm(machine, NOSPACE)
    assert (raised.memberID, raised.alarm) == (3, NOSPACE)
    assert len(raise_alarm(machine, NOSPACE)) == 1
    assert list(raise_alarm(machine, 0)) == []
    again = Machine(machine.backend)
    assert again.applier.alarms.active == {NOSPACE}
    assert len(raise_alarm(again, 0, AlarmRequest.GET)) == 1
    assert list(raise_alarm(again, CORRUPT_ALARM, AlarmRequest.GET)) == []
    assert len(raise_alarm(again, NOSPACE, AlarmRequest.DEACTIVATE)) == 1
    assert list(raise_alarm(again, NOSPACE, AlarmRequest.DEACTIVATE)) == []
    assert Machine(again.backend).applier.alarms.active == frozenset()


def test_the_dearer_branch_is_charged() -> None:
    from etcd_pinwheel.protos.etcdserverpb import TxnRequest

    put_op: dict[str, Any] = {"request_put": {"key": b"kk", "value": b"vvv"}}
    request = TxnRequest(success=[put_op], failure=[put_op, {"request_txn": {"success": [put_op]}}])
    assert txn_cost(request) == 2 * (256 + 5)
    assert txn_cost(TxnRequest(success=[{"request_range": {"key": b"k"}}])) == 0


class Sized(MemoryBackend):
    """A backend that says how large it is, and how often it was asked."""

    asked = 0

    @property
    def size_bytes(self) -> int:
        self.asked += 1
        return self.has_bytes

    @size_bytes.setter
    def size_bytes(self, value: int) -> None:
        self.has_bytes = value


def test_the_quota_asks_seldom_when_far_and_always_when_near() -> None:
    backend = Sized()
    quota = Quota(backend, 1_000_000)
    for _ in range(100):
        assert quota.has_room_for(100)
    assert backend.asked == 1
    backend.has_bytes = 999_900
    while quota.has_room_for(100):
        pass
    assert not quota.has_room_for(100)
    assert quota.has_room_for(99)
    assert quota.has_room_for(0)


def test_no_quota_is_no_limit() -> None:
    backend = Sized()
    backend.has_bytes = 1 << 60
    assert Quota(backend, 0).has_room_for(1 << 60)


def test_members_join_and_tell_who_they_are() -> None:
    machine = Machine()
    member = ClusterMember(8, ("http://peer:1",), "old")
    change = raftpb.ConfChange(type=raftpb.ConfChangeAddNode, node_id=8, context=member.to_json())
    machine.applier.apply_change(1, 1, change)
    attributes = {"name": "new", "client_urls": ["http://client:1"]}
    machine(cluster_member_attr_set={"member_ID": 8, "member_attributes": attributes})
    machine(cluster_member_attr_set={"member_ID": 9, "member_attributes": attributes})
    machine(cluster_version_set={"ver": "3.7.0"})
    membership = Machine(machine.backend).applier.membership
    assert membership.cluster.members == (
        ClusterMember(8, ("http://peer:1",), "new", ("http://client:1",)),
    )
    assert membership.version == "3.7.0"


def test_an_unknown_request_is_refused_and_counted() -> None:
    machine = Machine()
    refusal = machine.refusal(auth_enable={})
    assert refusal.text == "cannot apply auth_enable"
    assert machine.refusal().text == "cannot apply nothing"
    assert machine.applier.index == 2


def test_the_empty_entry_of_a_term_is_noted() -> None:
    machine = Machine()
    assert machine.applier.apply(1, 3, None, 0.0) is None
    again = Machine(machine.backend).applier
    assert (again.index, again.term) == (1, 3)


def test_a_compaction_hands_its_work_on() -> None:
    machine = Machine()
    machine(**put(b"a"))
    machine(**put(b"a"))
    machine(compaction={"revision": 3})
    (compaction,) = machine.compactions
    while compaction.step():
        pass
    assert len(machine.backend.range(Bucket.KEY, b"", None)) == 1
