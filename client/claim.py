"""Claims to something that only one can have: who has it, whom to wait for, how to give it up.

A claim is a key under the thing's prefix, named for the lease that it lives by: ``<name>/<lease id
in hex>``. Of all keys there, the one that was created first has the thing; each of the others
waits for the one created just before it, and for nobody else, so that an end wakes one. That is
what clientv3's ``concurrency`` package does for elections and for mutexes, and etcdctl with it.

A key that exists, under the create revision that it was entered with, *and* leads proves the
claim for as long as it exists, because later claims get larger create revisions. So that revision
is the claim's *fence*: it grows from one holder to the next.

Every write here may be repeated. Entering makes the key only where there is none, and reads it
otherwise; a new value is put only over the revision that is known; leaving deletes only what was
entered. So whatever a policy does with writes whose answer was lost, these are sent again, within
their time, and find out what became of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..protos.rpcs import KV_TXN
from .call import Call
from .compare import create_revision, lease, mod_revision
from .error_handler import Kind, Trouble, error_class
from .errors import (
    CallError,
    EtcdError,
    InvalidArgument,
    LearnerCannotServe,
    LeaseNotFound,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    Refused,
    ReplyTooLarge,
    TooManyRequests,
)
from .flow import Flow, Sleep, T
from .keys import KeyLike, to_bytes
from .kv import range_
from .results import KeyValue, RangeResult, TxnResult
from .txn import Txn, commit, delete, get, put

RECHECK_SECONDS: Final = 0.2
FIRST_PAUSE_SECONDS: Final = 0.05
LAST_PAUSE_SECONDS: Final = 1.0
_PASSING: Final = (NotSent, OutcomeUnknown, NoLeader, LearnerCannotServe, TooManyRequests)


def passes(error: EtcdError) -> bool:
    """Whether it may go better a little later: an outage, rather than a refusal."""
    return isinstance(error, _PASSING) and not isinstance(error, ReplyTooLarge)


def prefix_of(name: KeyLike) -> bytes:
    """Where the claims to a thing are."""
    if not (prefix := to_bytes(name, "name")):
        raise InvalidArgument("a name is needed: that of the election or the lock")
    return prefix + b"/"


def holder_among(claims: Iterable[KeyValue]) -> KeyValue | None:
    """Find who has the thing: the claim that was created first."""
    return min(claims, key=lambda kv: (kv.create_revision, kv.key), default=None)


@dataclass(frozen=True, slots=True)
class Entry:
    """A claim as it was entered, or found to have been entered before."""

    own: KeyValue
    revision: int
    """As of when this is so."""
    holds: bool


@dataclass(frozen=True, slots=True)
class Line:
    """Where a claim stands, as of a revision."""

    revision: int
    own: KeyValue | None
    """Its key; None: it is gone, or is another's by now."""
    ahead: KeyValue | None
    """Whom to wait for; None: nobody."""

    @property
    def holds(self) -> bool:
        return self.own is not None and self.ahead is None


def holder(call: Call, prefix: bytes, *, timeout: float | None = None) -> Flow[KeyValue | None]:
    """Read who has the thing now; None: nobody."""
    found = yield from range_(
        call,
        prefix,
        prefix=True,
        sort_by="create_revision",
        order="ascend",
        limit=1,
        timeout=timeout,
    )
    return found.kvs[0] if found.kvs else None


def claims(call: Call, prefix: bytes) -> Flow[RangeResult]:
    """Read all claims to the thing."""
    return range_(call, prefix, prefix=True)


def enter(
    call: Call,
    prefix: bytes,
    lease_id: int,
    value: bytes,
    found: Callable[[KeyValue | None], None] = lambda _: None,
) -> Flow[Entry]:
    """Claim the thing, unless this lease does already; the claim gets the value either way.

    ``found`` is told of the claim as soon as it is there, and if it goes. Raises LeaseNotFound.
    """
    key = key_of(prefix, lease_id)
    first = get(prefix, prefix=True, sort_by="create_revision", order="ascend", limit=1)
    entry = Txn().when(create_revision(key) == 0)
    entry = entry.then(put(key, value, lease=lease_id), get(key), first)
    while True:
        answer = yield from _settled(call, entry.otherwise(get(key), first), None)
        own, oldest = _ranges(answer)[-2:]
        entered: KeyValue | None = own[0]
        found(own[0])
        if (own[0].value, own[0].lease) != (value, lease_id):
            entered = yield from rename(call, own[0], lease_id, value)
        if entered is not None:
            return Entry(entered, answer.revision, oldest[0].key == key)
        found(None)


def look(call: Call, prefix: bytes, own: KeyValue) -> Flow[Line]:
    """Read, as of one revision, whether a claim is still there, and whom it waits for."""
    ahead = get(
        prefix,
        prefix=True,
        sort_by="create_revision",
        order="descend",
        limit=1,
        max_create_revision=own.create_revision - 1,
        keys_only=True,
    )
    answer = yield from commit(call, Txn().then(get(own.key), ahead))
    return line_of(answer, own.create_revision)


def line_of(answer: TxnResult, fence: int) -> Line:
    """Read what was found of the claim and of whom it waits for."""
    own, ahead = _ranges(answer)
    held = own[0] if own.kvs and own[0].create_revision == fence else None
    return Line(answer.revision, held, ahead[0] if ahead.kvs else None)


def rename(
    call: Call, own: KeyValue, lease_id: int, value: bytes, timeout: float | None = None
) -> Flow[KeyValue | None]:
    """Give a claim another value, exactly once; None: the claim is gone.

    The put holds only over the last known revision of the key: a request that arrives late, after
    its repetition or after the next value, changes nothing.
    """
    known = own
    while True:
        unchanged = Txn().when(
            create_revision(own.key) == own.create_revision,
            mod_revision(own.key) == known.mod_revision,
        )
        written = unchanged.then(put(own.key, value, lease=lease_id), get(own.key))
        answer = yield from _settled(call, written.otherwise(get(own.key)), timeout)
        found = _ranges(answer)[-1]
        if not found.kvs or found[0].create_revision != own.create_revision:
            return None
        known = found[0]
        if answer.succeeded or (known.value, known.lease) == (value, lease_id):
            return known


def leave(
    call: Call, key: bytes, lease_id: int, fence: int | None, timeout: float | None = None
) -> Flow[None]:
    """Give a claim up; ``fence`` None: whether it was ever entered is not known."""
    own = lease(key) == lease_id if fence is None else create_revision(key) == fence
    yield from _settled(call, Txn().when(own).then(delete(key)), timeout)


def leave_at_last(
    call: Call, key: bytes, lease_id: int, fence: int | None, wanted: Callable[[], bool]
) -> Flow[bool]:
    """Give a claim up, for as long as that takes; tell whether it is given up.

    It is not if that is refused, the client is closed, or it is not wanted any more.
    """
    while wanted():
        try:
            yield from leave(call, key, lease_id, fence)
        except EtcdError as error:
            if not passes(error):
                return False
            yield Sleep(RECHECK_SECONDS)
        else:
            return True
    return False


def still_held(call: Call, own: KeyValue, wanted: Callable[[], bool]) -> Flow[int]:
    """Read whether a claim is there, for as long as that takes; the revision, or 0: it is not.

    0 also when this cannot be read, nor is going to be.
    """
    while wanted():
        try:
            found = yield from range_(call, own.key)
        except EtcdError as error:
            if not passes(error):
                return 0
            yield Sleep(RECHECK_SECONDS)
        else:
            there = found.kvs and found[0].create_revision == own.create_revision
            return found.revision if there else 0
    return 0


def key_of(prefix: bytes, lease_id: int) -> bytes:
    """Name the key of a lease's claim."""
    return prefix + b"%x" % lease_id


Attempt: TypeAlias = Callable[[float, list[Trouble]], Flow[T]]
"""Makes a call of so many seconds; the list takes the troubles after which it may have been carried
out."""


def settled(attempt: Attempt[T], seconds: float) -> Flow[T]:
    """Repeat what may be repeated until its outcome is known, or so many seconds have passed.

    Where an attempt may have been carried out, a later one that was refused, or not even sent,
    does not say that nothing has changed: OutcomeUnknown is raised then. LeaseNotFound stays, for
    whatever was carried out is gone with the lease.
    """
    doubts: list[Trouble] = []
    attempts, waited_seconds = 0, 0.0
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        of_this_one: list[Trouble] = []
        try:
            return (yield from attempt(seconds, of_this_one))
        except CallError as error:
            doubts += of_this_one
            attempts += error.attempts
            waited_seconds += error.elapsed_seconds
            seconds -= error.elapsed_seconds + pause_seconds
            if seconds <= 0 or not passes(error):
                if doubts and _says_that_nothing_changed(error):
                    raise _unknown(doubts[-1], error, attempts, waited_seconds) from error
                raise
        yield Sleep(pause_seconds)
        waited_seconds += pause_seconds
        pause_seconds = min(2 * pause_seconds, LAST_PAUSE_SECONDS)


def _says_that_nothing_changed(error: CallError) -> bool:
    return isinstance(error, NotSent | Refused) and not isinstance(error, LeaseNotFound)


def _unknown(doubt: Trouble, last: CallError, attempts: int, seconds: float) -> CallError:
    """Make the error of a call that may have been carried out, and failed otherwise in the end."""
    return error_class(doubt)(
        f"{doubt.text}; later: {last.text}",
        code=doubt.code,
        rpc=last.rpc,
        endpoint=last.endpoint,
        attempts=attempts,
        elapsed_seconds=seconds,
        reasons=last.reasons,
    )


def _settled(call: Call, txn: Txn, timeout: float | None) -> Flow[TxnResult]:
    """Carry out a transaction that may be repeated."""
    request = txn.to_request()

    def attempt(seconds: float, doubts: list[Trouble]) -> Flow[TxnResult]:
        kind = Kind.REPEATABLE
        return call(KV_TXN, request, seconds, TxnResult.of, kind=kind, doubts=doubts)

    return settled(attempt, call.timeout_seconds if timeout is None else timeout)


def _ranges(answer: TxnResult) -> list[RangeResult]:
    return [each for each in answer.responses if isinstance(each, RangeResult)]
