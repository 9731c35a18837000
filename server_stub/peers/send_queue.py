"""What waits to be sent to one member."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class SendQueue:
    """Frames in their order, bounded in count and in bytes.

    Invariant: ``len(self) <= max_frames``; ``bytes <= max_bytes`` unless one frame alone is above.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[tuple[int, Sequence[bytes]]] = deque()
        self.bytes = 0
        """How many bytes wait."""

    def __len__(self) -> int:
        return len(self._frames)

    def offer(self, frame: Sequence[bytes]) -> bool:
        """Append a frame, in parts, unless it is one too many."""
        size = sum(map(len, frame))
        full = len(self._frames) >= self._max_frames
        if full or (self._frames and self.bytes + size > self._max_bytes):
            return False
        self._frames.append((size, frame))
        self.bytes += size
        return True

    def take(self, max_bytes: int) -> list[bytes]:
        """Remove frames from the front, up to ``max_bytes`` but at least one; their parts."""
        parts: list[bytes] = []
        taken = 0
        while self._frames and (not parts or taken + self._frames[0][0] <= max_bytes):
            size, frame = self._frames.popleft()
            parts += frame
            taken += size
        self.bytes -= taken
        return parts

    def clear(self) -> int:
        """Drop everything; returns how many frames that was."""
        dropped = len(self._frames)
        self._frames.clear()
        self.bytes = 0
        return dropped
