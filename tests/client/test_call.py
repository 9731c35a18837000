"""A call's stages, played without sockets: the test is the world, and the clock is a number."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from etcd_pinwheel import ClientClosed, ConnectionLost, NotSent, TimedOut, Unavailable
from etcd_pinwheel.balancers.api import Need
from etcd_pinwheel.balancers.round_robin import RoundRobin
from etcd_pinwheel.client.backoff import Backoff, QuorumBackoff
from etcd_pinwheel.client.call import Call
from etcd_pinwheel.client.connections import Connections, Link, LinkState
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.error_handler import ROUND_ROBIN_TABLE
from etcd_pinwheel.client.flow import AwaitChange, CallFailed, Flow, Send, Sleep, Step
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import (
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
)
from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"

NOT_SENT = CallFailed(Code.UNAVAILABLE, "failed to connect to all addresses")
BROKEN = CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
LEARNER = CallFailed(Code.UNAVAILABLE, table.NOT_SUPPORTED_FOR_LEARNER.text)
LEADER_CHANGED = CallFailed(Code.UNAVAILABLE, table.LEADER_CHANGED.text)
CUT_SHORT = CallFailed(Code.DEADLINE_EXCEEDED, "context deadline exceeded")


class NoWorld:
    """Opens nothing; says so."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        self.opened.append(link.endpoint.url)
        link.channel = object()

    def close(self, link: Link) -> None:
        self.closed.append(link.endpoint.url)
        link.channel = None

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None:
        raise NotImplementedError

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        raise NotImplementedError


class Stage:
    """A client's inside, with the test for a world."""

    def __init__(self, *urls: str, ready: Sequence[str] | None = None) -> None:
        self.now = 1000.0
        self.world = NoWorld()
        self.connections = Connections(RoundRobin(Random(1)), self.world, lambda: self.now)
        self.connections.set_endpoints(map(Endpoint, urls))
        for url in urls if ready is None else ready:
            self.say(url, LinkState.READY)
        self.call = Call(
            self.connections,
            ROUND_ROBIN_TABLE,
            QuorumBackoff(Backoff(Random(1))),
            timeout_seconds=5.0,
            clock=lambda: self.now,
        )
        self.sent: list[str] = []
        self.pauses: list[float] = []

    def say(self, url: str, state: LinkState, reason: str = "") -> None:
        self.connections.link_changed(self.connections.link(url), state, reason)

    def play(self, flow: Flow[Any], outcomes: Callable[[int, Send], Any]) -> Any:
        """Run a flow; each Send gets what ``outcomes`` answers, or raises it."""
        try:
            step: Step = next(flow)
            while True:
                try:
                    outcome = self._do(step, outcomes)
                except CallFailed as failed:
                    step = flow.throw(failed)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value

    def _do(self, step: Step, outcomes: Callable[[int, Send], Any]) -> Any:
        match step:
            case Sleep(seconds):
                self.pauses.append(seconds)
                self.now += seconds
            case AwaitChange(_, seconds):
                assert seconds is not None
                self.now += seconds
            case Send():
                self.sent.append(step.link.endpoint.url)
                outcome = outcomes(len(self.sent), step)
                if isinstance(outcome, CallFailed):
                    raise CallFailed(outcome.code, outcome.text)
                return outcome
        return None

    def get(self, timeout: float | None = None) -> Flow[RangeResponse]:
        return self.call(KV_RANGE, RangeRequest(key=b"k"), timeout)

    def put(self, timeout: float | None = None) -> Flow[PutResponse]:
        return self.call(KV_PUT, PutRequest(key=b"k"), timeout)

    def assert_all_paid_back(self) -> None:
        views = self.connections.view().values()
        assert sum(view.calls for view in views) == len(self.sent)


OK = RangeResponse(header=ResponseHeader(revision=7))
DONE = PutResponse(header=ResponseHeader(revision=8))


def failing(first: int, failure: CallFailed, then: Any) -> Callable[[int, Send], Any]:
    return lambda count, _: failure if count <= first else then


def test_the_first_answer_is_the_calls() -> None:
    stage = Stage(A)
    assert stage.play(stage.get(), lambda *_: OK) is OK
    assert stage.sent == [A]
    assert stage.pauses == []
    stage.assert_all_paid_back()


def test_the_attempt_gets_what_is_left_of_the_time() -> None:
    stage = Stage(A)
    seen: list[float | None] = []

    def outcome(count: int, send: Send) -> Any:
        seen.append(send.timeout_seconds)
        stage.now += 1.0
        return BROKEN if count == 1 else OK

    stage.play(stage.get(timeout=3.0), outcome)
    assert seen[0] == pytest.approx(3.0)
    assert seen[1] == pytest.approx(3.0 - 1.0 - sum(stage.pauses))


def test_no_deadline_if_asked() -> None:
    stage = Stage(A)
    seen: list[float | None] = []

    def outcome(_: int, send: Send) -> Any:
        seen.append(send.timeout_seconds)
        return OK

    stage.play(stage.get(timeout=math.inf), outcome)
    assert seen == [None]


def test_calls_rotate_over_the_endpoints() -> None:
    stage = Stage(A, B, C)
    for _ in range(6):
        stage.play(stage.get(), lambda *_: OK)
    assert sorted(stage.sent) == [A, A, B, B, C, C]
    assert stage.sent[:3] == stage.sent[3:]


def test_a_read_whose_connection_breaks_is_sent_again() -> None:
    stage = Stage(A, B, C)
    assert stage.play(stage.get(), failing(2, BROKEN, OK)) is OK
    assert len(set(stage.sent)) == 3
    stage.assert_all_paid_back()


@pytest.mark.parametrize(
    ("failure", "error"),
    [(BROKEN, ConnectionLost), (LEADER_CHANGED, Unavailable), (CUT_SHORT, TimedOut)],
)
def test_a_write_that_may_have_been_applied_is_sent_once(
    failure: CallFailed, error: type[Exception]
) -> None:
    stage = Stage(A, B, C)
    with pytest.raises(error):
        stage.play(stage.put(), lambda *_: failure)
    assert len(stage.sent) == 1
    stage.assert_all_paid_back()


def test_a_write_that_never_left_is_sent_again() -> None:
    stage = Stage(A, B, C)
    assert stage.play(stage.put(), failing(2, NOT_SENT, DONE)) is DONE
    assert len(set(stage.sent)) == 3


def test_a_learners_refusal_is_taken_elsewhere_even_for_writes() -> None:
    stage = Stage(A, B)
    assert stage.play(stage.put(), failing(1, LEARNER, DONE)) is DONE
    alone = Stage(A)
    with pytest.raises(Exception, match="rpc not supported for learner"):
        alone.play(alone.put(), lambda *_: LEARNER)
    assert len(alone.sent) == 1


def test_the_pause_comes_after_as_many_attempts_as_make_a_quorum() -> None:
    stage = Stage(A, B, C)
    stage.play(stage.get(), failing(6, LEADER_CHANGED, OK))
    assert len(stage.pauses) == 3  # after 2, 4 and 6 failures of 3 endpoints
    first, second, third = stage.pauses
    assert first == pytest.approx(0.025, rel=0.11)
    assert second == pytest.approx(0.05, rel=0.11)
    assert third == pytest.approx(0.1, rel=0.11)


def test_the_budget_is_time_and_outlasts_an_election() -> None:
    """clientv3 burns its 100 attempts in about a second; see etcd-client.md section 9.2."""
    stage = Stage(A, B, C)
    started = stage.now
    answered = stage.play(
        stage.get(), lambda *_: OK if stage.now - started > 3.0 else LEADER_CHANGED
    )
    assert answered is OK
    assert len(stage.sent) < 30


def test_out_of_time_tells_the_last_failure() -> None:
    stage = Stage(A)
    with pytest.raises(Unavailable) as caught:
        stage.play(stage.get(timeout=1.0), lambda *_: LEADER_CHANGED)
    error = caught.value
    assert error.text == table.LEADER_CHANGED.text
    assert error.endpoint == A
    assert error.attempts == len(stage.sent) > 3
    assert error.elapsed_seconds <= 1.0


def test_nobody_connected_waits_until_the_deadline_and_says_why() -> None:
    stage = Stage(A, B, ready=[])
    stage.say(A, LinkState.FAILING, "Connection refused")
    started = stage.now
    with pytest.raises(NotSent) as caught:
        stage.play(stage.put(timeout=2.0), lambda *_: DONE)
    assert stage.now - started == pytest.approx(2.0, abs=0.01)
    assert stage.sent == []
    error = caught.value
    assert error.attempts == 0
    assert error.reasons[A] == "Connection refused"
    assert "connecting" in error.reasons[B]
    assert "Connection refused" in str(error)


def test_not_sent_is_raised_only_if_nothing_was_ever_sent() -> None:
    stage = Stage(A)

    def outcome(count: int, _: Send) -> Any:
        stage.say(A, LinkState.FAILING, "gone")
        return BROKEN

    with pytest.raises(ConnectionLost):
        stage.play(stage.get(timeout=2.0), outcome)


def test_a_waiting_call_goes_on_when_somebody_connects() -> None:
    stage = Stage(A, ready=[])
    flow = stage.get()
    step = next(flow)
    assert isinstance(step, AwaitChange)
    woken: list[bool] = []
    stage.connections.when_changed(step.seen_version, lambda: woken.append(True))
    stage.say(A, LinkState.READY)
    assert woken
    step = flow.send(None)
    assert isinstance(step, Send)


def test_a_change_between_looking_and_waiting_is_not_lost() -> None:
    stage = Stage(A, ready=[])
    step = next(stage.get())
    assert isinstance(step, AwaitChange)
    stage.say(A, LinkState.READY)
    woken: list[bool] = []
    stage.connections.when_changed(step.seen_version, lambda: woken.append(True))
    assert woken


def test_an_interrupted_call_is_paid_back() -> None:
    stage = Stage(A)
    flow = stage.get()
    next(flow)
    stage.sent.append(A)
    with pytest.raises(KeyboardInterrupt):
        flow.throw(KeyboardInterrupt)
    stage.assert_all_paid_back()


def test_a_dropped_call_is_paid_back() -> None:
    stage = Stage(A)
    flow = stage.get()
    next(flow)
    stage.sent.append(A)
    flow.close()
    stage.assert_all_paid_back()


def test_a_closed_client_says_so_to_later_and_to_waiting_calls() -> None:
    stage = Stage(A, ready=[])
    waiting = stage.get()
    next(waiting)
    stage.connections.close()
    with pytest.raises(ClientClosed):
        waiting.send(None)
    with pytest.raises(ClientClosed):
        next(stage.get())


def test_a_directed_call_goes_once_and_only_there() -> None:
    stage = Stage(A, B, C)
    flow = stage.call.at("b", KV_RANGE, RangeRequest(key=b"k"))
    with pytest.raises(NotSent):
        stage.play(flow, lambda *_: NOT_SENT)
    assert stage.sent == [B]


def test_a_place_for_a_stream_is_waited_for() -> None:
    stage = Stage(A, ready=[])
    flow = stage.call.place(KV_RANGE, need=Need.QUORUM)
    assert isinstance(next(flow), AwaitChange)
    stage.say(A, LinkState.READY)
    with pytest.raises(StopIteration) as stop:
        flow.send(None)
    assert stop.value.value.endpoint.url == A
