"""What a write answered the first time, found out after its answer was lost.

It is known at which revision it was carried out, and which branch a transaction took. The store
keeps its history, so the rest is read there: what was before the write one revision earlier, what
is after it at its own. That fails, and AnswerLost says so, when the history has been compacted
since, and where an operation saw the store in the middle of its transaction: a read of keys of
which the transaction writes some before it and some after it, a deletion of what another one of it
has deleted in part, a transaction in the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..protos.etcdserverpb import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from ..protos.rpcs import KV_RANGE, KV_TXN
from .call import Call
from .errors import AnswerLost, CallError
from .flow import Flow
from .keys import FROM_KEY, prefix_end

Keys: TypeAlias = tuple[bytes, bytes]
"""A key and a range end, as they travel."""


def first_outcome(
    call: Call, wish: TxnRequest, header: ResponseHeader, deadline: float, *, took_then: bool
) -> Flow[TxnResponse]:
    """Find out what a transaction answered that was carried out at the header's revision."""
    ops = wish.success if took_then else wish.failure
    history = _History(call, header.revision, deadline)
    answer = TxnResponse(header=header, succeeded=took_then)
    for position, op in enumerate(ops):
        response = yield from history.response(op, ops[:position], ops[position + 1 :])
        answer.responses.append(response)
    return answer


def written_by(op: RequestOp) -> Keys | None:
    """Tell which keys an operation changes, unless it is a transaction; None: it changes none."""
    if op.HasField("request_put"):
        return op.request_put.key, b""
    if op.HasField("request_delete_range"):
        return op.request_delete_range.key, op.request_delete_range.range_end
    return None


def overlaps(one: Keys, other: Keys) -> bool:
    """Whether two ranges have a key in common that could exist."""
    return _begins_before_end(one, other) and _begins_before_end(other, one)


def _begins_before_end(one: Keys, other: Keys) -> bool:
    start, end = other
    if not end:
        return one[0] <= start
    return end == FROM_KEY or one[0] < end


class _History:
    """The store just before and just after a write."""

    def __init__(self, call: Call, revision: int, deadline: float) -> None:
        self._call = call
        self._revision = revision
        self._deadline = deadline
        self._has_changed = False
        """Whether one of the operations so far has changed something."""

    def response(
        self, op: RequestOp, before: Sequence[RequestOp], after: Sequence[RequestOp]
    ) -> Flow[ResponseOp]:
        """Find out what an operation answered that stood between others."""
        match op.WhichOneof("request"):
            case "request_put":
                put = yield from self._put(op.request_put)
                return ResponseOp(response_put=put)
            case "request_delete_range":
                deleted = yield from self._delete(op.request_delete_range, before)
                return ResponseOp(response_delete_range=deleted)
            case "request_range":
                found = yield from self._range(op.request_range, before, after)
                return ResponseOp(response_range=found)
            case _:
                raise self._lost("a transaction in a transaction")

    def _put(self, request: PutRequest) -> Flow[PutResponse]:
        self._has_changed = True
        answer = PutResponse(header=self._header())
        if request.prev_kv:
            earlier = yield from self._read(RangeRequest(key=request.key), self._revision - 1)
            if earlier.kvs:
                answer.prev_kv.CopyFrom(earlier.kvs[0])
        return answer

    def _delete(
        self, request: DeleteRangeRequest, before: Sequence[RequestOp]
    ) -> Flow[DeleteRangeResponse]:
        keys = (request.key, request.range_end)
        if _any_writes(before, keys):
            raise self._lost("a deletion of keys of which others were deleted before")
        there = RangeRequest(key=keys[0], range_end=keys[1], count_only=not request.prev_kv)
        earlier = yield from self._read(there, self._revision - 1)
        self._has_changed = self._has_changed or earlier.count > 0
        return DeleteRangeResponse(
            header=self._header(), deleted=earlier.count, prev_kvs=earlier.kvs
        )

    def _range(
        self, request: RangeRequest, before: Sequence[RequestOp], after: Sequence[RequestOp]
    ) -> Flow[RangeResponse]:
        keys = (request.key, request.range_end)
        sees_writes = _any_writes(before, keys)
        slots = (self._call.slots.prefix, prefix_end(self._call.slots.prefix))
        sees_later = _any_writes(after, keys) or overlaps(slots, keys)
        if not request.revision and sees_writes and sees_later:
            raise self._lost("a read between writes of the same keys")
        at = request.revision or (self._revision if sees_writes else self._revision - 1)
        answer = yield from self._read(request, at)
        answer.header.CopyFrom(self._header())
        return answer

    def _read(self, request: RangeRequest, revision: int) -> Flow[RangeResponse]:
        asked = RangeRequest()
        asked.CopyFrom(request)
        asked.revision = revision
        asked.serializable = False  # a member that lags does not know the revision
        try:
            left = self._call.left(self._deadline)
            reply: RangeResponse = yield from self._call(KV_RANGE, asked, left)
        except CallError as error:
            raise self._lost(error.text) from error
        return reply

    def _header(self) -> ResponseHeader:
        """The header of an operation in a transaction, which tells nothing but the revision."""
        return ResponseHeader(revision=self._revision - (not self._has_changed))

    def _lost(self, why: str) -> AnswerLost:
        return AnswerLost(self._revision, why, rpc=KV_TXN.path)


def _any_writes(ops: Sequence[RequestOp], keys: Keys) -> bool:
    return any(
        op.HasField("request_txn") or ((written := written_by(op)) and overlaps(written, keys))
        for op in ops
    )
