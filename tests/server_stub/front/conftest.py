"""A front with services made for tests, and a client that can misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import hpack
import pytest
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    SettingsFrame,
)

from etcd_pinwheel.protos import etcdserverpb, rpcs
from etcd_pinwheel.protos.errors import Code, Refusal, Refused
from etcd_pinwheel.server_stub.api.call import Call, HttpRequest, HttpResponse, Method
from etcd_pinwheel.server_stub.front import Front, Limits


@dataclass
class Services:
    """Methods that do what their request says, and what was seen of their callers."""

    calls: list[Call] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    cancelled: int = 0
    ended: int = 0
    pulled: int = 0
    """Replies pulled from the stream of replies."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def note(self, **changes: int) -> None:
        for name, change in changes.items():
            setattr(self, name, getattr(self, name) + change)
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something noted makes the condition true."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)

    async def put(self, request: Any, call: Call) -> Any:
        """Echo; keys that begin with ``!`` ask for trouble."""
        self.calls.append(call)
        self.requests.append(request)
        await self.note()
        match request.key:
            case b"!refuse":
                raise Refused(Refusal(Code.NOT_FOUND, request.value.decode()))
            case b"!raise":
                raise RuntimeError("secret of the server")
            case b"!timeout":
                assert asyncio.current_task() is not None
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self.go_on.wait()
                    raise AssertionError("not reached")
            case b"!stubborn":
                while not self.go_on.is_set():
                    with suppress(asyncio.CancelledError):
                        await self.go_on.wait()
            case b"!wait":
                try:
                    await self.go_on.wait()
                except asyncio.CancelledError:
                    await self.note(cancelled=1)
                    raise
        reply = etcdserverpb.PutResponse()
        reply.prev_kv.value = request.value
        return reply

    async def snapshot(self, request: Any, call: Call) -> AsyncIterator[Any]:
        """Send blobs without end, as fast as they are pulled."""
        self.calls.append(call)
        try:
            while True:
                await self.note(pulled=1)
                yield etcdserverpb.SnapshotResponse(blob=b"b" * 10_000, remaining_bytes=self.pulled)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def watch(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Answer each request with as many replies as its watch id says; stop at progress."""
        self.calls.append(call)
        try:
            async for request in requests:
                self.requests.append(request)
                await self.note()
                if request.HasField("progress_request"):
                    await self.go_on.wait()
                for number in range(request.create_request.watch_id):
                    yield etcdserverpb.WatchResponse(watch_id=number)
        except asyncio.CancelledError:
            await self.note(cancelled=1)
            raise
        await self.note(ended=1)


async def hello(request: HttpRequest) -> HttpResponse:
    text = f"{request.method} {request.path} {request.query} {len(request.body)}"
    return HttpResponse(200, text.encode(), "text/plain")


async def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("secret of the server")


@dataclass
class Served:
    """A running front."""

    front: Front
    services: Services
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start fronts; they are closed in the end."""
    async with AsyncExitStack() as stack:

        async def start(ssl: Any = None, **limits: Any) -> Served:
            services = Services()
            methods = [
                Method(rpcs.KV_PUT, services.put),
                Method(rpcs.MAINTENANCE_SNAPSHOT, services.snapshot),
                Method(rpcs.WATCH_WATCH, services.watch),
            ]
            routes = {"/hello": hello, "/broken": broken}
            front = Front({m.rpc.path: m for m in methods}, routes, Limits(**limits))
            host, port = await front.listen("127.0.0.1", 0, ssl)
            stack.push_async_callback(front.close, 0.0)
            return Served(front, services, host, port)

        yield start


@pytest.fixture
def serve_factory() -> Callable[[], AbstractContextManager[Served]]:
    """Run a front on a loop in a thread, for clients that block."""

    @contextmanager
    def running() -> Iterator[Served]:
        with asyncio.Runner() as runner:

            async def start() -> Served:
                services = Services()
                methods = [
                    Method(rpcs.KV_PUT, services.put),
                    Method(rpcs.WATCH_WATCH, services.watch),
                ]
                front = Front({m.rpc.path: m for m in methods}, {"/hello": hello})
                return Served(front, services, *await front.listen("127.0.0.1", 0))

            served = runner.run(start())
            loop = runner.get_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            try:
                yield served
            finally:
                asyncio.run_coroutine_threadsafe(served.front.close(), loop).result(20)
                loop.call_soon_threadsafe(loop.stop)
                thread.join()

    return running


REQUEST_FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", rpcs.KV_PUT.path),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class RawClient:
    """Speaks HTTP/2 frame by frame, and knows no rules."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.seen: list[Frame] = []
        self.settings_sent = 0

    @classmethod
    async def connect(
        cls, served: Served, settings: dict[int, int] | None = None, *, hello: bool = True
    ) -> RawClient:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        client = cls(reader, writer)
        if hello:
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SettingsFrame(0, settings or {}))
        return client

    def send(self, *parts: Frame | bytes) -> None:
        for part in parts:
            if isinstance(part, SettingsFrame) and "ACK" not in part.flags:
                self.settings_sent += 1
            self.writer.write(part if isinstance(part, bytes) else part.serialize())

    def headers(
        self,
        stream_id: int,
        *,
        end: bool = False,
        fields: Iterable[tuple[str, str]] = REQUEST_FIELDS,
        **replaced: str,
    ) -> HeadersFrame:
        """A request's head; ``path="/x"`` and the like replace pseudo-headers."""
        head = [(name, replaced.get(name.lstrip(":"), value)) for name, value in fields]
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(stream_id, self.encoder.encode(head), flags=flags)

    def message(self, stream_id: int, message: Any, *, end: bool = True) -> DataFrame:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        framed = b"\0" + len(data).to_bytes(4, "big") + data
        return DataFrame(stream_id, framed, flags=["END_STREAM"] if end else [])

    def put(self, stream_id: int, key: bytes = b"k", value: bytes = b"v") -> list[Frame]:
        """A whole Put."""
        request = etcdserverpb.PutRequest(key=key, value=value)
        return [self.headers(stream_id), self.message(stream_id, request)]

    async def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(20):
            try:
                head = await self.reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self.reader.readexactly(length)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        self.seen.append(frame)
        if isinstance(frame, HeadersFrame):
            frame.fields = dict(self.decoder.decode(frame.data))
        return frame

    async def until(self, kind: type[Frame], stream_id: int | None = None, **having: Any) -> Any:
        """Read to the next frame of that kind."""
        while (frame := await self.frame()) is not None:
            wanted = isinstance(frame, kind) and stream_id in (None, frame.stream_id)
            if wanted and all(getattr(frame, name) == value for name, value in having.items()):
                return frame
        raise AssertionError(f"the connection ended without a {kind.__name__}: {self.seen}")

    async def trailers(self, stream_id: int) -> dict[str, str]:
        """Read to the end of a response."""
        while True:
            frame = await self.until(HeadersFrame, stream_id)
            if "END_STREAM" in frame.flags:
                return frame.fields

    async def ends(self) -> GoAwayFrame | None:
        """Read to the end of the connection; return the last GOAWAY."""
        while await self.frame() is not None:
            pass
        goaways = [frame for frame in self.seen if isinstance(frame, GoAwayFrame)]
        return goaways[-1] if goaways else None

    async def round_trip(self) -> None:
        """Return when the server has answered all that was sent."""
        self.send(SettingsFrame(0, {}))
        while self._settings_acknowledged() < self.settings_sent:
            await self.until(SettingsFrame)

    async def quiet(self) -> None:
        """Read until some round trips have brought nothing else."""
        trips = 0
        while trips < 5:
            before = len(self.seen)
            await self.round_trip()
            trips = trips + 1 if len(self.seen) == before + 1 else 0

    def _settings_acknowledged(self) -> int:
        return sum(isinstance(f, SettingsFrame) and "ACK" in f.flags for f in self.seen)


@pytest.fixture
async def raw() -> AsyncIterator[Callable[..., Awaitable[RawClient]]]:
    """Connect raw clients; they are closed in the end."""
    clients: list[RawClient] = []

    async def connect(served: Served, *args: Any, **options: Any) -> RawClient:
        clients.append(await RawClient.connect(served, *args, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.writer.transport.abort()
