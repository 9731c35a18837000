"""What whoever waited in vain for a stream's first answer is told."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.client.errors import (
    CallError,
    ConnectionLost,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    TimedOut,
    Unauthenticated,
)
from etcd_pinwheel.client.flow import CLOSED_UNDER_STREAM
from etcd_pinwheel.client.keep_alive import KeepAliveMachine, Keeper, LossReason
from etcd_pinwheel.client.stream import StreamMachine
from etcd_pinwheel.client.streams import Streams
from etcd_pinwheel.client.watch_machine import WatchMachine
from etcd_pinwheel.client.watcher import Watcher
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import WatchCreateRequest, WatchResponse
from etcd_pinwheel.protos.rpcs import LEASE_LEASE_KEEP_ALIVE

from .scene import A, Scene

RESET = ConnectionError("reset")
NOT_WRITTEN = OutcomeUnknown("Internal error from Core", code=Code.INTERNAL)


def told_of(machine: StreamMachine[Any, Any], asked: Keeper | Watcher) -> CallError:
    """Play the end of 2.5 seconds of waiting."""
    nobody: Any = None
    streams = Streams[Any](nobody, Scene("round_robin", A).call)
    return streams.unanswered(machine, LEASE_LEASE_KEEP_ALIVE, 2.5, asked.attempts)


def renewal() -> tuple[KeepAliveMachine, Keeper]:
    machine, keeper = KeepAliveMachine(Random(1)), Keeper(5, None, once=True)
    machine.add(keeper, 0.0)
    return machine, keeper


def creation() -> tuple[WatchMachine, Watcher]:
    machine = WatchMachine(Random(1), has_password=True)
    watcher = Watcher(WatchCreateRequest(key=b"k"), buffer_events=1)
    machine.add(watcher, 0.0)
    return machine, watcher


QUESTIONS: Sequence[Any] = [renewal, creation]


@pytest.mark.parametrize("ask", QUESTIONS)
def test_without_a_stream_nothing_was_sent(ask: Any) -> None:
    machine, asked = ask()
    machine.broke(RESET, 0.0)
    error = told_of(machine, asked)
    assert isinstance(error, NotSent)
    assert error.attempts == 0
    assert error.__cause__ is RESET


@pytest.mark.parametrize("ask", QUESTIONS)
def test_what_was_sent_is_not_called_unsent_because_its_stream_broke(ask: Any) -> None:
    machine, asked = ask()
    machine.opened(0.0)
    assert isinstance(told_of(machine, asked), TimedOut)
    machine.broke(RESET, 0.0)
    error = told_of(machine, asked)
    assert isinstance(error, TimedOut)
    assert error.attempts == 1
    assert error.__cause__ is RESET


@pytest.mark.parametrize("ask", QUESTIONS)
@pytest.mark.parametrize(
    "refusal",
    [
        Unauthenticated("etcdserver: invalid auth token", code=Code.UNAUTHENTICATED),
        NotSent("GOAWAY received; Error code: 0", code=Code.UNAVAILABLE),
        NOT_WRITTEN,
    ],
)
def test_a_stream_that_was_refused_has_done_nothing(ask: Any, refusal: Exception) -> None:
    """The last one is what grpc.aio says when the refusal comes just before the first message."""
    machine, asked = ask()
    machine.opened(0.0)
    machine.broke(refusal, 0.0)
    assert isinstance(told_of(machine, asked), NotSent)


@pytest.mark.parametrize("ask", QUESTIONS)
@pytest.mark.parametrize(
    "end",
    [
        NoLeader("etcdserver: no leader", code=Code.UNAVAILABLE),
        ConnectionLost(CLOSED_UNDER_STREAM, code=Code.UNAVAILABLE),
    ],
)
def test_a_stream_that_ended_otherwise_may_have_done_something(ask: Any, end: CallError) -> None:
    machine, asked = ask()
    machine.opened(0.0)
    machine.broke(end, 0.0)
    error = told_of(machine, asked)
    assert isinstance(error, TimedOut)
    assert error.text == f"not answered within 2.5 s; it ended last with: {end.text}"


def test_a_renewal_that_could_not_be_written_says_nothing_of_those_before_it() -> None:
    machine, first = renewal()
    machine.opened(0.0)
    machine.add(Keeper(6, None, once=True), 0.1)
    machine.broke(NOT_WRITTEN, 0.2)
    assert isinstance(told_of(machine, first), TimedOut)


def test_nor_do_those_of_an_earlier_stream_say_anything_of_it() -> None:
    machine, first = renewal()
    machine.opened(0.0)
    machine.broke(RESET, 0.0)
    machine.remove(first, LossReason.CLOSED, 0.0)
    later = Keeper(6, None, once=True)
    machine.add(later, 0.0)
    machine.woken(10.0)
    machine.opened(10.0)
    machine.broke(NOT_WRITTEN, 10.0)
    assert isinstance(told_of(machine, later), NotSent)


def test_nor_does_a_watch_that_could_not_be_created_of_what_was_written_before() -> None:
    machine, first = creation()
    machine.opened(0.0)
    machine.received(WatchResponse(created=True, watch_id=0), 0.1)
    second = Watcher(WatchCreateRequest(key=b"l"), buffer_events=1)
    machine.add(second, 0.2)
    machine.broke(NOT_WRITTEN, 0.3)
    assert first.attempts == 1
    assert isinstance(told_of(machine, second), TimedOut)


@pytest.mark.parametrize("ask", QUESTIONS)
def test_but_what_was_sent_before_may_have_been_done(ask: Any) -> None:
    machine, asked = ask()
    machine.opened(0.0)
    machine.broke(RESET, 0.0)
    machine.woken(10.0)
    machine.opened(10.0)
    machine.broke(NotSent("closed", code=Code.UNAVAILABLE), 10.0)
    error = told_of(machine, asked)
    assert isinstance(error, TimedOut)
    assert error.attempts == 1
