"""Keys and ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import InvalidArgument, prefix_end
from etcd_pinwheel.client.keys import to_bytes, to_lease_id, to_range


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"a", b"b"),
        (b"ab\xff", b"ac"),
        (b"a\xff\xff", b"b"),
        (b"\xff", b"\0"),
        (b"\xff\xff", b"\0"),
        (b"", b"\0"),
        (b"a\0", b"a\x01"),
    ],
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


@given(st.binary(max_size=5), st.binary(max_size=8))
def test_a_key_is_in_the_prefixs_range_exactly_if_it_starts_with_it(
    prefix: bytes, key: bytes
) -> None:
    start, end = to_range(prefix, None, True, False)
    if not key:
        return  # there is no empty key
    inside = start <= key and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


def test_from_key_and_one_key() -> None:
    assert to_range("k", None, False, True) == (b"k", b"\0")
    assert to_range("", None, False, True) == (b"\0", b"\0")
    assert to_range("k", None, False, False) == (b"k", b"")
    assert to_range("k", "l", False, False) == (b"k", b"l")


@pytest.mark.parametrize("two", [("l", True, False), ("l", False, True), (None, True, True)])
def test_a_range_is_said_one_way(two: tuple[str | None, bool, bool]) -> None:
    with pytest.raises(InvalidArgument):
        to_range("k", *two)


@pytest.mark.parametrize(
    "value", ["ä", "ä".encode(), bytearray("ä".encode()), memoryview(b"\xc3\xa4")]
)
def test_to_bytes(value: str | bytes) -> None:
    made = to_bytes(value)
    assert made == b"\xc3\xa4"
    assert type(made) is bytes


@pytest.mark.parametrize("value", [None, 5, 1.0, ["a"], object()])
def test_what_is_not_bytes(value: object) -> None:
    with pytest.raises(InvalidArgument, match=type(value).__name__):
        to_bytes(value)  # type: ignore[arg-type]


def test_leases() -> None:
    class Lease:
        id = 7

    assert (to_lease_id(None), to_lease_id(5), to_lease_id(Lease())) == (0, 5, 7)
    with pytest.raises(InvalidArgument):
        to_lease_id("7")  # type: ignore[arg-type]
