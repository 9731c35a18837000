"""What follows the greetings: frames. A length (4 bytes, of the payload), a kind (1), a payload."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

_HEAD: Final = struct.Struct(">IB")


class Kind(IntEnum):
    """What a frame holds."""

    MESSAGE = 1
    """A ``raftpb.Message``."""
    PING = 2
    """8 bytes, to be sent back; on a snapshot's stream: there is work going on."""
    PONG = 3
    ASK = 4
    """Question id (8), length of the kind (2), kind, payload."""
    ANSWER = 5
    """Question id (8), payload."""
    REFUSAL = 6
    """Question id (8), code (1), code on the wire (1, 255: the same), text."""
    CANCEL = 7
    """Question id (8): nobody waits for the answer any more."""
    SNAPSHOT = 8
    """Length of the file (8), a ``raftpb.Message`` of type ``MsgSnap``."""
    CHUNK = 9
    """Some of the file."""
    END = 10
    """SHA-256 of the file."""
    STATUS = 11
    """1: taken; 0 and a text: not."""
    CLUSTER = 12
    """A ``ClusterInfo``."""


class BadFrame(Exception):
    """Bytes that no member sends."""


def framed(kind: Kind, *parts: bytes) -> list[bytes]:
    """Put a head before a payload; all of it in parts, to be joined with others'."""
    return [_HEAD.pack(sum(map(len, parts)), kind), *parts]


class FrameReader:
    """Cuts what arrives into frames. Holds one unfinished frame at most."""

    def __init__(self, max_payload_bytes: int) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._rest = bytearray()
        self._needed_bytes = _HEAD.size

    def feed(self, data: bytes) -> Sequence[tuple[int, bytes]]:
        """Take what arrived; return the frames that it completes. Raises ``BadFrame``."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed_bytes:
                return ()
            data = bytes(self._rest)
            self._rest.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[tuple[int, bytes]]:
        frames = []
        start, end = 0, len(data)
        self._needed_bytes = _HEAD.size
        while end - start >= _HEAD.size:
            length, kind = _HEAD.unpack_from(data, start)
            if length > self._max_payload_bytes:
                raise BadFrame(f"a frame of {length} bytes, above {self._max_payload_bytes}")
            payload = start + _HEAD.size
            if payload + length > end:
                self._needed_bytes = _HEAD.size + length
                break
            frames.append((kind, data[payload : payload + length]))
            start = payload + length
        self._rest += data[start:]
        return frames
