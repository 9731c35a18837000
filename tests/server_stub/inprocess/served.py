"""A member in this process, whose services are called without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Refusal, Refused
from etcd_pinwheel.protos.rpc import Rpc
from etcd_pinwheel.server_stub.api import http_routes, services
from etcd_pinwheel.server_stub.api.call import Call, HttpRequest, HttpResponse
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.member import Member

PATIENCE_SECONDS = 20
"""For what must happen soon; only a failing test waits that long."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a background task brings about; fails when it takes too long."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (there is nothing to be woken by)
            await asyncio.sleep(0.005)


class Served:
    """A member with its services; ``async with`` starts and stops it."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.settings = Settings(data_dir=data_dir, **settings)
        self.member: Member
        self._streams: list[Stream] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.member = await Member.start(self.settings)
        self.methods = services(self.member)
        self.routes = http_routes(self.member)

    async def stop(self) -> None:
        for stream in self._streams:
            await stream.close()
        self._streams.clear()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.member.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def __call__(self, rpc: Rpc[Any, Any], /, **fields: Any) -> Any:
        """Call a unary method with a request made of `fields`."""
        return await self.methods[rpc.path].serve(rpc.request(**fields), Call({}))

    async def put(self, key: bytes, value: bytes = b"", **fields: Any) -> int:
        """Put a key; return the revision."""
        reply = await self(rpcs.KV_PUT, key=key, value=value, **fields)
        revision: int = reply.header.revision
        return revision

    async def refusal(self, rpc: Rpc[Any, Any], /, **fields: Any) -> Refusal:
        """Call a method that must refuse; return what it says."""
        try:
            await self(rpc, **fields)
        except Refused as refused:
            return refused.refusal
        raise AssertionError(f"{rpc.name} was not refused")

    async def replies(self, rpc: Rpc[Any, Any], /, **fields: Any) -> list[Any]:
        """Call a server-streaming method and read it to its end."""
        made = self.methods[rpc.path].serve(rpc.request(**fields), Call({}))
        return [reply async for reply in made]

    def stream(self, rpc: Rpc[Any, Any], **metadata: str) -> Stream:
        """Open a stream that goes both ways."""
        stream = Stream(rpc, self.methods[rpc.path].serve, metadata)
        self._streams.append(stream)
        return stream

    async def http(self, path: str, method: str = "GET", **query: list[str]) -> HttpResponse:
        """Ask the HTTP side."""
        return await self.routes[path](HttpRequest(method, path, query))


class Stream:
    """The client's end of a stream that goes both ways."""

    def __init__(self, rpc: Rpc[Any, Any], serve: Any, metadata: dict[str, str]) -> None:
        self._rpc = rpc
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._replies: AsyncGenerator[Any, None] = serve(self._sent(), Call(metadata))

    async def _sent(self) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not None:
            yield request

    def send(self, **fields: Any) -> None:
        self._requests.put_nowait(self._rpc.request(**fields))

    def half_close(self) -> None:
        self._requests.put_nowait(None)

    async def next(self) -> Any:
        """Return the next reply."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await anext(self._replies)

    async def ask(self, **fields: Any) -> Any:
        """Send a request and return the next reply."""
        self.send(**fields)
        return await self.next()

    async def close(self) -> None:
        await self._replies.aclose()
