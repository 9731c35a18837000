"""The bundled server's store behind a network that loses, delays and repeats what is sent."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from google.protobuf.message import Message

from etcd_pinwheel.client.flow import CallFailed, Send
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code, Refused
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, RangeRequest
from etcd_pinwheel.protos.mvccpb import KeyValue
from etcd_pinwheel.server_stub.api.checks import check_txn
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.apply.quota import Quota
from etcd_pinwheel.server_stub.apply.ranges import read_range
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.store import Store
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

NOT_SENT = CallFailed(Code.UNAVAILABLE, "failed to connect to all addresses")
BROKEN = CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
GAVE_UP = CallFailed(Code.UNAVAILABLE, table.TIMEOUT.text)
NO_LEADER = CallFailed(Code.UNAVAILABLE, table.NO_LEADER.text)
FOREIGN = CallFailed(Code.INTERNAL, "a proxy's panic")
LATE = CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

MAX_TXN_OPS = 128
"""etcd's default."""

_FIELDS = {
    rpcs.KV_PUT: "put",
    rpcs.KV_DELETE_RANGE: "delete_range",
    rpcs.KV_TXN: "txn",
    rpcs.LEASE_LEASE_GRANT: "lease_grant",
}


class Fate(Enum):
    """What becomes of an attempt: is it carried out, and what does its sender hear?"""

    ANSWERED = auto()
    NOT_SENT = auto()
    NO_LEADER = auto()
    DONE_AND_BROKEN = auto()
    DONE_AND_GAVE_UP = auto()
    DONE_AND_LATE = auto()
    DONE_AND_FOREIGN = auto()
    LOST = auto()
    LOST_AND_LATE = auto()
    DELAYED = auto()
    """Its sender hears that it broke; it is carried out when somebody says so."""
    DELAYED_AND_FOREIGN = auto()
    """Likewise, but what its sender hears is nothing that an etcd says."""
    DONE_AND_DELAYED = auto()
    """It is carried out, its sender hears that it broke, and a copy of it is still on its way."""
    DOUBLED = auto()
    """It is answered, and a copy of it is still on its way: no transport of grpc's does that."""


_HEARD = {
    Fate.NOT_SENT: NOT_SENT,
    Fate.NO_LEADER: NO_LEADER,
    Fate.DONE_AND_BROKEN: BROKEN,
    Fate.DONE_AND_GAVE_UP: GAVE_UP,
    Fate.DONE_AND_LATE: LATE,
    Fate.DONE_AND_FOREIGN: FOREIGN,
    Fate.DELAYED_AND_FOREIGN: FOREIGN,
    Fate.LOST: BROKEN,
    Fate.LOST_AND_LATE: LATE,
    Fate.DELAYED: BROKEN,
    Fate.DONE_AND_DELAYED: BROKEN,
}
_DONE = {
    Fate.ANSWERED,
    Fate.DOUBLED,
    Fate.DONE_AND_BROKEN,
    Fate.DONE_AND_GAVE_UP,
    Fate.DONE_AND_LATE,
    Fate.DONE_AND_FOREIGN,
    Fate.DONE_AND_DELAYED,
}
_ON_ITS_WAY = {
    Fate.DELAYED,
    Fate.DELAYED_AND_FOREIGN,
    Fate.DONE_AND_DELAYED,
    Fate.DOUBLED,
}


class UnreliableStore:
    """A store that does what its test decides about each attempt."""

    def __init__(self) -> None:
        backend = MemoryBackend()
        self._lessor = Lessor(2)
        self.store = Store(backend, self._lessor)
        self._applier = Applier(
            backend,
            self.store,
            self._lessor,
            Membership(backend, 1),
            Quota(backend, 0),
            lambda _: None,
        )
        self.on_their_way: list[InternalRaftRequest] = []

    def serve(self, send: Send, fate: Fate) -> Any:
        """Take an attempt in, and say what its sender hears."""
        request = _entry(send.rpc, send.request)
        answer = self._carry_out(send, request) if fate in _DONE else None
        if fate in _ON_ITS_WAY and request is not None:
            self.on_their_way.append(request)
        return _HEARD.get(fate, answer)

    def arrive(self, position: int, *, stays: bool = False) -> None:
        """Let something arrive that was on its way; ``stays``: and a copy of it later."""
        place = position % len(self.on_their_way)
        request = self.on_their_way[place] if stays else self.on_their_way.pop(place)
        try:
            self.apply(request)
        except Refused:
            return

    def apply(self, request: InternalRaftRequest) -> Any:
        return self._applier.apply(self._applier.index + 1, 2, request, now=0.0)

    def get(self, key: bytes) -> KeyValue | None:
        kvs = self.store.range(key, b"").kvs
        return kvs[0] if kvs else None

    def end_leases(self) -> None:
        """Let all leases expire, with their keys."""
        for lease in self._lessor.leases():
            self.apply(InternalRaftRequest(lease_revoke={"ID": lease.id}))

    def _carry_out(self, send: Send, request: InternalRaftRequest | None) -> Any:
        try:
            if request is None:
                assert isinstance(send.request, RangeRequest)
                return read_range(self.store, send.request)
            if request.HasField("txn"):
                check_txn(request.txn, MAX_TXN_OPS)
            return self.apply(request)
        except Refused as refused:
            return CallFailed(refused.refusal.wire_code, refused.refusal.text)


def _entry(rpc: Any, request: Message) -> InternalRaftRequest | None:
    field = _FIELDS.get(rpc)
    if field is None:
        return None
    entry = InternalRaftRequest()
    getattr(entry, field).CopyFrom(request)
    return entry
