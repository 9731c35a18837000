"""Keys, values and ranges, from what users write to what travels."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias, runtime_checkable

from .arguments import INT64_MAX, INT64_MIN, flag
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


def to_bytes(value: KeyLike, field: str = "key") -> bytes:
    """Take bytes as they are and a str as UTF-8; ``field`` names them where they are neither."""
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            problem = f"{field}: a str that can be encoded, or bytes, is needed: {error}"
            raise InvalidArgument(problem) from error
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidArgument(f"{field}: str or bytes is needed, not {type(value).__name__}: {value!r}")


def to_lease_id(lease: LeaseLike | None) -> int:
    """Take a lease's number, or a lease object; None is 0, no lease."""
    if lease is None:
        return 0
    lease_id = lease.id if not isinstance(lease, int) and isinstance(lease, HasLeaseId) else lease
    is_number = isinstance(lease_id, int) and not isinstance(lease_id, bool)
    if is_number and INT64_MIN <= lease_id <= INT64_MAX:
        return lease_id
    what = f"{type(lease).__name__}: {lease!r}"
    raise InvalidArgument(f"lease: a lease or its id, of 64 bits, is needed, not {what}")


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
    prefix, from_key = flag("prefix", prefix), flag("from_key", from_key)
    if (range_end is not None) + prefix + from_key > 1:
        raise InvalidArgument("give one of range_end, prefix and from_key")
    if range_end is not None:
        return start, to_bytes(range_end, "range_end")
    end = prefix_end(start) if prefix else FROM_KEY
    return start or b"\0", end
