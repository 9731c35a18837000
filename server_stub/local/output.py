"""What a process writes."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import IO, Final

READY_LINE: Final = "ready to serve client requests"
_KEPT_LINES: Final = 400


class Output:
    """The last lines of a process: read by a thread, so that it never waits for us."""

    def __init__(self, stream: IO[str]) -> None:
        self.ended = threading.Event()
        self._news = threading.Condition()
        self._is_ready = False
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        with self._news:
            return "".join(self._lines)

    def is_ready_in(self, timeout_seconds: float) -> bool:
        """Wait for the line that says it serves; False when it ended or took too long."""
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            while not self._is_ready and not self.ended.is_set():
                if not self._news.wait(deadline - time.monotonic()):
                    break
            return self._is_ready

    def join(self) -> None:
        """Wait until the process has closed its output."""
        self._thread.join()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._is_ready |= READY_LINE in line
                    self._news.notify_all()
        with self._news:
            self.ended.set()
            self._news.notify_all()
