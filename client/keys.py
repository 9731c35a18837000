"""Keys, values and ranges, from what users write to what travels."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias, runtime_checkable

from .errors import InvalidArgument

KeyLike: TypeAlias = str | bytes | bytearray | memoryview
"""Keys and values are bytes; a str is encoded as UTF-8."""

FROM_KEY: Final = b"\0"
"""The range end that means: everything from the key on."""


@runtime_checkable
class HasLeaseId(Protocol):
    """A lease object, as far as an operation cares."""

    @property
    def id(self) -> int: ...


LeaseLike: TypeAlias = int | HasLeaseId


def to_bytes(value: KeyLike) -> bytes:
    """Take bytes as they are and a str as UTF-8."""
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidArgument(f"str or bytes is needed, not {type(value).__name__}: {value!r}")


def to_lease_id(lease: LeaseLike | None) -> int:
    """Take a lease's number, or a lease object; None is 0, no lease."""
    if lease is None:
        return 0
    if isinstance(lease, int):
        return lease
    if isinstance(lease, HasLeaseId):
        return lease.id
    raise InvalidArgument(f"a lease or its id is needed, not {type(lease).__name__}: {lease!r}")


def prefix_end(prefix: bytes) -> bytes:
    """Compute the end of the range of all keys that start with the prefix.

    Counts the last byte up; bytes 0xff cannot be and are dropped first. Where nothing is left
    there is no end: everything from the prefix on.
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else FROM_KEY


def to_range(
    key: KeyLike, range_end: KeyLike | None, prefix: bool, from_key: bool
) -> tuple[bytes, bytes]:
    """Work out (key, range_end) as they travel; at most one of the three ways to say a range."""
    start = to_bytes(key)
    if range_end is None and not prefix and not from_key:
        return start, b""
    if (range_end is not None) + prefix + from_key > 1:
        raise InvalidArgument("give one of range_end, prefix and from_key")
    if range_end is not None:
        return start, to_bytes(range_end)
    end = prefix_end(start) if prefix else FROM_KEY
    return start or b"\0", end
