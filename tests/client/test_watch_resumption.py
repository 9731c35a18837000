"""Watches against a model of etcd that misbehaves at random: what arrives is the history, exactly.

The model keeps etcd's own rules (reference: etcd's watchable store): synced watchers get one
response a revision, those that catch up get several at once under the *current* revision's header,
a revision is split only by fragments, the created response comes before the events. The stream is
cut anywhere, with whatever was on its way lost, and opened to a member that may lag.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from etcd_pinwheel.client.errors import Compacted
from etcd_pinwheel.client.stream import HangUp, Open, ReadRevision, Send, WakeAt
from etcd_pinwheel.client.watch_machine import WatchMachine
from etcd_pinwheel.client.watcher import Taken, Watcher, WatcherState
from etcd_pinwheel.protos.etcdserverpb import (
    ResponseHeader,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from etcd_pinwheel.protos.mvccpb import Event, KeyValue

KEYS = (b"a", b"b", b"c")
Change = tuple[int, bytes]


@dataclass
class ServerWatcher:
    key: bytes
    every_key: bool
    next_revision: int

    def wants(self, key: bytes) -> bool:
        return self.every_key or key == self.key


@dataclass
class FakeEtcd:
    """A cluster's history, and the one stream that the client has open, to one member."""

    random: Random
    revision: int = 1
    applied: int = 1
    """How much of it the member has. Invariant: compacted <= applied <= revision."""
    compacted: int = 0
    history: list[Change] = field(default_factory=list)
    watchers: dict[int, ServerWatcher] | None = None
    """None: there is no stream."""
    wire: deque[WatchResponse] = field(default_factory=deque)
    next_id: int = 0

    def header(self) -> ResponseHeader:
        return ResponseHeader(revision=self.applied, cluster_id=7)

    def commit(self, keys: list[bytes]) -> None:
        self.applied += self.applied == self.revision
        self.revision += 1
        self.history += [(self.revision, key) for key in keys]

    def open(self, lag: int = 0) -> None:
        self.watchers, self.next_id = {}, 0
        self.wire.clear()
        self.applied = max(self.revision - lag, self.compacted, 1)

    def catch_up(self) -> None:
        self.applied = self.revision

    def cut(self) -> None:
        self.watchers = None
        self.wire.clear()

    def handle(self, request: WatchRequest) -> None:
        assert self.watchers is not None
        if request.HasField("create_request"):
            self._create(request.create_request)
        elif request.HasField("cancel_request"):
            watch_id = request.cancel_request.watch_id
            if self.watchers.pop(watch_id, None):
                reply = WatchResponse(header=self.header(), watch_id=watch_id, canceled=True)
                self.wire.append(reply)
        elif all(w.next_revision > self.applied for w in self.watchers.values()):
            self.wire.append(WatchResponse(header=self.header(), watch_id=-1))

    def _create(self, request: WatchCreateRequest) -> None:
        assert self.watchers is not None
        watch_id, self.next_id = self.next_id, self.next_id + 1
        start = request.start_revision or self.applied + 1
        self.watchers[watch_id] = ServerWatcher(request.key, bool(request.range_end), start)
        self.wire.append(WatchResponse(header=self.header(), watch_id=watch_id, created=True))

    def serve(self) -> None:
        """Send something to one of the watchers, chosen at random."""
        if not self.watchers:
            return
        watch_id, watcher = self.random.choice(sorted(self.watchers.items()))
        if watcher.next_revision <= self.compacted:
            del self.watchers[watch_id]
            self.wire.append(
                WatchResponse(watch_id=watch_id, canceled=True, compact_revision=self.compacted)
            )
        elif watcher.next_revision > self.applied:
            self.wire.append(WatchResponse(header=self.header(), watch_id=watch_id))
        else:
            self._send_events(watch_id, watcher)

    def _send_events(self, watch_id: int, watcher: ServerWatcher) -> None:
        most = self.random.choice([1, 2, 5, 1000])
        revisions = range(watcher.next_revision, self.applied + 1)[:most]
        watcher.next_revision = revisions[-1] + 1
        changes = [c for c in self.history if c[0] in revisions and watcher.wants(c[1])]
        pieces = self._cut_into_fragments(changes)
        for number, piece in enumerate(pieces, 1):
            self.wire.append(
                WatchResponse(
                    header=self.header(),
                    watch_id=watch_id,
                    fragment=number < len(pieces),
                    events=[Event(kv=KeyValue(key=k, mod_revision=r)) for r, k in piece],
                )
            )

    def _cut_into_fragments(self, changes: list[Change]) -> list[list[Change]]:
        if not changes:
            return []
        size = self.random.choice([1, 2, 3, 1000])
        return [changes[i : i + size] for i in range(0, len(changes), size)]


@dataclass(eq=False)
class Client:
    """A watch's user: what it asked for and what it was given."""

    watcher: Watcher
    key: bytes
    every_key: bool
    start: int
    """The first revision it is to get; 0 until the creation says what "from now on" is."""
    got: list[Taken] = field(default_factory=list)

    def changes(self) -> list[Change]:
        return [(e.kv.mod_revision, e.kv.key) for taken in self.got for e in taken.events]


class Resumption(RuleBasedStateMachine):
    clients = Bundle("clients")

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.now = 0.0
        self.alarm: float | None = None
        self.opening = False
        self.read_from: int | None = None
        """The revision when the read that is under way was asked for; None: there is none."""
        self.etcd = FakeEtcd(Random(seed))
        self.machine = WatchMachine(Random(seed))
        self.everyone: list[Client] = []
        self.largest = 1
        """How many events the largest message had."""

    # The world moves

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True))
    def commit(self, keys: list[bytes]) -> None:
        self.etcd.commit(keys)

    @rule(times=st.integers(1, 6))
    def serve(self, times: int) -> None:
        for _ in range(times):
            self.etcd.serve()

    @rule(count=st.integers(1, 8))
    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.etcd.wire))):
            message = self.etcd.wire.popleft()
            self.largest = max(self.largest, len(message.events))
            unpinned = [c for c in self.everyone if c.watcher.next_revision == 0]
            self.perform(self.machine.received(message, self.now))
            for client in unpinned:
                if client.watcher.created:
                    client.start = message.header.revision + 1

    @rule(error=st.sampled_from([None, ConnectionError("reset")]))
    def cut(self, error: Exception | None) -> None:
        if self.etcd.watchers is not None:
            self.etcd.cut()
            self.perform(self.machine.broke(error, self.now))

    @rule(works=st.booleans())
    def connect(self, works: bool, lag: int = 0) -> None:
        if not self.opening:
            return
        self.opening = False
        if works:
            self.etcd.open(lag)
            self.perform(self.machine.opened(self.now))
        else:
            self.perform(self.machine.broke(ConnectionError("refused"), self.now))

    @rule(lag=st.integers(0, 3))
    def fail_over(self, lag: int) -> None:
        self.cut(None)
        self.time_passes(3.0)
        self.connect(True, lag)
        self.deliver(1)

    @rule()
    def catch_up(self) -> None:
        self.etcd.catch_up()

    @rule(works=st.booleans(), share=st.floats(0, 1))
    def answer_read(self, works: bool, share: float = 0.0) -> None:
        """Answer with a revision of any moment since the read was asked for."""
        if self.read_from is None:
            return
        gained = round(share * (self.etcd.revision - self.read_from))
        header = ResponseHeader(revision=self.read_from + gained) if works else None
        self.read_from = None
        self.perform(self.machine.revision_read(header, self.now))

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.alarm is not None and self.alarm <= self.now:
            self.alarm = None
            self.perform(self.machine.woken(self.now))

    @rule(share=st.floats(0, 0.7))
    def compact(self, share: float) -> None:
        self.etcd.compacted = max(self.etcd.compacted, int(self.etcd.revision * share))

    # The users act

    @rule(
        target=clients,
        key=st.sampled_from(KEYS),
        every_key=st.booleans(),
        ahead=st.integers(-3, 3),
        buffer_events=st.sampled_from([1, 3, 1000]),
    )
    def watch(self, key: bytes, every_key: bool, ahead: int, buffer_events: int) -> Client:
        start = 0 if ahead == 0 else max(self.etcd.compacted + 1, self.etcd.revision + ahead)
        request = WatchCreateRequest(
            key=key, range_end=b"\0" if every_key else b"", start_revision=start, fragment=True
        )
        watcher = Watcher(request, buffer_events=buffer_events)
        client = Client(watcher, key, every_key, start)
        self.everyone.append(client)
        self.perform(self.machine.add(watcher, self.now))
        return client

    @rule(client=clients, count=st.integers(1, 5))
    def take(self, client: Client, count: int) -> None:
        for _ in range(count):
            taken, actions = self.machine.take(client.watcher, self.now)
            self.perform(actions)
            if taken is not None:
                client.got.append(taken)

    @rule(client=clients)
    def ask_progress(self, client: Client) -> None:
        self.perform(self.machine.ask_progress(client.watcher, self.now))

    @rule(client=clients)
    def leave(self, client: Client) -> None:
        self.perform(self.machine.remove(client.watcher, self.now))
        if client in self.everyone:
            self.everyone.remove(client)

    # What must hold

    @invariant()
    def buffers_are_bounded(self) -> None:
        for client in getattr(self, "everyone", ()):
            held = client.watcher._buffered + len(client.watcher._held)
            assert held < client.watcher.buffer_events + self.largest + len(KEYS)

    def teardown(self) -> None:
        if hasattr(self, "etcd"):
            self.heal()
            for client in self.everyone:
                self.take(client, 1000)
            for client in self.everyone:
                self.check(client)

    def heal(self) -> None:
        """Let everything arrive that is still to come."""
        for _ in range(1000):
            if self.at_rest():
                return
            self.connect(True)
            self.catch_up()
            self.answer_read(True)
            self.serve(3)
            self.deliver(1000)
            for client in self.everyone:
                self.take(client, 20)
            self.time_passes(3.0)

    def at_rest(self) -> bool:
        idle = self.read_from is None and all(
            w.next_revision > self.etcd.revision for w in (self.etcd.watchers or {}).values()
        )
        states = {client.watcher.state for client in self.everyone}
        return idle and not self.etcd.wire and states <= {WatcherState.LIVE, WatcherState.ENDED}

    def check(self, client: Client) -> None:
        watcher, got = client.watcher, client.changes()
        expected = [
            (revision, key)
            for revision, key in self.etcd.history
            if revision >= client.start and (client.every_key or key == client.key)
        ]
        if watcher.state is WatcherState.ENDED:
            assert isinstance(watcher.error, Compacted), watcher.error
            assert got == expected[: len(got)]
            assert watcher.next_revision <= self.etcd.compacted
        else:
            assert watcher.state is WatcherState.LIVE
            assert got == expected
        revisions = [taken.revision for taken in client.got if taken.events]
        assert revisions == sorted(set(revisions)), "a revision came in two parts, or twice"

    def perform(self, actions: Any) -> None:
        for action in actions:
            match action:
                case Open():
                    assert not self.opening
                    self.opening = True
                case Send(message):
                    self.etcd.handle(message)
                case HangUp():
                    self.opening = False
                    self.etcd.cut()
                case WakeAt(time):
                    self.alarm = time
                case ReadRevision():
                    assert self.read_from is None
                    self.read_from = self.etcd.revision
                case _:
                    pass


Resumption.TestCase.settings = settings(max_examples=100, stateful_step_count=60)
test_resumption = pytest.mark.slow(Resumption.TestCase)
