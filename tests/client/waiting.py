"""How tests wait for what happens in the background, and see what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait for what happens in the background and is told nowhere."""
    latest = time.monotonic() + seconds
    while not true():
        if time.monotonic() > latest:
            return False
        time.sleep(0.01)
    return True


def sockets() -> set[Any]:
    """This process's network connections; those of other tests' clients may come and go."""
    return {(c.fd, c.laddr, c.raddr) for c in psutil.Process().net_connections("all")}
