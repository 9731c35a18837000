"""Which seed catches which planted bug: finding out, and writing it down.

``caught.json`` is what the tests go by; the table in docs/simulation.md is made from it.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from .mutants import MUTANTS, planted
from .run import run

CAUGHT_PATH = Path(__file__).with_name("caught.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"
_BEGIN, _END = "<!-- mutants: begin -->\n", "<!-- mutants: end -->\n"


@dataclass(frozen=True, slots=True)
class Catch:
    """A seed whose run breaks a rule when the bug is planted."""

    seed: int
    rule: str


def caught() -> dict[str, Catch]:
    """What is known, by the name of the mutant."""
    return {name: Catch(**each) for name, each in json.loads(CAUGHT_PATH.read_text()).items()}


def hunt(name: str, seeds: int) -> Catch | None:
    """The first of so many seeds that catches a mutant."""
    with planted(name):
        for seed in range(seeds):
            outcome = run(seed)
            if outcome.failed:
                return Catch(seed, outcome.rule)
    return None


def still_catches(name: str, catch: Catch) -> bool:
    """Whether a seed catches a mutant as is written down."""
    with planted(name):
        return run(catch.seed).rule == catch.rule


def find(names: list[str], seeds: int, processes: int) -> list[str]:
    """Hunt some mutants, or all that are not caught any more; return those that got away."""
    known = caught() if CAUGHT_PATH.exists() else {}
    wanted = names or [
        name for name in MUTANTS if name not in known or not still_catches(name, known[name])
    ]
    escaped = []
    with ProcessPoolExecutor(processes) as pool:
        for name, catch in zip(wanted, pool.map(hunt, wanted, [seeds] * len(wanted)), strict=True):
            known.pop(name, None)
            if catch is None:
                escaped.append(name)
            else:
                known[name] = catch
            print(f"{name}: {catch or f'not in {seeds} seeds'}", flush=True)
    lines = {name: asdict(known[name]) for name in MUTANTS if name in known}
    CAUGHT_PATH.write_text(json.dumps(lines, indent=2) + "\n")
    write_document()
    return escaped


def write_document() -> None:
    """Put the table of mutants into the document."""
    text = DOCUMENT.read_text()
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    DOCUMENT.write_text(before + _BEGIN + table() + _END + after)


def documented() -> str:
    """The table that is in the document."""
    return DOCUMENT.read_text().split(_BEGIN)[1].split(_END)[0]


def table() -> str:
    """The mutants, and what catches them, as Markdown."""
    lines = ["| Bug planted | What is wrong, and who had it | Rule that catches it | Seed |"]
    lines.append("| --- | --- | --- | --- |")
    for name, catch in caught().items():
        story = " ".join(MUTANTS[name].story.split())
        lines.append(f"| {name.replace('_', ' ')} | {story} | {catch.rule} | {catch.seed} |")
    return "\n".join(lines) + "\n"
