"""The KV service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, cast

from ...protos import rpcs
from ...protos.errors import Code, Refusal, Refused
from ...protos.etcdserverpb import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    InternalRaftRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RangeStreamResponse,
    TxnRequest,
    TxnResponse,
)
from ..apply.quota import put_cost, txn_cost
from ..apply.ranges import is_in_key_order, of_stored, read_range
from ..member import Member
from .call import Call, Method
from .checks import check_delete, check_put, check_range, check_txn, is_read_only, is_serializable

FIRST_CHUNK_KEYS: Final = 10
CANNOT_STREAM: Final = Refusal(
    Code.UNIMPLEMENTED, "etcdserver: range stream does not support sort orders or revision filters"
)


class KV:
    """Reading and writing keys."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._store = member.store
        self._quota = member.applier.quota

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the service."""
        return (
            Method(rpcs.KV_RANGE, self.Range),
            Method(rpcs.KV_RANGE_STREAM, self.RangeStream),
            Method(rpcs.KV_PUT, self.Put),
            Method(rpcs.KV_DELETE_RANGE, self.DeleteRange),
            Method(rpcs.KV_TXN, self.Txn),
            Method(rpcs.KV_COMPACT, self.Compact),
        )

    async def Range(self, request: RangeRequest, call: Call) -> RangeResponse:
        """Read a range of keys."""
        check_range(request)
        if not request.serializable:
            await self._member.read_barrier()
        reply = read_range(self._store, request)
        self._member.fill_header(reply.header)
        return reply

    async def RangeStream(
        self, request: RangeRequest, call: Call
    ) -> AsyncIterator[RangeStreamResponse]:
        """Read a range of keys in pieces which, merged, are what Range answers.

        All pieces show the same revision; if that is compacted on the way, the stream ends with
        the refusal.
        """
        check_range(request)
        if not is_in_key_order(request):
            raise Refused(CANNOT_STREAM)
        if not request.serializable:
            await self._member.read_barrier()
        if request.count_only or not request.range_end:
            reply = read_range(self._store, request)
            self._member.fill_header(reply.header)
            yield RangeStreamResponse(range_response=reply)
            return
        async for piece in self._pieces(request):
            yield RangeStreamResponse(range_response=piece)

    async def _pieces(self, request: RangeRequest) -> AsyncIterator[RangeResponse]:
        """Yield the pieces of a range; the last one has header, count and more."""
        store, end = self._store, request.range_end
        whole = store.range_stored(request.key, end, revision=request.revision, count_only=True)
        revision = request.revision if request.revision > 0 else whole.revision
        left = min(request.limit, whole.count) if request.limit > 0 else whole.count
        last = RangeResponse(count=whole.count, more=left < whole.count)
        last.header.revision = whole.revision
        self._member.fill_header(last.header)
        key, chunk = request.key, FIRST_CHUNK_KEYS
        while left > 0:
            values = store.page_stored(key, end, revision=revision, limit=min(chunk, left))
            piece = of_stored(values)
            left -= len(values)
            key = piece.kvs[-1].key + b"\0"
            if request.keys_only:
                for pair in piece.kvs:
                    pair.ClearField("value")
            if left == 0:
                piece.MergeFrom(last)
            yield piece
            chunk = self._next_chunk(chunk, sum(map(len, values)))
        if whole.count == 0:
            yield last

    def _next_chunk(self, keys: int, size_bytes: int) -> int:
        """Return how many keys to send next, so that a piece is about as large as a request."""
        target_bytes = self._member.settings.max_request_bytes
        if size_bytes > target_bytes:
            return max(keys // 2, 1)
        return keys * 2 if 2 * size_bytes <= target_bytes else keys

    async def Put(self, request: PutRequest, call: Call) -> PutResponse:
        """Set a key."""
        await self._check_room(put_cost(request))
        check_put(request)
        entry = InternalRaftRequest()
        entry.put.CopyFrom(request)
        reply = cast("PutResponse", await self._member.propose(entry))
        self._member.fill_header(reply.header)
        return reply

    async def DeleteRange(self, request: DeleteRangeRequest, call: Call) -> DeleteRangeResponse:
        """Delete a range of keys."""
        check_delete(request)
        entry = InternalRaftRequest(delete_range=request)
        reply = cast("DeleteRangeResponse", await self._member.propose(entry))
        self._member.fill_header(reply.header)
        return reply

    async def Txn(self, request: TxnRequest, call: Call) -> TxnResponse:
        """Carry out a transaction; one that only reads does not go through the log."""
        await self._check_room(txn_cost(request))
        check_txn(request, self._member.settings.max_txn_ops)
        if is_read_only(request):
            if not is_serializable(request):
                await self._member.read_barrier()
            reply = self._member.applier.writes.read_txn(request)
        else:
            entry = InternalRaftRequest(txn=request)
            reply = cast("TxnResponse", await self._member.propose(entry))
        self._member.fill_header(reply.header)
        return reply

    async def Compact(self, request: CompactionRequest, call: Call) -> CompactionResponse:
        """Give up old revisions."""
        reply = await self._member.compact(request)
        reply.header.revision = self._store.revision
        self._member.fill_header(reply.header)
        return reply

    async def _check_room(self, cost_bytes: int) -> None:
        if not self._quota.has_room_for(cost_bytes):
            await self._member.refuse_for_space()
