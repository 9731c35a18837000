"""The stage for ``health_aware``: a driver on a clock that the test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest

from etcd_pinwheel.balancers.api import (
    Action,
    Connected,
    EndpointsChanged,
    Event,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    WakeAt,
    Woken,
)
from etcd_pinwheel.balancers.health_aware import HealthAware
from etcd_pinwheel.balancers.health_record import HealthAwareOptions

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"
WELL = Health(serving=True, raft_term=2, applied_index=10)
HASTY = HealthAwareOptions(slow_start=0.001, probe_interval=5.0)
"""Without the slow start, which is tested by itself, and with frequent probes."""


class Stage:
    """A driver on a clock that the test sets, with members that answer probes as it says."""

    def __init__(
        self,
        *endpoints: str,
        options: HealthAwareOptions = HASTY,
        seed: int = 0,
        connect: bool = True,
    ) -> None:
        self.now = 100.0
        self.balancer = HealthAware(Random(seed), options)
        self.did: list[Action] = []
        self.alarm: float | None = None
        self.asked: list[str] = []
        self.health = dict.fromkeys(endpoints, WELL)
        self.tell(EndpointsChanged(endpoints))
        for endpoint in endpoints if connect else ():
            self.tell(Connected(endpoint))
            self.answer(endpoint)

    def obey(self, actions: Sequence[Action]) -> Sequence[Action]:
        self.did += actions
        for action in actions:
            if isinstance(action, WakeAt):
                self.alarm = action.time
        return actions

    def tell(self, event: Event) -> Sequence[Action]:
        return self.obey(self.balancer.update(event, self.now))

    def answer(self, endpoint: str) -> Sequence[Action]:
        return self.tell(Probed(endpoint, self.health[endpoint]))

    def probes(self) -> list[Probe]:
        """Take the probes that were wished since the last time."""
        wished = [action for action in self.did if isinstance(action, Probe)]
        self.did = [action for action in self.did if not isinstance(action, Probe)]
        return wished

    def live(self, seconds: float) -> None:
        """Let time pass, with all probes answered at once, by whatever health members have."""
        until = self.now + seconds
        self._answer_all()
        while self.alarm is not None and self.alarm <= until:
            self.now, self.alarm = max(self.now, self.alarm), None
            self.tell(Woken())
            self._answer_all()
        self.now = until

    def _answer_all(self) -> None:
        while wished := self.probes():
            for probe in wished:
                self.asked.append(probe.endpoint)
                self.answer(probe.endpoint)

    def call(
        self,
        failure: Failure | None = None,
        seconds: float = 0.002,
        need: Need = Need.QUORUM,
        tried: Sequence[str] = (),
    ) -> str:
        """Make a call wherever the policy says, and end it."""
        picked = self.balancer.pick(need, self.now, tried)
        assert picked is not None
        self.now += seconds
        self.obey(self.balancer.done(picked, failure, seconds, self.now))
        return picked

    def fail_at(self, endpoint: str, failure: Failure, seconds: float = 1.0) -> None:
        """Have one call fail at an endpoint, wherever picks go."""
        others = [each for each in self.health if each != endpoint]
        while (picked := self.balancer.pick(Need.QUORUM, self.now, others)) != endpoint:
            assert picked is not None
            self.balancer.done(picked, Failure.CANCELLED, 0.0, self.now)
        self.now += seconds
        self.obey(self.balancer.done(endpoint, failure, seconds, self.now))

    def hang(self, endpoint: str, calls: int = 1) -> None:
        """Begin calls at an endpoint that never end."""
        others = [each for each in self.health if each != endpoint]
        for _ in range(calls):
            assert self.balancer.pick(Need.QUORUM, self.now, others) == endpoint

    def shares(self, calls: int = 300, need: Need = Need.QUORUM) -> Counter[str]:
        return Counter(self.call(need=need) for _ in range(calls))

    def reason(self, endpoint: str) -> str:
        return self.balancer.standings(self.now)[endpoint].reason


@pytest.fixture
def make_stage() -> Callable[..., Stage]:
    """Make a stage of one's own."""
    return Stage


@pytest.fixture
def stage() -> Stage:
    """Three members, all connected and well."""
    made = Stage(A, B, C)
    made.live(0.0)
    return made
