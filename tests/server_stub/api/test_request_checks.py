"""What a request must be before it is proposed: tables of requests and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel.protos.errors import (
    DUPLICATE_KEY,
    INVALID_SORT_OPTION,
    KEY_NOT_FOUND,
    KEY_NOT_PROVIDED,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import (
    Compare,
    DeleteRangeRequest,
    InternalRaftRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from etcd_pinwheel.server_stub.api.checks import (
    MAX_NESTING,
    NESTED_TOO_DEEPLY,
    check_delete,
    check_put,
    check_range,
    check_txn,
    is_read_only,
    is_serializable,
)
from etcd_pinwheel.server_stub.apply.writes import Writes
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.replica import parse_request
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

MAX_OPS = 4


def put(key: bytes, **fields: Any) -> RequestOp:
    return RequestOp(request_put={"key": key, **fields})


def delete(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range={"key": key, "range_end": end})


def get(key: bytes, **fields: Any) -> RequestOp:
    return RequestOp(request_range={"key": key, **fields})


def nested(**fields: Any) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(**fields))


NO_ENUM: Any = 9
"""A number that neither enum of sort options has."""
NEGATIVE: Any = -1

SINGLE: list[tuple[Any, Any, Refusal | None]] = [
    (check_range, RangeRequest(key=b"k", range_end=b"\0"), None),
    (check_range, RangeRequest(range_end=b"z"), KEY_NOT_PROVIDED),
    (check_range, RangeRequest(key=b"k", sort_order=NO_ENUM), INVALID_SORT_OPTION),
    (check_range, RangeRequest(key=b"k", sort_order=NEGATIVE), INVALID_SORT_OPTION),
    (check_range, RangeRequest(key=b"k", sort_target=NO_ENUM), INVALID_SORT_OPTION),
    (check_put, PutRequest(key=b"k"), None),
    (check_put, PutRequest(value=b"v"), KEY_NOT_PROVIDED),
    (check_put, PutRequest(key=b"k", value=b"v", ignore_value=True), VALUE_PROVIDED),
    (check_put, PutRequest(key=b"k", lease=1, ignore_lease=True), LEASE_PROVIDED),
    (check_put, PutRequest(key=b"k", ignore_value=True, ignore_lease=True), None),
    (check_delete, DeleteRangeRequest(key=b"k"), None),
    (check_delete, DeleteRangeRequest(range_end=b"\0"), KEY_NOT_PROVIDED),
]


@pytest.mark.parametrize(("check", "request_", "refusal"), SINGLE)
def test_single_requests(check: Any, request_: Any, refusal: Refusal | None) -> None:
    assert refusal_of(lambda: check(request_)) is refusal


def refusal_of(act: Any) -> Refusal | None:
    try:
        act()
    except Refused as refused:
        return refused.refusal
    return None


TXNS: list[tuple[str, dict[str, Any], Refusal | None]] = [
    ("nothing", {}, None),
    ("as many ops as allowed", {"success": [get(b"a")] * 4, "failure": [get(b"a")] * 4}, None),
    ("one more", {"success": [get(b"a")] * 5}, TOO_MANY_OPS),
    ("one comparison more", {"compare": [Compare(key=b"a")] * 5}, TOO_MANY_OPS),
    ("nested: what is left", {"success": [nested(success=[get(b"a")] * 3)]}, None),
    ("nested: one more", {"success": [nested(success=[get(b"a")] * 4)]}, TOO_MANY_OPS),
    ("too many beats a missing key", {"success": [get(b"")] * 5}, TOO_MANY_OPS),
    ("a comparison without a key", {"compare": [Compare()]}, KEY_NOT_PROVIDED),
    ("an op without a key", {"failure": [put(b"")]}, KEY_NOT_PROVIDED),
    ("an op that is nothing", {"success": [RequestOp()]}, KEY_NOT_FOUND),
    (
        "an op wrong by itself",
        {"success": [put(b"k", value=b"v", ignore_value=True)]},
        VALUE_PROVIDED,
    ),
    ("a sort option in an op", {"success": [get(b"k", sort_target=9)]}, INVALID_SORT_OPTION),
    ("two puts of a key", {"success": [put(b"k"), put(b"k")]}, DUPLICATE_KEY),
    ("one in each branch", {"success": [put(b"k")], "failure": [put(b"k")]}, None),
    ("in the other branch", {"failure": [put(b"k"), put(b"k")]}, DUPLICATE_KEY),
    ("put and delete", {"success": [put(b"k"), delete(b"k")]}, DUPLICATE_KEY),
    ("delete and put", {"success": [delete(b"k"), put(b"k")]}, DUPLICATE_KEY),
    ("put within a deletion", {"success": [put(b"b"), delete(b"a", b"c")]}, DUPLICATE_KEY),
    ("put at its end", {"success": [put(b"c"), delete(b"a", b"c")]}, None),
    ("put behind a deletion from a key on", {"success": [put(b"b"), delete(b"a", b"\0")]}, None),
    ("put within a deletion of nothing", {"success": [put(b"b"), delete(b"c", b"a")]}, None),
    ("deletions that overlap", {"success": [delete(b"a", b"c"), delete(b"b")]}, None),
    ("get and put", {"success": [get(b"k"), put(b"k")]}, None),
    ("a nested put of a put", {"success": [put(b"k"), nested(success=[put(b"k")])]}, DUPLICATE_KEY),
    (
        "a nested put of a deletion",
        {"success": [delete(b"k"), nested(failure=[put(b"k")])]},
        DUPLICATE_KEY,
    ),
    (
        "a nested deletion of a put",
        {"success": [put(b"k"), nested(success=[delete(b"k")])]},
        DUPLICATE_KEY,
    ),
    (
        "both nested branches put",
        {"success": [nested(success=[put(b"k")], failure=[put(b"k")])]},
        None,
    ),
    (
        "two nested put",
        {"success": [nested(success=[put(b"k")]), nested(failure=[put(b"k")])]},
        DUPLICATE_KEY,
    ),
    ("a fault deep inside", {"success": [nested(success=[put(b"k"), put(b"k")])]}, DUPLICATE_KEY),
]


@pytest.mark.parametrize(
    ("fields", "refusal"), [row[1:] for row in TXNS], ids=[row[0] for row in TXNS]
)
def test_transactions(fields: dict[str, Any], refusal: Refusal | None) -> None:
    assert refusal_of(lambda: check_txn(TxnRequest(**fields), MAX_OPS)) is refusal


def within_each_other(txns: int, *ops: RequestOp) -> TxnRequest:
    """Return a txn with so many within each other, the innermost with `ops`."""
    whole = innermost = TxnRequest()
    for _ in range(txns):
        innermost = innermost.success.add().request_txn
    innermost.success.extend(ops)
    return whole


def test_txns_within_each_other() -> None:
    deepest = within_each_other(MAX_NESTING, put(b"k"))
    assert refusal_of(lambda: check_txn(deepest, 128)) is None
    deeper = within_each_other(MAX_NESTING + 1, put(b"k"))
    assert refusal_of(lambda: check_txn(deeper, 128)) is NESTED_TOO_DEEPLY
    assert refusal_of(lambda: check_txn(deeper, MAX_OPS)) is TOO_MANY_OPS


def test_what_passes_can_be_parsed_by_members_and_clients() -> None:
    """What only its proposer can apply ends every other member, and this one at its next start."""
    lessor = Lessor(2)
    writes = Writes(Store(MemoryBackend(), lessor), lessor)
    writes.put(PutRequest(key=b"k"))
    compare = Compare(key=b"k", version=1)
    ops = (get(b"k"), put(b"k", prev_kv=True), nested(compare=[compare], success=[get(b"k")]))
    deepest = within_each_other(MAX_NESTING - 1, *ops)
    check_txn(deepest, 128)
    request = parse_request(InternalRaftRequest(txn=deepest).SerializeToString())
    assert request.txn == deepest
    reply = writes.txn(request.txn)
    assert TxnResponse.FromString(reply.SerializeToString()) == reply


KINDS: list[tuple[dict[str, Any], bool, bool]] = [
    ({}, True, True),
    ({"success": [get(b"a", serializable=True)]}, True, True),
    ({"success": [get(b"a", serializable=True)], "failure": [get(b"a")]}, True, False),
    ({"success": [get(b"a")], "failure": [put(b"a")]}, False, False),
    ({"success": [nested()]}, False, False),
]


@pytest.mark.parametrize(("fields", "read_only", "serializable"), KINDS)
def test_what_kind_a_transaction_is(
    fields: dict[str, Any], read_only: bool, serializable: bool
) -> None:
    request = TxnRequest(**fields)
    assert is_read_only(request) is read_only
    if read_only:
        assert is_serializable(request) is serializable
