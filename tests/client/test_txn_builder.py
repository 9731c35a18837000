"""Conditions and transactions as values."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel import (
    Client,
    InvalidArgument,
    Txn,
    create_revision,
    delete,
    get,
    lease,
    mod_revision,
    put,
    value,
    version,
)
from etcd_pinwheel.balancers.api import Need
from etcd_pinwheel.client import txn as txn_module
from etcd_pinwheel.client.error_handler import Kind
from etcd_pinwheel.protos import etcdserverpb as pb


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (version("k") == 3, pb.Compare(target="VERSION", result="EQUAL", key=b"k", version=3)),
        (
            create_revision("k") != 3,
            pb.Compare(target="CREATE", result="NOT_EQUAL", key=b"k", create_revision=3),
        ),
        (
            mod_revision("k") < 3,
            pb.Compare(target="MOD", result="LESS", key=b"k", mod_revision=3),
        ),
        (
            value("k") > "v",
            pb.Compare(target="VALUE", result="GREATER", key=b"k", value=b"v"),
        ),
        (lease("k") == 9, pb.Compare(target="LEASE", result="EQUAL", key=b"k", lease=9)),
        (
            version("k", prefix=True) == 0,
            pb.Compare(target="VERSION", result="EQUAL", key=b"k", range_end=b"l", version=0),
        ),
    ],
)
def test_compares_on_the_wire(compare: Any, expected: pb.Compare) -> None:
    assert compare.to_pb() == expected
    assert compare.to_pb().WhichOneof("target_union") == expected.WhichOneof("target_union")


def test_a_comparison_makes_a_value_and_changes_nothing() -> None:
    left = version("k")
    one, again, other = left == 1, left == 1, left == 2
    assert one == again
    assert one != other
    assert len({one, again, other}) == 2


def test_a_condition_has_no_truth_here() -> None:
    with pytest.raises(TypeError, match="decided by the server"):
        bool(version("k") == 0)
    with pytest.raises(TypeError):
        hash(version("k"))


@pytest.mark.parametrize("operand", ["0", b"0", 1.0, None, True])
def test_a_number_is_compared_with_a_number(operand: Any) -> None:
    with pytest.raises(InvalidArgument, match="number"):
        _ = version("k") == operand


def test_a_txn_is_never_changed() -> None:
    empty = Txn()
    one = empty.when(version("k") == 0).then(put("k", "v"))
    two = one.when(version("l") == 0).otherwise(get("k"), delete("l"))
    assert (len(empty.compares), len(one.compares), len(two.compares)) == (0, 1, 2)
    assert (len(one.failure), len(two.failure)) == (0, 2)
    assert one == Txn().when(version("k") == 0).then(put("k", "v"))


def test_a_clients_txn_keeps_its_client() -> None:
    begun = Client().txn().when(version("k") == 0).then(put("k"))
    assert hasattr(begun, "commit")
    assert not hasattr(Txn(), "commit")


@pytest.mark.parametrize(
    ("txn", "kind", "need"),
    [
        (Txn().then(get("k")), Kind.REPEATABLE, Need.QUORUM),
        (Txn().then(get("k", serializable=True)), Kind.REPEATABLE, Need.ANY_MEMBER),
        (Txn().when(version("k") == 0), Kind.REPEATABLE, Need.QUORUM),
        (
            Txn().when(version("k") == 0).then(get("k", serializable=True)),
            Kind.REPEATABLE,
            Need.ANY_MEMBER,
        ),
        (Txn().then(Txn().then(get("k"))), Kind.REPEATABLE, Need.QUORUM),
        (Txn().then(Txn().then(get("k", serializable=True))), Kind.REPEATABLE, Need.QUORUM),
        (Txn().then(Txn().otherwise(put("k"))), Kind.NON_REPEATABLE, Need.QUORUM),
        (Txn().then(get("k")).otherwise(delete("k")), Kind.NON_REPEATABLE, Need.QUORUM),
    ],
)
def test_a_txn_that_only_reads_may_be_repeated(txn: Txn, kind: Kind, need: Need) -> None:
    call = Call(pb.TxnResponse())
    call.commit(txn)
    assert call.seen == {"kind": kind, "need": need, "repeat": False}


def test_conditions_alone_come_with_a_read_that_makes_them_linearizable() -> None:
    """Without one etcd answers them from what the member has, be it cut off or not."""
    txn = Txn().when(version("k", prefix=True) == 0, version("l") == 0)
    read = pb.ResponseOp(response_range=pb.RangeResponse(count=1))
    call = Call(pb.TxnResponse(succeeded=True, responses=[read]))
    result = call.commit(txn)
    count = pb.RequestOp(request_range=pb.RangeRequest(key=b"k", count_only=True))
    assert list(call.request.compare) == [compare.to_pb() for compare in txn.compares]
    assert list(call.request.success) == list(call.request.failure) == [count]
    assert (result.succeeded, result.responses) == (True, ()), "nothing that was not asked for"


class Call:
    """Takes one transaction in, and answers it."""

    retry = "safe"

    def __init__(self, reply: pb.TxnResponse) -> None:
        self.reply = reply
        self.request: Any = None
        self.seen: dict[str, Any] = {}

    def __call__(self, rpc: Any, request: Any, timeout: Any, then: Any, **how: Any) -> Any:
        self.request, self.seen = request, how
        return then(self.reply)
        yield

    def retry_of(self, retry: None) -> str:
        return self.retry

    def commit(self, txn: Txn) -> Any:
        with pytest.raises(StopIteration) as stopped:
            next(txn_module.commit(self, txn))  # type: ignore[arg-type]
        return stopped.value.value
