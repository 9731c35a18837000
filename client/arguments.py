"""What arguments may be, where nothing else would tell in time, or by which name.

Each check hands the value on, or raises InvalidArgument that names the argument and what it takes.
"""

from __future__ import annotations

import math
import operator
import sys
from numbers import Real
from typing import Any, Final

from .errors import InvalidArgument

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


def whole_number(field: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer within bounds, of whatever type; a bool is none."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        wanted = f"from {least} on" if most is None else f"from {least} to {most}"
        raise InvalidArgument(f"{field}: a whole number {wanted} is needed, not {value!r}")
    return number


def revision(field: str, value: Any) -> int:
    """A revision, or 0 for none in particular."""
    return whole_number(field, value, 0, INT64_MAX)


def seconds(field: str, value: Any, *, or_zero: bool = False) -> float | None:
    """A positive number, ``math.inf`` too, or None; one that no float can hold is for ever."""
    if value is None:
        return None
    is_number = issubclass(type(value), Real) and type(value) is not bool
    if not is_number or not (value > 0 or (or_zero and value == 0)):
        wanted = "a number of seconds, 0 or more," if or_zero else "a positive number of seconds"
        raise InvalidArgument(f"{field}: {wanted} is needed, not {value!r}")
    return float(value) if value <= sys.float_info.max else math.inf


def flag(field: str, value: Any) -> bool:
    """A bool, or a number that equals one."""
    if value not in (True, False):
        raise InvalidArgument(f"{field}: True or False is needed, not {value!r}")
    return bool(value)


def is_text(value: Any) -> bool:
    """Whether it is a str that can travel, as UTF-8; one with lone surrogates cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
