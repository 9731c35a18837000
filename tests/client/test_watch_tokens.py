"""Watches whose stream's token is refused, played by hand: no clock, no socket."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.client.errors import (
    ClientClosed,
    EtcdError,
    NotSent,
    PermissionDenied,
    Unauthenticated,
    WatchInterrupted,
)
from etcd_pinwheel.client.stream import TOKENS_TRIED, HangUp, Open, Phase, Send, TryToRead, WakeAt
from etcd_pinwheel.client.watch_machine import WatchMachine
from etcd_pinwheel.client.watcher import Watcher, WatcherState
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos.errors import Code, Refusal
from etcd_pinwheel.protos.etcdserverpb import ResponseHeader, WatchCreateRequest, WatchResponse
from etcd_pinwheel.protos.mvccpb import Event, KeyValue

OLD_TOKEN = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
OLD_STORE = "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
NO_TOKEN = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
DENIED = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
RENEWED = HangUp(token_refused=True)


def error(row: Refusal, kind: type[Any] = Unauthenticated) -> Any:
    return kind(row.text, code=row.code)


def event(revision: int) -> Event:
    return Event(kv=KeyValue(key=b"k", mod_revision=revision))


class Script:
    """Plays the pump of a client with a password."""

    def __init__(self, *, has_password: bool = True) -> None:
        self.machine = WatchMachine(Random(1), has_password=has_password)
        self.now = 100.0
        self.created: list[bytes] = []
        self.cancelled: list[int] = []
        self.seen: list[Any] = []
        self.alarm: float | None = None

    def do(self, actions: Sequence[Any]) -> list[Any]:
        for action in actions:
            match action:
                case Send(message) if message.HasField("create_request"):
                    self.created.append(message.create_request.key)
                case Send(message) if message.HasField("cancel_request"):
                    self.cancelled.append(message.cancel_request.watch_id)
                case WakeAt(time):
                    self.alarm = time
                case Open():
                    self.do(self.machine.opened(self.now))
        self.seen += actions
        return list(actions)

    def watch(self, key: bytes = b"k", **options: Any) -> Watcher:
        options = {"buffer_events": 9, "max_outage_seconds": None, **options}
        watcher = Watcher(WatchCreateRequest(key=key, range_end=b"z"), **options)
        self.do(self.machine.add(watcher, self.now))
        return watcher

    def hear(self, watch_id: int = 0, revision: int = 10, **more: Any) -> list[Any]:
        header = ResponseHeader(revision=revision, cluster_id=7)
        message = WatchResponse(header=header, watch_id=watch_id, **more)
        return self.do(self.machine.received(message, self.now))

    def admit(self, watch_id: int = 0, revision: int = 10) -> None:
        self.hear(watch_id, revision, created=True)

    def refuse(self, reason: str, watch_id: int = -1) -> list[Any]:
        return self.hear(watch_id, created=True, canceled=True, cancel_reason=reason)

    def lose(self, why: Exception | None) -> None:
        self.do(self.machine.broke(why, self.now))

    def reopen(self) -> None:
        """Let the pause before the next stream pass."""
        assert self.machine.phase is Phase.WAITING
        assert self.alarm is not None
        assert self.alarm <= self.now + 2.0
        self.now = self.alarm
        self.do(self.machine.woken(self.now))

    def tell(self, tried: TryToRead, why: EtcdError | None) -> list[Any]:
        return self.do(self.machine.read_tried(tried.whom, why, self.now))


@pytest.fixture
def script() -> Script:
    return Script()


def the_question(actions: Sequence[Any]) -> TryToRead:
    (question,) = [action for action in actions if isinstance(action, TryToRead)]
    return question


# Servers that say it


@pytest.mark.parametrize("reason", [OLD_TOKEN, OLD_STORE, NO_TOKEN])
def test_a_watch_refused_for_its_token_is_created_with_another(script: Script, reason: str) -> None:
    watcher = script.watch()
    assert RENEWED in script.refuse(reason)
    script.reopen()
    script.admit()
    assert watcher.state is WatcherState.LIVE
    assert script.created == [b"k", b"k"]


def test_the_others_on_the_stream_go_on_where_they_were(script: Script) -> None:
    live = script.watch(b"live")
    script.admit()
    script.hear(0, 15, events=[event(12), event(15)])
    refused = script.watch(b"refused")
    script.refuse(OLD_TOKEN)
    script.reopen()
    script.admit(0, 20)
    script.admit(1, 20)
    assert script.created == [b"live", b"refused", b"live", b"refused"]
    assert (live.next_revision, live.state, refused.state) == (
        16,
        WatcherState.LIVE,
        WatcherState.LIVE,
    )


def test_a_stream_refused_for_its_token_ends_no_watch(script: Script) -> None:
    """It is the pump that sees that the next one is opened with another token."""
    watchers = [script.watch(), script.watch()]
    script.lose(error(table.INVALID_AUTH_TOKEN))
    script.reopen()
    script.admit(0)
    script.admit(1)
    assert {watcher.state for watcher in watchers} == {WatcherState.LIVE}


def test_a_watch_is_refused_only_so_often_in_a_row(script: Script) -> None:
    other = script.watch(b"other")
    script.admit()
    watcher = script.watch()
    for _ in range(TOKENS_TRIED):
        script.refuse(OLD_TOKEN)
        script.reopen()
        script.admit()  # the other one
    script.refuse(OLD_TOKEN)
    assert isinstance(watcher.error, Unauthenticated)
    assert watcher.error.text == table.INVALID_AUTH_TOKEN.text
    assert other.state is WatcherState.LIVE


def test_streams_are_refused_only_so_often_in_a_row(script: Script) -> None:
    watcher = script.watch()
    for _ in range(TOKENS_TRIED):
        script.lose(error(table.INVALID_AUTH_TOKEN))
        script.reopen()
    script.lose(error(table.INVALID_AUTH_TOKEN))
    assert isinstance(watcher.error, Unauthenticated)


def test_a_creation_in_between_begins_a_new_row(script: Script) -> None:
    watcher = script.watch()
    for _ in range(5):
        script.lose(error(table.INVALID_AUTH_TOKEN))
        script.reopen()
        script.admit()
    assert watcher.state is WatcherState.LIVE


def test_a_watch_that_is_cancelled_for_its_token_goes_on(script: Script) -> None:
    watcher = script.watch()
    script.admit()
    script.hear(0, 12, events=[event(12)])
    assert RENEWED in script.hear(0, canceled=True, cancel_reason=OLD_TOKEN)
    script.reopen()
    script.admit(0, 20)
    assert (watcher.state, watcher.next_revision) == (WatcherState.LIVE, 13)


@pytest.mark.parametrize("row", [table.AUTH_FAILED, table.NO_PASSWORD_USER])
def test_a_wrong_password_ends_them_all(script: Script, row: Refusal) -> None:
    watchers = [script.watch(), script.watch()]
    wrong = error(row)
    script.lose(wrong)
    assert [watcher.error for watcher in watchers] == [wrong, wrong]


def test_without_a_password_a_refused_token_is_the_end() -> None:
    script = Script(has_password=False)
    watcher, other = script.watch(), script.watch()
    assert RENEWED not in script.refuse(NO_TOKEN)
    assert isinstance(watcher.error, Unauthenticated)
    script.lose(error(table.USER_EMPTY))
    assert isinstance(other.error, Unauthenticated)


# Servers that say "permission denied", as etcd 3.5 does


def test_a_denied_watch_whose_keys_may_be_read_had_an_old_token(script: Script) -> None:
    """etcd#12385: a new watch on an old stream is refused although calls get new tokens."""
    live = script.watch(b"live")
    script.admit()
    watcher = script.watch(b"k")
    question = the_question(script.refuse(DENIED))
    assert (question.key, question.range_end) == (b"k", b"z")
    assert RENEWED not in script.seen
    assert RENEWED in script.tell(question, None)
    script.reopen()
    script.admit(0)
    script.admit(1)
    assert {live.state, watcher.state} == {WatcherState.LIVE}


def test_one_whose_keys_may_not_be_read_is_denied_and_disturbs_nobody(script: Script) -> None:
    live = script.watch(b"live")
    script.admit()
    watcher = script.watch()
    question = the_question(script.refuse(DENIED))
    later = script.watch(b"later")
    script.admit(1)
    actions = script.tell(question, error(table.PERMISSION_DENIED, PermissionDenied))
    assert not any(isinstance(action, HangUp) for action in actions)
    assert isinstance(watcher.error, PermissionDenied)
    assert watcher.error.rpc == "/etcdserverpb.Watch/Watch"
    assert {live.state, later.state} == {WatcherState.LIVE}
    assert script.created == [b"live", b"k", b"later"]


def test_a_read_that_finds_the_password_wrong_ends_the_watch_with_that(script: Script) -> None:
    watcher = script.watch()
    question = the_question(script.refuse(DENIED))
    wrong = error(table.AUTH_FAILED)
    script.tell(question, wrong)
    assert watcher.error is wrong


def test_a_read_that_fails_tells_nothing_and_the_watch_is_tried_again(script: Script) -> None:
    watcher = script.watch()
    for _ in range(5):
        question = the_question(script.refuse(DENIED))
        assert HangUp() in script.tell(question, NotSent("nobody", code=Code.UNAVAILABLE))
        script.reopen()
    script.admit()
    assert watcher.state is WatcherState.LIVE


def test_denied_once_more_with_a_new_token_it_is_denied(script: Script) -> None:
    watcher = script.watch()
    script.tell(the_question(script.refuse(DENIED)), None)
    script.reopen()
    script.refuse(DENIED)
    assert isinstance(watcher.error, PermissionDenied)


def test_of_several_denied_on_one_stream_it_is_left_once(script: Script) -> None:
    first, second = script.watch(), script.watch()
    questions = [the_question(script.refuse(DENIED)) for _ in range(2)]
    assert RENEWED in script.tell(questions[0], None)
    script.reopen()
    assert not any(isinstance(each, HangUp) for each in script.tell(questions[1], None))
    script.admit(0)
    script.admit(1)
    assert {first.state, second.state} == {WatcherState.LIVE}


def test_a_stream_that_breaks_while_the_question_is_open_is_not_left_twice(script: Script) -> None:
    watcher = script.watch()
    question = the_question(script.refuse(DENIED))
    script.lose(None)
    script.reopen()
    assert not any(isinstance(action, HangUp) for action in script.tell(question, None))
    script.admit()
    assert watcher.state is WatcherState.LIVE


def test_a_watch_ended_by_its_user_while_the_question_is_open(script: Script) -> None:
    watcher = script.watch()
    question = the_question(script.refuse(DENIED))
    script.do(script.machine.remove(watcher, script.now))
    assert script.tell(question, None) == []
    assert watcher.error is None


def test_the_client_is_closed_while_the_question_is_open(script: Script) -> None:
    watcher = script.watch()
    question = the_question(script.refuse(DENIED))
    closed = ClientClosed("closed")
    script.do(script.machine.close(closed))
    assert watcher.error is closed
    assert script.tell(question, closed) == []


def test_an_outage_ends_a_watch_also_while_the_question_is_open(script: Script) -> None:
    watcher = script.watch(max_outage_seconds=3.0)
    script.refuse(DENIED)
    assert script.alarm == script.now + 3.0
    script.now = script.alarm
    script.do(script.machine.woken(script.now))
    assert isinstance(watcher.error, WatchInterrupted)


def test_without_a_password_a_denial_is_the_end() -> None:
    script = Script(has_password=False)
    watcher = script.watch()
    script.refuse(DENIED)
    assert isinstance(watcher.error, PermissionDenied)
    assert not any(isinstance(action, TryToRead) for action in script.seen)


@pytest.mark.parametrize("has_password", [True, False])
def test_whom_a_denial_silences_is_created_anew(has_password: bool) -> None:
    """etcd 3.5 denies with id 0, and keeps back what it has for the watch of that id."""
    script = Script(has_password=has_password)
    live, other = script.watch(b"live"), script.watch(b"other")
    script.admit(0)
    script.admit(1)
    script.hear(0, 12, events=[event(12)])
    script.watch(b"denied")
    script.refuse(DENIED, watch_id=0)
    assert script.cancelled == [0]
    assert script.created == [b"live", b"other", b"denied", b"live"]
    script.hear(0, 20, canceled=True)  # the answer to the cancellation
    script.admit(2, 20)
    assert (live.watch_id, live.next_revision, live.state) == (2, 13, WatcherState.LIVE)
    assert other.watch_id == 1
