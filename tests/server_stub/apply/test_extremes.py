"""Numbers at the ends of what the wire can say: whatever is in the log, it must be applicable."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from etcd_pinwheel.protos.errors import Refused
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, RangeRequest
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.apply.quota import Quota
from etcd_pinwheel.server_stub.apply.ranges import read_range
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.compaction import Compaction
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

LEASE = -(2**63)
"""A lease's id may be any number but 0."""

SIGNED_64 = (-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 2, 2**63 - 1)
EXTREMES: dict[int, tuple[int, ...]] = {
    FieldDescriptor.TYPE_INT64: SIGNED_64,
    FieldDescriptor.TYPE_UINT64: (0, 1, 2**63, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), -1, 0, 1, 2, 3, 4, 5, 2**31 - 1),
}


class Machine:
    """An applier whose store has a past, a compaction, and a key on a lease."""

    def __init__(self) -> None:
        backend = MemoryBackend()
        self.lessor = Lessor(2)
        self.store = Store(backend, self.lessor)
        self.compactions: list[Compaction] = []
        self.applier = Applier(
            backend,
            self.store,
            self.lessor,
            Membership(backend, 1),
            Quota(backend, 0),
            self.compactions.append,
        )
        self(InternalRaftRequest(lease_grant={"ID": LEASE, "TTL": 60}))
        for key in (b"a", b"b", b"a", b"c"):
            self(InternalRaftRequest(put={"key": key, "value": b"v", "lease": LEASE}))
        self(InternalRaftRequest(compaction={"revision": 3}))

    def __call__(self, request: InternalRaftRequest) -> None:
        self.applier.apply(self.applier.index + 1, 2, request, 0.0)


RANGE: dict[str, Any] = {"key": b"a", "range_end": b"z"}
COMPARE: dict[str, Any] = {"key": b"a", "range_end": b"z"}
REQUESTS: list[dict[str, Any]] = [
    {"put": {"key": b"a", "value": b"v"}},
    {"delete_range": RANGE},
    {"compaction": {}},
    {"lease_grant": {"ID": 7}},
    {"lease_revoke": {"ID": LEASE}},
    {"lease_checkpoint": {"checkpoints": [{"ID": LEASE}]}},
    {"alarm": {"action": 1, "alarm": 1}},
    {"alarm": {"action": 2, "alarm": 1}},
    {"txn": {"success": [{"request_put": {"key": b"n"}}, {"request_range": RANGE}]}},
    {"txn": {"success": [{"request_range": {**RANGE, "keys_only": True}}]}},
    {"txn": {"success": [{"request_range": {**RANGE, "sort_target": 1}}]}},
    {"txn": {"success": [{"request_range": {**RANGE, "sort_order": 1}}]}},
    *(
        {"txn": {"compare": [{**COMPARE, field: 0}], "failure": [{"request_range": RANGE}]}}
        for field in ("version", "create_revision", "mod_revision", "lease")
    ),
]


def variants(message: Message) -> Iterator[str]:
    """Set each number in `message` and below to each of its extremes, one at a time."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and not field.is_repeated:
            if message.HasField(field.name):
                yield from variants(getattr(message, field.name))
        elif field.message_type is not None:
            for element in getattr(message, field.name):
                yield from variants(element)
        elif field.type in EXTREMES and (
            field.containing_oneof is None
            or message.WhichOneof(field.containing_oneof.name) == field.name
        ):
            before = getattr(message, field.name)
            for value in EXTREMES[field.type]:
                setattr(message, field.name, value)
                yield f"{field.full_name} = {value}"
            setattr(message, field.name, before)


@pytest.mark.parametrize("fields", REQUESTS, ids=lambda fields: next(iter(fields)))
def test_an_entry_is_applied_or_refused(fields: dict[str, Any]) -> None:
    """Anything else ends every member, and again at each start: the entry is in their logs."""
    request = InternalRaftRequest(**fields)
    tried = 0
    for number in variants(request):
        machine = Machine()
        try:
            machine(request)
        except Refused:
            pass
        except Exception as error:
            raise AssertionError(number) from error
        for compaction in machine.compactions:
            while compaction.step():
                pass
        machine.store._check()
        machine.lessor._check()
        tried += 1
    assert tried


def test_a_range_is_answered_or_refused() -> None:
    """Limits and revisions in every combination with what makes a range take another way."""
    store = Machine().store
    ways = product(SIGNED_64, SIGNED_64, range(5), range(3), (False, True), (False, True))
    for limit, revision, target, order, keys_only, count_only in ways:
        request = RangeRequest(
            **RANGE,
            limit=limit,
            revision=revision,
            sort_target=target,  # type: ignore[arg-type]
            sort_order=order,  # type: ignore[arg-type]
            keys_only=keys_only,
            count_only=count_only,
        )
        try:
            reply = read_range(store, request)
        except Refused:
            assert revision > store.revision or 0 < revision < store.compacted_revision
        else:
            shown = min(limit, 3) if limit > 0 else 3
            assert (len(reply.kvs), reply.count) == (0 if count_only else shown, 3)
            assert reply.more == (not count_only and shown < 3)
