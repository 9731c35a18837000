"""The requests of a streaming call, as its method sees them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

_MESSAGE_BYTES: Final = 64
"""What keeping a message costs besides its bytes."""


class Requests(AsyncIterator[Any]):
    """An iterator that waits for the client, and ends when it half-closes.

    ``decode`` turns bytes into a request when it is taken, not when it arrives; ``emptied`` is
    called when all that arrived was taken, so that the client may send more.
    """

    __slots__ = ("_decode", "_emptied", "_ended", "_messages", "_waiter", "size_bytes")

    def __init__(self, decode: Callable[[bytes], Any], emptied: Callable[[], None]) -> None:
        self._decode = decode
        self._emptied = emptied
        self._messages: deque[bytes] = deque()
        self._ended = False
        self.size_bytes = 0
        """Of what arrived and was not taken yet."""
        self._waiter: asyncio.Future[None] | None = None

    def put(self, messages: list[bytes], ended: bool) -> None:
        """Take what arrived."""
        self._messages += messages
        self.size_bytes += sum(len(message) + _MESSAGE_BYTES for message in messages)
        self._ended = self._ended or ended
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def __anext__(self) -> Any:
        while not self._messages:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        payload = self._messages.popleft()
        self.size_bytes -= len(payload) + _MESSAGE_BYTES
        if not self._messages:
            self._emptied()
        return self._decode(payload)
