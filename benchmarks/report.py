"""What a benchmark leaves behind: tables for a terminal and for a page, numbers as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import rich.table
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
NARROW = 60
"""Characters of a first column that is not to be wrapped."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; the first column is text, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def _is_narrow(self) -> bool:
        """Whether the first column leaves room for the others."""
        return max((len(row[0]) for row in self.rows), default=0) <= NARROW

    def rich(self) -> rich.table.Table:
        table = rich.table.Table(title=self.title, caption=self.note or None, title_justify="left")
        for index, name in enumerate(self.header):
            longest_word = max((len(word) for word in name.split()), default=0)
            table.add_column(
                name,
                justify="right" if index else "left",
                no_wrap=not index and self._is_narrow,
                min_width=longest_word,
            )
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        rules = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.header, rules, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])


@dataclass(frozen=True, slots=True)
class Goal:
    """Something the numbers should show; ``measured`` is None where they could not be had."""

    text: str
    measured: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it was measured and is on the right side of its limits."""
        if self.measured is None:
            return False
        above = self.at_least is None or self.measured >= self.at_least
        return above and (self.at_most is None or self.measured <= self.at_most)

    @property
    def limit(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}"

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        return "met" if self.met else "missed"


def goals_table(goals: Sequence[Goal]) -> Table:
    rows = [
        (
            goal.text,
            "-" if goal.measured is None else f"{goal.measured:.2f}",
            goal.limit,
            goal.verdict,
        )
        for goal in goals
    ]
    return Table("Goals", ("goal", "measured", "limit", "verdict"), rows)


def machine() -> dict[str, str]:
    """Describe where and when the numbers were taken."""
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{os.cpu_count()} x {processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "load before the run": loads,
        "python": sys.version.split()[0],
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
    }


def processor() -> str:
    """Name the processor as the kernel does, or its architecture where it does not tell."""
    try:
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        named = None
    return named[1] if named else platform.machine()


def console() -> Console:
    """Return where to print; wide enough for the tables when it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def show(console: Console, tables: Sequence[Table]) -> None:
    for table in tables:
        console.print(table.rich())
        console.print()


def save_json(name: str, content: object) -> Path:
    """Write the numbers of a run under results/ and return where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def page_section(facts: dict[str, str], tables: Sequence[Table]) -> str:
    """Lay out a run for a page of docs/."""
    about = "; ".join(f"{name}: {value}" for name, value in facts.items())
    return "\n\n".join([f"Measured with {about}.", *(table.markdown() for table in tables)])


def markers(place: str = "") -> tuple[str, str]:
    """Return what encloses the numbers on a page; a page with several places names them."""
    measured = f"measured {place}".strip()
    return f"<!-- {measured}: begin -->", f"<!-- {measured}: end -->"


def replace_measured(page: str, section: str, place: str = "") -> str:
    """Put a run in the place of the last one, between the page's two markers.

    Raises ValueError when the page has no such place.
    """
    begins, ends = markers(place)
    before, begin, rest = page.partition(begins)
    _old, end, after = rest.partition(ends)
    if not begin or not end:
        raise ValueError(f"no place for numbers: {begins} ... {ends}")
    return f"{before}{begin}\n\n{section}\n\n{end}{after}"


def write_page(name: str, facts: dict[str, str], tables: Sequence[Table]) -> Path:
    """Bring docs/<name>.md up to date with a run and return its path."""
    path = ROOT / "docs" / f"{name}.md"
    path.write_text(replace_measured(path.read_text(), page_section(facts, tables)))
    return path
