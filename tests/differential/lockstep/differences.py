"""The table of known differences, and the one place that excuses a disagreement: a row of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from .comparison import Delta, plain

TABLE = Path(__file__).parents[1] / "known_differences.toml"


@dataclass(frozen=True)
class Row:
    """One known difference: where it shows, how, and why it is so.

    ``where`` names what disagrees: RPCs, ``watch``, ``http``, ``etcdctl`` or ``behaviour``;
    ``path`` names fields of the reply; ``etcd`` and ``ours`` are patterns of the two values.
    """

    id: str
    where: list[str]
    path: list[str]
    etcd: str
    ours: str
    what: str
    reason: str
    etcd_does: str
    ours_does: str
    request: dict[str, Any] = field(default_factory=dict)
    """Field values (or facts about it) that the request must have for the row to apply."""

    def explains(self, where: str, delta: Delta, request: dict[str, Any]) -> bool:
        return (
            where in self.where
            and delta.path in self.path
            and fnmatchcase(delta.etcd, self.etcd)
            and fnmatchcase(delta.ours, self.ours)
            and all(request.get(name) == value for name, value in self.request.items())
        )


@cache
def rows() -> tuple[Row, ...]:
    """Read the table, once."""
    with TABLE.open("rb") as file:
        return tuple(Row(**entry) for entry in tomllib.load(file)["difference"])


class Excuses:
    """Sorts disagreements into known and unknown ones, and remembers which rows fired."""

    def __init__(self, table: Iterable[Row] | None = None) -> None:
        self.table = tuple(rows() if table is None else table)
        self.fired: set[str] = set()

    def unexplained(
        self, where: str, found: Iterable[Delta], request: Message | None = None, **facts: Any
    ) -> Iterator[Delta]:
        """Pass on what no row explains; ``facts`` count like fields of the request."""
        asked: dict[str, Any] | None = None
        for delta in found:
            asked = asked or facts | ({} if request is None else plain(request))
            row = self.find(where, delta, asked)
            if row is None:
                yield delta
            else:
                self.fired.add(row.id)

    def find(self, where: str, delta: Delta, request: dict[str, Any]) -> Row | None:
        return next((row for row in self.table if row.explains(where, delta, request)), None)
