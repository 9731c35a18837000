"""A flag as a row of a table: its default, how its value reads, and what becomes of it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from .values import boolean


class FlagError(Exception):
    """A flag or variable that cannot be served as it is; the text names it."""


class Fate(Enum):
    """What becomes of a flag that is set to other than its default."""

    SERVED = auto()
    WITHOUT_EFFECT = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Flag:
    """One row of the table."""

    name: str
    default: str
    read: Callable[[str], Any]
    help: str
    fate: Fate = Fate.SERVED
    why: str = ""
    """For a flag that is not served: the reason, as a sentence's second half."""
    old_name: str = ""
    """What etcd 3.5 called it."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.old_name) if self.old_name else (self.name,)

    @property
    def is_switch(self) -> bool:
        """Whether the bare flag means true."""
        return self.read is boolean


def idle(
    name: str,
    default: str,
    reader: Callable[[str], Any],
    help: str,  # noqa: A002 - the word of the table's column
    why: str,
    old_name: str = "",
) -> Flag:
    """A row of the table: accepted, and without effect."""
    return Flag(name, default, reader, help, Fate.WITHOUT_EFFECT, why, old_name)


def refused(
    name: str,
    default: str,
    reader: Callable[[str], Any],
    why: str,
    old_name: str = "",
) -> Flag:
    """A row of the table: refused unless it has its default."""
    return Flag(name, default, reader, why, Fate.REFUSED, why, old_name)


def read(flag: Flag, text: str, spelled: str) -> Any:
    """Read a flag's value; raises ``FlagError`` with the flag as it was ``spelled``."""
    try:
        return flag.read(text)
    except ValueError as error:
        raise FlagError(f'invalid value "{text}" for {spelled}: {error}') from None
