"""What a request must be before it is worth a place in the log.

The rules and their order are etcd's: a request with two faults is refused for the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ...protos.errors import (
    DUPLICATE_KEY,
    INVALID_SORT_OPTION,
    KEY_NOT_FOUND,
    KEY_NOT_PROVIDED,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    Code,
    Refusal,
    Refused,
)
from ...protos.etcdserverpb import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

Interval = tuple[bytes, bytes]
"""A key and the end of its range, as on the wire: an empty end is the one key."""

MAX_NESTING: Final = 40
"""How many txns a txn may have within each other.

Python's protobuf parses no message that is more than 100 levels deep. Each nested txn adds two to
the request and to the reply; a level around the request in the log, and the key-value in a reply,
come on top. What the proposer could apply and nobody else could parse would end all others.
"""
NESTED_TOO_DEEPLY: Final = Refusal(
    Code.INVALID_ARGUMENT, f"etcdserver: txns are nested more than {MAX_NESTING} deep"
)


def check_range(request: RangeRequest) -> None:
    """Raise ``Refused`` (KEY_NOT_PROVIDED, INVALID_SORT_OPTION)."""
    if not request.key:
        raise Refused(KEY_NOT_PROVIDED)
    if not (0 <= request.sort_order <= RangeRequest.DESCEND):
        raise Refused(INVALID_SORT_OPTION)
    if not (0 <= request.sort_target <= RangeRequest.VALUE):
        raise Refused(INVALID_SORT_OPTION)


def check_put(request: PutRequest) -> None:
    """Raise ``Refused`` (KEY_NOT_PROVIDED, VALUE_PROVIDED, LEASE_PROVIDED)."""
    if not request.key:
        raise Refused(KEY_NOT_PROVIDED)
    if request.ignore_value and request.value:
        raise Refused(VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise Refused(LEASE_PROVIDED)


def check_delete(request: DeleteRangeRequest) -> None:
    """Raise ``Refused`` (KEY_NOT_PROVIDED)."""
    if not request.key:
        raise Refused(KEY_NOT_PROVIDED)


def check_txn(request: TxnRequest, max_ops: int) -> None:
    """Raise ``Refused`` for ops that are wrong by themselves, too many, or in each other's way.

    Nor may txns be nested too deeply, of which etcd knows nothing.
    """
    _check_ops(request, max_ops, MAX_NESTING)
    written_keys(request.success)
    written_keys(request.failure)


def _check_ops(request: TxnRequest, max_ops: int, max_nesting: int) -> None:
    """Check the ops one by one; what its parent leaves of the limits is for those nested."""
    ops = max(len(request.compare), len(request.success), len(request.failure))
    if ops > max_ops:
        raise Refused(TOO_MANY_OPS)
    if max_nesting < 0:
        raise Refused(NESTED_TOO_DEEPLY)
    if not all(compare.key for compare in request.compare):
        raise Refused(KEY_NOT_PROVIDED)
    for branch in (request.success, request.failure):
        for op in branch:
            _check_op(op, max_ops - ops, max_nesting - 1)


def _check_op(op: RequestOp, max_nested_ops: int, max_nesting: int) -> None:
    match op.WhichOneof("request"):
        case "request_range":
            check_range(op.request_range)
        case "request_put":
            check_put(op.request_put)
        case "request_delete_range":
            check_delete(op.request_delete_range)
        case "request_txn":
            _check_ops(op.request_txn, max_nested_ops, max_nesting)
        case None:
            raise Refused(KEY_NOT_FOUND)


def written_keys(ops: Sequence[RequestOp]) -> tuple[set[bytes], list[Interval]]:
    """Return what a branch puts and what it deletes, nested transactions included.

    Raises ``Refused(DUPLICATE_KEY)`` if a key is put twice, or put and deleted: the order of ops
    would matter then. The two branches of one nested transaction exclude each other, so both may
    put the same key. Deletions may overlap.
    """
    deleted = [
        (op.request_delete_range.key, op.request_delete_range.range_end)
        for op in ops
        if op.WhichOneof("request") == "request_delete_range"
    ]
    put: set[bytes] = set()
    for op in ops:
        if op.WhichOneof("request") == "request_txn":
            then_put, then_deleted = written_keys(op.request_txn.success)
            else_put, else_deleted = written_keys(op.request_txn.failure)
            _refuse_overlap(then_put, put, deleted)
            _refuse_overlap(else_put, put, deleted)
            put |= then_put | else_put
            deleted += then_deleted + else_deleted
    for op in ops:
        if op.WhichOneof("request") == "request_put":
            key = op.request_put.key
            _refuse_overlap((key,), put, deleted)
            put.add(key)
    return put, deleted


def _refuse_overlap(keys: Iterable[bytes], put: set[bytes], deleted: list[Interval]) -> None:
    for key in keys:
        if key in put or any(_covers(interval, key) for interval in deleted):
            raise Refused(DUPLICATE_KEY)


def _covers(interval: Interval, key: bytes) -> bool:
    """Whether a deletion takes `key`. One "from a key on" covers nothing here: so it is in etcd."""
    start, end = interval
    return start <= key < end if end else key == start


def is_read_only(request: TxnRequest) -> bool:
    """Whether a transaction consists of ranges alone, in both branches."""
    return all(
        op.WhichOneof("request") == "request_range"
        for branch in (request.success, request.failure)
        for op in branch
    )


def is_serializable(request: TxnRequest) -> bool:
    """Whether all ranges of a read-only transaction are content with local data."""
    return all(
        op.request_range.serializable
        for branch in (request.success, request.failure)
        for op in branch
    )
