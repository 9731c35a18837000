"""Reading and writing keys."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final, Literal, TypeAlias, TypeVar

from ..balancers.api import Need
from ..protos.etcdserverpb import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
)
from ..protos.rpcs import KV_COMPACT, KV_DELETE_RANGE, KV_PUT, KV_RANGE
from . import exactly_once
from .call import Call
from .errors import FutureRevision, InvalidArgument
from .flow import Flow, Series
from .keys import KeyLike, LeaseLike, to_bytes, to_lease_id, to_range
from .results import CompactResult, DeleteResult, KeyValue, PutResult, RangeResult
from .retries import Retry

SortBy: TypeAlias = Literal["key", "version", "create_revision", "mod_revision", "value"]
Order: TypeAlias = Literal["ascend", "descend"]

Choice = TypeVar("Choice")

_SORT_TARGETS: Final = {
    "key": RangeRequest.KEY,
    "version": RangeRequest.VERSION,
    "create_revision": RangeRequest.CREATE,
    "mod_revision": RangeRequest.MOD,
    "value": RangeRequest.VALUE,
}
_SORT_ORDERS: Final = {"ascend": RangeRequest.ASCEND, "descend": RangeRequest.DESCEND}


def get(
    call: Call,
    key: KeyLike,
    *,
    revision: int = 0,
    serializable: bool = False,
    timeout: float | None = None,
) -> Flow[KeyValue | None]:
    """Read one key; None when it does not exist.

    ``revision``: as of then (0: now). ``serializable``: let any member answer from what it has,
    which may be old, rather than make sure with a quorum. ``timeout``: seconds for the whole
    call. Raises Compacted, FutureRevision.
    """
    request = RangeRequest(key=to_bytes(key))
    if revision:
        request.revision = revision
    if serializable:
        request.serializable = True
        return call(KV_RANGE, request, timeout, _first, need=Need.ANY_MEMBER)
    return call(KV_RANGE, request, timeout, _first)


def _first(reply: RangeResponse) -> KeyValue | None:
    kvs = reply.kvs
    return KeyValue.of(kvs[0]) if kvs else None


def range_(
    call: Call,
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
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
    timeout: float | None = None,
) -> Flow[RangeResult]:
    """Read the keys of a range, ordered by key unless said otherwise.

    The range is the one key; [key, range_end); all that start with the key (``prefix``); or all
    from the key on (``from_key``). ``limit``: at most so many (0: all). ``revision``: as of then
    (0: now). The revision bounds leave out keys outside of them. ``keys_only``: values are left
    empty. ``serializable``: let any member answer from what it has, which may be old.
    Raises Compacted, FutureRevision, ReplyTooLarge; see ``pages`` for large ranges.
    """
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
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )
    return call(KV_RANGE, request, timeout, RangeResult.of, need=_need(serializable))


def get_prefix(
    call: Call,
    prefix: KeyLike,
    *,
    limit: int = 0,
    revision: int = 0,
    sort_by: SortBy | None = None,
    order: Order | None = None,
    serializable: bool = False,
    keys_only: bool = False,
    timeout: float | None = None,
) -> Flow[RangeResult]:
    """Read all keys that start with the prefix; ``range`` has more options."""
    return range_(
        call,
        prefix,
        prefix=True,
        limit=limit,
        revision=revision,
        sort_by=sort_by,
        order=order,
        serializable=serializable,
        keys_only=keys_only,
        timeout=timeout,
    )


def count(
    call: Call,
    key: KeyLike,
    range_end: KeyLike | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    revision: int = 0,
    serializable: bool = False,
    timeout: float | None = None,
) -> Flow[int]:
    """Count the keys of a range without reading them."""
    start, end = to_range(key, range_end, prefix, from_key)
    request = RangeRequest(
        key=start, range_end=end, revision=revision, serializable=serializable, count_only=True
    )
    return call(KV_RANGE, request, timeout, attrgetter("count"), need=_need(serializable))


def pages(
    call: Call,
    key: KeyLike,
    range_end: KeyLike | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    page_size: int = 1000,
    revision: int = 0,
    serializable: bool = False,
    keys_only: bool = False,
    timeout: float | None = None,
) -> Series[RangeResult]:
    """Read a large range in pages, in the order of keys, all of one and the same revision.

    The revision is the first page's unless one is given. ``timeout`` is for each page. There is
    always a first page; it is empty when the range is. ``serializable``: let any member answer from
    what it has, which may be old; a later page whose member has not come to the revision yet is
    read with a quorum. Raises Compacted when the revision is compacted away before the last page;
    then the pages must be read again from the start. Raises FutureRevision where the first page
    does.
    """
    if page_size < 1:
        raise InvalidArgument(f"page_size: at least 1 is needed, not {page_size}")
    start, end = to_range(key, range_end, prefix, from_key)
    read = _read_page  # which tells whether the revision exists
    while True:
        request = range_request(
            start,
            end or None,
            limit=page_size,
            revision=revision,
            serializable=serializable,
            keys_only=keys_only,
        )
        page: RangeResult = yield read(call, request, timeout)
        if not page.more or not page.kvs:
            return
        revision = revision or page.revision
        start = page.kvs[-1].key + b"\0"
        read = _read_later_page if serializable else _read_page


def _read_page(call: Call, request: RangeRequest, timeout: float | None) -> Flow[RangeResult]:
    return call(KV_RANGE, request, timeout, RangeResult.of, need=_need(request.serializable))


def _read_later_page(call: Call, request: RangeRequest, timeout: float | None) -> Flow[RangeResult]:
    """Read as of a revision that exists, though perhaps not on the member that is asked first."""
    deadline = call.deadline(timeout)
    try:
        return (yield from _read_page(call, request, timeout))
    except FutureRevision:
        again = RangeRequest()
        again.CopyFrom(request)
        again.serializable = False
        return (yield from _read_page(call, again, call.left(deadline)))


def put(
    call: Call,
    key: KeyLike,
    value: KeyLike = b"",
    *,
    lease: LeaseLike | None = None,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> Flow[PutResult]:
    """Write one key.

    ``lease``: attach it to a lease, whose end deletes it (None: detach it). ``prev_kv``: answer
    with what was there before. ``ignore_value``, ``ignore_lease``: keep the one it has; the key
    must exist. ``retry``: whether to repeat it when it may have been written already (None: as
    the client does); see :data:`.Retry`.

    Raises LeaseNotFound, KeyNotFound, NoSpace, RequestTooLarge; OutcomeUnknown when it may have
    been written or not.
    """
    request = PutRequest(key=to_bytes(key), value=to_bytes(value, "value"))
    if lease is not None or prev_kv or ignore_value or ignore_lease:
        request.lease = to_lease_id(lease)
        request.prev_kv = prev_kv
        request.ignore_value = ignore_value
        request.ignore_lease = ignore_lease
    how = call.retry_of(retry)
    if how == "exactly_once":
        return exactly_once.put(call, request, timeout)
    return call(KV_PUT, request, timeout, PutResult.of, repeat=how == "at_least_once")


def delete(
    call: Call,
    key: KeyLike,
    range_end: KeyLike | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    prev_kv: bool = False,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> Flow[DeleteResult]:
    """Delete one key, or a range said as in ``range``; that there is none is no error.

    ``prev_kv``: answer with what was deleted. ``retry``: see ``put``; repeated at least once, it
    tells what the last attempt found. Raises OutcomeUnknown when it may have been deleted or not.
    """
    start, end = to_range(key, range_end, prefix, from_key)
    request = DeleteRangeRequest(key=start, range_end=end, prev_kv=prev_kv)
    how = call.retry_of(retry)
    if how == "exactly_once":
        return exactly_once.delete(call, request, timeout)
    return call(KV_DELETE_RANGE, request, timeout, DeleteResult.of, repeat=how == "at_least_once")


def delete_prefix(
    call: Call,
    prefix: KeyLike,
    *,
    prev_kv: bool = False,
    retry: Retry | None = None,
    timeout: float | None = None,
) -> Flow[DeleteResult]:
    """Delete all keys that start with the prefix."""
    return delete(call, prefix, prefix=True, prev_kv=prev_kv, retry=retry, timeout=timeout)


def compact(
    call: Call, revision: int, *, physical: bool = False, timeout: float | None = None
) -> Flow[CompactResult]:
    """Forget the history before a revision; reading it raises Compacted from then on.

    ``physical``: answer only when it is gone from the disk, too. Raises Compacted (it was done
    before), FutureRevision.
    """
    request = CompactionRequest(revision=revision, physical=physical)
    return call(KV_COMPACT, request, timeout, CompactResult.of)


def range_request(
    key: KeyLike,
    range_end: KeyLike | None,
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
) -> RangeRequest:
    """Write a range down as it travels."""
    start, end = to_range(key, range_end, prefix, from_key)
    request = RangeRequest(
        key=start,
        range_end=end,
        limit=limit,
        revision=revision,
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )
    if sort_by is not None or order is not None:
        request.sort_target = _choose("sort_by", sort_by or "key", _SORT_TARGETS)
        request.sort_order = _choose("order", order or "ascend", _SORT_ORDERS)
    return request


def _choose(name: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    if value not in choices:
        raise InvalidArgument(f"{name}: one of {', '.join(choices)} is needed, not {value!r}")
    return choices[value]


def _need(serializable: bool) -> Need:
    return Need.ANY_MEMBER if serializable else Need.QUORUM
