"""HPACK at both ends of a call (RFC 7541): heads in, ready-made blocks out.

Requests repeat: after the first call a client sends its head as a few indices into the table
both ends keep. So a head is decoded and checked once, and found again by the bytes of its block
for as long as the table stays as it was. Replies use no table at all: a block is then a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import hpack
import hpack.table

from .request_head import Header, Malformed, RequestHead, parse

_CACHED_BLOCKS: Final = 256
_CACHED_BLOCK_BYTES: Final = 512
_HARD_LIMIT_FACTOR: Final = 4
"""A head over the limit is refused; one so many times over ends the connection undecoded."""


class HeaderBomb(Exception):
    """A header block that would decode to far more than is allowed."""


class BadBlock(Exception):
    """Bytes that are no header block: the tables of the two ends differ from here on."""


class _Table(hpack.table.HeaderTable):
    """A header table that counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


class HeadDecoder:
    """Decodes the header blocks of one connection, in their order on the wire."""

    def __init__(self, max_header_list_bytes: int) -> None:
        self._max_bytes = max_header_list_bytes
        self._decoder = hpack.Decoder(max_header_list_bytes * _HARD_LIMIT_FACTOR)
        self._table = _Table()
        self._decoder.header_table = self._table
        self._known: dict[bytes, RequestHead | Malformed] = {}

    def decode(self, block: bytes) -> RequestHead | Malformed:
        """Decode a block; what is malformed is returned, as the table has changed all the same.

        Raises HeaderBomb and BadBlock, after which the connection cannot go on.
        """
        known = self._known.get(block)
        return known if known is not None else self._decode(block)

    def _decode(self, block: bytes) -> RequestHead | Malformed:
        before, size_before = self._table.changes, self._table.maxsize
        try:
            headers = list(self._decoder.decode(block, raw=True))
        except hpack.OversizedHeaderListError as error:
            raise HeaderBomb(str(error)) from error
        except (hpack.HPACKError, IndexError, ValueError) as error:
            raise BadBlock(str(error)) from error
        head = self._read(headers)
        if (before, size_before) != (self._table.changes, self._table.maxsize):
            self._known.clear()
        elif len(block) <= _CACHED_BLOCK_BYTES:
            if len(self._known) >= _CACHED_BLOCKS:
                self._known.clear()
            self._known[block] = head
        return head

    def _read(self, headers: Sequence[Header]) -> RequestHead | Malformed:
        size = sum(len(name) + len(value) + 32 for name, value in headers)
        try:
            return parse(headers, oversized=size > self._max_bytes)
        except Malformed as malformed:
            return malformed


def encode(headers: Iterable[Header]) -> bytes:
    """Encode headers without reference to any table but the static one's ``:status: 200``."""
    parts: list[bytes] = []
    for name, value in headers:
        if (name, value) == (b":status", b"200"):
            parts.append(b"\x88")
        else:
            parts += (b"\0", _length(len(name)), name, _length(len(value)), value)
    return b"".join(parts)


def _length(number: int) -> bytes:
    """An HPACK integer with a prefix of seven bits."""
    if number < 127:
        return bytes((number,))
    out = bytearray((127,))
    number -= 127
    while number >= 128:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
