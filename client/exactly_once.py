"""Writes that are carried out exactly once, however often they are sent.

A write becomes a transaction, guarded by a marker key of this client, its *slot*::

    if   mod_revision(slot) == known
    then <the write>, put(slot, id of the operation + which branch)
    else get(slot)

Whatever arrives first moves the slot's mod_revision, so that any repeat, however late, does
nothing. A repeat is told what the slot holds: with this operation's id, the write was carried out,
at the slot's mod_revision, and first_outcome.py finds out what its answer was.

Rule 1: time decides nothing. A guard names a revision, and revisions do not come back: once the
slot was changed, or is gone with its lease, that guard never holds again.
Rule 2: another guard is used for the same operation only if the one before cannot hold any more,
or no attempt with it can be on its way: all were answered or refused.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, NamedTuple

from ..protos.etcdserverpb import (
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
)
from ..protos.rpcs import KV_TXN, LEASE_LEASE_GRANT
from .call import LEAST_ATTEMPT_SECONDS, Call
from .error_handler import Kind, Trouble
from .errors import (
    CallError,
    InvalidArgument,
    LeaseExists,
    LeaseNotFound,
    NotSent,
    OutcomeUnknown,
    Refused,
)
from .first_outcome import first_outcome, overlaps, written_by
from .flow import Flow
from .keys import FROM_KEY, prefix_end
from .results import DeleteResult, PutResult, TxnResult
from .slots import Session, Slot

_THEN: Final = b"1"
_OTHERWISE: Final = b"0"
_KEPT_OUT: Final = b"-"
"""What follows the operation's id in a slot: which branch it took, or that it comes too late."""


def put(call: Call, request: PutRequest, timeout: float | None) -> Flow[PutResult]:
    """Write one key exactly once."""
    _check_spares(call.slots.prefix, wish := TxnRequest(success=[RequestOp(request_put=request)]))
    reply = yield from _carry_out(call, wish, timeout)
    answer = reply.responses[0].response_put
    answer.header.CopyFrom(reply.header)
    return PutResult.of(answer)


def delete(call: Call, request: DeleteRangeRequest, timeout: float | None) -> Flow[DeleteResult]:
    """Delete a range exactly once, but for the slots that are in it."""
    ranges = _around(call.slots.prefix, request.key, request.range_end)
    if not ranges:
        raise _misuse(call.slots.prefix)
    parts = [
        DeleteRangeRequest(key=key, range_end=end, prev_kv=request.prev_kv) for key, end in ranges
    ]
    wish = TxnRequest(success=[RequestOp(request_delete_range=part) for part in parts])
    reply = yield from _carry_out(call, wish, timeout)
    first, *others = (response.response_delete_range for response in reply.responses)
    for other in others:
        first.deleted += other.deleted
        first.prev_kvs.extend(other.prev_kvs)
    first.header.CopyFrom(reply.header)
    return DeleteResult.of(first)


def commit(call: Call, request: TxnRequest, timeout: float | None) -> Flow[TxnResult]:
    """Carry out a transaction exactly once."""
    _check_spares(call.slots.prefix, request)
    return TxnResult.of((yield from _carry_out(call, request, timeout)))


class _Mark(NamedTuple):
    """What a slot tells of an operation."""

    branch: bytes
    header: ResponseHeader
    """Its revision is the one at which the operation was carried out, or kept out."""


def _carry_out(call: Call, wish: TxnRequest, timeout: float | None) -> Flow[TxnResponse]:
    """Send a write until it was carried out once; find out what it answered."""
    deadline = call.deadline(timeout)
    operation = call.slots.operation_id()
    was_kept_out = False
    while True:
        slot = yield from _slot(call, deadline)
        doubts: list[Trouble] = []
        guarded = _guarded(slot, _marked(slot, operation, wish))
        left = call.left(deadline)
        try:
            reply: TxnResponse = yield from call(KV_TXN, guarded, left, repeat=True, doubts=doubts)
        except (Refused, NotSent):
            call.slots.give_back(slot)
            raise
        except OutcomeUnknown as error:
            mark = yield from _keep_out(call, slot, operation, deadline, error)
            if mark.branch == _KEPT_OUT and was_kept_out:
                raise
        else:
            if reply.succeeded:
                _move(call, slot, reply.header.revision)
                return _answer(reply, wish)
            found = _find(reply, slot, operation)
            if found is None and doubts:
                raise _lost(doubts[-1], len(doubts))
            if found is None:  # somebody took the slot away, before anything was carried out
                continue
            mark = found
        _move(call, slot, mark.header.revision)
        if mark.branch != _KEPT_OUT:
            return (
                yield from first_outcome(
                    call, wish, mark.header, deadline, took_then=mark.branch == _THEN
                )
            )
        was_kept_out = True  # nothing has happened: say why it is refused, or do it after all


def _keep_out(
    call: Call, slot: Slot, operation: bytes, deadline: float, error: OutcomeUnknown
) -> Flow[_Mark]:
    """Learn whether an operation was carried out; if not, see to it that it never will be."""
    if call.left(deadline) <= LEAST_ATTEMPT_SECONDS:
        raise error
    request = _guarded(slot, [_put(slot, operation + _KEPT_OUT)])
    try:
        reply: TxnResponse = yield from call(KV_TXN, request, call.left(deadline), repeat=True)
    except CallError:
        raise error from error.__cause__
    if reply.succeeded:
        return _Mark(_KEPT_OUT, reply.header)
    found = _find(reply, slot, operation)
    if found is None:
        raise error
    return found


def _slot(call: Call, deadline: float) -> Flow[Slot]:
    """Take a slot, and make it if need be; nothing of the write itself is sent before that."""
    while True:
        slot = call.slots.take(call.now(), call.left(deadline))
        if slot.mod_revision:
            return slot
        try:
            if not slot.session.is_granted:
                yield from _grant(call, slot.session, deadline)
            yield from _make(call, slot, deadline)
        except LeaseNotFound:
            call.slots.end(slot.session)
        except OutcomeUnknown as error:
            raise NotSent(
                f"the write was not sent, for its marker could not be made: {error.text}",
                code=error.code,
                rpc=error.rpc,
                endpoint=error.endpoint,
                attempts=error.attempts,
                elapsed_seconds=error.elapsed_seconds,
            ) from error
        else:
            return slot


def _grant(call: Call, session: Session, deadline: float) -> Flow[None]:
    request = LeaseGrantRequest(TTL=session.ttl_seconds, ID=session.lease_id)
    kind = Kind.REPEATABLE
    with suppress(LeaseExists):  # by an attempt before, or by another call of this client
        yield from call(LEASE_LEASE_GRANT, request, call.left(deadline), kind=kind, repeat=True)
    session.is_granted = True


def _make(call: Call, slot: Slot, deadline: float) -> Flow[None]:
    request = TxnRequest(
        compare=[Compare(target=Compare.CREATE, result=Compare.EQUAL, key=slot.key)],
        success=[RequestOp(request_put=PutRequest(key=slot.key, lease=slot.session.lease_id))],
        failure=[_get(slot)],
    )
    kind = Kind.REPEATABLE
    reply: TxnResponse = yield from call(
        KV_TXN, request, call.left(deadline), kind=kind, repeat=True
    )
    kvs = () if reply.succeeded else reply.responses[0].response_range.kvs
    slot.mod_revision = kvs[0].mod_revision if kvs else reply.header.revision


def _guarded(slot: Slot, ops: list[RequestOp]) -> TxnRequest:
    """Write down what to do if the slot is as it was; else say how it is."""
    guard = Compare(
        target=Compare.MOD, result=Compare.EQUAL, key=slot.key, mod_revision=slot.mod_revision
    )
    return TxnRequest(compare=[guard], success=ops, failure=[_get(slot)])


def _marked(slot: Slot, operation: bytes, wish: TxnRequest) -> list[RequestOp]:
    """Write down the wish, and that it was done."""
    then = [*wish.success, _put(slot, operation + _THEN)]
    if not wish.compare:
        return then
    otherwise = [*wish.failure, _put(slot, operation + _OTHERWISE)]
    inner = TxnRequest(compare=wish.compare, success=then, failure=otherwise)
    return [RequestOp(request_txn=inner)]


def _put(slot: Slot, value: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=slot.key, value=value, ignore_lease=True))


def _get(slot: Slot) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=slot.key))


def _answer(reply: TxnResponse, wish: TxnRequest) -> TxnResponse:
    """Take the wish's own answer out of the guarded transaction's."""
    inner = reply.responses[0].response_txn if wish.compare else reply
    responses = inner.responses[:-1]
    return TxnResponse(header=reply.header, succeeded=inner.succeeded, responses=responses)


def _find(reply: TxnResponse, slot: Slot, operation: bytes) -> _Mark | None:
    """Read what the slot tells of the operation, which did not find it as it was."""
    for kv in reply.responses[0].response_range.kvs:
        if kv.value[:-1] == operation:
            header = ResponseHeader()
            header.CopyFrom(reply.header)
            header.revision = kv.mod_revision
            return _Mark(kv.value[-1:], header)
    return None


def _move(call: Call, slot: Slot, revision: int) -> None:
    slot.mod_revision = revision
    call.slots.give_back(slot)


def _lost(trouble: Trouble, attempts: int) -> OutcomeUnknown:
    text = f"the marker of this write is gone, and with it whether it happened; {trouble.text}"
    return OutcomeUnknown(text, code=trouble.code, rpc=KV_TXN.path, attempts=attempts)


def _around(prefix: bytes, key: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
    """Leave the keys with a prefix out of a range; what remains is none to two ranges."""
    after = prefix_end(prefix)
    if not overlaps((key, end), (prefix, after)):
        return [(key, end)]
    parts = []
    if key < prefix:
        parts.append((key, prefix))
    if after != FROM_KEY and (end == FROM_KEY or end > after):
        parts.append((after, end))
    return parts


def _check_spares(prefix: bytes, txn: TxnRequest) -> None:
    """Raise InvalidArgument if a transaction changes keys with the prefix."""
    for op in (*txn.success, *txn.failure):
        if op.HasField("request_txn"):
            _check_spares(prefix, op.request_txn)
        elif (written := written_by(op)) and overlaps(written, (prefix, prefix_end(prefix))):
            raise _misuse(prefix)


def _misuse(prefix: bytes) -> InvalidArgument:
    return InvalidArgument(
        f"what changes keys that start with {prefix!r} cannot be made to happen exactly once,"
        " for there it is noted what has happened"
    )
