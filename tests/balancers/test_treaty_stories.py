"""The treaty over time: what every built-in policy makes of a thousand calls or changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from random import Random
from typing import Any

import pytest

from etcd_pinwheel.balancers.api import FailedOver, Failure, Health, Need
from etcd_pinwheel.client.error_handler import Cause, Kind, Verdict
from etcd_pinwheel.client.generations import BUILT_IN

from .driver import Driver, settled

POLICIES = list(BUILT_IN)
A, B, C = (f"http://10.0.0.{n}:2379" for n in range(1, 4))
EVERYBODY = [f"http://10.0.1.{n}:2379" for n in range(1, 200)]


# Endpoints come and go


def inside(value: Any, seen: set[int]) -> Iterator[Any]:
    """Everything that an object holds on to, but what belongs to random numbers."""
    if id(value) in seen or isinstance(value, (Random, type)) or callable(value):
        return
    seen.add(id(value))
    yield value
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif is_dataclass(value):
        parts = [getattr(value, field.name) for field in fields(value)]
    elif hasattr(value, "__dict__"):
        parts = list(vars(value).values())
    for part in parts:
        yield from inside(part, seen)


def remembered(driver: Driver) -> list[Any]:
    return list(inside(driver.balancer, set()))


def storm(driver: Driver, random: Random, changes: int) -> None:
    """Other endpoints every time, with connections, calls and probes in every state."""
    for _ in range(changes):
        driver.change(*random.sample(EVERYBODY, random.randint(1, 5)))
        for endpoint in sorted(driver.wanted - driver.connected):
            if random.random() < 0.7 and endpoint in driver.wanted:
                driver.connect(endpoint)
        for _ in range(3):
            if picked := driver.pick(random.choice(list(Need))):
                driver.owed.append(picked)
        while len(driver.owed) > 6:
            endpoint = driver.owed.pop(random.randrange(len(driver.owed)))
            failure = random.choice([None, *Failure])
            driver.done(endpoint, failure)
            if failure is not None:
                driver.tell(FailedOver(endpoint, failure))
        if random.random() < 0.5:
            driver.answer_probes(Health(serving=random.random() < 0.5))
        driver.pass_time(random.choice([0.001, 0.3, 4.0]))
        assert driver.wanted <= set(driver.endpoints), "a connection that nobody will close"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_thousand_changes_of_endpoints_leave_nothing_behind(policy: str) -> None:
    driver = settled(policy, A, B)
    random = Random(7)
    storm(driver, random, 100)
    early = len(remembered(driver))
    storm(driver, random, 900)
    assert len(remembered(driver)) < 3 * early, "it grows with every change"
    driver.change(A)
    driver.probes.clear()
    while driver.owed:
        driver.done(driver.owed.pop())
    driver.connect_all()
    assert driver.wanted == driver.connected == {A}
    assert set(driver.balancer.standings(driver.now)) == {A}
    assert {each for each in remembered(driver) if isinstance(each, str) and "://" in each} == {A}


# Calls


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [
        ("pinned_multi", [0, 0, 600], [0, 0, 600]),
        ("pinned_single", [0, 0, 600], [0, 0, 600]),
        ("round_robin", [200, 200, 200], [200, 200, 200]),
        ("health_aware", [150, 150, 150], [250, 250, 250]),
    ],
)
def test_how_calls_are_shared_out(policy: str, least: list[int], most: list[int]) -> None:
    """Fairly, but for the pinned ones, whose model says otherwise."""
    for seed in range(5):
        driver = settled(policy, A, B, C, seed=seed)
        counted = Counter(dict.fromkeys((A, B, C), 0))
        for _ in range(600):
            driver.now += 0.01
            counted[str(driver.picked(Need.QUORUM))] += 1
        for low, count, high in zip(least, sorted(counted.values()), most, strict=True):
            assert low <= count <= high, f"seed {seed}: {counted}"


def call(driver: Driver, works: set[str], cause: Cause) -> str:
    """One call as the policy's generation makes it, without another attempt; tell where it went."""
    picked = driver.pick()
    if picked is None:
        driver.sleep_until_woken()
        driver.connect_all()
        return ""
    if picked in works:
        driver.now += 0.002
        driver.done(picked, None, 0.002)
        return picked
    driver.now += 1.0
    failure = Failure.TIMED_OUT if cause is Cause.NO_ANSWER else Failure.UNAVAILABLE
    driver.done(picked, failure, 1.0)
    verdict = BUILT_IN[driver.policy].table.verdict(cause, Kind.NON_REPEATABLE)
    if verdict in (Verdict.FAIL_OVER, Verdict.FAIL_OVER_AND_RETURN):
        driver.tell(FailedOver(picked, failure))
    while driver.probes:
        endpoint = driver.probes[0]
        driver.probes[1:] = [each for each in driver.probes[1:] if each != endpoint]
        well = endpoint in works
        driver.answer_one(Health(serving=well or cause is Cause.NO_LEADER, has_leader=well))
    driver.connect_all()
    return picked


@pytest.mark.parametrize("cause", [Cause.NO_ANSWER, Cause.NO_LEADER])
@pytest.mark.parametrize(
    ("policy", "failed"),
    [
        ("pinned_multi", range(300, 301)),  # stranded: no error moves the pin
        ("pinned_single", range(1, 40)),  # a switch for each, and again when the tick dials anew
        ("round_robin", range(200, 201)),  # two thirds, for ever
        ("health_aware", range(1, 10)),  # a call or two for each
    ],
)
def test_what_becomes_of_a_client_when_one_of_three_works(
    policy: str, failed: range, cause: Cause
) -> None:
    """What failures change is the difference between the generations."""
    for seed in range(5):
        driver = Driver(policy, seed)
        driver.change(A, B, C)
        for endpoint in (A, B, C):  # A is the first
            if endpoint in driver.wanted:
                driver.connect(endpoint)
        went = [call(driver, {C}, cause) for _ in range(300)]
        lost = sum(1 for endpoint in went if endpoint in (A, B))
        assert lost in failed, f"seed {seed}: {Counter(went)}"


@pytest.mark.parametrize("policy", POLICIES)
def test_refusals_and_callers_who_give_up_change_nothing(policy: str) -> None:
    shares = []
    for failure in (None, Failure.REFUSED, Failure.CANCELLED):
        driver = settled(policy, A, B, C)
        driver.answer_probes()
        went: Counter[str] = Counter()
        for _ in range(600):
            picked = driver.pick()
            assert picked is not None
            driver.now += 0.002
            driver.done(picked, failure if picked == A else None, 0.002)
            went[picked] += 1
        shares.append(went[A])
    assert max(shares) - min(shares) <= 100
