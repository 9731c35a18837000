"""The simulator finds what it is there to find: known bugs, planted one at a time."""

from __future__ import annotations

import pytest

from tests.simulation.hunting import Catch, caught, documented, table
from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.run import run

pytestmark = pytest.mark.slow

CAUGHT = caught()
FIND = "; to look for other seeds: python -m tests.simulation --find"


@pytest.mark.parametrize(("name", "catch"), CAUGHT.items(), ids=CAUGHT)
def test_a_planted_bug_is_caught(name: str, catch: Catch) -> None:
    with planted(name):
        outcome = run(catch.seed)
    assert outcome.rule == catch.rule, f"{outcome}{FIND}"


def test_every_planted_bug_is_caught_by_some_seed() -> None:
    assert list(CAUGHT) == list(MUTANTS), FIND
    assert len(MUTANTS) >= 20


@pytest.mark.parametrize("seed", sorted({catch.seed for catch in CAUGHT.values()}))
def test_without_the_bug_the_same_seed_finds_nothing(seed: int) -> None:
    outcome = run(seed)
    assert not outcome.failed, str(outcome)


def test_the_document_lists_them() -> None:
    assert documented() == table(), FIND
