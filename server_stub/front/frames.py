"""HTTP/2 frames as bytes (RFC 9113, sections 4, 6 and 7): numbers, and how they are packed."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16_384
"""The payload of a frame, unless SETTINGS allow more; this end never does."""
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535

# Types of frames. Plain integers: they are compared for each frame.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """What SETTINGS can say (RFC 9113, section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


_HEADER: Final = struct.Struct(">HBBBL")
_SETTING: Final = struct.Struct(">HL")
_UINT32: Final = struct.Struct(">L")

unpack_header = _HEADER.unpack_from
"""Read (length >> 8, length & 255, type, flags, stream id with its reserved bit)."""


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a payload."""
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = header(0, SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The (name, value) pairs of a SETTINGS payload, in their order."""
    return list(_SETTING.iter_unpack(payload))


def ping(data: bytes, flags: int = 0) -> bytes:
    """A PING of eight bytes, or the answer to one."""
    return header(8, PING, flags, 0) + data


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """An RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream_id) + _UINT32.pack(code)


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return header(4, WINDOW_UPDATE, 0, stream_id) + _UINT32.pack(increment)


def goaway(last_stream_id: int, code: ErrorCode, text: str) -> bytes:
    """A GOAWAY frame; ``text`` is for people who debug the peer."""
    payload = _UINT32.pack(last_stream_id) + _UINT32.pack(code) + text.encode()
    return header(len(payload), GOAWAY, 0, 0) + payload


def uint31(payload: bytes) -> int:
    """The number in four bytes whose highest bit is reserved."""
    number: int = _UINT32.unpack(payload)[0]
    return number & 0x7FFF_FFFF
