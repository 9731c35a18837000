"""What puts, deletions and transactions do to the store."""

from __future__ import annotations

from ...protos.errors import KEY_NOT_FOUND, LEASE_NOT_FOUND, Refused
from ...protos.etcdserverpb import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from ...protos.mvccpb import KeyValue
from ..lease.lessor import Lessor
from ..mvcc.store import Store, WriteTxn
from . import txn as txn_rules
from .ranges import RangeView, read_range


class StateBefore:
    """The store and the leases as the comparisons and checks of a transaction see them."""

    def __init__(self, store: Store, leases: Lessor) -> None:
        self._store = store
        self._leases = leases

    @property
    def revision(self) -> int:
        return self._store.revision

    @property
    def compacted_revision(self) -> int:
        return self._store.compacted_revision

    def newest(self, key: bytes, end: bytes) -> list[KeyValue]:
        """Return the key-values of a range, as of now."""
        return self._store.range(key, end).kvs

    def has_lease(self, lease_id: int) -> bool:
        return self._leases.exists(lease_id)


class Writes:
    """The requests that change keys. Headers of replies have the revision and nothing else."""

    def __init__(self, store: Store, leases: Lessor) -> None:
        self._store = store
        self._leases = leases
        self._state = StateBefore(store, leases)

    def put(self, request: PutRequest) -> PutResponse:
        """Set one key. Raises ``Refused`` (LEASE_NOT_FOUND, KEY_NOT_FOUND)."""
        if request.lease and not self._leases.exists(request.lease):
            raise Refused(LEASE_NOT_FOUND)
        with self._store.write() as txn:
            return self._put(txn, request)

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """Delete the keys of a range, as one revision; none if there was nothing to delete."""
        with self._store.write() as txn:
            return self._delete_range(txn, request)

    def txn(self, request: TxnRequest) -> TxnResponse:
        """Carry out a transaction, as at most one revision.

        Raises ``Refused`` before anything is changed.
        """
        path = txn_rules.choose(self._state, request)
        txn_rules.check(self._state, path)
        with self._store.write() as txn:
            reply = self._run(txn, path)
            reply.header.revision = txn.revision
        return reply

    def read_txn(self, request: TxnRequest) -> TxnResponse:
        """Carry out a transaction of nothing but ranges, which needs no entry in the log."""
        path = txn_rules.choose(self._state, request)
        txn_rules.check_ranges(self._state, path)
        reply = TxnResponse(succeeded=path.succeeded)
        for op in path.ops:
            _add_range(reply, self._store, op)
        reply.header.revision = self._store.revision
        return reply

    def _put(self, txn: WriteTxn, request: PutRequest) -> PutResponse:
        value, lease = request.value, request.lease
        reply = PutResponse()
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            previous = txn.range(request.key, b"").kvs
            if previous:
                if request.ignore_value:
                    value = previous[0].value
                if request.ignore_lease:
                    lease = previous[0].lease
                if request.prev_kv:
                    reply.prev_kv.CopyFrom(previous[0])
            elif request.ignore_value or request.ignore_lease:
                raise Refused(KEY_NOT_FOUND)
        txn.put(request.key, value, lease)
        reply.header.revision = txn.revision
        return reply

    def _delete_range(self, txn: WriteTxn, request: DeleteRangeRequest) -> DeleteRangeResponse:
        reply = DeleteRangeResponse()
        if request.prev_kv:
            reply.prev_kvs.extend(txn.range(request.key, request.range_end).kvs)
        reply.deleted = txn.delete_range(request.key, request.range_end)
        reply.header.revision = txn.revision
        return reply

    def _run(self, txn: WriteTxn, path: txn_rules.Path) -> TxnResponse:
        """Carry out the ops of a path in order; those nested have an empty header, as etcd's."""
        reply = TxnResponse(succeeded=path.succeeded)
        reply.header.SetInParent()
        nested = iter(path.nested)
        for op in path.ops:
            match op.WhichOneof("request"):
                case "request_range":
                    _add_range(reply, txn, op)
                case "request_put":
                    done = self._put(txn, op.request_put)
                    reply.responses.append(ResponseOp(response_put=done))
                case "request_delete_range":
                    gone = self._delete_range(txn, op.request_delete_range)
                    reply.responses.append(ResponseOp(response_delete_range=gone))
                case "request_txn":
                    inner = self._run(txn, next(nested))
                    reply.responses.append(ResponseOp(response_txn=inner))
        return reply


def _add_range(reply: TxnResponse, view: RangeView, op: RequestOp) -> None:
    answer = reply.responses.add().response_range
    answer.MergeFrom(read_range(view, op.request_range))
