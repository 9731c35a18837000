"""What operations answer with: frozen values, with bytes in and bytes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, overload

from ..protos import etcdserverpb as pb
from ..protos import mvccpb

_new = object.__new__


def _draft_of(frozen: type) -> type:
    """Make a twin of a frozen dataclass, to which fields can be assigned.

    The constructor of a frozen one calls ``object.__setattr__`` for each field, and takes three
    times as long. What is made for every call is drafted instead, and then told of which class it
    is, which Python allows where both have the same bases and slots.
    """
    free = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    own = {"__slots__": frozen.__slots__}  # type: ignore[attr-defined]
    return type(f"{frozen.__name__}Draft", frozen.__bases__, own | free)


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, and when in the store's history."""

    cluster_id: int
    member_id: int
    revision: int
    """The store's revision when the answer was made."""
    raft_term: int

    @classmethod
    def of(cls, header: pb.ResponseHeader) -> Header:
        return cls(header.cluster_id, header.member_id, header.revision, header.raft_term)


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key and its value, with the revisions of its creation and last change."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    """Counts the changes since its creation, from 1."""
    lease: int
    """The id of the lease it is attached to; 0: none."""

    @staticmethod
    def of(kv: mvccpb.KeyValue) -> KeyValue:
        made: Any = _new(_KeyValueDraft)
        made.key = kv.key
        made.value = kv.value
        made.create_revision = kv.create_revision
        made.mod_revision = kv.mod_revision
        made.version = kv.version
        made.lease = kv.lease
        made.__class__ = KeyValue
        result: KeyValue = made
        return result


_KeyValueDraft = _draft_of(KeyValue)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What all answers have."""

    revision: int
    """The store's revision when the answer was made; a write's own revision."""
    _header: pb.ResponseHeader = field(repr=False, compare=False)

    @property
    def header(self) -> Header:
        """Who answered."""
        return Header.of(self._header)


@dataclass(frozen=True, slots=True)
class PutResult(_Answer):
    """What a put did."""

    prev_kv: KeyValue | None
    """What was there before, if that was asked for and anything was."""

    @staticmethod
    def of(reply: pb.PutResponse) -> PutResult:
        made: Any = _new(_PutResultDraft)
        made._header = header = reply.header
        made.revision = header.revision
        made.prev_kv = KeyValue.of(reply.prev_kv) if reply.HasField("prev_kv") else None
        made.__class__ = PutResult
        result: PutResult = made
        return result


_PutResultDraft = _draft_of(PutResult)


@dataclass(frozen=True, slots=True)
class DeleteResult(_Answer):
    """What a delete did. Its revision is a new one only if something was deleted."""

    deleted: int
    prev_kvs: tuple[KeyValue, ...]
    """What was deleted, if that was asked for."""

    def __bool__(self) -> bool:
        return self.deleted > 0

    @classmethod
    def of(cls, reply: pb.DeleteRangeResponse) -> DeleteResult:
        header = reply.header
        return cls(header.revision, header, reply.deleted, tuple(map(KeyValue.of, reply.prev_kvs)))


@dataclass(frozen=True, slots=True)
class RangeResult(_Answer):
    """The keys of a range, in order; iterable, with a length and an index."""

    kvs: tuple[KeyValue, ...]
    count: int
    """How many keys the range has, whatever the limit."""
    more: bool
    """Whether the limit left some out."""

    def __len__(self) -> int:
        return len(self.kvs)

    def __iter__(self) -> Iterator[KeyValue]:
        return iter(self.kvs)

    @overload
    def __getitem__(self, index: int) -> KeyValue: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[KeyValue, ...]: ...
    def __getitem__(self, index: int | slice) -> KeyValue | tuple[KeyValue, ...]:
        return self.kvs[index]

    @classmethod
    def of(cls, reply: pb.RangeResponse) -> RangeResult:
        header = reply.header
        kvs = tuple(map(KeyValue.of, reply.kvs))
        return cls(header.revision, header, kvs, reply.count, reply.more)


@dataclass(frozen=True, slots=True)
class TxnResult(_Answer):
    """Which branch a transaction took, and what each of its operations answered."""

    succeeded: bool
    """Whether all compares held, and the ``then`` branch was carried out."""
    responses: tuple[PutResult | RangeResult | DeleteResult | TxnResult, ...]
    """In the order of the branch's operations."""

    def __bool__(self) -> bool:
        return self.succeeded

    @classmethod
    def of(cls, reply: pb.TxnResponse) -> TxnResult:
        header = reply.header
        responses = tuple(map(_response_of, reply.responses))
        return cls(header.revision, header, reply.succeeded, responses)


def _response_of(op: pb.ResponseOp) -> PutResult | RangeResult | DeleteResult | TxnResult:
    match op.WhichOneof("response"):
        case "response_range":
            return RangeResult.of(op.response_range)
        case "response_put":
            return PutResult.of(op.response_put)
        case "response_delete_range":
            return DeleteResult.of(op.response_delete_range)
        case _:
            return TxnResult.of(op.response_txn)


@dataclass(frozen=True, slots=True)
class CompactResult(_Answer):
    """A compaction's acknowledgement."""

    @classmethod
    def of(cls, reply: pb.CompactionResponse) -> CompactResult:
        return cls(reply.header.revision, reply.header)
