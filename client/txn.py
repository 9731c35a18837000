"""Transactions: if all conditions hold do this, else that, as one revision.

::

    etcd.txn().when(version("k") == 0).then(put("k", "v")).otherwise(get("k")).commit()

A :class:`Txn` is never changed: each method answers with a new one. It can itself stand among
the operations of another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, TypeAlias

from ..balancers.api import Need
from ..protos.etcdserverpb import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from ..protos.rpcs import KV_TXN
from . import exactly_once
from .call import Call
from .compare import Compare
from .error_handler import Kind
from .errors import InvalidArgument
from .flow import Flow, part
from .keys import KeyLike, LeaseLike, to_bytes, to_lease_id, to_range
from .kv import Order, SortBy, range_request
from .results import TxnResult
from .retries import Retry


class Op:
    """One operation of a transaction; made by :func:`put`, :func:`get`, :func:`delete`."""

    __slots__ = ("_request",)

    def __init__(self, request: RequestOp) -> None:
        self._request = request

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and self._request == other._request

    def __hash__(self) -> int:
        return hash(self._request.SerializeToString(deterministic=True))

    def __repr__(self) -> str:
        return f"Op({str(self._request).strip()})"

    def to_pb(self) -> RequestOp:
        """Write it down as it travels."""
        return self._request


@part
def put(
    key: KeyLike,
    value: KeyLike = b"",
    *,
    lease: LeaseLike | None = None,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> Op:
    """Write one key, as ``Client.put``; answers with a PutResult."""
    request = PutRequest(
        key=to_bytes(key),
        value=to_bytes(value, "value"),
        lease=to_lease_id(lease),
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )
    return Op(RequestOp(request_put=request))


@part
def get(
    key: KeyLike,
    range_end: KeyLike | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    limit: int = 0,
    revision: int = 0,
    sort_by: SortBy | None = None,
    order: Order | None = None,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
) -> Op:
    """Read a key or a range, as ``Client.range``; answers with a RangeResult."""
    request = range_request(
        key,
        range_end,
        prefix=prefix,
        from_key=from_key,
        limit=limit,
        revision=revision,
        sort_by=sort_by,
        order=order,
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )
    return Op(RequestOp(request_range=request))


@part
def delete(
    key: KeyLike,
    range_end: KeyLike | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    prev_kv: bool = False,
) -> Op:
    """Delete a key or a range, as ``Client.delete``; answers with a DeleteResult."""
    start, end = to_range(key, range_end, prefix, from_key)
    request = DeleteRangeRequest(key=start, range_end=end, prev_kv=prev_kv)
    return Op(RequestOp(request_delete_range=request))


@dataclass(frozen=True, slots=True)
class Txn:
    """A transaction being written; nested in another it answers with a TxnResult."""

    compares: tuple[Compare, ...] = ()
    success: tuple[Op | Txn, ...] = ()
    failure: tuple[Op | Txn, ...] = ()

    def when(self, *compares: Compare) -> Self:
        """Add conditions; all must hold."""
        for compare in compares:
            if not isinstance(compare, Compare):
                raise InvalidArgument(f'a condition is like version("k") == 0, not {compare!r}')
        return replace(self, compares=self.compares + compares)

    def then(self, *ops: Operation) -> Self:
        """Add operations for when all conditions hold."""
        return replace(self, success=self.success + _checked(ops))

    def otherwise(self, *ops: Operation) -> Self:
        """Add operations for when some condition does not hold."""
        return replace(self, failure=self.failure + _checked(ops))

    def to_pb(self) -> RequestOp:
        """Write it down as it travels inside another."""
        return RequestOp(request_txn=self.to_request())

    def to_request(self) -> TxnRequest:
        """Write it down as it travels."""
        return TxnRequest(
            compare=[compare.to_pb() for compare in self.compares],
            success=[op.to_pb() for op in self.success],
            failure=[op.to_pb() for op in self.failure],
        )


Operation: TypeAlias = Op | Txn


def _checked(ops: tuple[Operation, ...]) -> tuple[Operation, ...]:
    for op in ops:
        if not isinstance(op, Op | Txn):
            raise InvalidArgument(f'an operation is like put("k", "v"), not {op!r}')
    return ops


def commit(
    call: Call, txn: Txn, *, retry: Retry | None = None, timeout: float | None = None
) -> Flow[TxnResult]:
    """Carry the transaction out; all of it or nothing.

    ``retry``: whether to repeat it when it may have been carried out already (None: as the client
    does); see :data:`.Retry`. Raises what its operations raise; OutcomeUnknown when it may have
    been carried out or not.
    """
    request = txn.to_request()
    reads = _reads_only(request)
    how = call.retry_of(retry)
    if how == "exactly_once" and not reads:
        return exactly_once.commit(call, request, timeout)
    conditions_alone = bool(request.compare) and not (request.success or request.failure)
    if conditions_alone:
        _read_a_key(request)
    serializable = reads and _serializable(request)
    return call(
        KV_TXN,
        request,
        timeout,
        _of_conditions if conditions_alone else TxnResult.of,
        need=Need.ANY_MEMBER if serializable else Need.QUORUM,
        kind=Kind.REPEATABLE if reads else Kind.NON_REPEATABLE,
        repeat=how != "safe",
    )


def _reads_only(request: TxnRequest) -> bool:
    return all(
        op.HasField("request_range") or (op.HasField("request_txn") and _reads_only(op.request_txn))
        for op in (*request.success, *request.failure)
    )


def _serializable(request: TxnRequest) -> bool:
    """Whether any member answers a read-only transaction from what it has, as etcd decides it.

    A transaction within it is no such read: it makes the whole one go through the log.
    """
    return all(op.request_range.serializable for op in (*request.success, *request.failure))


def _read_a_key(request: TxnRequest) -> None:
    """Make conditions that stand alone linearizable.

    Without operations no read asks for it, and etcd answers from what the member has: one that is
    cut off would find a lock held that is another's by now. The key is one of the conditions',
    which whoever may ask for them may read.
    """
    count = RangeRequest(key=request.compare[0].key, count_only=True)
    for branch in (request.success, request.failure):
        branch.append(RequestOp(request_range=count))


def _of_conditions(reply: TxnResponse) -> TxnResult:
    """Take in an answer without what was read for the sake of reading alone."""
    return replace(TxnResult.of(reply), responses=())
