"""The driver of the treaty: events in, wishes carried out, picks paid back."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import pytest

from etcd_pinwheel import ClientClosed
from etcd_pinwheel.balancers.api import (
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Drain,
    EndpointsChanged,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    WakeAt,
    Woken,
)
from etcd_pinwheel.client.connections import Connections, Link, LinkState
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import CallFailed
from etcd_pinwheel.protos.rpcs import KV_RANGE

from .scripted import A, B, Scripted, World


@pytest.fixture
def balancer() -> Scripted:
    return Scripted()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def connections(balancer: Scripted, world: World) -> Connections:
    balancer.wishes[EndpointsChanged] = [Connect(A), Connect(B)]
    made = Connections(balancer, world, lambda: 50.0)
    made.set_endpoints([Endpoint("a"), Endpoint("b")])
    return made


def test_the_endpoints_are_the_first_event(balancer: Scripted, connections: Connections) -> None:
    assert balancer.told == [EndpointsChanged((A, B))]


def test_connect_opens_once(balancer: Scripted, world: World, connections: Connections) -> None:
    balancer.wishes[Connected] = [Connect(A), Connect(B)]
    connections.link_changed(connections.link(A), LinkState.READY, "")
    assert world.did == [("open", A), ("open", B)]


def test_states_become_events(balancer: Scripted, connections: Connections) -> None:
    link = connections.link(A)
    for state, reason in [
        (LinkState.CONNECTING, ""),
        (LinkState.READY, ""),
        (LinkState.READY, ""),
        (LinkState.CONNECTING, ""),
        (LinkState.FAILING, ""),
        (LinkState.FAILING, "refused"),
        (LinkState.FAILING, "refused"),
    ]:
        connections.link_changed(link, state, reason)
    assert balancer.told[1:] == [
        Connected(A),
        Disconnected(A),
        Disconnected(A),
        Disconnected(A, "refused"),
    ]


def test_disconnect_closes_and_tells_streams_and_balancer(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    link = connections.link(A)
    moved: list[str] = []
    connections.take_seat(link, lambda: moved.append(A))
    balancer.wishes[FailedOver] = [Disconnect(A)]
    connections.failed_over(link, Failure.BROKEN)
    assert world.did[2:] == [("close", A)]
    assert moved == [A]
    assert balancer.told[-1] == Disconnected(A, "closed as wished")
    connections.link_changed(link, LinkState.READY, "")  # late news of the old connection
    assert balancer.told[-1] == Disconnected(A, "closed as wished")
    balancer.wishes[FailedOver] = [Connect(A)]
    connections.failed_over(link, Failure.BROKEN)
    assert world.did[3:] == [("open", A)]


def test_a_graceful_disconnect_lets_calls_and_streams_end_first(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    first, second = (connections.pick(Need.QUORUM, 50.0) for _ in range(2))
    assert first is not None
    assert second is first
    moved: list[str] = []
    seat = connections.take_seat(first, lambda: moved.append(A))
    balancer.wishes[FailedOver] = [Disconnect(A, graceful=True), Connect(A)]
    connections.failed_over(first, Failure.TIMED_OUT)
    assert world.did[2:] == [("open", A)]  # beside the old connection
    assert balancer.told[-1] == Disconnected(A, "closed as wished")
    later = connections.pick(Need.QUORUM, 50.0)
    assert later is not first
    connections.link_changed(first, LinkState.READY, "")  # what becomes of it is no news
    assert balancer.told[-1] == Disconnected(A, "closed as wished")
    connections.done(first, None, 0.1, 50.0)
    seat.leave()
    assert ("close", A) not in world.did
    connections.done(first, None, 0.1, 50.0)
    assert world.did[3:] == [("close", A)]
    assert moved == []


def test_a_stream_keeps_a_connection_open_that_was_closed_gracefully(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    """As clientv3 does (etcd#9212)."""
    link = connections.link(A)
    seat = connections.take_seat(link, lambda: None)
    balancer.wishes[FailedOver] = [Disconnect(A, graceful=True)]
    connections.failed_over(link, Failure.TIMED_OUT)
    assert ("close", A) not in world.did
    assert connections.view()[A].streams == 1
    seat.leave()
    assert connections.view()[A].streams == 0
    assert world.did[2:] == [("close", A)]


def test_a_graceful_disconnect_of_an_idle_connection_closes_it_at_once(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    balancer.wishes[FailedOver] = [Disconnect(A, graceful=True)]
    connections.failed_over(connections.link(A), Failure.TIMED_OUT)
    assert world.did[2:] == [("close", A)]


def test_counts_outlive_a_connection(balancer: Scripted, connections: Connections) -> None:
    link = connections.pick(Need.QUORUM, 50.0)
    assert link is not None
    connections.done(link, Failure.BROKEN, 0.1, 50.0)
    balancer.wishes[FailedOver] = [Disconnect(A)]
    connections.failed_over(link, Failure.BROKEN)
    view = connections.view()[A]
    assert (view.calls, view.failures) == (1, 1)


def test_closing_ends_what_is_left_on_connections_that_were_closed_gracefully(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    link = connections.link(A)
    ended: list[str] = []
    seat = connections.take_seat(link, lambda: ended.append(A))
    balancer.wishes[FailedOver] = [Disconnect(A, graceful=True)]
    connections.failed_over(link, Failure.TIMED_OUT)
    assert link in connections.close()
    assert ended == [A]
    seat.leave()
    assert ("close", A) not in world.did  # that is its closer's to do


def test_a_connection_that_is_made_while_the_client_closes_is_closed(
    balancer: Scripted, world: World, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = world.open

    def open_while_closing(link: Link, changed: weakref.WeakMethod[Any]) -> None:
        connections.close()
        opening(link, changed)

    balancer.wishes[FailedOver] = [Disconnect(A), Connect(A)]
    monkeypatch.setattr(world, "open", open_while_closing)
    connections.failed_over(connections.link(A), Failure.BROKEN)
    assert world.did[2:] == [("close", A), ("open", A), ("close", A)]


def test_where_the_balancer_keeps_no_connection_one_is_opened_for_the_time_being(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    assert connections.reach(A) is connections.link(A)
    balancer.wishes[FailedOver] = [Disconnect(A)]
    connections.failed_over(connections.link(A), Failure.BROKEN)
    link = connections.reach(A)
    seat = connections.take_seat(link, lambda: None)
    assert world.did[3:] == [("open", A)]
    assert link is not connections.link(A)
    told = len(balancer.told)
    connections.link_changed(link, LinkState.READY, "")
    assert len(balancer.told) == told
    seat.leave()
    assert world.did[4:] == [("close", A)]
    with pytest.raises(KeyError):
        connections.reach("http://c:2379")


def test_callers_are_woken_before_connections_are_made_and_closed(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    connections.when_changed(connections.version, lambda: world.did.append(("woken", "")))
    balancer.wishes[FailedOver] = [Disconnect(B)]
    connections.failed_over(connections.link(A), Failure.BROKEN)
    assert world.did[2:] == [("woken", ""), ("close", B)]


def test_a_link_just_closed_was_sent_nothing(world: World, connections: Connections) -> None:
    link = connections.link(A)
    world.close(link)
    with pytest.raises(CallFailed, match="before the call was sent"):
        link.callable(KV_RANGE)


def test_drain_tells_the_streams_of_that_link_only(
    balancer: Scripted, connections: Connections
) -> None:
    moved: list[str] = []
    seat = connections.take_seat(connections.link(A), lambda: moved.append(A))
    connections.take_seat(connections.link(B), lambda: moved.append(B))
    balancer.wishes_when_done = [Drain(A)]
    connections.done(connections.link(A), None, 0.1, 50.0)
    assert moved == [A]
    seat.leave()
    assert connections.view()[A].streams == 0
    assert connections.view()[B].streams == 1


def test_probes_are_answered(balancer: Scripted, world: World, connections: Connections) -> None:
    balancer.wishes_when_done = [Probe(B, timeout_seconds=1.0)]
    connections.done(connections.link(A), None, 0.1, 50.0)
    assert ("probe", B) in world.did
    health = Health(serving=True, has_leader=False, learner=True, raft_term=4, leads=False)
    assert balancer.told[-1] == Probed(B, health)


def test_a_brief_probe_asks_one_question(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    balancer.wishes_when_done = [Probe(B, timeout_seconds=1.0, linearizable=True, brief=True)]
    connections.done(connections.link(A), None, 0.1, 50.0)
    assert ("brief probe", B) in world.did
    assert balancer.told[-1] == Probed(B, Health(serving=True))


def test_a_probe_over_a_connection_of_its_own(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    balancer.wishes_when_done = [Probe(B, timeout_seconds=1.0, fresh_connection=True)]
    connections.done(connections.link(A), None, 0.1, 50.0)
    assert world.did[2:] == [("open", B), ("probe", B), ("close", B)]
    assert isinstance(balancer.told[-1], Probed)


def test_the_balancer_is_woken(balancer: Scripted, world: World, connections: Connections) -> None:
    balancer.wishes_when_done = [WakeAt(60.0)]
    connections.done(connections.link(A), None, 0.1, 50.0)
    assert world.did[-1] == ("wake_at", "60.0")
    assert world.wake is not None
    world.wake()
    assert balancer.told[-1] == Woken()


def test_wishes_are_carried_out_in_order_even_when_they_make_new_ones(
    balancer: Scripted, world: World, connections: Connections
) -> None:
    balancer.wishes[FailedOver] = [Disconnect(A), Disconnect(B)]
    balancer.wishes[Disconnected] = [Connect(A)]  # said while B is yet to be closed
    connections.failed_over(connections.link(A), Failure.BROKEN)
    assert world.did[2:] == [("close", A), ("close", B), ("open", A)]


def test_picks_are_counted_when_paid_back(balancer: Scripted, connections: Connections) -> None:
    link = connections.pick(Need.QUORUM, 50.0)
    assert link is not None
    connections.done(link, Failure.BROKEN, 0.5, 50.0)
    assert balancer.paid == [(A, Failure.BROKEN)]
    view = connections.view()[A]
    assert (view.calls, view.failures) == (1, 1)


def test_closing_ends_streams_refuses_calls_and_wakes_waiters(connections: Connections) -> None:
    ended: list[str] = []
    connections.take_seat(connections.link(A), lambda: ended.append("stream"))
    connections.when_changed(connections.version, lambda: ended.append("waiter"))
    assert len(connections.close()) == 2
    assert ended == ["stream", "waiter"]
    assert connections.close() == []
    with pytest.raises(ClientClosed):
        connections.pick(Need.QUORUM, 0.0)
    with pytest.raises(ClientClosed):
        connections.link(A)


def test_a_fork_leaves_a_used_client_useless_even_if_its_lock_was_held(
    connections: Connections,
) -> None:
    connections._lock.acquire()
    connections.forked()
    with pytest.raises(ClientClosed, match="forked"):
        connections.pick(Need.QUORUM, 0.0)


def test_a_fork_leaves_an_unused_client_alone(balancer: Scripted, world: World) -> None:
    unused = Connections(balancer, world)
    unused.forked()
    unused.set_endpoints([Endpoint("a")])
    assert unused.pick(Need.QUORUM, 0.0) is not None


def test_many_threads_may_pick_and_pay(balancer: Scripted, connections: Connections) -> None:
    def work() -> None:
        for _ in range(500):
            link = connections.pick(Need.QUORUM, 0.0)
            assert link is not None
            connections.done(link, None, 0.0, 0.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert connections.view()[A].calls == 4000
