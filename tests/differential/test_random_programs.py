"""Random programs, the same on etcd and on our server."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lockstep.alphabet import (
    background_compactions,
    compactions,
    kv_operations,
    lease_operations,
    questions,
    watch_operations,
)
from lockstep.pair import Pair
from lockstep.program import Operation, run

EFFORT = int(os.environ.get("DIFFERENTIAL_EFFORT", "1"))
"""How many times as many programs to run: for a night, or before a release."""

bounded = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def programs(*parts: st.SearchStrategy[Operation]) -> st.SearchStrategy[list[Operation]]:
    return st.lists(st.one_of(*parts), min_size=1, max_size=20)


@pytest.mark.timeout(120 * EFFORT)
@settings(bounded, max_examples=150 * EFFORT)
@given(program=programs(kv_operations, kv_operations, questions))
def test_key_values(living_pair: Callable[[], Pair], program: list[Operation]) -> None:
    run(living_pair(), program)


@pytest.mark.timeout(120 * EFFORT)
@settings(bounded, max_examples=100 * EFFORT)
@given(program=programs(kv_operations, kv_operations, compactions, questions))
def test_compaction(living_pair: Callable[[], Pair], program: list[Operation]) -> None:
    run(living_pair(), program)


@pytest.mark.timeout(120 * EFFORT)
@settings(bounded, max_examples=100 * EFFORT)
@given(program=programs(kv_operations, lease_operations, lease_operations, background_compactions))
def test_leases(living_pair: Callable[[], Pair], program: list[Operation]) -> None:
    run(living_pair(), program, hashes=False)


@pytest.mark.timeout(120 * EFFORT)
@settings(bounded, max_examples=80 * EFFORT)
@given(program=programs(kv_operations, watch_operations, background_compactions))
def test_watches(living_pair: Callable[[], Pair], program: list[Operation]) -> None:
    run(living_pair(), program, hashes=False)
