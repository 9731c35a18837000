"""The treaty (balancers/api.py), held against every built-in policy, whatever happens.

The machine plays a driver that keeps the treaty (driver.py), with connections that come and go as
hypothesis likes. Where the model of a generation says otherwise than the treaty wants it, that is
asserted instead: see ``MODELS``. What takes a story to show is in test_treaty_stories.py.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from etcd_pinwheel.balancers.api import (
    Connected,
    Disconnected,
    EndpointsChanged,
    FailedOver,
    Failure,
    Health,
    Need,
    Probed,
)
from etcd_pinwheel.client.generations import BUILT_IN

from .driver import MODELS, Driver

POLICIES = list(BUILT_IN)
ENDPOINTS = [f"http://10.0.0.{n}:2379" for n in range(1, 6)]
SPREADING = {"round_robin", "health_aware"}
STRANGER = "http://10.0.0.99:2379"
HEALTHS = st.builds(
    Health,
    serving=st.booleans(),
    has_leader=st.booleans(),
    learner=st.booleans(),
    corrupt=st.booleans(),
    answered=st.booleans(),
    applied_index=st.integers(0, 100),
)


class Treaty(RuleBasedStateMachine):
    """Anything that may happen to a driver, in any order."""

    policy = ""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver(self.policy)

    @initialize(count=st.integers(1, 5))
    def begin(self, count: int) -> None:
        self.driver.change(*ENDPOINTS[:count])

    @rule(endpoints=st.lists(st.sampled_from(ENDPOINTS), min_size=1, unique=True))
    def endpoints_change(self, endpoints: list[str]) -> None:
        self.driver.change(*endpoints)

    @precondition(lambda self: self.driver.wanted - self.driver.connected)
    @rule(data=st.data())
    def connection_comes_up(self, data: st.DataObject) -> None:
        waiting = sorted(self.driver.wanted - self.driver.connected)
        self.driver.connect(data.draw(st.sampled_from(waiting)))

    @precondition(lambda self: self.driver.wanted)
    @rule(data=st.data())
    def connection_goes_down_or_cannot_be_made(self, data: st.DataObject) -> None:
        self.driver.disconnect(data.draw(st.sampled_from(sorted(self.driver.wanted))))

    @rule(need=st.sampled_from(Need), data=st.data())
    def call_begins(self, need: Need, data: st.DataObject) -> None:
        tried = data.draw(st.lists(st.sampled_from(self.driver.endpoints), max_size=6))
        if picked := self.driver.pick(need, tried):
            self.driver.owed.append(picked)

    @precondition(lambda self: self.driver.owed)
    @rule(failure=st.none() | st.sampled_from(Failure), seconds=st.floats(0, 10), data=st.data())
    def call_ends(self, failure: Failure | None, seconds: float, data: st.DataObject) -> None:
        owed = self.driver.owed
        endpoint = owed.pop(data.draw(st.integers(0, len(owed) - 1)))
        self.driver.done(endpoint, failure, seconds)
        if failure is not None and data.draw(st.booleans()):
            self.driver.tell(FailedOver(endpoint, failure))

    @precondition(lambda self: self.driver.probes)
    @rule(health=HEALTHS)
    def probe_is_answered(self, health: Health) -> None:
        self.driver.tell(Probed(self.driver.probes.pop(0), health))

    @rule(seconds=st.floats(0.001, 60))
    def time_passes(self, seconds: float) -> None:
        self.driver.pass_time(seconds)

    @rule(failure=st.sampled_from(Failure))
    def news_comes_of_who_is_no_endpoint(self, failure: Failure) -> None:
        """Late, or by mistake: it is not taken for one because of that."""
        for event in (
            Connected(STRANGER),
            FailedOver(STRANGER, failure),
            Probed(STRANGER, Health(serving=True)),
            Disconnected(STRANGER, "late"),
        ):
            self.driver.tell(event)
        self.driver.done(STRANGER, failure)

    @invariant()
    def standings_cover_the_endpoints_and_tell_the_truth(self) -> None:
        standings = self.driver.balancer.standings(self.driver.now)
        assert set(standings) == set(self.driver.endpoints)
        for endpoint, standing in standings.items():
            assert standing.connected == (endpoint in self.driver.connected)

    @invariant()
    def nobody_is_stranded(self) -> None:
        """With all of them connected, somebody serves a call, wherever it has failed."""
        if self.driver.endpoints and self.driver.connected >= set(self.driver.endpoints):
            assert self.driver.picked(tried=self.driver.endpoints) is not None

    @invariant()
    def it_is_as_its_model_says(self) -> None:
        if self.driver.endpoints:
            MODELS[self.policy](self.driver)

    def teardown(self) -> None:
        """When everything recovers, so does the policy."""
        driver = self.driver
        if not driver.endpoints:
            return
        while driver.owed:
            driver.done(driver.owed.pop(), Failure.CANCELLED)
        for _ in range(30):
            driver.connect_all()
            driver.answer_probes()
            driver.sleep_until_woken()
        standings = driver.balancer.standings(driver.now)
        eligible = {each for each, standing in standings.items() if standing.eligible}
        if self.policy in SPREADING:
            assert eligible == set(driver.endpoints)
            driver.pass_time(60.0)
            driver.answer_probes()
            served = {driver.picked(Need.QUORUM) for _ in range(100 * len(driver.endpoints))}
            assert served == set(driver.endpoints)
        else:
            assert eligible == {driver.pinned()} == {driver.picked(Need.QUORUM)}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_the_treaty(policy: str) -> None:
    machine = type(f"TreatyOf_{policy}", (Treaty,), {"policy": policy})
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40)
    case().runTest()


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_connected_means_nobody_is_picked(policy: str) -> None:
    balancer = BUILT_IN[policy].balancer(Random(0), {})
    balancer.update(EndpointsChanged((ENDPOINTS[0],)), 0.0)
    assert balancer.pick(Need.ANY_MEMBER, 0.0) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_decides_by_its_own_random_only(policy: str) -> None:
    def picks(seed: int) -> Counter[str | None]:
        balancer = BUILT_IN[policy].balancer(Random(seed), {})
        balancer.update(EndpointsChanged(tuple(ENDPOINTS)), 0.0)
        for endpoint in ENDPOINTS:
            balancer.update(Connected(endpoint), 0.0)
        return Counter(balancer.pick(Need.QUORUM, 0.0) for _ in range(7))

    assert picks(4) == picks(4)
