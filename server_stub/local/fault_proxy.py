"""A proxy between clients and a server that can be told to misbehave."""

from __future__ import annotations

import asyncio
from typing import Self

from .loop_thread import LoopThread
from .ports import HOST
from .proxy import Connection, Proxy


class FaultProxy:
    """A proxy to ``host:port`` on this machine; a context manager.

    It runs in a thread of its own, so that blocking and asyncio programs use it alike. Every
    method returns when it has effect.
    """

    def __init__(self, target: str) -> None:
        _, _, port = target.rpartition(":")
        self._proxy = Proxy(int(port), self._admit, self._count)
        self._past_client_bytes = 0
        self._flowing = asyncio.Event()
        self._thread: LoopThread | None = None

    @property
    def endpoint(self) -> str:
        """Where clients reach it, as host:port."""
        return f"{HOST}:{self._proxy.port}"

    @property
    def accepted(self) -> int:
        """How many connections were ever accepted."""
        return self._proxy.accepted

    @property
    def client_bytes(self) -> int:
        """How many bytes have ever come from clients."""
        return self._past_client_bytes + sum(
            each.caller.bytes_read for each in self._proxy.connections.copy()
        )

    # Faults

    def cut(self) -> None:
        """Reset every connection, both ways; new ones are served."""
        self._loop.call(self._proxy.reset_all)

    def stall(self) -> None:
        """Forward nothing any more, in either direction, on old and new connections."""
        self._loop.call(self._stall)

    def refuse(self) -> None:
        """Accept no more connections, and reset those that there are."""
        self._loop.run(self._refuse())

    def heal(self) -> None:
        """Work again. What was stalled goes on where it was."""
        self._loop.run(self._heal())

    # Life

    def __enter__(self) -> Self:
        self._thread = LoopThread("fault-proxy")
        self.heal()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Reset every connection and end the thread; again does nothing."""
        if self._thread is not None:
            self._thread.run(self._proxy.close())
            self._thread.close()
            self._thread = None

    @property
    def _loop(self) -> LoopThread:
        assert self._thread is not None, "enter it first"
        return self._thread

    # On the loop

    async def _admit(self, connection: Connection) -> None:
        await self._flowing.wait()

    def _count(self, connection: Connection) -> None:
        self._past_client_bytes += connection.caller.bytes_read

    def _stall(self) -> None:
        self._flowing.clear()
        self._hold(True)

    async def _refuse(self) -> None:
        await self._proxy.refuse()
        self._proxy.reset_all()

    async def _heal(self) -> None:
        self._flowing.set()
        self._hold(False)
        await self._proxy.listen()

    def _hold(self, held: bool) -> None:
        for connection in self._proxy.connections:
            connection.caller.hold(held)
            connection.target.hold(held)
