"""Clients that use a few keys as hard as they can bear, and write down what they saw.

One client for each member, bound to it, and one that knows them all; beside them a watch for each.
A call that fails is kept as what the client's error says of it: not done, or unknown.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from consistency.history import Forgotten, Operation, Seen, Timeline, explain
from consistency.model import (
    Change,
    Delete,
    Get,
    Outcome,
    Put,
    Read,
    Request,
    State,
    Step,
    Stored,
    Txn,
)
from consistency.watching import check_watch

from etcd_pinwheel import (
    Client,
    Compacted,
    EtcdError,
    NotSent,
    OutcomeUnknown,
    Refused,
    WatchBatch,
    WatchInterrupted,
    mod_revision,
)
from etcd_pinwheel import KeyValue as ClientKeyValue
from etcd_pinwheel import delete as delete_op
from etcd_pinwheel import get as get_op
from etcd_pinwheel import put as put_op

PREFIX: Final = b"history/"
KEYS: Final = [PREFIX + b"%d" % number for number in range(6)]
CALL_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 30.0


class Workload:
    """A context manager: within it, the load goes on; ``judge`` afterwards.

    With a ``policy``, of a client's balancer, there are only clients that know all the members.
    """

    def __init__(self, endpoints: Sequence[str], *, seed: int, policy: str | None = None) -> None:
        self._endpoints = list(endpoints)
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        self.first = _empty(self._endpoints)
        bound = [[endpoint] for endpoint in endpoints]
        groups = [*bound, self._endpoints, self._endpoints]
        names = [*(f"to {each[0]}" for each in bound), "to all", "to all as well"]
        settings: dict[str, Any] = {"reconnect_backoff_max": 0.5}
        if policy is not None:
            groups = [self._endpoints] * len(names)
            settings["balancer"] = policy
        self._workers = [
            _Worker(name, group, random.Random(f"{seed} {name}"), self._stopping, settings)
            for name, group in zip(names, groups, strict=True)
        ]
        self._watchers = [
            _Watcher(f"watch {name}", group, self.first + 1, settings)
            for name, group in zip(names[:-1], groups[:-1], strict=True)
        ]
        self._working = [self._thread(each.name, each.run) for each in self._workers]
        self._watching = [self._thread(each.name, each.run) for each in self._watchers]

    def __enter__(self) -> Self:
        for thread in (*self._working, *self._watching):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; the cluster must be well again. The watches end when they have seen the end."""
        self._stopping.set()
        end = 0
        try:
            for thread in self._working:
                thread.join()  # or the last call of one may be carried out behind the end
            end = self._write_the_end()
        finally:
            for watcher in self._watchers:
                watcher.end_at(end)
            for thread in self._watching:
                thread.join()
        if self._failures:
            raise self._failures[0]

    @property
    def operations(self) -> list[Operation]:
        """All that was done, by anybody."""
        return [each for worker in self._workers for each in worker.operations]

    def judge(self, compacted: int = 0) -> Timeline:
        """Raise ``Violation`` unless one store could have answered all of it.

        `compacted`: the highest revision at which the history was compacted meanwhile.
        """
        told = [
            seen for watcher in self._watchers for seen in watcher.told if isinstance(seen, Seen)
        ]
        timeline = explain(self.operations, {}, self.first, told)
        for watcher in self._watchers:
            check_watch(watcher.name, watcher.told, timeline, self.first + 1, compacted)
            last = watcher.told[-1]
            assert isinstance(last, Seen), f"{watcher.name} saw nothing at the end"
            assert last.revision == timeline.last, f"{watcher.name} ended early"
        return timeline

    def _write_the_end(self) -> int:
        """Write one more key, however often it takes; return its revision."""
        last = _Worker("the end", self._endpoints, random.Random(), self._stopping, {})
        self._workers.append(last)
        deadline = time.monotonic() + PATIENCE_SECONDS
        with Client(self._endpoints, timeout=CALL_SECONDS) as client:
            while time.monotonic() < deadline:
                last.ask(client, Put(PREFIX + b"end", b"%d" % len(last.operations)))
                if last.operations and last.operations[-1].is_known:
                    return last.operations[-1].revision
        raise AssertionError(f"no write succeeded in {PATIENCE_SECONDS} s after the faults")

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._run, args=(work,), name=name)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failures.append(error)


class _Worker:
    """One client, one call after the other."""

    def __init__(
        self,
        name: str,
        endpoints: list[str],
        chance: random.Random,
        stopping: threading.Event,
        settings: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.operations: list[Operation] = []
        self._endpoints = endpoints
        self._settings = settings
        self._chance = chance
        self._stopping = stopping
        self._modified: dict[bytes, int] = {}
        self._count = 0

    def run(self) -> None:
        with Client(self._endpoints, timeout=CALL_SECONDS, **self._settings) as client:
            while not self._stopping.wait(self._chance.uniform(0, 2 * PAUSE_SECONDS)):
                self.ask(client, self._choose())

    def _choose(self) -> Request:
        key = self._chance.choice(KEYS)
        self._count += 1
        value = f"{self.name} {self._count}".encode()
        match self._chance.randrange(10):
            case 0 | 1 | 2:
                return Put(key, value)
            case 3:
                return Delete(key)
            case 4 | 5 | 6:
                other = self._chance.choice(KEYS)
                steps: tuple[Step, ...] = (Put(key, value), Get(other))
                if other != key:
                    steps += (Put(other, value + b" too"),)
                return Txn(key, self._modified.get(key, 0), steps, (Get(key),))
            case 7:
                newest = max(self._modified.values(), default=0)
                return Read(at=newest, serializable=bool(self._chance.randrange(2)))
            case 8:
                return Read(serializable=True)
            case _:
                return Read()

    def ask(self, client: Client, request: Request) -> None:
        """Make a request, and write down what came of it."""
        called = time.monotonic()
        try:
            revision, outcome = _ask(client, request)
        except OutcomeUnknown:
            self.operations.append(Operation(self.name, request, called))
        except (NotSent, Refused):
            pass  # it did not happen, says the client: the judge finds out if it did
        else:
            returned = time.monotonic()
            operation = Operation(self.name, request, called, returned, revision, outcome)
            self.operations.append(operation)
            if isinstance(outcome, dict):
                self._modified = {key: stored.modified for key, stored in outcome.items()}
            elif operation.wrote and isinstance(request, Put | Txn):
                self._modified[request.key] = revision


def _empty(endpoints: list[str]) -> int:
    """Leave none of the keys; return the revision of that."""
    with Client(endpoints, timeout=PATIENCE_SECONDS) as client:
        client.put(PREFIX, "")
        return client.delete(PREFIX, prefix=True).revision


def _ask(client: Client, request: Request) -> tuple[int, Outcome]:
    match request:
        case Put(key, value):
            put = client.put(key, value, prev_kv=True)
            return put.revision, _stored(put.prev_kv)
        case Delete(key):
            deleted = client.delete(key, prev_kv=True)
            return deleted.revision, _stored(deleted.prev_kvs[0] if deleted.prev_kvs else None)
        case Read(at, serializable):
            found = client.get_prefix(PREFIX, revision=at, serializable=serializable)
            return found.revision, _state(found)
        case Txn(key, modified, then, otherwise):
            txn = client.txn().when(mod_revision(key) == modified)
            reply = txn.then(*map(_op, then)).otherwise(*map(_op, otherwise)).commit()
            return reply.revision, (reply.succeeded, tuple(map(_answer, reply.responses)))


def _op(step: Step) -> object:
    match step:
        case Put(key, value):
            return put_op(key, value, prev_kv=True)
        case Delete(key):
            return delete_op(key, prev_kv=True)
        case Get(key):
            return get_op(key)


def _answer(response: object) -> Stored | None:
    kvs = getattr(response, "kvs", None) or getattr(response, "prev_kvs", None)
    return _stored(kvs[0] if kvs else getattr(response, "prev_kv", None))


def _state(kvs: object) -> State:
    return {kv.key: stored for kv in kvs if (stored := _stored(kv)) is not None}  # type: ignore[attr-defined]


def _stored(kv: ClientKeyValue | None) -> Stored | None:
    return Stored(kv.value, kv.create_revision, kv.mod_revision, kv.version) if kv else None


class _Watcher:
    """One watch of all keys, opened again where it was interrupted."""

    def __init__(
        self, name: str, endpoints: list[str], start_revision: int, settings: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.told: list[Seen | Forgotten] = []
        self._endpoints = endpoints
        self._settings = settings
        self._next = start_revision
        self._end = 0
        self._must_end = threading.Event()

    def end_at(self, revision: int) -> None:
        """End behind that revision; 0: at once."""
        self._end = revision
        self._deadline = time.monotonic() + PATIENCE_SECONDS
        self._must_end.set()

    def run(self) -> None:
        with Client(self._endpoints, **self._settings) as client:
            while not self._is_done():
                try:
                    self._watch(client)
                except WatchInterrupted as interrupted:
                    self._next = interrupted.next_revision
                except Compacted as compacted:
                    self._next = compacted.compact_revision
                    self.told.append(Forgotten(self._next))
                except EtcdError:
                    if self._must_end.is_set() and time.monotonic() > self._deadline:
                        raise

    def _watch(self, client: Client) -> None:
        watch = client.watch(PREFIX, prefix=True, start_revision=self._next, prev_kv=True)
        with watch:
            while not self._is_done():
                try:
                    batch = watch.next_batch(0.2)
                except TimeoutError:
                    if self._must_end.is_set() and time.monotonic() > self._deadline:
                        raise
                    continue
                if batch is not None and batch.events:
                    self.told.append(_seen(batch))
                    self._next = batch.revision + 1

    def _is_done(self) -> bool:
        return self._must_end.is_set() and self._next > self._end


def _seen(batch: WatchBatch) -> Seen:
    changes = (
        Change(event.key, _stored(event.prev_kv), _stored(event.kv) if event.value else None)
        for event in batch.events
    )
    return Seen(batch.revision, tuple(changes))
