"""A stream's stay on one link: what the balancer is told of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from etcd_pinwheel.balancers.api import Failure, Health, Need
from etcd_pinwheel.balancers.health_aware import HealthAware
from etcd_pinwheel.client.connections import Connections
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import CLOSED_UNDER_STREAM, LINK_CLOSED, Flow
from etcd_pinwheel.client.links import Link, LinkState
from etcd_pinwheel.client.pump import Trip
from etcd_pinwheel.client.stream import HangUp
from etcd_pinwheel.protos.rpcs import WATCH_WATCH

from .scripted import A, B, Scripted, World


class Stay(Trip):
    """A trip without a stream."""

    now = 0.0

    def __init__(self, connections: Connections) -> None:
        call: Any = SimpleNamespace(connections=connections, judge_stream=self._judge)
        super().__init__(call, WATCH_WATCH, lambda: self.now)
        link = connections.pick(Need.QUORUM, 0.0)
        assert link is not None
        self.link: Link = link
        self.board(link, self.move)

    def cancel(self) -> None:
        pass

    def _judge(self, *_: object) -> tuple[Failure, Exception]:
        return Failure.TIMED_OUT, TimeoutError()


class Probing(World):
    """One whose probes are answered by the test."""

    probed: Callable[[Any], None]

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        self.probed = then


def connected_to(balancer: Any, world: World | None = None) -> Connections:
    connections = Connections(balancer, world or World(), lambda: 0.0)
    connections.set_endpoints([Endpoint("a"), Endpoint("b")])
    for url in (A, B):
        connections.link_changed(connections.link(url), LinkState.READY, "")
    return connections


@pytest.fixture
def balancer() -> Scripted:
    return Scripted()


@pytest.fixture
def stay(balancer: Scripted) -> Stay:
    return Stay(connected_to(balancer))


def test_an_answer_pays_the_pick_back_and_nothing_that_follows_does(
    balancer: Scripted, stay: Stay
) -> None:
    stay.answered()
    stay.answered()
    stay.move()
    stay.leave(None)
    assert balancer.paid == [(A, None)]


def test_leaving_before_there_was_an_answer_is_none(balancer: Scripted, stay: Stay) -> None:
    stay.move()
    assert stay.leave(None) is None
    assert balancer.paid == [(A, Failure.CANCELLED)]


def test_neither_is_a_stream_that_nobody_wants_any_more(balancer: Scripted, stay: Stay) -> None:
    stay.drop(HangUp())
    assert stay.leave(None) is None
    assert balancer.paid == [(A, Failure.CANCELLED)]


def test_whoever_did_not_answer_in_time_is_to_blame(balancer: Scripted, stay: Stay) -> None:
    stay.drop(HangUp(unanswered=True))
    stay.leave(None)
    assert balancer.paid == [(A, Failure.TIMED_OUT)]


def test_a_member_that_hangs_is_not_well_for_having_its_stream_moved() -> None:
    """Its stream, unanswered for 1.3 seconds, leaves when the probe finds out."""
    balancer = HealthAware(Random(1))
    world = Probing()
    connections = connected_to(balancer, world)
    stay = Stay(connections)
    url = stay.link.url
    stay.now = 1.3
    connections.failed_over(stay.link, Failure.TIMED_OUT)
    assert not stay.moved
    world.probed(Health(serving=False, answered=False, reason="no answer"))
    assert stay.moved
    stay.leave(None)
    standing = balancer.standings(1.3)[url]
    assert standing.latency_seconds is None
    assert not standing.eligible


def test_a_connection_closed_under_an_open_stream_is_not_one_that_carried_nothing() -> None:
    stay = Stay(connected_to(Scripted()))
    assert stay.closed_failure.text == LINK_CLOSED
    stay.stream = object()
    assert stay.closed_failure.text == CLOSED_UNDER_STREAM
