"""Bugs that others had, planted in the product one at a time, to see that the rules catch them.

Each is a patch of the product's own functions, in force only while a run of it lasts. The numbers
are those of the list of known bugs in docs/simulation.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from . import faults_of_logs, faults_of_members, faults_of_votes
from .planting import Plant

Planter = Callable[[Plant], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug."""

    name: str
    story: str
    """What is wrong, and who had it."""
    plant: Planter


def _collect() -> dict[str, Mutant]:
    modules = (faults_of_votes, faults_of_logs, faults_of_members)
    planters = [
        planter
        for module in modules
        for planter in vars(module).values()
        if inspect.isfunction(planter) and planter.__module__ == module.__name__
    ]
    return {
        planter.__name__: Mutant(planter.__name__, inspect.getdoc(planter) or "", planter)
        for planter in planters
        if not planter.__name__.startswith("_")
    }


MUTANTS: dict[str, Mutant] = _collect()
"""All of them, by the name of the function that plants them."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have the product suffer from a bug."""
    with ExitStack() as stack:

        def replace(target: Any, attribute: str, value: Any) -> None:
            stack.enter_context(patch.object(target, attribute, value))

        MUTANTS[name].plant(replace)
        yield
