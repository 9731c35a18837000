"""Simulated clusters keep every promise, whatever goes wrong: part 4 of 5 of the seeds."""

from __future__ import annotations

import pytest

from tests.simulation.run import run
from tests.simulation.sharding import SEEDS_PER_TEST, starts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("first", starts(3))
def test_nothing_goes_wrong(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        outcome = run(seed)
        assert not outcome.failed, str(outcome)
