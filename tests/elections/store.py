"""A store that answers requests at once and remembers what was deleted when; no network."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from operator import attrgetter, eq, gt, lt, ne
from typing import Any

from google.protobuf.message import Message

from etcd_pinwheel.client.error_handler import Kind, Trouble
from etcd_pinwheel.protos.etcdserverpb import (
    Compare,
    DeleteRangeResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from etcd_pinwheel.protos.mvccpb import Event, KeyValue

_COMPARISONS = {
    Compare.EQUAL: eq,
    Compare.GREATER: gt,
    Compare.LESS: lt,
    Compare.NOT_EQUAL: ne,
}
_ORDERS = {
    RangeRequest.KEY: attrgetter("key"),
    RangeRequest.CREATE: attrgetter("create_revision", "key"),
}


@dataclass
class Store:
    """Keys and their history, by etcd's rules."""

    revision: int = 1
    keys: dict[bytes, KeyValue] = field(default_factory=dict)
    history: list[tuple[int, Event]] = field(default_factory=list)

    def answer(self, request: Message) -> Message:
        """Carry out a request."""
        if isinstance(request, RangeRequest):
            return self.range(request)
        if isinstance(request, LeaseRevokeRequest):
            self.revoke(request.ID)
            return LeaseRevokeResponse(header=self.header())
        assert isinstance(request, TxnRequest)
        return self.txn(request)

    def header(self) -> ResponseHeader:
        return ResponseHeader(revision=self.revision)

    def range(self, request: RangeRequest) -> RangeResponse:
        start, end = request.key, request.range_end or request.key + b"\0"
        highest = request.max_create_revision or self.revision
        found = [
            kv for k, kv in self.keys.items() if start <= k < end and kv.create_revision <= highest
        ]
        descending = request.sort_order == RangeRequest.DESCEND
        found.sort(key=_ORDERS[request.sort_target], reverse=descending)
        return RangeResponse(header=self.header(), kvs=found[: request.limit or None])

    def txn(self, request: TxnRequest) -> TxnResponse:
        succeeded = all(self._holds(compare) for compare in request.compare)
        ops = request.success if succeeded else request.failure
        at = self.revision + 1
        responses = [self._do(op, at) for op in ops]
        return TxnResponse(header=self.header(), succeeded=succeeded, responses=responses)

    def put(self, key: bytes, value: bytes, lease: int = 0, at: int = 0) -> None:
        revision = at or self.revision + 1
        before = self.keys.get(key)
        made = before.create_revision if before else revision
        version = before.version + 1 if before else 1
        kv = KeyValue(
            key=key,
            value=value,
            lease=lease,
            create_revision=made,
            mod_revision=revision,
            version=version,
        )
        self.keys[key] = kv
        self._note(revision, Event(type=Event.PUT, kv=kv))

    def delete(self, key: bytes, at: int = 0) -> bool:
        if self.keys.pop(key, None) is None:
            return False
        revision = at or self.revision + 1
        self._note(revision, Event(type=Event.DELETE, kv=KeyValue(key=key, mod_revision=revision)))
        return True

    def revoke(self, lease: int) -> None:
        at = self.revision + 1
        for key in [key for key, kv in self.keys.items() if kv.lease == lease]:
            self.delete(key, at)

    def deleted_since(self, key: bytes, revision: int) -> Event | None:
        """The first deletion of a key at or after a revision."""
        for at, event in self.history:
            if at >= revision and event.type == Event.DELETE and event.kv.key == key:
                return event
        return None

    def _note(self, revision: int, event: Event) -> None:
        self.revision = revision
        self.history.append((revision, event))

    def _holds(self, compare: Compare) -> bool:
        kv = self.keys.get(compare.key, KeyValue())
        left, right = {
            Compare.CREATE: (kv.create_revision, compare.create_revision),
            Compare.MOD: (kv.mod_revision, compare.mod_revision),
            Compare.LEASE: (kv.lease, compare.lease),
        }[compare.target]
        return bool(_COMPARISONS[compare.result](left, right))

    def _do(self, op: RequestOp, at: int) -> ResponseOp:
        if op.HasField("request_put"):
            put = op.request_put
            self.put(put.key, put.value, put.lease, at)
            return ResponseOp(response_put=PutResponse())
        if op.HasField("request_delete_range"):
            deleted = self.delete(op.request_delete_range.key, at)
            return ResponseOp(response_delete_range=DeleteRangeResponse(deleted=int(deleted)))
        return ResponseOp(response_range=self.range(op.request_range))


class StoreCall:
    """Stands for a client's Call: a flow made with it yields its requests as they are."""

    receive_limited = False
    timeout_seconds = 5.0

    def __init__(self) -> None:
        self.connections = self
        self.closed = None
        self.kinds: list[Kind | None] = []

    def retry_of(self, retry: Any) -> str:
        return "safe"

    def allowance(self, timeout: float | None) -> float:
        return self.timeout_seconds if timeout is None else timeout

    def __call__(
        self,
        rpc: Any,
        request: Message,
        timeout: float | None = None,
        then: Callable[[Any], Any] | None = None,
        *,
        need: Any = None,
        kind: Kind | None = None,
        repeat: bool = False,
        doubts: list[Trouble] | None = None,
    ) -> Generator[Message, Any, Any]:
        self.kinds.append(kind)
        reply = yield request
        return reply if then is None else then(reply)


def run(flow: Any, store: Store) -> Any:
    """Carry a flow out."""
    try:
        request = next(flow)
        while True:
            request = flow.send(store.answer(request))
    except StopIteration as stop:
        return stop.value
