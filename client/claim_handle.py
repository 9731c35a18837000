"""What a claim is to its user, in both worlds, but for the waiting.

Making the claim, waiting in line and giving it up are recipes. Whatever ends the wait (time,
Ctrl-C, a cancelled task, a lost lease) takes the candidate out of the line before it is raised.
Where the lease was granted for the claim it is revoked, which makes an end of whatever a lost
answer may have left behind, or a late request may still want to bring about; if that fails, the
lease expires. On somebody else's lease the key is deleted; if that fails, it is tried again in the
background, for as long as the client lives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Generic, TypeVar

from . import claim, lease
from .arguments import seconds
from .call import Call
from .claim import Line
from .claim_loss import ClaimLoss, Sentinel
from .compare import Compare, create_revision
from .error_handler import Trouble
from .errors import (
    ClientClosed,
    ClientForked,
    Compacted,
    EtcdError,
    InvalidArgument,
    LeaseNotFound,
    NotSent,
    Refused,
    WaitTimedOut,
)
from .flow import Flow
from .keep_alive import LossReason
from .keys import KeyLike, to_bytes
from .lease_handle import LeaseHandle
from .recipe import Open, Recipe, ask, next_batch, rest
from .results import KeyValue
from .stream import Backoff
from .streams import Streams
from .watch import WatchFilter, WatchOptions, watch
from .watch_handle import WatchHandle

AnyClaimLoss = TypeVar("AnyClaimLoss", bound=ClaimLoss)

FIRST_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class ClaimOptions:
    """What a claim was asked for with, checked."""

    prefix: bytes
    value: bytes
    own_lease: bool
    """Whether the lease is granted for this claim, and ends with it."""
    wait_seconds: float


def options(
    name: KeyLike,
    value: KeyLike,
    ttl: int | None,
    lease: object | None,
    timeout: float | None,
) -> ClaimOptions:
    """Check what a claim is asked for with."""
    if (ttl is None) == (lease is None):
        raise InvalidArgument("give either ttl, for a lease of its own, or lease")
    if lease is not None and not isinstance(lease, LeaseHandle):
        raise InvalidArgument(
            f"a lease that is kept alive is needed, as client.lease(ttl) makes it, not {lease!r}"
        )
    allowed_seconds = seconds("timeout", timeout, or_zero=True)
    wait_seconds = math.inf if allowed_seconds is None else allowed_seconds
    return ClaimOptions(
        claim.prefix_of(name), to_bytes(value, "value"), lease is None, wait_seconds
    )


def lease_of_its_own(call: Call, ttl: int | None) -> lease.Opening:
    """Have the lease of a claim granted, and keep it alive."""
    ttl_seconds = ttl or 0  # None was checked
    return lambda: claim.settled(
        lambda left, doubts: lease.kept(call, ttl_seconds, 0, left, doubts), call.timeout_seconds
    )


class ClaimHandle(Generic[AnyClaimLoss]):
    """A claim's place in line, and then its hold."""

    def __init__(
        self,
        streams: Streams[Any],
        asked: ClaimOptions,
        lease: LeaseHandle[Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams = streams
        self._call: Call = streams.call
        self._asked = asked
        self._lease = lease
        self._clock = clock
        self._backoff = Backoff(Random(), FIRST_PAUSE_SECONDS)
        self._begun = self._holds = self._withdrawn = False
        self._was_never_in = False
        """Whether it is certain that there is no key to be deleted."""
        self._is_leaving = False
        """Whether it goes on to give itself up in the background."""
        self._own: KeyValue | None = None
        self._sentinel: Sentinel | None = None
        self._waiting: WatchHandle[Any] | None = None
        self._lost: AnyClaimLoss | None = None
        self._place: list[bytes] = []
        """Under which key it is among the client's claims. Whoever takes that out leaves it."""

    @property
    def key(self) -> bytes:
        """The claim's own key: ``<name>/<lease id in hex>``."""
        return self._held().key

    @property
    def fence(self) -> int:
        """The key's create revision, which is larger for each holder than for all before it.

        To fence off late writes of earlier holders in other systems; in etcd's own transactions
        ``condition`` does it.
        """
        return self._held().create_revision

    @property
    def condition(self) -> Compare:
        """What holds for as long as this claim does; for ``txn().when(...)``."""
        return create_revision(self.key) == self.fence

    @property
    def lost(self) -> AnyClaimLoss:
        """Whether it is lost, and why."""
        self._held()
        assert self._lost is not None
        return self._lost

    def __repr__(self) -> str:
        what = (self._own.key if self._own else self._asked.prefix).decode(errors="replace")
        state = "given up" if self._withdrawn else "held" if self._holds else "not held"
        return f"<{type(self).__name__} {what} {state}>"

    # For the face

    def _signal(self, key: bytes) -> AnyClaimLoss:
        """Make the world's own signal of the claim's loss."""
        raise NotImplementedError

    def _watch(self, options: WatchOptions) -> WatchHandle[Any]:
        """Make the world's own watch."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Let it be opened, the one time. Raises InvalidArgument, and leaves it as it is."""
        if self._begun:
            raise InvalidArgument(f"a {type(self).__name__} can be opened once; make another one")
        self._begun = True

    def _obtain(self) -> Recipe[None]:
        """Make the claim, and wait until it is held; withdraw it if that is not to be."""
        if self._asked.own_lease:
            yield Open(self._lease)
        yield from self._take_place()
        try:
            yield from self._stand()
        except GeneratorExit:
            raise
        except BaseException:
            with suppress(EtcdError):  # then it goes with its lease, or is left later
                yield from self._withdraw()
            raise
        self._holds = True

    def _withdraw(self, timeout: float | None = None) -> Recipe[None]:
        """Give the claim up, held or not."""
        if self._withdrawn:
            return
        self._stop(LossReason.RESIGNED)
        if not self._asked.own_lease:
            yield from self._leave(timeout)
        elif self._lease._to_revoke:
            self._lease._stop(LossReason.REVOKED)
            yield from self._revoke(timeout)
        else:
            self._lease._stop(LossReason.CLOSED)
        self._leave_place()
        self._withdrawn = True

    def _leave(self, timeout: float | None) -> Recipe[None]:
        """Delete its key; if that fails, go on in the background."""
        if self._was_never_in:
            return
        try:
            yield from ask(claim.leave(self._call, *self._entered(), timeout))
        except BaseException:
            self._leave_later()
            raise

    def _revoke(self, timeout: float | None) -> Recipe[None]:
        def attempt(seconds: float, doubts: list[Trouble]) -> Flow[lease.LeaseRevocation]:
            return lease.revoked(self._call, self._lease.id, seconds, doubts)

        seconds = self._call.timeout_seconds if timeout is None else timeout
        with suppress(LeaseNotFound):  # it was revoked, or has expired
            yield from ask(claim.settled(attempt, seconds))

    def _end(self, *, failing: bool) -> Recipe[None]:
        """Give it up on leaving its block, which fails already or not."""
        try:
            yield from self._withdraw()
        except EtcdError:
            if not (failing or self._asked.own_lease):
                raise  # it stays until it can be left, or somebody else's lease ends

    def _abandon(self) -> None:
        """Stop renewing and watching at once, whatever could not be done."""
        self._stop(LossReason.RESIGNED)
        if not self._asked.own_lease:
            self._leave_later()
            return
        self._leave_place()
        if self._lease._granted is not None and not self._withdrawn:
            self._lease._stop(LossReason.CLOSED)

    def _leave_later(self) -> None:
        """Go on to give it up in the background, for on somebody else's lease it would stay.

        It would come to hold the thing when those ahead have gone, and nobody would know.
        """
        if self._is_leaving or not self._place:
            return
        leaving = claim.leave_at_last(
            self._call, *self._entered(), wanted=lambda: not self._withdrawn
        )
        self._is_leaving = True
        try:
            self._streams.begin()
            self._streams.spawn(leaving, self._has_left)
        except (ClientClosed, RuntimeError):  # or its loop is, or there is no thread to be had
            self._has_left(given_up=False)

    def _has_left(self, given_up: bool) -> None:
        self._is_leaving = False
        self._leave_place()
        self._withdrawn = self._withdrawn or given_up

    def _make_way(self) -> Recipe[None]:
        """Give up now what goes on in the background, or wait for that for as long as a call.

        Without a fence its requests go by the lease alone: one that comes late would take the key
        of whoever is next for its own.
        """
        if self._own is not None:
            yield from self._withdraw()
            return
        deadline = self._clock() + self._call.timeout_seconds
        while self._is_leaving and self._clock() < deadline:
            yield from ask(rest(FIRST_PAUSE_SECONDS))

    def _entered(self) -> tuple[bytes, int, int | None]:
        """Say what there is to leave: its key, its lease, and its fence if that is known."""
        key = claim.key_of(self._asked.prefix, self._lease.id)
        return key, self._lease.id, self._own.create_revision if self._own else None

    def _rename(self, value: KeyLike, timeout: float | None) -> Recipe[None]:
        """Give the claim another value."""
        own, wanted = self._held(), to_bytes(value, "value")
        self.lost.check()
        flow = claim.rename(self._call, own, self._lease.id, wanted, timeout)
        renamed = yield from ask(flow)
        if renamed is None:
            self.lost.end(LossReason.DELETED)
            self.lost.check()
        self._own = renamed

    # Its place

    def _take_place(self) -> Recipe[None]:
        """See to it that nothing else in this client has the same key, and would share the hold.

        A key is named for its lease, so the server takes a second claim for the first one. One
        that could not be given up yet is given up first.
        """
        key = claim.key_of(self._asked.prefix, self._lease.id)
        before = self._streams.claims.get(key)
        if isinstance(before, ClaimHandle) and before._is_leaving:
            yield from before._make_way()
        if self._streams.claims.setdefault(key, self) is not self:
            raise InvalidArgument(
                f"this lease has claimed {self._asked.prefix[:-1]!r} already, and is not done with"
                " it; give another lease, or ttl"
            )
        self._place.append(key)

    def _leave_place(self) -> None:
        """Let the lease claim the thing anew."""
        with suppress(IndexError):  # it has no place, or somebody else leaves it just now
            self._streams.claims.pop(self._place.pop(), None)

    # In line

    def _found(self, own: KeyValue | None) -> None:
        """Note that it is in line, or not any more, whatever comes next."""
        self._own = own

    def _stand(self) -> Recipe[None]:
        self._lost = self._signal(claim.key_of(self._asked.prefix, self._lease.id))
        self._check_lost()
        asked = self._asked
        flow = claim.enter(self._call, asked.prefix, self._lease.id, asked.value, self._found)
        try:
            entry = yield from ask(flow)
        except (NotSent, Refused):
            self._was_never_in = self._own is None
            raise
        self._own = entry.own
        self._sentinel = Sentinel(self._streams, entry.own, self._key_gone)
        self._sentinel.watch(entry.revision)
        if not entry.holds:
            yield from self._wait_in_line(entry.own, self._clock() + asked.wait_seconds)
        self._check_lost()

    def _wait_in_line(self, own: KeyValue, deadline: float) -> Recipe[None]:
        """Wait for the one just ahead to go, and so on until there is none."""
        assert self._lost is not None
        while True:
            try:
                line: Line = yield from ask(claim.look(self._call, self._asked.prefix, own))
                if line.own is None:
                    self._lost.end(LossReason.DELETED)
                self._check_lost()
                if line.ahead is None:
                    return
                yield from self._await_end_of(line.ahead, line.revision, deadline)
            except Compacted:
                pass  # overtaken while the watch was away: look again
            except EtcdError as error:
                if not claim.passes(error):
                    raise
                self._check_lost()
                pause_seconds = min(self._backoff.pause_seconds(), self._left(deadline))
                yield from ask(rest(pause_seconds))
            else:
                self._backoff.reset()

    def _await_end_of(self, ahead: KeyValue, revision: int, deadline: float) -> Recipe[None]:
        """Wait until whoever was ahead at that revision is gone, or this claim is lost."""
        self._left(deadline)
        start = revision + 1
        options = watch(self._call, ahead.key, start_revision=start, filters=[WatchFilter.NOPUT])
        waiting = self._watch(options)
        try:
            yield Open(waiting)
            self._waiting = waiting  # from here on a loss ends the wait
            self._check_lost()
            while True:
                left = self._left(deadline)
                batch = yield from next_batch(waiting, None if left == math.inf else left)
                self._check_lost()
                if batch is None or batch.events:
                    return
        except WaitTimedOut:
            self._left(deadline)
        finally:
            self._waiting = None
            waiting._remove()

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise WaitTimedOut(f"not held within {self._asked.wait_seconds} s, and given up")
        return left

    def _check_lost(self) -> None:
        """Raise what ended the claim, if anything did."""
        assert self._lost is not None
        reason, cause = self._lost.reason, self._lost.cause
        if reason is LossReason.CLOSED and isinstance(cause, ClientClosed):
            raise cause.with_traceback(None)
        self._lost.check()

    # Its end

    def _key_gone(self, cause: BaseException | None) -> None:
        assert self._lost is not None
        closed = isinstance(cause, ClientClosed)
        self._lost.end(LossReason.CLOSED if closed else LossReason.DELETED, cause)

    def _lost_now(self) -> None:
        """Stop to wait in line: there is nothing more to wait for."""
        if self._lost is not None and self._lost.reason is not LossReason.RESIGNED:
            self._leave_place()  # else its key has to be deleted first
        if (waiting := self._waiting) is not None:
            waiting._remove()

    def _stop(self, reason: LossReason) -> None:
        """Stop watching; it must not be relied on any more."""
        if isinstance(self._call.connections.closed, ClientForked):
            return  # a lock's holder may not exist here
        if self._sentinel is not None:
            self._sentinel.stop()
        if self._lost is not None:
            self._lost.end(reason)

    def _held(self) -> KeyValue:
        if self._own is None or not self._holds:
            raise InvalidArgument("open it first: with client.election(...).campaign(...) as ...")
        return self._own
