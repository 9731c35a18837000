"""What was measured, and what it says: medians, and ratios taken within a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one side."""

    side: str
    row: str
    round: int
    values: Mapping[str, float]
    error: str = ""


class Samples:
    """The samples of a run; those that failed count nowhere."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_row: dict[tuple[str, str], dict[int, Mapping[str, float]]] = {}
        for sample in samples:
            if not sample.error:
                rounds = self._by_row.setdefault((sample.side, sample.row), {})
                rounds[sample.round] = sample.values

    def median(self, side: str, row: str, name: str) -> float | None:
        """The median over the rounds; None where nothing was measured."""
        rounds = self._by_row.get((side, row), {})
        found = [values[name] for values in rounds.values() if name in values]
        return median(found) if found else None

    def ratio(self, row: str, name: str, mine: str, theirs: str) -> float | None:
        """The median of the ratios within a round; None where no round has both."""
        ours, others = self._by_row.get((mine, row), {}), self._by_row.get((theirs, row), {})
        ratios = [
            ours[number][name] / others[number][name]
            for number in ours
            if number in others and name in ours[number] and others[number].get(name)
        ]
        return median(ratios) if ratios else None

    def derived(
        self, side: str, row: str, of: Callable[[Mapping[str, float]], float]
    ) -> float | None:
        """The median of something computed from each round's values."""
        rounds = self._by_row.get((side, row), {})
        return median(map(of, rounds.values())) if rounds else None
