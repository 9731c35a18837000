"""Header blocks: decoded once, found again, never wrongly."""

from __future__ import annotations

import contextlib

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.server_stub.front.header_blocks import (
    BadBlock,
    HeadDecoder,
    HeaderBomb,
    encode,
)
from etcd_pinwheel.server_stub.front.request_head import Malformed, RequestHead

BASE = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C")]

short = st.binary(max_size=6).map(lambda b: b.hex().encode())
heads = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"token", b"x-y"]), short), max_size=4)


@given(st.lists(st.tuples(heads, st.booleans(), st.sampled_from([None, 0, 100, 4096]))))
def test_remembering_changes_nothing(
    requests: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    """Whatever a client does with its table, each head reads as without our memory."""
    encoder, decoder = hpack.Encoder(), HeadDecoder(10_000)
    for headers, again, table_size in requests:
        if table_size is not None:
            encoder.header_table_size = table_size
        for _ in range(2 if again else 1):
            head = decoder.decode(encoder.encode(BASE + headers))
            assert isinstance(head, RequestHead)
            expected: dict[str, str] = {}
            for name, value in headers:
                expected.setdefault(name.decode(), value.decode())
            assert head.metadata == expected


def test_a_repeated_head_is_the_same_object_until_the_table_changes() -> None:
    encoder, decoder = hpack.Encoder(), HeadDecoder(10_000)
    decoder.decode(encoder.encode(BASE))
    block = encoder.encode(BASE)
    head = decoder.decode(block)
    assert decoder.decode(encoder.encode(BASE)) is head
    decoder.decode(encoder.encode([*BASE, (b"new", b"entry")]))
    assert decoder.decode(block) is not head


def test_memory_is_bounded() -> None:
    decoder = HeadDecoder(100_000)
    base = b"\x83\x86\x44\x01/"
    decoder.decode(base)
    for number in range(2000):
        value = str(number).encode()
        decoder.decode(b"\x83\x86\xbe\x00\x01x" + bytes((len(value),)) + value)
    assert len(decoder._known) <= 256


def test_a_large_head_is_refused_and_a_bomb_is_not_decoded() -> None:
    encoder = hpack.Encoder()
    decoder = HeadDecoder(1000)
    large = decoder.decode(encoder.encode([*BASE, (b"x", b"y" * 1000)]))
    assert isinstance(large, RequestHead)
    assert large.refusal is not None
    assert large.refusal.code == Code.RESOURCE_EXHAUSTED
    bomb = b"\x83\x86\x84" + b"\x40\x01a\x7f\x81\x06" + b"z" * 896 + b"\xbe" * 20_000
    with pytest.raises(HeaderBomb):
        HeadDecoder(1000).decode(bomb)


def test_malformed_heads_keep_the_table_in_step() -> None:
    encoder, decoder = hpack.Encoder(), HeadDecoder(1000)
    assert isinstance(decoder.decode(encoder.encode([(b"token", b"t")])), Malformed)
    head = decoder.decode(encoder.encode([*BASE, (b"token", b"t")]))
    assert isinstance(head, RequestHead)
    assert head.metadata == {"token": "t"}


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_block(block: bytes) -> None:
    with contextlib.suppress(BadBlock, HeaderBomb):
        HeadDecoder(1000).decode(block)


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=5))
def test_blocks_encode_for_any_decoder(headers: list[tuple[bytes, bytes]]) -> None:
    wanted = [(b":status", b"200"), *headers]
    decoder = hpack.Decoder(10_000)
    assert list(decoder.decode(encode(wanted), raw=True)) == wanted
    assert list(decoder.decode(encode(wanted), raw=True)) == wanted
