"""How much space a request may take before the cluster says that it has no space left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...protos.etcdserverpb import PutRequest, RequestOp, TxnRequest
from ..mvcc.backend import Backend

PUT_OVERHEAD_BYTES: Final = 256
"""What etcd charges for a key beside its own bytes: index, revision and protobuf framing."""
LEASE_COST_BYTES: Final = 64
_UNCHECKED_SHARE: Final = 64


def put_cost(request: PutRequest) -> int:
    """Return the bytes that a put is charged for."""
    return PUT_OVERHEAD_BYTES + len(request.key) + len(request.value)


def txn_cost(request: TxnRequest) -> int:
    """Return the bytes of the dearer branch, the txns nested in it included."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))


def _branch_cost(ops: Sequence[RequestOp]) -> int:
    cost = 0
    for op in ops:
        kind = op.WhichOneof("request")
        if kind == "request_put":
            cost += put_cost(op.request_put)
        elif kind == "request_txn":
            cost += txn_cost(op.request_txn)
    return cost


class Quota:
    """Whether the backend has room for a request of some cost."""

    def __init__(self, backend: Backend, limit_bytes: int) -> None:
        """``limit_bytes`` of 0 is no limit."""
        self._backend = backend
        self.limit_bytes = limit_bytes
        self._unchecked_bytes = 0
        """What may still be granted before the backend is asked for its size again."""

    def has_room_for(self, cost_bytes: int) -> bool:
        """A request that costs nothing passes even when the quota is exceeded.

        Far from the limit the size is not asked for each time: a page of the backend is at most
        16 times what a request is charged, so a 64th of the room cannot fill it.
        """
        if cost_bytes == 0 or self.limit_bytes == 0:
            return True
        self._unchecked_bytes -= cost_bytes
        if self._unchecked_bytes >= 0:
            return True
        room = self.limit_bytes - self._backend.size_bytes
        self._unchecked_bytes = room // _UNCHECKED_SHARE
        return room > cost_bytes
