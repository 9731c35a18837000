"""The first bytes of a connection between members: who calls whom, and the answer.

Both are 48 bytes, big-endian, at places that no version of the protocol moves, so that a proxy can
read from the first bytes who calls whom:

    ========  ==================================  =======================================
    offset    hello (the caller's)                welcome (the answer)
    ========  ==================================  =======================================
    0         magic, 8 bytes                      the same
    8         protocol version, 2 bytes           the same
    10        channel, 1 byte                     verdict, 1 byte
    11        zero, 5 bytes                       zero, 5 bytes
    16        cluster id, 8 bytes                 the answering member's
    24        the caller's member id, 8 bytes     the answering member's id
    32        the member id called, 8 bytes       zero
    40        server version, 3 bytes and a zero  the same
    44        CRC-32C of what stands before       the same
    ========  ==================================  =======================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

import google_crc32c

MAGIC: Final = b"PINWHEEL"
PROTOCOL_VERSION: Final = 1
GREETING_BYTES: Final = 48
_BODY: Final = struct.Struct(">8sHB5xQQQ3Bx")
_SUM: Final = struct.Struct(">I")

Version = tuple[int, int, int]


class Channel(IntEnum):
    """What a connection is for."""

    CONTROL = 1
    """Messages that must not wait (heartbeats, votes, acknowledgements), and questions."""
    APPENDS = 2
    """Messages with entries in them."""
    SNAPSHOT = 3
    """One snapshot."""
    INQUIRY = 4
    """Somebody without an id asks what cluster this is."""


class Verdict(IntEnum):
    """What the called member says to a hello."""

    WELCOME = 0
    WRONG_VERSION = 1
    FOREIGN_CLUSTER = 2
    WRONG_MEMBER = 3
    """It is not the member that was called."""
    REMOVED = 4
    """The caller was removed from the cluster."""
    BUSY = 5
    BAD_CALLER = 6
    """The caller has no id, or ours, or its certificate is for somebody else."""


class NotAPeer(Exception):
    """The first bytes are no greeting; the text says what they look like."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who calls whom, and what for."""

    channel: int
    cluster_id: int
    sender: int
    target: int
    server_version: Version = (0, 0, 0)
    protocol_version: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        return _encode(
            self.protocol_version,
            self.channel,
            self.cluster_id,
            self.sender,
            self.target,
            self.server_version,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the first bytes of a connection; raises ``NotAPeer``."""
        version, channel, cluster_id, sender, target, server_version = _decode(data)
        return cls(channel, cluster_id, sender, target, server_version, version)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a hello: who answers, and whether the caller may go on."""

    verdict: int
    cluster_id: int
    member_id: int
    server_version: Version = (0, 0, 0)
    protocol_version: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        return _encode(
            self.protocol_version,
            self.verdict,
            self.cluster_id,
            self.member_id,
            0,
            self.server_version,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the answer; raises ``NotAPeer``."""
        version, verdict, cluster_id, member_id, _, server_version = _decode(data)
        return cls(verdict, cluster_id, member_id, server_version, version)


def who_calls_whom(first_bytes: bytes) -> tuple[int, int]:
    """Read the ids of the caller and of the one it calls, 0 for nobody; raises ``NotAPeer``.

    For a proxy: it needs the first ``GREETING_BYTES`` of a connection without TLS.
    """
    hello = Hello.decode(first_bytes)
    return hello.sender, hello.target


def may_become_greeting(beginning: bytes | bytearray) -> bool:
    """Tell whether the first few bytes look like ours so far."""
    return MAGIC.startswith(beginning[: len(MAGIC)])


def _encode(
    version: int, purpose: int, cluster_id: int, member: int, target: int, server: Version
) -> bytes:
    body = _BODY.pack(MAGIC, version, purpose, cluster_id, member, target, *server)
    return body + _SUM.pack(google_crc32c.value(body))


def _decode(data: bytes) -> tuple[int, int, int, int, int, Version]:
    if not may_become_greeting(data):
        raise NotAPeer(_looks_like(data))
    if len(data) < GREETING_BYTES:
        raise NotAPeer(f"a greeting cut short after {len(data)} bytes")
    body, end = data[: _BODY.size], data[_BODY.size : GREETING_BYTES]
    if _SUM.unpack(end)[0] != google_crc32c.value(body):
        raise NotAPeer("a greeting with a wrong checksum")
    _, version, purpose, cluster_id, member, target, major, minor, patch = _BODY.unpack(body)
    return version, purpose, cluster_id, member, target, (major, minor, patch)


def _looks_like(data: bytes) -> str:
    if data[:2] == b"\x16\x03":
        return "TLS, where none is spoken"
    if data[:3] == b"PRI":
        return "HTTP/2, or gRPC"
    if data.split(b" ", 1)[0] in {b"GET", b"PUT", b"POST", b"HEAD", b"OPTIONS", b"DELETE"}:
        return "HTTP"
    return f"not a greeting: {data[:16].hex(' ')}"
