"""How many calls are under way again at once: as data, and played against many calls."""

from __future__ import annotations

import heapq
from itertools import count
from random import Random
from typing import Any

import pytest

from etcd_pinwheel import ConnectionLost, OutcomeUnknown, TimedOut
from etcd_pinwheel.client import kv
from etcd_pinwheel.client.flow import CallFailed, Flow, Send, Sleep
from etcd_pinwheel.client.retries import FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS, RetryTurns
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import RangeResponse

from .scene import A, B, C, Scene

BROKEN = CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
MOST = 5


def test_so_many_turns_and_no_more() -> None:
    turns = RetryTurns(2, Random(0))
    assert [turns.take() for _ in range(3)] == [True, True, False]
    turns.give_back()
    assert [turns.take() for _ in range(2)] == [True, False]


def test_a_turn_that_nobody_took_is_not_given_back() -> None:
    with pytest.raises(AssertionError):
        RetryTurns(2, Random(0)).give_back()


def test_the_pauses_between_looks_grow_and_are_spread() -> None:
    turns = RetryTurns(2, Random(0))
    first = {turns.seconds_before_look(1) for _ in range(50)}
    last = {turns.seconds_before_look(looks) for looks in (20, 50, 10_000) for _ in range(50)}
    assert FIRST_LOOK_SECONDS / 2 <= min(first) < max(first) <= FIRST_LOOK_SECONDS
    assert LAST_LOOK_SECONDS / 2 <= min(last) < max(last) <= LAST_LOOK_SECONDS
    assert len(first) > 40


class Crowd:
    """Many calls at once on the clock of a scene: every attempt takes ``attempt_seconds``."""

    def __init__(self, scene: Scene, attempt_seconds: float, failures: int) -> None:
        self.scene = scene
        self._attempt_seconds = attempt_seconds
        self._failures = failures
        self._due: list[tuple[float, int, Flow[Any], Any]] = []
        self._order = count()
        self._attempts: dict[Flow[Any], int] = {}
        self._again: set[Flow[Any]] = set()
        self.most_again = 0
        self.ended: list[OutcomeUnknown | None] = []

    def add(self, flow: Flow[Any]) -> None:
        self._attempts[flow] = 0
        self._wait(0.0, flow, None)

    def run(self) -> None:
        while self._due:
            self.scene.now, _, flow, outcome = heapq.heappop(self._due)
            self._again.discard(flow)
            try:
                step = (
                    flow.throw(outcome) if isinstance(outcome, CallFailed) else flow.send(outcome)
                )
            except StopIteration:
                self.ended.append(None)
            except OutcomeUnknown as error:
                self.ended.append(error)
            else:
                self._take(flow, step)

    def _take(self, flow: Flow[Any], step: Any) -> None:
        if isinstance(step, Sleep):
            self._wait(step.seconds, flow, None)
            return
        assert isinstance(step, Send)
        self._attempts[flow] += 1
        if self._attempts[flow] > 1:
            self._again.add(flow)
            self.most_again = max(self.most_again, len(self._again))
        fails = self._attempts[flow] <= self._failures
        outcome = CallFailed(BROKEN.code, BROKEN.text) if fails else RangeResponse()
        if step.timeout_seconds is not None and step.timeout_seconds < self._attempt_seconds:
            late = CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
            self._wait(step.timeout_seconds, flow, late)
        else:
            self._wait(self._attempt_seconds, flow, outcome)

    def _wait(self, seconds: float, flow: Flow[Any], outcome: Any) -> None:
        heapq.heappush(self._due, (self.scene.now + seconds, next(self._order), flow, outcome))


@pytest.mark.parametrize("policy", ["round_robin", "health_aware"])
def test_those_beyond_wait_for_their_turn_and_do_not_fail_for_it(policy: str) -> None:
    scene = Scene(policy, A, B, C, retry_turns=RetryTurns(MOST, Random(1)))
    crowd = Crowd(scene, attempt_seconds=0.01, failures=2)
    for _ in range(200):
        crowd.add(kv.get(scene.call, "k"))
    crowd.run()
    assert crowd.most_again == MOST
    assert crowd.ended == [None] * 200


def test_who_gets_no_turn_in_time_says_how_its_last_attempt_ended() -> None:
    turns = RetryTurns(MOST, Random(1))
    scene = Scene("round_robin", A, B, C, retry_turns=turns)
    crowd = Crowd(scene, attempt_seconds=0.6, failures=1)
    started = scene.now
    for _ in range(20):
        crowd.add(kv.get(scene.call, "k", timeout=1.0))
    crowd.run()
    assert scene.now - started <= 1.0
    seen = [(type(error), error.attempts) for error in crowd.ended if error is not None]
    assert seen.count((TimedOut, 2)) == MOST
    assert seen.count((ConnectionLost, 1)) == 20 - MOST
    assert [turns.take() for _ in range(MOST)] == [True] * MOST  # all were given back


def test_first_attempts_need_no_turn() -> None:
    turns = RetryTurns(1, Random(0))
    assert turns.take()
    scene = Scene("round_robin", A, retry_turns=turns)
    assert scene.play(kv.get(scene.call, "k"), lambda _: RangeResponse()) is None


@pytest.mark.parametrize("end", ["close", "interrupt"])
def test_a_turn_is_given_back_however_the_call_ends(end: str) -> None:
    turns = RetryTurns(1, Random(0))
    scene = Scene("round_robin", A, B, retry_turns=turns)
    flow = kv.get(scene.call, "k")
    assert isinstance(next(flow), Send)
    assert isinstance(flow.throw(BROKEN), Send)
    assert not turns.take()
    if end == "close":
        flow.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            flow.throw(KeyboardInterrupt)
    assert turns.take()
