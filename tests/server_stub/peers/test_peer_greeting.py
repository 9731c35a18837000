"""The first bytes: where what stands, and what is not taken for a greeting."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.peers.greeting import (
    GREETING_BYTES,
    MAGIC,
    Channel,
    Hello,
    NotAPeer,
    Verdict,
    Welcome,
    may_become_greeting,
    who_calls_whom,
)

uint64 = st.integers(0, 2**64 - 1)
versions = st.tuples(*[st.integers(0, 255)] * 3)
hellos = st.builds(Hello, st.integers(0, 255), uint64, uint64, uint64, versions)
welcomes = st.builds(Welcome, st.integers(0, 255), uint64, uint64, versions)


@given(hellos)
def test_hellos_travel(hello: Hello) -> None:
    data = hello.encode()
    assert len(data) == GREETING_BYTES
    assert Hello.decode(data) == hello
    assert who_calls_whom(data) == (hello.sender, hello.target)


@given(welcomes)
def test_welcomes_travel(welcome: Welcome) -> None:
    assert Welcome.decode(welcome.encode()) == welcome


def test_places_do_not_move() -> None:
    hello = Hello(Channel.SNAPSHOT, 0x1111, 0x2222, 0x3333, (3, 7, 1), protocol_version=9)
    assert hello.encode()[:44].hex() == (
        "50494e574845454c" + "0009" + "03" + "0000000000"
        "0000000000001111" + "0000000000002222" + "0000000000003333" + "03070100"
    )
    welcome = Welcome(Verdict.REMOVED, 0x1111, 0x2222)
    assert welcome.encode()[10] == 4
    assert welcome.encode()[16:32].hex() == "00000000000011110000000000002222"


@given(hellos, st.integers(0, GREETING_BYTES * 8 - 1))
def test_no_flipped_bit_goes_unnoticed(hello: Hello, position: int) -> None:
    data = bytearray(hello.encode())
    data[position // 8] ^= 1 << position % 8
    with pytest.raises(NotAPeer):
        Hello.decode(bytes(data))


@given(st.binary(max_size=100))
@example(MAGIC)
@example(MAGIC + bytes(40))
@example(b"")
def test_garbage_is_no_greeting(data: bytes) -> None:
    with pytest.raises(NotAPeer):
        Hello.decode(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\n", "HTTP/2, or gRPC"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "TLS, where none is spoken"),
        (b"\0\1\2", "not a greeting: 00 01 02"),
        (MAGIC + b"\0\1", "a greeting cut short after 10 bytes"),
        (MAGIC + bytes(40), "a greeting with a wrong checksum"),
    ],
)
def test_the_reason_says_what_it_looks_like(data: bytes, text: str) -> None:
    with pytest.raises(NotAPeer) as caught:
        Hello.decode(data)
    assert str(caught.value) == text


def test_a_beginning_is_told_from_garbage() -> None:
    assert all(may_become_greeting(MAGIC[:length]) for length in range(len(MAGIC) + 1))
    assert may_become_greeting(MAGIC + b"anything")
    assert not may_become_greeting(b"GET ")
    assert not may_become_greeting(MAGIC[:-1] + b"!")
