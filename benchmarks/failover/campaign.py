"""A campaign: what was asked for, and everything that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.failover.faults import Fault
from benchmarks.failover.figures import figures
from benchmarks.failover.measures import calls_of, span_of
from benchmarks.failover.numbers import our_riders
from benchmarks.failover.run import Outcome, Results, Rider
from benchmarks.failover.settings import Setting


@dataclass
class Campaign:
    """Runs of the same kind: of some policies, through some faults, some times."""

    facts: Mapping[str, str]
    """The machine, versions and date."""
    server: str
    """Whose members claims were tested on."""
    settings: Sequence[Setting]
    faults: Sequence[Fault]
    numbers: Sequence[Fault]
    """The faults of the numbers to beat."""
    repeats: int
    every_ms: float
    quick: bool = False
    peers: Sequence[Rider] = ()
    results: Results = field(default_factory=Results)

    @property
    def parts(self) -> tuple[Results, Sequence[Fault], Sequence[Setting]]:
        """What the tables of the claims' runs are made of."""
        return self.results, self.faults, self.settings

    @property
    def riders(self) -> list[Rider]:
        """Who took part in the numbers to beat."""
        return [*our_riders(self.settings), *self.peers]

    def typical(self, fault: Fault) -> dict[str, Outcome]:
        """Return the outcomes of one repeat, by setting: the one in which as many calls failed,
        all in all, as in the median one."""
        by_repeat: dict[int, dict[str, Outcome]] = {}
        for outcome in self.results.outcomes:
            if outcome.fault == fault.name:
                by_repeat.setdefault(outcome.repeat, {})[outcome.setting] = outcome
        if not by_repeat:
            return {}
        most = max(len(outcomes) for outcomes in by_repeat.values())
        whole = [each for each in by_repeat.values() if len(each) == most]
        whole.sort(key=lambda each: sum(map(bad_calls, each.values())))
        return whole[(len(whole) - 1) // 2]


def bad_calls(outcome: Outcome) -> int:
    sums = figures(calls_of(outcome), span_of(outcome))
    return sums.failed + sums.slow
