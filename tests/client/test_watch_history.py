"""Whether history was lost, when a watch resumes on a member that lags. Played by hand."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.client.errors import HistoryLost
from etcd_pinwheel.client.stream import Open, ReadRevision
from etcd_pinwheel.client.watch_machine import RECHECK_SECONDS, WatchMachine
from etcd_pinwheel.client.watcher import Watcher, WatcherState
from etcd_pinwheel.protos.etcdserverpb import ResponseHeader, WatchCreateRequest, WatchResponse
from etcd_pinwheel.protos.mvccpb import Event, KeyValue


class Script:
    """Plays the pump, and a member."""

    def __init__(self) -> None:
        self.machine = WatchMachine(Random(1))
        self.now = 100.0
        self.reads = 0
        """How many reads of the revision were asked for."""
        self.next_id = 0

    def do(self, actions: Sequence[Any]) -> None:
        self.reads += actions.count(ReadRevision())
        if Open() in actions:
            self.do(self.machine.opened(self.now))

    def watch(self, revision: int) -> Watcher:
        """Begin a watch, created by a member that is at this revision."""
        watcher = Watcher(WatchCreateRequest(key=b"k"), buffer_events=1000)
        self.do(self.machine.add(watcher, self.now))
        self.created(revision)
        return watcher

    def created(self, revision: int) -> None:
        watch_id, self.next_id = self.next_id, self.next_id + 1
        header = ResponseHeader(revision=revision)
        self.hear(WatchResponse(header=header, watch_id=watch_id, created=True))

    def events(self, watcher: Watcher, *revisions: int) -> None:
        events = [Event(kv=KeyValue(key=b"k", mod_revision=each)) for each in revisions]
        self.hear(WatchResponse(watch_id=watcher.watch_id, events=events))

    def hear(self, message: WatchResponse) -> None:
        self.do(self.machine.received(message, self.now))

    def fail_over(self, *revisions: int) -> None:
        """Lose the stream; members that are at these revisions create the watches again."""
        self.do(self.machine.broke(None, self.now))
        self.pass_time(10.0)
        for revision in revisions:
            self.created(revision)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.machine.woken(self.now))

    def read(self, revision: int | None) -> None:
        header = None if revision is None else ResponseHeader(revision=revision)
        self.do(self.machine.revision_read(header, self.now))


@pytest.fixture
def script() -> Script:
    return Script()


def test_events_that_come_during_the_read_do_not_count_against_it(script: Script) -> None:
    """The member catches up and goes on before the answer of the read is taken in."""
    watcher = script.watch(100)
    script.fail_over(99)
    assert script.reads == 1
    script.events(watcher, 101, 102)
    assert watcher.known_revision == 102
    script.read(100)
    assert watcher.state is WatcherState.LIVE


def test_watches_that_begin_during_the_read_are_not_judged_by_it(script: Script) -> None:
    behind = script.watch(100)
    script.fail_over(99)
    new = script.watch(102)
    script.read(101)
    assert behind.state is new.state is WatcherState.LIVE


def test_a_watch_that_is_found_behind_during_a_read_gets_one_of_its_own(script: Script) -> None:
    one, other = script.watch(100), script.watch(100)
    script.fail_over(100, 99)
    assert script.reads == 1
    script.fail_over(3, 3)
    assert script.reads == 1, "one at a time"
    script.read(100)
    assert one.state is other.state is WatcherState.LIVE
    assert script.reads == 2
    script.read(4)
    assert isinstance(one.error, HistoryLost)
    assert isinstance(other.error, HistoryLost)
    assert (one.error.known_revision, one.error.revision) == (100, 4)
    assert script.reads == 2, "nobody is left to be judged"


def test_a_watch_that_ends_needs_no_read(script: Script) -> None:
    watcher = script.watch(100)
    script.fail_over(99)
    script.read(None)
    script.do(script.machine.remove(watcher, script.now))
    script.pass_time(RECHECK_SECONDS)
    assert script.reads == 1
