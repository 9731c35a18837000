"""Which branch a transaction takes and what it is refused for: tables over a plain state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from etcd_pinwheel.protos.errors import (
    COMPACTED,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    Refusal,
    Refused,
)
from etcd_pinwheel.protos.etcdserverpb import Compare, RequestOp, TxnRequest
from etcd_pinwheel.protos.mvccpb import KeyValue
from etcd_pinwheel.server_stub.apply.txn import check, check_ranges, choose, holds

ABSENT = 99
"""A number that no enum has."""


@dataclass
class PlainState:
    """A state before the transaction, made by hand."""

    pairs: dict[bytes, KeyValue] = field(default_factory=dict)
    revision: int = 10
    compacted_revision: int = 5
    leases: frozenset[int] = frozenset({7})

    def newest(self, key: bytes, end: bytes) -> list[KeyValue]:
        if not end:
            return [self.pairs[key]] if key in self.pairs else []
        return [
            pair
            for name, pair in sorted(self.pairs.items())
            if key <= name and (end == b"\0" or name < end)
        ]

    def has_lease(self, lease_id: int) -> bool:
        return lease_id in self.leases


A = KeyValue(key=b"a", create_revision=2, mod_revision=4, version=3, value=b"m", lease=7)
B = KeyValue(key=b"b", create_revision=6, mod_revision=6, version=1, value=b"z")
STATE = PlainState({b"a": A, b"b": B})

EQUAL, GREATER, LESS, NOT_EQUAL = (
    Compare.EQUAL,
    Compare.GREATER,
    Compare.LESS,
    Compare.NOT_EQUAL,
)
TARGETS: list[tuple[int, str, Any, Any, Any]] = [
    (Compare.VERSION, "version", 2, 3, 4),
    (Compare.CREATE, "create_revision", 1, 2, 3),
    (Compare.MOD, "mod_revision", 3, 4, 5),
    (Compare.VALUE, "value", b"l", b"m", b"n"),
    (Compare.LEASE, "lease", 6, 7, 8),
]


@pytest.mark.parametrize(("target", "name", "below", "same", "above"), TARGETS)
def test_every_target_with_every_result(
    target: Any, name: str, below: Any, same: Any, above: Any
) -> None:
    verdicts = {
        result: [
            holds(STATE, Compare(key=b"a", target=target, result=result, **{name: operand}))
            for operand in (below, same, above)
        ]
        for result in (EQUAL, NOT_EQUAL, GREATER, LESS)
    }
    assert verdicts == {
        EQUAL: [False, True, False],
        NOT_EQUAL: [True, False, True],
        GREATER: [True, False, False],
        LESS: [False, False, True],
    }


ODD_COMPARES: list[tuple[str, dict[str, Any], bool]] = [
    ("no key compares as version 0", {"key": b"x", "version": 0}, True),
    ("and is less than 1", {"key": b"x", "version": 1, "result": LESS}, True),
    ("no value equals nothing", {"key": b"x", "target": Compare.VALUE, "value": b""}, False),
    (
        "no value is not even unequal",
        {"key": b"x", "target": Compare.VALUE, "value": b"v", "result": NOT_EQUAL},
        False,
    ),
    ("a missing operand is zero", {"key": b"a", "result": GREATER}, True),
    ("an operand of another kind is zero", {"key": b"a", "mod_revision": 3}, False),
    ("an unknown target is equal", {"key": b"a", "target": ABSENT, "version": 5}, True),
    (
        "and never unequal",
        {"key": b"a", "target": ABSENT, "version": 5, "result": NOT_EQUAL},
        False,
    ),
    ("an unknown result holds", {"key": b"a", "version": 5, "result": ABSENT}, True),
    (
        "a range holds if all its keys do",
        {"key": b"a", "range_end": b"c", "version": 0, "result": GREATER},
        True,
    ),
    ("not if one does not", {"key": b"a", "range_end": b"c", "version": 3}, False),
    ("from a key on", {"key": b"b", "range_end": b"\0", "version": 1}, True),
    ("an empty range is an absent key", {"key": b"c", "range_end": b"d", "version": 0}, True),
]


@pytest.mark.parametrize(
    ("fields", "verdict"), [row[1:] for row in ODD_COMPARES], ids=[row[0] for row in ODD_COMPARES]
)
def test_comparisons_at_the_edges(fields: dict[str, Any], verdict: bool) -> None:
    assert holds(STATE, Compare(**fields)) is verdict


def put(key: bytes, **fields: Any) -> RequestOp:
    return RequestOp(request_put={"key": key, **fields})


def get(key: bytes, **fields: Any) -> RequestOp:
    return RequestOp(request_range={"key": key, **fields})


def nested(**fields: Any) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(**fields))


TRUE = Compare(key=b"a", version=3)
FALSE = Compare(key=b"a", version=9)


def test_the_path_goes_through_nested_transactions() -> None:
    request = TxnRequest(
        compare=[TRUE],
        success=[
            nested(compare=[FALSE], success=[put(b"no")], failure=[put(b"else")]),
            put(b"plain"),
            nested(compare=[TRUE], success=[nested(failure=[put(b"no")])]),
        ],
        failure=[put(b"no")],
    )
    path = choose(STATE, request)
    assert path.succeeded
    assert [inner.succeeded for inner in path.nested] == [False, True]
    assert [inner.succeeded for inner in path.nested[1].nested] == [True]
    assert path.nested[0].ops[0].request_put.key == b"else"


def test_all_comparisons_must_hold_and_none_is_enough() -> None:
    assert choose(STATE, TxnRequest()).succeeded
    assert choose(STATE, TxnRequest(compare=[TRUE, TRUE])).succeeded
    assert not choose(STATE, TxnRequest(compare=[TRUE, FALSE])).succeeded


TAKE_ALL = [RequestOp(request_delete_range={"key": b"a", "range_end": b"\0"})]
TAKE_LATER = [RequestOp(request_delete_range={"key": b"aa", "range_end": b"\0"})]
TAKE_RANGE = [RequestOp(request_delete_range={"key": b"a", "range_end": b"b"})]
"""A deletion "from a key on" may stand beside a put of such a key, as in etcd; others may not."""

FAULTS: list[tuple[str, list[RequestOp], Refusal | None]] = [
    ("a put", [put(b"x")], None),
    ("ignore_value of a key that is there", [put(b"a", ignore_value=True)], None),
    ("ignore_value of one that is not", [put(b"x", ignore_value=True)], KEY_NOT_FOUND),
    ("ignore_lease of one that is not", [put(b"x", ignore_lease=True)], KEY_NOT_FOUND),
    ("ignore_value behind a deletion", [*TAKE_ALL, put(b"a", ignore_value=True)], KEY_NOT_FOUND),
    ("ignore_lease in front of one", [put(b"a", ignore_lease=True), *TAKE_ALL], None),
    (
        "ignore_lease behind one in a nested transaction",
        [nested(success=TAKE_ALL), put(b"b", ignore_lease=True)],
        KEY_NOT_FOUND,
    ),
    ("behind a deletion of later keys", [*TAKE_LATER, put(b"a", ignore_value=True)], None),
    ("behind one of a range without it", [*TAKE_RANGE, put(b"b", ignore_value=True)], None),
    ("a lease", [put(b"x", lease=7)], None),
    ("an unknown lease", [put(b"x", lease=8)], LEASE_NOT_FOUND),
    ("the compacted revision itself", [get(b"a", revision=5)], None),
    ("one before it", [get(b"a", revision=4)], COMPACTED),
    ("a negative one", [get(b"a", revision=-1)], COMPACTED),
    ("the current revision", [get(b"a", revision=10)], None),
    ("one after it", [get(b"a", revision=11)], FUTURE_REVISION),
    ("in a nested transaction", [nested(success=[put(b"x", lease=8)])], LEASE_NOT_FOUND),
    ("in a branch not taken", [nested(failure=[put(b"x", lease=8)])], None),
    ("puts before ranges", [get(b"a", revision=99), put(b"x", lease=8)], LEASE_NOT_FOUND),
]


@pytest.mark.parametrize(
    ("ops", "refusal"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_what_cannot_be_carried_out_is_refused(
    ops: list[RequestOp], refusal: Refusal | None
) -> None:
    path = choose(STATE, TxnRequest(success=ops))
    if refusal is None:
        check(STATE, path)
        return
    with pytest.raises(Refused) as caught:
        check(STATE, path)
    assert caught.value.refusal is refusal


def test_a_read_only_transaction_is_checked_for_its_ranges() -> None:
    path = choose(STATE, TxnRequest(success=[get(b"a", revision=11)]))
    with pytest.raises(Refused) as caught:
        check_ranges(STATE, path)
    assert caught.value.refusal is FUTURE_REVISION
