"""What health_aware may add to the load of members that do not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcd_pinwheel.balancers.api import Failure, Health, Need, Probed, Woken
from etcd_pinwheel.balancers.budget import CREDIT, SHARE, Budget
from etcd_pinwheel.balancers.health_record import HealthAwareOptions

FIVE = tuple(f"http://m{number}:2379" for number in range(5))
DEAF = Health(serving=False, reason="Deadline Exceeded", answered=False)


def test_missing_answers_use_a_budget_up_and_answers_fill_it() -> None:
    budget = Budget()
    lasted = 0
    while not budget.exhausted:
        budget.spend()
        lasted += 1
    assert lasted == CREDIT
    for _ in range(round(1 / SHARE) - 1):
        budget.earn()
        assert budget.exhausted
    budget.earn()
    budget.earn()
    assert not budget.exhausted


def test_a_budget_stays_within_its_bounds() -> None:
    budget = Budget()
    budget.earn(1.0)
    assert budget.spent == 0.0
    for _ in range(1000):
        budget.spend()
    assert budget.spent == CREDIT


def overload(stage: Any, seconds: float) -> int:
    """Have every call and probe time out, a call every 2 s; return how many probes were asked."""
    stage.health |= dict.fromkeys(stage.health, DEAF)
    asked, ends = 0, stage.now + seconds
    while stage.now < ends:
        picked = stage.balancer.pick(Need.QUORUM, stage.now)
        stage.now += 2.0
        stage.obey(stage.balancer.done(picked, Failure.TIMED_OUT, 2.0, stage.now))
        if stage.alarm is not None and stage.alarm <= stage.now:
            stage.alarm = None
            stage.tell(Woken())
        for probe in stage.probes():
            asked += 1
            stage.tell(Probed(probe.endpoint, DEAF))
    return asked


def test_when_nobody_answers_next_to_nothing_is_asked(make_stage: Callable[..., Any]) -> None:
    """20,000 clients whose every late call made them ask kept five members down for good."""
    for seed in range(5):
        stage = make_stage(*FIVE, options=HealthAwareOptions(), seed=seed)
        overload(stage, 10.0)
        assert overload(stage, 200.0) <= 2 * 200 / 20, "one of them every 20 s or so"


def test_nobody_is_stranded_without_a_budget(make_stage: Callable[..., Any]) -> None:
    """Each gets its turn to be asked, though no call is made, and so comes back."""
    for seed in range(5):
        stage = make_stage(*FIVE, options=HealthAwareOptions(), seed=seed)
        overload(stage, 100.0)
        assert all(stage.reason(each) for each in FIVE)
        stage.health = dict.fromkeys(FIVE, Health(serving=True))
        stage.live(150.0)
        assert not any(stage.reason(each) for each in FIVE), f"seed {seed}"


@pytest.mark.parametrize(("latest", "found"), [(0.002, True), (0.8, False)])
def test_who_is_late_when_others_are_is_not_suspected(
    stage: Any, latest: float, found: bool
) -> None:
    a, b, _ = stage.health
    stage.hang(a)
    stage.hang(b)
    stage.now += 0.9
    stage.obey(stage.balancer.done(b, None, latest, stage.now))
    assert stage.reason(a).startswith("silent") is found


def test_routine_probes_are_put_off_while_answers_are_late_but_once(
    make_stage: Callable[..., Any],
) -> None:
    first_asked = []
    for latest in (0.002, 0.8):
        stage = make_stage(*FIVE[:3], options=HealthAwareOptions())
        stage.call(seconds=latest)
        began = stage.now
        while not stage.probes():
            stage.now = stage.alarm
            stage.tell(Woken())
        first_asked.append(stage.now - began)
    assert first_asked[0] < first_asked[1] <= 28.0 + 28.0
