"""What was interrupted, or could not be done just then, is done by whoever comes next.

Ctrl-C strikes anywhere, and a thread may not be to be had for a moment: neither may leave a client
that cannot connect any more, nor connections that nobody closes.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from etcd_pinwheel import AsyncClient, Client, ClientClosed, Config
from etcd_pinwheel.balancers.api import (
    Connect,
    Disconnect,
    Disconnected,
    Drain,
    EndpointsChanged,
    FailedOver,
    Failure,
    Need,
    Probe,
)
from etcd_pinwheel.client import blocking
from etcd_pinwheel.client.aio import AsyncioWorld
from etcd_pinwheel.client.blocking import BlockingWorld
from etcd_pinwheel.client.connections import Connections, Link
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.interrupts import interruptible
from etcd_pinwheel.server_stub.local import LocalMember

from .scripted import A, B, Scripted, World
from .waiting import sockets, wait_until

SOON = 30.0


class Interrupted(World):
    """A world in which one wish is interrupted, the first one of its kind."""

    def __init__(self, wish: str) -> None:
        super().__init__()
        self.wish: str | None = wish

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        self.interrupt("open")
        super().open(link, changed)

    def spawn(self, *flow: Any) -> None:
        self.interrupt("spawn")
        super().spawn(*flow)

    def interrupt(self, wish: str) -> None:
        if wish == self.wish:
            self.wish = None
            raise KeyboardInterrupt


def interrupt() -> None:
    raise KeyboardInterrupt


ENDPOINTS = [Endpoint("a"), Endpoint("b")]


def test_connections_are_made_although_the_first_attempt_was_interrupted() -> None:
    balancer, world = Scripted(), Interrupted("open")
    balancer.wishes[EndpointsChanged] = [Connect(A), Connect(B)]
    connections = Connections(balancer, world, lambda: 50.0)
    with pytest.raises(KeyboardInterrupt):
        connections.set_endpoints(ENDPOINTS)
    assert world.did == []
    connections.set_endpoints(ENDPOINTS)
    assert world.did == [("open", A), ("open", B)]


def connected(world: World) -> tuple[Scripted, Connections]:
    balancer = Scripted()
    balancer.wishes[EndpointsChanged] = [Connect(A), Connect(B)]
    connections = Connections(balancer, world, lambda: 50.0)
    connections.set_endpoints(ENDPOINTS)
    return balancer, connections


def test_a_call_that_finds_nobody_takes_up_what_is_left_undone() -> None:
    balancer, connections = connected(world := Interrupted("spawn"))
    balancer.wishes[FailedOver] = [Probe(B, 1.0), Disconnect(B), Connect(B)]
    with pytest.raises(KeyboardInterrupt):
        connections.failed_over(connections.link(B), Failure.BROKEN)
    assert world.did[2:] == []
    balancer.next = None
    assert connections.pick(Need.QUORUM, 50.0) is None
    assert world.did[2:] == [("probe", B), ("close", B), ("open", B)]
    assert connections.view()[B].streams == 0, "the place of the first probe was given back"


def test_a_connection_is_closed_although_telling_its_streams_was_interrupted() -> None:
    balancer, connections = connected(world := World())
    link = connections.link(A)
    connections.take_seat(link, interrupt)
    balancer.wishes[FailedOver] = [Disconnect(A), Drain(B)]
    with pytest.raises(KeyboardInterrupt):
        connections.failed_over(link, Failure.BROKEN)
    assert world.did[2:] == [("close", A)]
    assert balancer.told[-1] == Disconnected(A, "closed as wished")


def test_a_connection_beside_that_was_not_made_is_forgotten() -> None:
    world = World()
    _, connections = connected(world)
    world.open = lambda *_: interrupt()  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        connections.visit(Endpoint("c"))
    assert {link.url for link in connections.close()} == {A, B}


def test_closing_again_returns_what_an_interruption_kept_back() -> None:
    _, connections = connected(World())
    seat = connections.take_seat(connections.link(A), interrupt)
    with pytest.raises(KeyboardInterrupt):
        connections.close()
    seat.leave()
    assert {link.url for link in connections.close()} == {A, B}
    assert connections.close() == []


# On both faces


@pytest.mark.process
def test_a_client_connects_although_its_first_call_failed_to(
    server: LocalMember,
    face: str,
    connect: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = AsyncioWorld if face == "async" else BlockingWorld
    do_open, failures = world.open, ["can't start new thread"]

    def open_later(*link: Any) -> None:
        if failures:
            raise RuntimeError(failures.pop())
        do_open(*link)

    monkeypatch.setattr(world, "open", open_later)
    client = connect([server.endpoint])
    with pytest.raises(RuntimeError, match="new thread"):
        client.put("k", "v")
    assert client.put("k", "v")


@pytest.mark.process
def test_closing_that_is_interrupted_closes_the_connections(
    server: LocalMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sockets()
    client = Client([server.endpoint])
    watch = client.watch("k").open()
    opened = sockets() - before
    assert opened
    monkeypatch.setattr(client._streams, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.close()
    monkeypatch.undo()
    assert wait_until(lambda: not opened & sockets())
    client.close()
    with pytest.raises(ClientClosed):
        watch.next_event()


@pytest.mark.process
async def test_closing_that_is_cancelled_ends_and_may_be_repeated(server: LocalMember) -> None:
    before = asyncio.all_tasks()
    client = AsyncClient([server.endpoint])
    async with client.watch("k"):
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(SOON):
            await client.close()
        assert asyncio.all_tasks() == before


# Threads


@pytest.fixture
def world() -> BlockingWorld:
    """A world whose connections lead to where nobody is."""
    return BlockingWorld(Config(endpoints=(Endpoint("127.0.0.1:1"),)))


class Reports:
    def changed(self, *report: Any) -> None:
        pass


def open_one(world: BlockingWorld) -> Link:
    link, reports = Link(Endpoint("127.0.0.1:1")), Reports()
    world.open(link, weakref.WeakMethod(reports.changed))
    return link


@pytest.mark.process
def test_a_channel_that_is_half_made_is_made_anew(
    world: BlockingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, reports = Link(Endpoint("127.0.0.1:1")), Reports()
    made: list[grpc.Channel] = []

    def interrupted(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        answer = interruptible(call, *arguments, **more)
        if call.__name__ == "subscribe":
            made.append(link.channel)
            raise KeyboardInterrupt
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(blocking, "interruptible", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.open(link, weakref.WeakMethod(reports.changed))
    with pytest.raises(ValueError, match="closed"):
        made[0].unary_unary("/any")(b"", timeout=1.0)
    assert link.channel is None
    world.open(link, weakref.WeakMethod(reports.changed))
    assert link.channel is not None
    world.close_all([link])


@pytest.mark.process
def test_without_a_thread_to_close_it_a_channel_is_closed_later(
    world: BlockingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def no_thread(thread: threading.Thread) -> None:
        if thread.name == "etcd-pinwheel":  # grpc has its own
            raise RuntimeError("can't start new thread")
        start(thread)

    first, second, third = (open_one(world) for _ in range(3))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        world.close(first)
        assert first.channel is not None
        world.close_all([second])
        assert first.channel is second.channel is None
        world.close(third)
    world.close_all([])
    assert third.channel is None


@pytest.mark.process
@pytest.mark.parametrize("fails", [False, True])
def test_who_closes_while_another_thread_is_about_to_waits_for_the_end(
    world: BlockingWorld, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    first, second = open_one(world), open_one(world)
    open_still: list[Link] = []

    def close_all() -> None:
        world.close_all([second])
        open_still.extend(link for link in (first, second) if link.channel is not None)

    start, other = threading.Thread.start, threading.Thread(target=close_all)

    def meanwhile(thread: threading.Thread) -> None:
        if thread.name == "etcd-pinwheel" and not other.ident:
            start(other)
            other.join(0.2)  # it may be over by now, and must not be
            if fails:
                raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", meanwhile)
        world.close(first)
        other.join()
    assert open_still == []


@pytest.mark.process
def test_closing_that_failed_does_not_keep_anybody_from_closing(
    world: BlockingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_one(world), open_one(world)
    begun = threading.Event()

    def fail(links: list[Link]) -> None:
        close_channels(links)
        begun.set()
        raise MemoryError

    close_channels = world._close_channels
    with monkeypatch.context() as patch:
        patch.setattr(world, "_close_channels", fail)
        patch.setattr(threading, "excepthook", lambda _: None)
        world.close(first)
        assert begun.wait(SOON)
        world.close_all([])
    world.close_all([second])
    assert second.channel is None
