"""How often a watch machine asks for progress, which servers may leave unanswered. By hand.

A server answers once every watch of the stream is in step; what it was asked before, it forgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.client.errors import ClientClosed
from etcd_pinwheel.client.stream import Open, Phase, Send, WakeAt
from etcd_pinwheel.client.watch_machine import PROGRESS_PATIENCE_SECONDS, WatchMachine
from etcd_pinwheel.client.watcher import Watcher, WatcherState
from etcd_pinwheel.protos.etcdserverpb import ResponseHeader, WatchCreateRequest, WatchResponse
from etcd_pinwheel.protos.mvccpb import Event, KeyValue


class Script:
    """Plays the pump, and a member that creates what it is asked for, and forgets all else."""

    def __init__(self) -> None:
        self.machine = WatchMachine(Random(1))
        self.now = 100.0
        self.alarm: float | None = None
        self.asked: list[float] = []
        """When progress was asked for."""
        self.serves = True
        """Whether streams are to be had, and creations answered."""
        self.next_id = 0

    def do(self, actions: Sequence[Any]) -> None:
        for action in actions:
            match action:
                case Send(message) if message.HasField("progress_request"):
                    self.asked.append(self.now)
                case Send(message) if message.HasField("create_request") and self.serves:
                    self.created()
                case WakeAt(time):
                    self.alarm = time
                case Open() if self.serves:
                    self.do(self.machine.opened(self.now))

    def watch(self, **options: Any) -> Watcher:
        watcher = Watcher(WatchCreateRequest(key=b"k"), **{"buffer_events": 1000, **options})
        self.do(self.machine.add(watcher, self.now))
        return watcher

    def created(self) -> None:
        watch_id, self.next_id = self.next_id, self.next_id + 1
        self.hear(watch_id, 10, created=True)

    def ask(self, watcher: Watcher) -> None:
        self.do(self.machine.ask_progress(watcher, self.now))

    def answer(self, revision: int) -> None:
        self.hear(-1, revision)

    def hear(self, watch_id: int, revision: int, **more: Any) -> None:
        header = ResponseHeader(revision=revision)
        message = WatchResponse(header=header, watch_id=watch_id, **more)
        self.do(self.machine.received(message, self.now))

    def events(self, watcher: Watcher, *revisions: int) -> None:
        events = [Event(kv=KeyValue(key=b"k", mod_revision=each)) for each in revisions]
        self.hear(watcher.watch_id, revisions[-1], events=events)

    def pass_time(self, seconds: float) -> None:
        """Go through all alarms of that time."""
        end = self.now + seconds
        while self.alarm is not None and self.alarm <= end:
            assert self.alarm >= self.now, "an alarm in the past is a loop without a pause"
            self.now, self.alarm = self.alarm, None
            self.do(self.machine.woken(self.now))
        self.now = end

    def count(self) -> int:
        """How often progress was asked for since the last count."""
        count = len(self.asked)
        self.asked.clear()
        return count

    def progress(self, watcher: Watcher) -> list[int]:
        """Take all; return the revisions of what was progress."""
        revisions = []
        while True:
            taken, actions = self.machine.take(watcher, self.now)
            self.do(actions)
            if taken is None:
                return revisions
            if not taken.events:
                revisions.append(taken.revision)


@pytest.fixture
def script() -> Script:
    return Script()


def test_a_question_that_was_forgotten_is_asked_again_until_it_is_answered(script: Script) -> None:
    """The server keeps silent while this watch, or another of the stream, is behind."""
    watcher = script.watch()
    script.ask(watcher)
    began = script.now
    script.pass_time(3.2 * PROGRESS_PATIENCE_SECONDS)
    assert script.asked == [began + n * PROGRESS_PATIENCE_SECONDS for n in range(4)]
    script.answer(40)
    assert script.progress(watcher) == [40]
    assert script.alarm is None
    script.count()
    script.pass_time(60)
    assert script.count() == 0


def test_a_question_that_is_answered_is_asked_once(script: Script) -> None:
    watcher = script.watch()
    script.ask(watcher)
    script.answer(40)
    script.ask(watcher)
    script.answer(41)
    assert script.alarm is None
    assert script.count() == 2
    assert script.progress(watcher) == [41]


def test_one_question_is_for_all_who_want_progress(script: Script) -> None:
    watchers = [script.watch() for _ in range(5)]
    for watcher in watchers[:4]:
        script.ask(watcher)
    assert script.count() == 1
    script.pass_time(1.5 * PROGRESS_PATIENCE_SECONDS)
    assert script.count() == 1
    script.answer(40)
    assert [script.progress(each) for each in watchers] == [[40]] * 4 + [[]]


def test_nobody_is_asked_when_nobody_wants_to_know(script: Script) -> None:
    asking, other = script.watch(), script.watch()
    script.ask(asking)
    script.do(script.machine.remove(asking, script.now))
    assert script.alarm is None
    script.count()
    script.pass_time(60)
    assert script.count() == 0
    assert other.state is WatcherState.LIVE


def test_nothing_is_asked_on_a_stream_that_is_not_there(script: Script) -> None:
    watcher = script.watch()
    script.ask(watcher)
    assert script.count() == 1
    script.serves = False
    script.do(script.machine.broke(None, script.now))
    script.pass_time(60)
    assert script.machine.phase is Phase.OPENING
    assert (script.count(), script.alarm) == (0, None)
    script.serves = True
    script.do(script.machine.opened(script.now))
    assert watcher.state is WatcherState.LIVE
    assert script.count() == 1, "as soon as the watch is served again"
    script.do(script.machine.close(ClientClosed("closed")))
    script.pass_time(60)
    assert (script.count(), script.alarm) == (0, None)


def test_a_new_stream_is_asked_at_once_whatever_the_last_one_was_asked(script: Script) -> None:
    watcher = script.watch()
    script.ask(watcher)
    script.do(script.machine.broke(None, script.now))
    script.pass_time(PROGRESS_PATIENCE_SECONDS / 2)
    assert watcher.state is WatcherState.LIVE
    assert script.count() == 2


def test_a_watch_that_is_created_meanwhile_does_not_hurry_the_question(script: Script) -> None:
    watcher = script.watch()
    script.ask(watcher)
    for _ in range(5):
        script.ask(script.watch())
    assert script.count() == 1
    script.pass_time(PROGRESS_PATIENCE_SECONDS)
    assert script.count() == 1


def test_a_parked_watch_asks_when_it_is_resumed(script: Script) -> None:
    """While it is full, the answer would say more than it was sent."""
    full = script.watch(buffer_events=2)
    script.ask(full)
    script.events(full, 11, 12)
    assert full.state is WatcherState.PARKED
    script.count()
    script.pass_time(60)
    assert (script.count(), script.alarm) == (0, None)
    assert script.progress(full) == []
    assert full.state is WatcherState.LIVE
    assert script.count() == 1
    script.answer(12)
    assert script.progress(full) == [12]
