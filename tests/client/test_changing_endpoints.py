"""Endpoints that change while calls and streams are on them: the driver, in a world made up."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from etcd_pinwheel import ClientClosed
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
from etcd_pinwheel.client.connections import Connections, Link, LinkState, Seat
from etcd_pinwheel.client.endpoints import Endpoint, Tls
from etcd_pinwheel.client.flow import Flow
from etcd_pinwheel.client.generations import BUILT_IN

from .scripted import A, B, Scripted, World

C = "http://c:2379"
a, b, c = Endpoint("a"), Endpoint("b"), Endpoint("c")
NOW = 50.0


@pytest.fixture
def balancer() -> Scripted:
    return Scripted()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def connections(balancer: Scripted, world: World) -> Connections:
    """Connections to a and b, of which a is picked."""
    balancer.wishes[EndpointsChanged] = [Connect(A), Connect(B)]
    made = Connections(balancer, world, lambda: NOW)
    made.set_endpoints([a, b])
    made.link_changed(made.link(A), LinkState.READY, "")
    world.did.clear()
    balancer.told.clear()
    return made


def pick(connections: Connections) -> Link:
    link = connections.pick(Need.QUORUM, NOW)
    assert link is not None
    return link


def test_calls_on_an_endpoint_that_is_gone_end_as_they_would_have(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    under_way = pick(connections)
    balancer.wishes[EndpointsChanged] = [Connect(B), Connect(C), Disconnect(A)]
    balancer.next = B
    connections.set_endpoints([b, c])
    assert world.did == [("open", C)]
    assert balancer.told == [
        EndpointsChanged((B, C)),
        Disconnected(A, "the endpoints have changed"),
    ]
    connections.done(under_way, Failure.TIMED_OUT, 0.1, NOW)
    assert balancer.paid == [(A, Failure.TIMED_OUT)]
    assert world.did == [("open", C), ("close", A)]
    with pytest.raises(KeyError):
        connections.link(A)


def test_an_idle_connection_is_closed_at_once(world: World, connections: Connections) -> None:
    connections.set_endpoints([b])
    assert world.did == [("close", A)]


def test_streams_move_once_there_is_somewhere_to_go(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    at_the_move: list[list[tuple[str, str]]] = []
    seat = connections.take_seat(connections.link(A), lambda: at_the_move.append([*world.did]))
    stays = connections.take_seat(connections.link(B), lambda: pytest.fail("moved"))
    balancer.wishes[EndpointsChanged] = [Connect(B), Connect(C), Disconnect(A)]
    connections.set_endpoints([b, c])
    assert at_the_move == [[("open", C)]]
    seat.leave()
    assert world.did == [("open", C), ("close", A)]
    assert stays.link is connections.link(B)


def test_streams_on_a_connection_that_was_left_before_move_too(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    moved: list[str] = []
    seat = connections.take_seat(connections.link(A), lambda: moved.append(A))
    balancer.wishes[FailedOver] = [Disconnect(A, graceful=True)]
    connections.failed_over(connections.link(A), Failure.TIMED_OUT)
    assert moved == []
    connections.set_endpoints([b])
    assert moved == [A]
    seat.leave()
    assert world.did == [("close", A)]


def test_a_stream_that_was_on_its_way_there_is_told_on_arrival(connections: Connections) -> None:
    link = pick(connections)
    connections.set_endpoints([b])
    moved: list[str] = []
    connections.take_seat(link, lambda: moved.append(A))
    assert moved == [A]


def test_whoever_waits_is_woken_and_finds_the_new_ones(
    balancer: Scripted, connections: Connections
) -> None:
    woken: list[str] = []
    connections.when_changed(connections.version, lambda: woken.append(C))
    connections.set_endpoints([c])
    assert woken == [C]
    balancer.next = C
    assert pick(connections).endpoint is c
    assert connections.size == 1


def test_the_same_endpoint_with_other_tls_settings_is_connected_anew(
    balancer: Scripted, world: World
) -> None:
    first, other = (Endpoint("https://a", Tls(server_name=name)) for name in ("one", "two"))
    url = first.url
    balancer.next = url
    balancer.wishes[EndpointsChanged] = [Connect(url)]
    connections = Connections(balancer, world, lambda: NOW)
    connections.set_endpoints([first])
    under_way = pick(connections)
    connections.set_endpoints([other])
    assert world.did == [("open", url), ("open", url)]
    assert balancer.told[1:] == [
        EndpointsChanged((url,)),
        Disconnected(url, "the endpoints have changed"),
    ]
    assert pick(connections).endpoint is other
    connections.done(under_way, None, 0.1, NOW)
    assert world.did[2:] == [("close", url)]


def test_a_balancer_that_does_not_want_the_new_connection_has_the_last_word(
    balancer: Scripted, world: World
) -> None:
    first, other = (Endpoint("https://a", Tls(server_name=name)) for name in ("one", "two"))
    connections = Connections(balancer, world, lambda: NOW)
    balancer.wishes[EndpointsChanged] = [Connect(first.url)]
    connections.set_endpoints([first])
    balancer.wishes[Disconnected] = [Disconnect(first.url)]
    connections.set_endpoints([other])
    assert connections.link(first.url).channel is None
    assert world.did.count(("open", first.url)) == world.did.count(("close", first.url))


def test_wishes_for_who_is_gone_are_void(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    balancer.wishes[EndpointsChanged] = [Drain(A), Probe(A, 1.0), Connect(A), Disconnect(A)]
    link = pick(connections)
    connections.set_endpoints([b])
    assert world.did == []
    connections.failed_over(link, Failure.BROKEN)
    connections.link_changed(link, LinkState.FAILING, "late news")
    assert balancer.told[-1] == Disconnected(A, "the endpoints have changed")


def test_wishes_are_carried_out_in_the_order_of_the_changes_that_made_them(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    """A second change comes in the midst of the first one."""
    opened = world.open

    def change_meanwhile(link: Link, changed: weakref.WeakMethod[Any]) -> None:
        world.open = opened  # type: ignore[method-assign]
        balancer.wishes[EndpointsChanged] = [Connect(A)]
        connections.set_endpoints([a])
        opened(link, changed)

    world.open = change_meanwhile  # type: ignore[method-assign]
    balancer.wishes[EndpointsChanged] = [Connect(C), Disconnect(A), Disconnect(B)]
    connections.set_endpoints([c])
    assert connections.link(A).channel is not None
    assert world.did.count(("open", C)) == world.did.count(("close", C)) == 1


def test_nothing_changes_once_closed(balancer: Scripted, connections: Connections) -> None:
    connections.close()
    with pytest.raises(ClientClosed):
        connections.set_endpoints([c])
    assert balancer.told == []


class Crowd:
    """A world whose connections come up at once, and which counts them."""

    def __init__(self) -> None:
        self.open_now: set[Link] = set()
        self.most = 0
        self.up: Callable[[Link, LinkState, str], None]

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        link.channel = object()
        self.open_now.add(link)
        self.most = max(self.most, len(self.open_now))

    def close(self, link: Link) -> None:
        if link.channel is not None:
            link.channel = None
            self.open_now.remove(link)

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None:
        pass

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        flow.close()

    def raise_all(self, connections: Connections) -> None:
        for link in list(self.open_now):
            connections.link_changed(link, LinkState.READY, "")


@pytest.mark.parametrize("policy", BUILT_IN)
def test_a_thousand_changes_leave_nothing_behind(policy: str) -> None:
    """With calls that outlast their endpoints, and streams that leave when they are told to."""
    random = Random(11)
    world = Crowd()
    connections = Connections(BUILT_IN[policy].balancer(random, {}), world, lambda: NOW)
    everybody = [Endpoint(f"10.0.0.{n}") for n in range(1, 100)]
    under_way: list[Link] = []
    seats: list[Seat] = []
    for at in range(1000):
        chosen = random.sample(everybody, random.randint(1, 5))
        connections.set_endpoints(chosen)
        world.raise_all(connections)
        urls = {each.url for each in chosen}
        assert set(connections.view()) == urls
        link = pick(connections)
        assert link.endpoint.url in urls
        under_way.append(link)
        told = list[int]()
        seat = connections.take_seat(pick(connections), lambda told=told: told.append(1))  # type: ignore[misc]
        connections.done(seat.link, None, 0.01, NOW)
        seats.append(seat)
        connections.set_endpoints(everybody[-2:])
        world.raise_all(connections)
        assert told or seat.link.endpoint in everybody[-2:], (at, seat.link.endpoint)
        for _ in range(len(seats) - 3):
            seats.pop(0).leave()
        for _ in range(len(under_way) - 3):
            connections.done(under_way.pop(0), None, 0.01, NOW)
    for seat in seats:
        seat.leave()
    for link in under_way:
        connections.done(link, None, 0.01, NOW)
    assert {link.endpoint for link in world.open_now} <= set(everybody[-2:])
    assert len(world.open_now) <= 2
    assert world.most <= 5 + 2 + 3 + 3
    assert len(connections.close()) == 2
