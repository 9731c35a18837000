"""Ports of the loopback address: found free, and kept so."""

from __future__ import annotations

import os
import socket
import sys
import weakref
from collections.abc import Sequence
from typing import Final

HOST: Final = "127.0.0.1"
_MAY_SHARE: Final = sys.platform == "linux"
"""Whether a server may listen on a port to which another socket is bound (and does not listen)."""


class ReservedPorts:
    """Loopback ports that nobody else is given until ``release``, or until this is forgotten.

    Whoever listens on one sets SO_REUSEADDR, as servers do. On systems where that is not enough,
    they are just ports that were free.
    """

    def __init__(self, count: int) -> None:
        sockets = [_bound() for _ in range(count)]
        self.numbers: Sequence[int] = [_number(each) for each in sockets]
        held = [each.detach() for each in sockets]
        self.release = weakref.finalize(self, _close, held)
        if not _MAY_SHARE:
            self.release()


def _bound() -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, 0))
    return bound


def _number(bound: socket.socket) -> int:
    number: int = bound.getsockname()[1]
    return number


def _close(held: list[int]) -> None:
    for descriptor in held:
        os.close(descriptor)
