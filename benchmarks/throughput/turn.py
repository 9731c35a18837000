"""A turn and what many of them say: medians, and ratios taken within a round.

A shared machine's speed wanders by tens of percent within minutes, so two medians say little about
each other. Contenders therefore take turns in rounds, and a ratio compares two turns of the same
round, seconds apart; only then the median over the rounds is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Cell:
    """What a turn measures, and in which comparison: of ``clients`` or of ``servers``."""

    comparison: str
    server: str
    contender: str
    operation: str
    callers: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender's measured time on one server."""

    cell: Cell
    round: int
    calls: int
    failed: int
    seconds: float
    cpu_seconds: float
    """Of the client's process, all threads, user and system."""
    server_cpu_seconds: float
    others_cores: float = 0.0
    """How many cores were busy with neither client nor server: what disturbed the turn."""
    error: str = ""

    @property
    def calls_per_second(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of the client, in microseconds a call."""
        return self.cpu_seconds / self.calls * 1e6

    @property
    def server_cpu_us(self) -> float:
        """CPU time of the server, in microseconds a call."""
        return self.server_cpu_seconds / self.calls * 1e6

    @property
    def valid(self) -> bool:
        """Whether it measured calls that worked."""
        return self.calls > 0 and not self.failed


Quantity = Callable[[Turn], float]


class Turns:
    """The turns of a run, by cell and round."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._by_cell: dict[Cell, dict[int, Turn]] = {}
        for turn in turns:
            if turn.valid:
                self._by_cell.setdefault(turn.cell, {})[turn.round] = turn

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._by_cell

    def median(self, cell: Cell, quantity: Quantity) -> float | None:
        """Return the cell's median over its rounds; None where nothing was measured."""
        turns = self._by_cell.get(cell, {})
        return median(map(quantity, turns.values())) if turns else None

    def ratio(self, cell: Cell, to: Cell, quantity: Quantity) -> float | None:
        """Return the median of the ratios within a round; None where no round has both."""
        mine, others = self._by_cell.get(cell, {}), self._by_cell.get(to, {})
        ratios = [quantity(mine[i]) / quantity(others[i]) for i in mine if i in others]
        return median(ratios) if ratios else None
