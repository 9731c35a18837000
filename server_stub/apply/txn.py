"""Transactions: which branches are taken, whether they can be, and what they do.

Three passes, as in etcd: the comparisons are all made against the state before the transaction,
those of nested ones included; then every op on the path taken is checked, so that a transaction
that cannot succeed has no effect at all; then the ops run in order, each seeing those before it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ...protos.errors import COMPACTED, FUTURE_REVISION, KEY_NOT_FOUND, LEASE_NOT_FOUND, Refused
from ...protos.etcdserverpb import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from ...protos.mvccpb import KeyValue
from ..mvcc.index import FROM_KEY

_HOLDS: Final[dict[int, Callable[[bytes | int, bytes | int], bool]]] = {
    Compare.EQUAL: operator.eq,
    Compare.NOT_EQUAL: operator.ne,
    Compare.GREATER: operator.gt,
    Compare.LESS: operator.lt,
}
_FIELDS: Final[dict[int, str]] = {
    Compare.VERSION: "version",
    Compare.CREATE: "create_revision",
    Compare.MOD: "mod_revision",
    Compare.VALUE: "value",
    Compare.LEASE: "lease",
}
"""The field that a target compares: it has the same name in the key's record and the request."""
_ABSENT: Final = KeyValue()


class State(Protocol):
    """The state before the transaction, as comparisons and checks see it."""

    @property
    def revision(self) -> int: ...
    @property
    def compacted_revision(self) -> int: ...
    def newest(self, key: bytes, end: bytes, /) -> list[KeyValue]: ...
    def has_lease(self, lease_id: int, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Path:
    """The branch that a transaction takes, and the paths of those nested in it, in order."""

    succeeded: bool
    ops: Sequence[RequestOp]
    nested: list[Path]


def choose(state: State, request: TxnRequest) -> Path:
    """Evaluate all comparisons and return the path they lead along."""
    succeeded = all(holds(state, compare) for compare in request.compare)
    ops = request.success if succeeded else request.failure
    nested = [
        choose(state, op.request_txn) for op in ops if op.WhichOneof("request") == "request_txn"
    ]
    return Path(succeeded, ops, nested)


def holds(state: State, compare: Compare) -> bool:
    """Whether a comparison holds for every key of its range.

    A key that does not exist compares as zeros, but its value compares with nothing: not even
    NOT_EQUAL holds.
    """
    found = state.newest(compare.key, compare.range_end)
    if found:
        return all(_holds_for(pair, compare) for pair in found)
    return compare.target != Compare.VALUE and _holds_for(_ABSENT, compare)


def _holds_for(pair: KeyValue, compare: Compare) -> bool:
    test = _HOLDS.get(compare.result)
    if test is None:  # etcd lets an unknown result pass
        return True
    field = _FIELDS.get(compare.target)
    if field is None:  # and takes an unknown target for equal
        return test(0, 0)
    return test(getattr(pair, field), getattr(compare, field))


def check(state: State, path: Path) -> None:
    """Raise ``Refused`` if an op on the path could not be carried out: all puts, then all ranges.

    The order is etcd's, and shows where a transaction has two faults.
    """
    deleted: list[DeleteRangeRequest] = []
    for op in _ops_along(path):
        if op.WhichOneof("request") == "request_put":
            _check_put(state, op.request_put, deleted)
        elif op.WhichOneof("request") == "request_delete_range":
            deleted.append(op.request_delete_range)
    check_ranges(state, path)


def check_ranges(state: State, path: Path) -> None:
    """Raise ``Refused`` if a range on the path asks for a revision that cannot be read."""
    for op in _ops_along(path):
        if op.WhichOneof("request") == "request_range":
            _check_range(state, op.request_range)


def _ops_along(path: Path) -> Iterator[RequestOp]:
    nested = iter(path.nested)
    for op in path.ops:
        if op.WhichOneof("request") == "request_txn":
            yield from _ops_along(next(nested))
        else:
            yield op


def _check_put(state: State, request: PutRequest, deleted: Sequence[DeleteRangeRequest]) -> None:
    """Check a put that comes after deletions: who keeps a key's value or lease needs the key."""
    if (request.ignore_value or request.ignore_lease) and (
        not state.newest(request.key, b"")
        or any(_takes(deletion, request.key) for deletion in deleted)
    ):
        raise Refused(KEY_NOT_FOUND)
    if request.lease and not state.has_lease(request.lease):
        raise Refused(LEASE_NOT_FOUND)


def _takes(deletion: DeleteRangeRequest, key: bytes) -> bool:
    """Whether a deletion takes `key`."""
    start, end = deletion.key, deletion.range_end
    return start <= key and (key < end or end == FROM_KEY) if end else key == start


def _check_range(state: State, request: RangeRequest) -> None:
    if request.revision == 0:
        return
    if request.revision > state.revision:
        raise Refused(FUTURE_REVISION)
    if request.revision < state.compacted_revision:
        raise Refused(COMPACTED)
