"""Command lines as Go's flag package reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .flag import FlagError


class HelpAsked(Exception):
    """``--help`` was given; the exception's text is the answer."""


class VersionAsked(Exception):
    """``--version`` was given."""


def split(
    argv: Sequence[str], is_switch: Mapping[str, bool], operands: list[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Take a command line apart; yields the flags: (name, text of the value).

    ``is_switch`` tells of every flag there is whether it stands for true without a value.
    ``operands`` gets what is no flag; without it, that is refused. Raises ``FlagError``.
    """
    arguments = iter(argv)
    for argument in arguments:
        stripped = argument[2:] if argument.startswith("--") else argument[1:]
        if not argument.startswith("-") or argument in ("-", "--"):
            if operands is None:
                raise FlagError(f"'{argument}' is not a valid flag")
            operands.append(argument)
            continue
        name, equals, text = stripped.partition("=")
        if not name or name.startswith("-"):
            raise FlagError(f"bad flag syntax: {argument}")
        if name not in is_switch:
            raise FlagError(f"flag provided but not defined: -{name}")
        if not equals:
            text = "true" if is_switch[name] else _next_argument(arguments, name)
        yield name, text


def _next_argument(arguments: Iterator[str], name: str) -> str:
    try:
        return next(arguments)
    except StopIteration:
        raise FlagError(f"flag needs an argument: -{name}") from None
