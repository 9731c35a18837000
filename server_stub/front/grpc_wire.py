"""gRPC's own encodings on top of HTTP/2, as pure functions and one small buffer.

Source: grpc/doc/PROTOCOL-HTTP2.md; texts of refusals are grpc-go's, which etcd is built on.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from typing import Final

from ...protos.errors import Code, Refusal, Refused

PREFIX_BYTES: Final = 5
ENCODINGS: Final = ("identity", "gzip")
"""Of requests; replies are never compressed."""
MAX_STATUS_CHARACTERS: Final = 1024
"""Longer texts are cut: clients bound the metadata they take, and would lose the code too."""

_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNIT_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NOT_PRINTABLE: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_GZIP_WINDOW_BITS: Final = 31
_GZIP_MEMBERS: Final = 16
"""The most in one message: each costs a copy of all that follow it."""


def timeout_seconds(text: str) -> float:
    """Read a ``grpc-timeout``; ValueError when it is not one."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"malformed grpc-timeout: {text!r}")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def percent_encode(text: str) -> bytes:
    """Encode a ``grpc-message``: UTF-8, with all but printable ASCII written as %XX."""
    if len(text) > MAX_STATUS_CHARACTERS:
        text = text[:MAX_STATUS_CHARACTERS] + "..."
    return _NOT_PRINTABLE.sub(lambda m: b"%%%02X" % m[0][0], text.encode("utf-8", "replace"))


def decode_binary(value: bytes) -> bytes:
    """Decode the value of a ``-bin`` key (base64, padded or not); ValueError if malformed."""
    first = value.partition(b",")[0].strip()
    try:
        return base64.b64decode(first + b"=" * (-len(first) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def frame(message: bytes) -> bytes:
    """Prefix a message, uncompressed, with its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def whole_message(data: bytes, max_bytes: int) -> bytes | None:
    """The one uncompressed message that ``data`` is, if that is what it is: the common case."""
    size = len(data) - PREFIX_BYTES
    if 0 <= size <= max_bytes and data[0] == 0 and int.from_bytes(data[1:5], "big") == size:
        return data[PREFIX_BYTES:]
    return None


class MessageReader:
    """Puts messages together from the bytes of a call, however they were cut.

    Holds at most one incomplete message of ``max_bytes``; a longer one is refused as soon as its
    prefix is read.
    """

    __slots__ = ("_buffer", "_encoding", "_max_bytes", "_need")

    def __init__(self, max_bytes: int, encoding: str = "identity") -> None:
        self._max_bytes = max_bytes
        self._encoding = encoding
        self._buffer = bytearray()
        self._need = PREFIX_BYTES

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the message that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the messages they complete. Raises Refused on a bad message."""
        if not self._buffer:
            return self._split(data)
        self._buffer += data
        if len(self._buffer) < self._need:
            return []
        data = bytes(self._buffer)
        self._buffer.clear()
        return self._split(data)

    def _split(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        start, total = 0, len(data)
        self._need = PREFIX_BYTES
        while total - start >= PREFIX_BYTES:
            length = int.from_bytes(data[start + 1 : start + PREFIX_BYTES], "big")
            if length > self._max_bytes:
                raise _too_large("message", length, self._max_bytes)
            end = start + PREFIX_BYTES + length
            if end > total:
                self._need = PREFIX_BYTES + length
                break
            messages.append(self._plain(data[start], data[start + PREFIX_BYTES : end]))
            start = end
        if start < total:
            self._buffer += data[start:]
        return messages

    def _plain(self, flag: int, payload: bytes) -> bytes:
        if flag == 0:
            return payload
        if flag != 1:
            text = f"grpc: received unexpected payload format {flag}"
            raise Refused(Refusal(Code.INTERNAL, text))
        if self._encoding == "identity":
            text = "grpc: compressed flag set with identity or empty encoding"
            raise Refused(Refusal(Code.INTERNAL, text))
        return _gunzip(payload, self._max_bytes)


def _gunzip(payload: bytes, max_bytes: int) -> bytes:
    """Inflate a message of one member or several, which gzip allows (RFC 1952, 2.2)."""
    message = bytearray()
    for _ in range(_GZIP_MEMBERS):
        inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            message += inflater.decompress(payload, max_bytes - len(message) + 1)
        except zlib.error as error:
            raise _not_inflated(str(error)) from error
        if len(message) > max_bytes:
            raise _too_large("message after decompression", len(message), max_bytes)
        if not inflater.eof:
            raise _not_inflated("unexpected EOF")
        payload = inflater.unused_data
        if not payload:
            return bytes(message)
    raise _not_inflated(f"more than {_GZIP_MEMBERS} members")


def _not_inflated(why: str) -> Refused:
    text = f"grpc: failed to decompress the received message: {why}"
    return Refused(Refusal(Code.INTERNAL, text))


def _too_large(what: str, size: int, limit: int) -> Refused:
    text = f"grpc: received {what} larger than max ({size} vs. {limit})"
    return Refused(Refusal(Code.RESOURCE_EXHAUSTED, text))
