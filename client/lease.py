"""Leases: the calls about them, and what users see of one that is kept alive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..protos import errors as table
from ..protos.etcdserverpb import (
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from ..protos.rpcs import (
    LEASE_LEASE_GRANT,
    LEASE_LEASE_KEEP_ALIVE,
    LEASE_LEASE_LEASES,
    LEASE_LEASE_REVOKE,
    LEASE_LEASE_TIME_TO_LIVE,
)
from .call import Call
from .callbacks import call_all
from .error_handler import Kind, Trouble
from .errors import InvalidArgument, LeaseLost, LeaseNotFound, Unauthenticated
from .flow import Flow
from .keep_alive import Keeper, LossReason
from .keys import LeaseLike, to_lease_id
from .results import Header

MAX_TTL_SECONDS: Final = 9_000_000_000


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """A lease that was granted."""

    id: int
    ttl: int
    """Seconds it lives without being renewed, as the server decided: at least its minimum."""
    header: Header


@dataclass(frozen=True, slots=True)
class LeaseRevocation:
    """A lease's end, with all its keys, in one revision."""

    revision: int
    header: Header


@dataclass(frozen=True, slots=True)
class LeaseTimeToLive:
    """How long a lease has still to live."""

    id: int
    ttl: int
    """Whole seconds that remain."""
    granted_ttl: int
    """Seconds it was granted, and is set to whenever it is renewed."""
    keys: tuple[bytes, ...]
    """The keys attached to it, if that was asked for."""
    header: Header


def grant(
    call: Call,
    ttl: int,
    *,
    id: int = 0,  # noqa: A002 (etcd's own term)
    timeout: float | None = None,
) -> Flow[LeaseGrant]:
    """Have a lease granted for ``ttl`` seconds, without keeping it alive.

    ``id`` 0 lets the server choose. Raises LeaseExists when the id is taken.
    """
    return _grant(call, ttl, id, timeout)


def revoke(call: Call, lease: LeaseLike, *, timeout: float | None = None) -> Flow[LeaseRevocation]:
    """End a lease, and delete its keys. Raises LeaseNotFound."""
    return revoked(call, lease, timeout)


def revoked(
    call: Call, lease: LeaseLike, timeout: float | None, doubts: list[Trouble] | None = None
) -> Flow[LeaseRevocation]:
    """End a lease; ``doubts`` takes the troubles after which that may have happened."""
    request = LeaseRevokeRequest(ID=to_lease_id(lease))
    reply = yield from call(LEASE_LEASE_REVOKE, request, timeout, doubts=doubts)
    return LeaseRevocation(reply.header.revision, Header.of(reply.header))


def time_to_live(
    call: Call, lease: LeaseLike, *, keys: bool = False, timeout: float | None = None
) -> Flow[LeaseTimeToLive]:
    """Ask how long a lease has still to live; ``keys``: and what is attached to it.

    Raises LeaseNotFound when it has expired, was revoked, or was never granted.
    """
    lease_id = to_lease_id(lease)
    request = LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
    reply = yield from call(LEASE_LEASE_TIME_TO_LIVE, request, timeout)
    if reply.TTL < 0:
        raise lease_not_found(LEASE_LEASE_TIME_TO_LIVE.path)
    attached = tuple(reply.keys)
    return LeaseTimeToLive(lease_id, reply.TTL, reply.grantedTTL, attached, Header.of(reply.header))


def list_(call: Call, *, timeout: float | None = None) -> Flow[tuple[int, ...]]:
    """List the ids of all leases, those that expire first coming first."""
    reply = yield from call(LEASE_LEASE_LEASES, LeaseLeasesRequest(), timeout)
    return tuple(lease.ID for lease in reply.leases)


Opening: TypeAlias = Callable[[], Flow[tuple[LeaseGrant, Keeper]]]
"""Makes what opens a lease that is kept alive; again, where that failed."""


def lease(
    call: Call,
    ttl: int,
    *,
    id: int = 0,  # noqa: A002 (etcd's own term)
    timeout: float | None = None,
) -> Opening:
    """Have a lease granted, and keep it alive; see :class:`Lease`.

    ``ttl``: seconds that it outlives us. ``id`` 0 lets the server choose; LeaseExists is raised
    when it is taken. ``timeout``: seconds for the grant alone.
    """
    return lambda: kept(call, ttl, id, timeout)


def kept(
    call: Call, ttl: int, lease_id: int, timeout: float | None, doubts: list[Trouble] | None = None
) -> Flow[tuple[LeaseGrant, Keeper]]:
    """Have a lease granted; ``doubts`` takes the troubles after which that may have happened."""
    asked_at = time.monotonic()
    granted = yield from _grant(call, ttl, lease_id, timeout, doubts)
    return granted, Keeper.granted(granted.id, granted.ttl, asked_at)


def _grant(
    call: Call, ttl: int, lease_id: int, timeout: float | None, doubts: list[Trouble] | None = None
) -> Flow[LeaseGrant]:
    if not 0 < ttl <= MAX_TTL_SECONDS:
        raise InvalidArgument(f"ttl is {ttl}: 1 to {MAX_TTL_SECONDS} seconds are possible")
    # Repeated with an id of our own, a grant would find its own first attempt in the way
    kind = Kind.NON_REPEATABLE if lease_id else None
    request = LeaseGrantRequest(TTL=ttl, ID=lease_id)
    reply = yield from call(LEASE_LEASE_GRANT, request, timeout, kind=kind, doubts=doubts)
    return LeaseGrant(reply.ID, reply.TTL, Header.of(reply.header))


def keep_alive(call: Call, lease: LeaseLike, *, timeout: float | None = None) -> Opening:
    """Keep a lease alive that exists, e.g. one granted by another process.

    Leaving ``with`` only stops renewing it. Raises LeaseNotFound on entering.
    """

    def opening() -> Flow[tuple[LeaseGrant, Keeper]]:
        asked_at = time.monotonic()
        found = yield from time_to_live(call, lease, timeout=timeout)
        keeper = Keeper(found.id, found.granted_ttl, asked_at + found.ttl, asked_at)
        return LeaseGrant(found.id, found.granted_ttl, found.header), keeper

    return opening


class Loss:
    """Whether a lease is lost, why, and who wants to know."""

    def __init__(
        self,
        keeper: Keeper,
        refresh: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper = keeper
        self._refresh = refresh
        self._clock = clock
        self._callbacks: deque[Callable[[LossReason], object]] = deque()
        self._told = False

    @property
    def reason(self) -> LossReason | None:
        """Why it is lost; None: it is not."""
        keeper = self._keeper
        if keeper.loss is None and self._clock() >= keeper.deadline:
            self._refresh()  # rather now than when the alarm gets round to it
        return keeper.loss

    @property
    def cause(self) -> Exception | None:
        """What it was lost by, where that is known."""
        return self._keeper.cause

    def is_set(self) -> bool:
        """Tell whether it is lost, or must be taken for lost."""
        return self.reason is not None

    def check(self) -> None:
        """Raise LeaseLost if it is lost."""
        if reason := self.reason:
            raise LeaseLost(self._keeper.lease_id, reason.value) from self._keeper.cause

    def add_callback(self, callback: Callable[[LossReason], object]) -> None:
        """Call back once it is lost, or now if it is; not to block.

        Not when you end it yourself, by leaving the block, revoking or closing. A blocking client
        calls from a thread of its own, an asyncio one from the event loop.
        What it raises goes to ``threading.excepthook``, or the loop's exception handler.
        """
        self._callbacks.append(callback)
        if self._told:
            self.tell()

    def forget(self, callback: Callable[[LossReason], object]) -> None:
        """Do not call back any more."""
        with suppress(ValueError, IndexError):  # told already, or being told
            self._callbacks.remove(callback)

    def tell(self) -> None:
        """Tell all who want to know; for the pump to call."""
        self._told = True
        reason = self._keeper.loss
        if reason is LossReason.EXPIRED or reason is LossReason.UNANSWERED:
            call_all(self._callbacks, reason)


def once_result(keeper: Keeper) -> int:
    """Take the outcome of a single renewal: the seconds it lives from now on."""
    if keeper.loss is LossReason.EXPIRED:
        raise lease_not_found(LEASE_LEASE_KEEP_ALIVE.path)
    if isinstance(keeper.cause, Unauthenticated):
        raise keeper.cause
    if keeper.loss is not None:
        raise LeaseLost(keeper.lease_id, keeper.loss.value) from keeper.cause
    assert keeper.renewed_ttl_seconds is not None
    return keeper.renewed_ttl_seconds


def lease_not_found(rpc: str) -> LeaseNotFound:
    """Make the error for what the server tells in a reply rather than in a refusal."""
    row = table.LEASE_NOT_FOUND
    return LeaseNotFound(row.text, code=row.code, rpc=rpc, attempts=1)
