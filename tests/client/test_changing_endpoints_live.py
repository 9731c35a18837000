"""Endpoints that change under both clients, on both servers, with calls and streams on them.

The member is reached by two ways, so that one of them can be taken away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from etcd_pinwheel import AsyncClient, Client, ClientClosed, ConfigError, NotSent, WrongEventLoop
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

from .waiting import sockets, wait_until

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
SOON = 20.0
policies = pytest.mark.parametrize("policy", BUILT_IN)


@pytest.fixture
def ways(server: LocalMember) -> Iterator[tuple[FaultProxy, FaultProxy]]:
    """Two ways to the same member."""
    with FaultProxy(server.endpoint) as one, FaultProxy(server.endpoint) as other:
        yield one, other


def urls(*ways: FaultProxy) -> set[str]:
    return {f"http://{way.endpoint}" for way in ways}


@policies
def test_streams_move_and_lose_nothing(
    policy: str, ways: tuple[FaultProxy, FaultProxy], direct: Client, connect: Connect
) -> None:
    client = connect(ways[0].endpoint, balancer=policy)
    with client.watch("w/", prefix=True) as watch, client.lease(ttl=30) as lease:
        client.put("leased", "v", lease=lease)
        for at in range(6):
            direct.put("w/k", f"before {at}")
            client.set_endpoints(ways[(at + 1) % 2].endpoint)
            assert set(client.endpoints) == urls(ways[(at + 1) % 2])
            direct.put("w/k", f"after {at}")
            client.put("k", "v", timeout=SOON)
        seen = [watch.next_event(SOON).value.decode() for _ in range(12)]
        assert seen == [f"{when} {at}" for at in range(6) for when in ("before", "after")]
        (left,) = client.endpoints.values()
        assert wait_until(lambda: next(iter(client.endpoints.values())).streams == 2), left
        assert not lease.lost.is_set()
        lease.time_to_live(timeout=SOON)
    assert direct.get("leased") is None


@policies
def test_calls_under_way_end_as_they_would_have(
    policy: str, ways: tuple[FaultProxy, FaultProxy], face: str, connect: Connect
) -> None:
    stalled, other = ways
    client = connect(stalled.endpoint, balancer=policy, timeout=SOON)
    client.put("k", "v")
    stalled.stall()
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(client.put, "slow", "v", timeout=SOON)
        assert wait_until(lambda: stalled.client_bytes > 0)
        client.set_endpoints([other.endpoint])
        assert client.get("k").value == b"v"
        assert not under_way.done()
        stalled.heal()
        assert under_way.result().revision > 0
    assert client.get("slow").value == b"v"


@policies
def test_a_call_that_waits_for_a_connection_finds_the_new_ones(
    policy: str, server: LocalMember, connect: Connect
) -> None:
    client = connect("127.0.0.1:1", balancer=policy)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.put, "k", "v", timeout=SOON)
        assert wait_until(lambda: bool(client.endpoints))
        client.set_endpoints([server.endpoint, "127.0.0.1:2"])
        assert waiting.result().revision > 0
    with pytest.raises(NotSent):
        connect("127.0.0.1:1").put("k", "v", timeout=0.2)


def test_what_is_wrong_changes_nothing(server: LocalMember, connect: Connect) -> None:
    client = connect([server.endpoint])
    for wrong, field in (
        ([], "endpoints"),
        (["a:1", "a:1"], "endpoints[1]"),
        (["ftp://a"], "endpoints[0]"),
        ([{"url": "https://a", "ca": "/none.pem"}], "ca"),
    ):
        with pytest.raises(ConfigError) as caught:
            client.set_endpoints(wrong)
        assert caught.value.field == field
    client.put("k", "v")
    assert set(client.endpoints) == {f"http://{server.endpoint}"}


def test_before_the_first_use_and_after_closing(server: LocalMember, connect: Connect) -> None:
    client = connect("127.0.0.1:1")
    client.set_endpoints({"url": server.endpoint})
    client.put("k", "v")
    client.close()
    with pytest.raises(ClientClosed):
        client.set_endpoints("127.0.0.1:1")
    unused = connect("127.0.0.1:1")
    unused.close()
    with pytest.raises(ClientClosed):
        unused.set_endpoints("127.0.0.1:2")


async def test_an_async_client_changes_on_its_own_loop_only(server: LocalMember) -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(WrongEventLoop):
            await asyncio.to_thread(client.set_endpoints, server.endpoint)
        client.set_endpoints(server.endpoint)
        await client.put("k", "v")
        assert server.endpoint in repr(client)


def test_moves_are_reported(
    ways: tuple[FaultProxy, FaultProxy], connect: Connect, logged: list[dict[str, Any]]
) -> None:
    first, second = ways

    def told(event: str) -> list[dict[str, Any]]:
        return [each for each in logged if each["event"] == event]

    client = connect(first.endpoint, balancer="pinned_multi")
    with client.watch("k") as watch:
        client.set_endpoints(second.endpoint)
        client.put("k", "v", timeout=SOON)
        assert watch.next_event(SOON).value == b"v"
    assert wait_until(lambda: bool(told("stream_moved")))
    moved = told("stream_moved")[0]
    assert (moved["endpoint"], moved["reason"]) == (*urls(first), "no longer an endpoint")
    (changed,) = told("endpoints_changed")
    assert (changed["added"], changed["removed"]) == ([*urls(second)], [*urls(first)])
    assert changed["why"] == "set"

    client.set_endpoints([second.endpoint, first.endpoint])
    assert wait_until(lambda: all(each.standing.connected for each in client.endpoints.values()))
    second.stall()
    (url,) = urls(second)
    link = getattr(client, "_inner", client)._call.connections.link(url)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(client.get, "k", timeout=SOON)
        assert wait_until(lambda: link.under_way == 1)  # the proxy reads no more, and cannot tell
        second.cut()
        assert under_way.result().value == b"v"
    (call,) = told("call_moved")
    assert (call["rpc"], call["from"], call["to"]) == (
        "/etcdserverpb.KV/Range",
        url,
        *urls(first),
    )
    assert call["why"] in ("broken", "not_sent")  # the latter if it was tried again there before
    assert told("pin_changed")[-1]["to"] == f"http://{first.endpoint}"


CHANGES = 1000
on_one_server = pytest.mark.parametrize("make", ["ours"], indirect=True)
"""For what is all the client's own doing."""


def endless_changes(ways: tuple[FaultProxy, FaultProxy]) -> Iterator[list[str]]:
    one, other = (way.endpoint for way in ways)
    lists = [[one], [one, other], [other], [other, "127.0.0.1:1"], [one, "localhost:1"]]
    for at in range(CHANGES):
        yield lists[at % len(lists)]


@on_one_server
@policies
def test_a_thousand_changes_leave_no_socket_and_no_thread(
    policy: str, ways: tuple[FaultProxy, FaultProxy], direct: Client
) -> None:
    threads, before = set(threading.enumerate()), sockets()
    with Client(ways[0].endpoint, balancer=policy) as client:
        for at, endpoints in enumerate(endless_changes(ways)):
            client.set_endpoints(endpoints)
            if at % 100 == 0:
                client.put("k", str(at), timeout=SOON)
        client.set_endpoints(ways[0].endpoint)
        assert client.put("k", "v", timeout=SOON)
        assert wait_until(lambda: len(held(sockets() - before, ways)) == 1)
        assert wait_until(lambda: len(set(threading.enumerate()) - threads) < 12)
    assert wait_until(lambda: set(threading.enumerate()) <= threads)
    assert wait_until(lambda: not held(sockets() - before, ways))


@on_one_server
@policies
async def test_a_thousand_changes_leave_no_socket_and_no_task(
    policy: str, ways: tuple[FaultProxy, FaultProxy], direct: Client
) -> None:
    tasks, before = asyncio.all_tasks(), sockets()
    async with AsyncClient(ways[0].endpoint, balancer=policy) as client:
        for at, endpoints in enumerate(endless_changes(ways)):
            client.set_endpoints(endpoints)
            if at % 100 == 0:
                await client.put("k", str(at), timeout=SOON)
        client.set_endpoints(ways[0].endpoint)
        assert await client.put("k", "v", timeout=SOON)
        await until(lambda: len(held(sockets() - before, ways)) == 1)
        await until(lambda: len(asyncio.all_tasks() - tasks) < 5)
    assert asyncio.all_tasks() == tasks
    await until(lambda: not held(sockets() - before, ways))


def held(connections: set[Any], ways: tuple[FaultProxy, FaultProxy]) -> set[Any]:
    """Those that lead to one of the ways."""
    ports = {int(way.endpoint.rpartition(":")[2]) for way in ways}
    return {each for each in connections if each[2] and each[2][1] in ports}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
