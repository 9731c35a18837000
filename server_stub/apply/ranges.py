"""Reading a range: limits, filters and orders, with etcd's quirks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Protocol

from ...protos.etcdserverpb import RangeRequest, RangeResponse
from ...protos.mvccpb import KeyValue
from ..mvcc.store import StoredRange

_MAX_INT64: Final = 2**63 - 1
"""As a limit, it is none: one more than that is not a number of the wire, nor of ``islice``."""
_SORT_FIELDS: Final = {
    RangeRequest.KEY: attrgetter("key"),
    RangeRequest.VERSION: attrgetter("version"),
    RangeRequest.CREATE: attrgetter("create_revision"),
    RangeRequest.MOD: attrgetter("mod_revision"),
    RangeRequest.VALUE: attrgetter("value"),
}


class RangeView(Protocol):
    """What can be read from: the store, or a transaction that sees its own changes."""

    def range_stored(
        self, key: bytes, end: bytes, *, revision: int = 0, limit: int = 0, count_only: bool = False
    ) -> StoredRange: ...


def read_range(view: RangeView, request: RangeRequest) -> RangeResponse:
    """Answer a range; the header has the store's current revision and nothing else.

    Raises ``Refused`` (COMPACTED, FUTURE_REVISION).
    """
    key, end, limit = request.key, request.range_end, max(request.limit, 0)
    if request.count_only or (is_in_key_order(request) and not request.keys_only):
        stored = view.range_stored(
            key, end, revision=request.revision, limit=limit, count_only=request.count_only
        )
        reply = of_stored(stored.values)
        reply.more = not request.count_only and 0 < limit < stored.count
    else:
        stored = view.range_stored(
            key, end, revision=request.revision, limit=_fetch_limit(request, limit)
        )
        reply = _in_order(request, limit, stored.values)
    reply.count = stored.count
    reply.header.revision = stored.revision
    return reply


def of_stored(values: Iterable[bytes]) -> RangeResponse:
    """Build a response around key-values as they are stored, without looking into them.

    A stored value only lacks its tag and length to be an element of ``kvs``, and parsing the
    whole in one go takes an eighth of the time that it takes to parse and add them one by one.
    """
    parts: list[bytes] = []
    for value in values:
        parts.append(_kvs_prefix(len(value)))
        parts.append(value)
    return RangeResponse.FromString(b"".join(parts))


@lru_cache(maxsize=4096)
def _kvs_prefix(size: int) -> bytes:
    """Return the tag of ``RangeResponse.kvs`` (field 2, bytes) and a length."""
    prefix = bytearray([2 << 3 | 2])
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix)


def is_in_key_order(request: RangeRequest) -> bool:
    """Whether the answer is the first keys of the range, as they come."""
    return not (
        request.sort_target
        or request.sort_order == RangeRequest.DESCEND
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _has_filters(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _fetch_limit(request: RangeRequest, limit: int) -> int:
    """Return how many keys to look at: one more than the limit, or all before a sort or filter.

    etcd takes a sort target without an order for ascending, but only after it has fetched the
    first keys of the range as if there were no sort; so do we.
    """
    if limit in (0, _MAX_INT64) or request.sort_order != RangeRequest.NONE or _has_filters(request):
        return 0
    return limit + 1


def _in_order(request: RangeRequest, limit: int, values: list[bytes]) -> RangeResponse:
    pairs: list[KeyValue] = list(of_stored(values).kvs)
    pairs = _filtered(request, pairs)
    if request.sort_target or request.sort_order:
        descending = request.sort_order == RangeRequest.DESCEND
        pairs.sort(key=_sort_field(request), reverse=descending)
    reply = RangeResponse()
    if 0 < limit < len(pairs):
        del pairs[limit:]
        reply.more = True
    if request.keys_only:
        for pair in pairs:
            pair.ClearField("value")
    reply.kvs.extend(pairs)
    return reply


def _sort_field(request: RangeRequest) -> Any:
    return _SORT_FIELDS.get(request.sort_target, _SORT_FIELDS[RangeRequest.KEY])


def _filtered(request: RangeRequest, pairs: list[KeyValue]) -> list[KeyValue]:
    """Keep what lies within the bounds on revisions; a bound of 0 is none."""
    if bound := request.max_mod_revision:
        pairs = [pair for pair in pairs if pair.mod_revision <= bound]
    if bound := request.min_mod_revision:
        pairs = [pair for pair in pairs if pair.mod_revision >= bound]
    if bound := request.max_create_revision:
        pairs = [pair for pair in pairs if pair.create_revision <= bound]
    if bound := request.min_create_revision:
        pairs = [pair for pair in pairs if pair.create_revision >= bound]
    return pairs
