"""Plain sockets that call a server, and whether all of them are closed in the end."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .served import PATIENCE_SECONDS


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Every socket was closed by somebody, and not by the garbage collector."""
    gc.collect()  # what others left is not ours
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert not [str(each.message) for each in caught]


def caller(address: tuple[str, int]) -> socket.socket:
    """A connection that the kernel has made, and that the loop has not seen yet."""
    connected = socket.create_connection(address)
    connected.setblocking(False)
    return connected


async def is_over(connected: socket.socket) -> bool:
    """Wait for the other side to close."""
    loop = asyncio.get_running_loop()
    try:
        return not await asyncio.wait_for(loop.sock_recv(connected, 1), PATIENCE_SECONDS)
    except ConnectionError:
        return True
