"""The conditions of a transaction, written as comparisons.

``version("k") == 0`` makes a new frozen :class:`Compare`; nothing is compared here, nothing is
changed. The five things that can be compared are :func:`version`, :func:`create_revision`,
:func:`mod_revision` (all three are 0 where the key does not exist), :func:`value` and
:func:`lease`. Over a range (``prefix=True``, ...) a condition must hold for every key of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from ..protos.etcdserverpb import Compare as ComparePb
from .errors import InvalidArgument
from .keys import KeyLike, LeaseLike, to_bytes, to_lease_id, to_range


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition, for the server to decide."""

    target: str
    """``version``, ``create_revision``, ``mod_revision``, ``value`` or ``lease``."""
    key: bytes
    range_end: bytes
    operator: str
    """``==``, ``!=``, ``<`` or ``>``."""
    operand: int | bytes

    def __bool__(self) -> NoReturn:
        raise TypeError("a Compare is decided by the server: give it to txn().when(...)")

    def to_pb(self) -> ComparePb:
        """Write it down as it travels."""
        operand: dict[str, Any] = {self.target: self.operand}
        return ComparePb(
            key=self.key,
            range_end=self.range_end,
            target=_TARGETS[self.target],
            result=_RESULTS[self.operator],
            **operand,
        )


_TARGETS = {
    "version": ComparePb.VERSION,
    "create_revision": ComparePb.CREATE,
    "mod_revision": ComparePb.MOD,
    "value": ComparePb.VALUE,
    "lease": ComparePb.LEASE,
}
_RESULTS = {
    "==": ComparePb.EQUAL,
    "!=": ComparePb.NOT_EQUAL,
    "<": ComparePb.LESS,
    ">": ComparePb.GREATER,
}

Operand: TypeAlias = KeyLike | LeaseLike


class Comparable:
    """Something of a key that can be compared: the left side of a condition.

    Its operators, ``==`` among them, make a :class:`Compare` instead of comparing; so it is not
    hashable and cannot be looked for in a collection.
    """

    __slots__ = ("_key", "_range_end", "_target")

    def __init__(self, target: str, key: bytes, range_end: bytes) -> None:
        self._target = target
        self._key = key
        self._range_end = range_end

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, operand: Operand) -> Compare:  # type: ignore[override]
        return self._compare("==", operand)

    def __ne__(self, operand: Operand) -> Compare:  # type: ignore[override]
        return self._compare("!=", operand)

    def __lt__(self, operand: Operand) -> Compare:
        return self._compare("<", operand)

    def __gt__(self, operand: Operand) -> Compare:
        return self._compare(">", operand)

    def __repr__(self) -> str:
        return f"{self._target}({self._key!r})"

    def _compare(self, operator: str, operand: Operand) -> Compare:
        right = self._right_side(operand)
        return Compare(self._target, self._key, self._range_end, operator, right)

    def _right_side(self, operand: Any) -> int | bytes:
        if self._target == "value":
            return to_bytes(operand, "value")
        if self._target == "lease":
            return to_lease_id(operand)
        if not isinstance(operand, int) or isinstance(operand, bool):
            raise InvalidArgument(f"{self!r} is a number; it cannot be compared with {operand!r}")
        return operand


def version(
    key: KeyLike, range_end: KeyLike | None = None, *, prefix: bool = False, from_key: bool = False
) -> Comparable:
    """How often the key has been written since it was created; 0: it does not exist."""
    return Comparable("version", *to_range(key, range_end, prefix, from_key))


def create_revision(
    key: KeyLike, range_end: KeyLike | None = None, *, prefix: bool = False, from_key: bool = False
) -> Comparable:
    """The revision that created the key; 0: it does not exist."""
    return Comparable("create_revision", *to_range(key, range_end, prefix, from_key))


def mod_revision(
    key: KeyLike, range_end: KeyLike | None = None, *, prefix: bool = False, from_key: bool = False
) -> Comparable:
    """The revision of the key's last change; 0: it does not exist."""
    return Comparable("mod_revision", *to_range(key, range_end, prefix, from_key))


def value(
    key: KeyLike, range_end: KeyLike | None = None, *, prefix: bool = False, from_key: bool = False
) -> Comparable:
    """The key's value; any comparison of a key that does not exist fails."""
    return Comparable("value", *to_range(key, range_end, prefix, from_key))


def lease(
    key: KeyLike, range_end: KeyLike | None = None, *, prefix: bool = False, from_key: bool = False
) -> Comparable:
    """The id of the lease that the key is attached to; 0: none."""
    return Comparable("lease", *to_range(key, range_end, prefix, from_key))
