"""Candidates of one election over a store, advanced one request at a time in any order."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from elections.playing import StoreWatch
from elections.store import Store, StoreCall

from etcd_pinwheel.client.claim_handle import ClaimHandle, ClaimOptions
from etcd_pinwheel.client.claim_loss import ClaimLoss
from etcd_pinwheel.client.errors import Compacted, ConnectionLost, EtcdError, LeaseNotFound
from etcd_pinwheel.client.flow import Sleep
from etcd_pinwheel.client.keep_alive import Keeper, LossReason
from etcd_pinwheel.client.lease import Loss
from etcd_pinwheel.client.recipe import Ask, Next
from etcd_pinwheel.client.watch_machine import WatchMachine
from etcd_pinwheel.client.watcher import Watcher
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import LeaseRevokeRequest, TxnRequest

JOB = b"job/"


class Pump:
    """Stands for a stream that nothing is sent on: the test says what comes of its watches."""

    def __init__(self) -> None:
        self.wakers: dict[Watcher, Callable[[], None]] = {}

    def on_wake(self, whom: Any, wake: Callable[[], None] | None) -> None:
        if wake is None:
            self.wakers.pop(whom, None)
        else:
            self.wakers[whom] = wake

    def tell(self, event: Callable[[float], Any]) -> None:
        event(0.0)


class Streams:
    """Stands for a candidate's streams."""

    def __init__(self, store: Store) -> None:
        self.call = StoreCall()
        self.claims: dict[bytes, object] = {}
        self.pump = Pump()
        self._machine = WatchMachine(Random(1))
        self._store = store
        self.waits = False
        """Whether what is run in the background waits for the test."""
        self.background: list[tuple[Any, Callable[[Any], None]]] = []
        self.closed: Exception | None = None

    def begin(self) -> None:
        if self.closed:
            raise self.closed

    def watching(self, *, require_leader: bool) -> tuple[WatchMachine, Pump]:
        assert require_leader
        return self._machine, self.pump

    def spawn(self, flow: Any, then: Callable[[Any], None]) -> None:
        self.background.append((flow, then))
        if not self.waits:
            self.work()

    def work(self, *failures: EtcdError) -> int:
        """Do what waits in the background, whose first requests fail so; count its requests."""
        requests, left = 0, list(failures)
        while self.background:
            flow, then = self.background.pop()
            try:
                step = next(flow)
                while True:
                    if isinstance(step, Sleep):
                        step = next(flow)
                        continue
                    requests += 1
                    step = flow.throw(left.pop(0)) if left else flow.send(self._store.answer(step))
            except StopIteration as stop:
                then(stop.value)
        return requests


class Lease:
    """Stands for a lease that is kept alive."""

    def __init__(self, lease_id: int) -> None:
        self.id = lease_id
        self.keeper = Keeper.granted(lease_id, 10, 0.0)
        self.lost = Loss(self.keeper, lambda: None, clock=lambda: 1.0)
        self._granted: Any = True

    @property
    def _to_revoke(self) -> bool:
        return self.keeper.loss not in (LossReason.EXPIRED, LossReason.REVOKED)

    def _stop(self, reason: LossReason) -> None:
        self.keeper.loss = self.keeper.loss or reason

    def expire(self) -> None:
        if self.keeper.loss is None:
            self.keeper.loss = LossReason.EXPIRED
            self.lost.tell()


class Candidate(ClaimHandle[ClaimLoss]):
    """A claim whose recipes the test carries out, step by step."""

    def __init__(self, store: Store, lease_id: int, *, own_lease: bool, wait: float) -> None:
        self.lease = Lease(lease_id)
        self.streams = Streams(store)
        asked = ClaimOptions(JOB, b"v", own_lease, wait)
        super().__init__(self.streams, asked, self.lease, clock=lambda: 0.0)  # type: ignore[arg-type]
        self.store = store
        self.ended_by: BaseException | None = None
        self.watches: list[StoreWatch] = []
        self._recipe: Any = None
        self._step: Any = None
        self._request: Any = None

    # What the test does with it

    @property
    def busy(self) -> bool:
        return self._recipe is not None

    @property
    def over(self) -> bool:
        return self.ended_by is not None or self._withdrawn

    @property
    def giving_up(self) -> bool:
        """Whether what it does is to withdraw."""
        return self._lost is not None and self._lost.is_set()

    def start(self) -> None:
        if not self._begun and not self.busy:
            self._begin()
            self._take_up(self._obtain())

    def release(self) -> None:
        if self._holds and not self.busy and not self._withdrawn:
            self._take_up(self._end(failing=False))

    def advance(self, *, answered: bool = True) -> bool:
        """Do the next request or wait; False: there is nothing to do, or nothing came yet.

        ``answered`` False: the connection breaks after a request was carried out.
        """
        if not self.busy:
            return False
        step = self._step
        if isinstance(step, Ask):
            self._ask(step.flow, answered)
        elif isinstance(step, Next):
            watch: Any = step.handle
            batch = None if watch.removed else watch.take()
            if batch is None and not watch.removed:
                return False
            self._move(lambda: self._recipe.send(batch))
        else:
            step.handle.opened = True
            self._move(lambda: self._recipe.send(step.handle))
        return True

    def interrupt(self, error: BaseException) -> None:
        """Let Ctrl-C, or the cancelling of its task, come wherever it is."""
        if self.busy:
            self._request = None
            self._move(lambda: self._recipe.throw(error))

    def notice(self) -> None:
        """Let its stream bring what the store knows of its key."""
        for watcher, wake in list(self.streams.pump.wakers.items()):
            event = self.store.deleted_since(watcher.request.key, watcher.next_revision)
            if event is not None:
                watcher.append([event], complete=True)
                wake()

    def overtake(self) -> None:
        """Let a compaction overtake the watch of its key."""
        self.end_watch(Compacted("...", code=Code.OUT_OF_RANGE))

    def end_watch(self, error: Exception) -> None:
        """Let the watch of its key end."""
        for watcher, wake in list(self.streams.pump.wakers.items()):
            watcher.end(error)
            wake()

    # For the recipes

    def _signal(self, key: bytes) -> ClaimLoss:
        return ClaimLoss(key, self.lease.lost, self._lost_now)

    def _watch(self, options: Any) -> Any:
        self.watches.append(StoreWatch(self.store, options))
        return self.watches[-1]

    # Inner workings

    def _take_up(self, recipe: Any) -> None:
        self._recipe = recipe
        self._move(lambda: next(recipe))

    def _move(self, go: Callable[[], Any]) -> None:
        try:
            self._step = go()
        except StopIteration:
            self._recipe = None
        except BaseException as error:
            self._recipe, self.ended_by = None, error
            self._abandon()  # as both faces do

    def _ask(self, flow: Any, answered: bool) -> None:
        """Answer the flow's next request; when it ends, the recipe goes on."""
        try:
            request = next(flow) if self._request is None else self._request
            try:
                reply = self._answer(request)
                if not answered:
                    raise ConnectionLost("...", code=Code.UNAVAILABLE)
            except EtcdError as failure:
                self._request = flow.throw(failure)
            else:
                self._request = flow.send(reply)
        except StopIteration as stop:
            result = stop.value
            self._request = None
            self._move(lambda: self._recipe.send(result))
        except EtcdError as error:
            failed = error
            self._request = None
            self._move(lambda: self._recipe.throw(failed))

    def _answer(self, request: Any) -> Any:
        if isinstance(request, Sleep):
            return None
        gone = self.lease.keeper.loss is LossReason.EXPIRED
        puts = isinstance(request, TxnRequest) and any(
            op.HasField("request_put") for op in request.success
        )
        if gone and (puts or isinstance(request, LeaseRevokeRequest)):
            raise LeaseNotFound("gone", code=Code.NOT_FOUND)
        return self.store.answer(request)


def of_one_client(store: Store, count: int, *, wait: float = math.inf) -> list[Candidate]:
    """Candidates on one lease that somebody keeps alive for all of them."""
    one, *others = (Candidate(store, 1, own_lease=False, wait=wait) for _ in range(count))
    for other in others:
        other._streams, other.streams = one._streams, one.streams
        other._lease, other.lease = one._lease, one.lease
    return [one, *others]


def settle(candidates: list[Candidate]) -> None:
    """Let everybody do what can be done."""
    active = True
    while active:
        steps = [candidate.advance() for candidate in candidates]
        active = any(steps)
        for candidate in candidates:
            candidate.notice()


def leading(candidate: Candidate) -> bool:
    """Whether it believes that it leads, and its condition holds in the store."""
    if not candidate._holds or candidate._withdrawn:
        return False
    kv = candidate.store.keys.get(candidate.key)
    return kv is not None and kv.create_revision == candidate.fence
