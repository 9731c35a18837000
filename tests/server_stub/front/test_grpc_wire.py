"""gRPC's encodings, without a connection."""

from __future__ import annotations

import gzip
import itertools
import zlib
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos.errors import Code, Refused
from etcd_pinwheel.server_stub.front import grpc_wire
from etcd_pinwheel.server_stub.front.grpc_wire import MessageReader


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


@given(
    st.lists(st.binary(max_size=40), max_size=8),
    st.lists(st.integers(min_value=0, max_value=400), max_size=12),
)
def test_messages_survive_any_cut(messages: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(map(framed, messages))
    reader = MessageReader(100)
    bounds = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    got = [m for a, b in itertools.pairwise(bounds) for m in reader.feed(wire[a:b])]
    assert got == messages
    assert reader.buffered_bytes == 0


def test_what_is_incomplete_is_counted() -> None:
    reader = MessageReader(100)
    assert reader.feed(framed(b"abc") + framed(b"defg")[:-1]) == [b"abc"]
    assert reader.buffered_bytes == 8
    assert reader.feed(b"g") == [b"defg"]


def refusal(data: bytes, limit: int = 100, encoding: str = "identity") -> tuple[Code, str]:
    with pytest.raises(Refused) as caught:
        MessageReader(limit, encoding).feed(data)
    return caught.value.refusal.code, caught.value.refusal.text


def test_a_message_too_large_is_refused_by_its_prefix() -> None:
    assert MessageReader(100).feed(framed(b"x" * 100)) == [b"x" * 100]
    assert refusal(framed(b"x" * 101)[:5]) == (
        Code.RESOURCE_EXHAUSTED,
        "grpc: received message larger than max (101 vs. 100)",
    )


def test_gzip() -> None:
    reader = MessageReader(100, "gzip")
    assert reader.feed(framed(gzip.compress(b"x" * 100), 1) + framed(b"plain")) == [
        b"x" * 100,
        b"plain",
    ]


def test_gzip_of_several_members() -> None:
    members = [b"x" * 60, b"", b"y" * 40, b""]
    payload = b"".join(map(gzip.compress, members))
    assert MessageReader(100, "gzip").feed(framed(payload, 1)) == [b"x" * 60 + b"y" * 40]


def test_the_members_of_a_gzip_bomb_share_one_bound() -> None:
    assert refusal(framed(gzip.compress(b"\0" * 60) * 2, 1), 100, "gzip") == (
        Code.RESOURCE_EXHAUSTED,
        "grpc: received message after decompression larger than max (101 vs. 100)",
    )
    code, text = refusal(framed(gzip.compress(b"") * 2000, 1), 100_000, "gzip")
    assert (code, text.rpartition(": ")[2]) == (Code.INTERNAL, "more than 16 members")


def test_a_gzip_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    code, text = refusal(framed(bomb, 1), 60_000, "gzip")
    assert code == Code.RESOURCE_EXHAUSTED
    assert text == "grpc: received message after decompression larger than max (60001 vs. 60000)"


@pytest.mark.parametrize(
    "payload",
    [
        b"not gzip",
        b"",
        gzip.compress(b"x" * 50, mtime=0)[:-4],
        zlib.compress(b"other format"),
        gzip.compress(b"x", mtime=0) + b"zz",
        gzip.compress(b"x", mtime=0) + b"\0",
        gzip.compress(b"x", mtime=0) + gzip.compress(b"y", mtime=0)[:-1],
    ],
)
def test_bad_gzip(payload: bytes) -> None:
    code, text = refusal(framed(payload, 1), encoding="gzip")
    assert code == Code.INTERNAL
    assert text.startswith("grpc: failed to decompress the received message: ")


def test_a_compressed_message_needs_an_encoding() -> None:
    assert refusal(framed(gzip.compress(b"x"), 1)) == (
        Code.INTERNAL,
        "grpc: compressed flag set with identity or empty encoding",
    )
    assert refusal(framed(b"x", 7))[0] == Code.INTERNAL


@given(st.binary(max_size=30))
def test_a_whole_message_is_what_the_reader_would_find(data: bytes) -> None:
    whole = grpc_wire.whole_message(data, 20)
    if whole is not None:
        assert MessageReader(20).feed(data) == [whole]
    for message in (data, b""):
        expected = message if len(message) <= 20 else None
        assert grpc_wire.whole_message(framed(message), 20) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("3S", 3.0),
        ("4m", 0.004),
        ("5u", 0.000005),
        ("6n", 6e-9),
        ("0S", 0.0),
        ("99999999H", 99999999 * 3600.0),
    ],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert grpc_wire.timeout_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "S", "5", "5s", "-1S", "1.5S", "123456789S", "1S ", "\u0661S"]
)
def test_malformed_timeouts(text: str) -> None:
    with pytest.raises(ValueError, match="malformed grpc-timeout"):
        grpc_wire.timeout_seconds(text)


@given(st.text(max_size=200))
def test_percent_encoding_can_be_undone(text: str) -> None:
    encoded = grpc_wire.percent_encode(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    expected = text.encode("utf-8", "replace").decode()
    assert unquote(encoded.decode()) == expected


def test_percent_encoding_leaves_plain_text_and_cuts_long_text() -> None:
    assert grpc_wire.percent_encode("etcdserver: no leader") == b"etcdserver: no leader"
    assert grpc_wire.percent_encode("50% \u00e4\n") == b"50%25 %C3%A4%0A"
    assert grpc_wire.percent_encode("x" * 5000) == b"x" * 1024 + b"..."


@given(st.binary(max_size=50), st.booleans())
def test_binary_metadata(value: bytes, padded: bool) -> None:
    import base64

    text = base64.b64encode(value)
    assert grpc_wire.decode_binary(text if padded else text.rstrip(b"=")) == value


@pytest.mark.parametrize("value", [b"!!!!", b"a", b"abc\xff"])
def test_malformed_binary_metadata(value: bytes) -> None:
    with pytest.raises(ValueError):
        grpc_wire.decode_binary(value)
