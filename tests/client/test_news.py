"""What the client reports of endpoints, pins, health and moves: found by comparing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import structlog

from etcd_pinwheel import Endpoint
from etcd_pinwheel.balancers.api import (
    Connect,
    Connected,
    Disconnected,
    EndpointsChanged,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    Standing,
    Woken,
)
from etcd_pinwheel.client.connections import Connections, LinkState
from etcd_pinwheel.client.events import MOST_CHANGES, QUIET_SECONDS, Changes
from etcd_pinwheel.client.flow import Flow
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.client.news import Newsroom, cause_of, is_news

from .scripted import A, B, Scripted, World

NOW = 50.0
WELL = Standing(connected=True, eligible=True)
PINNED = Standing(connected=True, eligible=True, pinned=True)
OUT = Standing(connected=True, eligible=False, ejected_until=60.0, reason="no leader")


def news(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that has been reported since the last time, without the levels."""
    told = [{key: line[key] for key in line if key != "log_level"} for line in logged]
    logged.clear()
    return told


def test_a_newsroom_tells_differences_once(logged: list[dict[str, Any]]) -> None:
    room = Newsroom()
    for standings, cause in (
        ({A: WELL, B: PINNED}, "c1"),
        ({A: WELL, B: PINNED}, "c2"),
        ({A: PINNED, B: OUT}, "c3"),
        ({A: PINNED, B: OUT}, "c4"),
        ({A: PINNED, B: WELL}, "c5"),
        ({A: OUT}, "c6"),
        ({}, "c7"),
    ):
        room.compare(standings, cause)
    room.publish()
    room.publish()
    assert news(logged) == [
        {"event": "pin_changed", "from": None, "to": B, "why": "c1"},
        {"event": "pin_changed", "from": B, "to": A, "why": "c3"},
        {"event": "endpoint_ejected", "endpoint": B, "why": "no leader: c3"},
        {"event": "endpoint_came_back", "endpoint": B, "why": "c5"},
        {"event": "pin_changed", "from": A, "to": None, "why": "c6"},
        {"event": "endpoint_ejected", "endpoint": A, "why": "no leader: c6"},
    ]


def test_the_last_report_tells_how_it_is(logged: list[dict[str, Any]]) -> None:
    """However often it was so before, and whatever another client has told."""
    for room in (Newsroom(lambda: NOW), Newsroom(lambda: NOW)):
        for number in range(MOST_CHANGES // 2):
            room.compare({A: PINNED, B: WELL}, f"there {number}")
            room.compare({A: WELL, B: OUT}, f"back {number}")
        room.publish()
        told = news(logged)
        assert [each["to"] for each in told if each["event"] == "pin_changed"] == (
            [A, None] * (MOST_CHANGES // 2)
        )
        of_b = [each["event"] for each in told if each.get("endpoint") == B]
        assert of_b == (["endpoint_ejected", "endpoint_came_back"] * (MOST_CHANGES // 2))[:-1]


def test_reports_keep_their_order_whoever_publishes() -> None:
    """Also where the application's logging calls the client, which has news then."""
    room, told = Newsroom(), list[Any]()

    def log(logger: Any, level: str, event: Any) -> Any:
        told.append(event["to"])
        if len(told) == 1:
            room.compare({A: WELL, B: PINNED}, "meanwhile")
            other = threading.Thread(target=room.publish)
            other.start()
            other.join()
            room.publish()
        told.append("end")
        raise structlog.DropEvent

    structlog.configure(processors=[log])
    try:
        room.compare({A: PINNED, B: WELL}, "first")
        room.publish()
    finally:
        structlog.reset_defaults()
    assert told == [A, "end", B, "end"]


def test_changes_that_come_too_fast_are_said_to(logged: list[dict[str, Any]]) -> None:
    now = NOW
    changes = Changes(lambda: now)
    for _ in range(MOST_CHANGES):
        changes.link(A, "connecting", "ready", "")
        changes.link(A, "ready", "connecting", "closed")
    told = news(logged)
    assert len(told) == MOST_CHANGES + 1
    assert told[-1] == {"event": "changes_kept_back", "endpoint": A, "seconds": QUIET_SECONDS}
    changes.link(B, "connecting", "ready", "")
    now += QUIET_SECONDS
    changes.link(A, "connecting", "ready", "")
    assert [each["endpoint"] for each in news(logged)] == [B, A]


def test_a_failure_is_said_again_after_a_while_or_another_state(
    logged: list[dict[str, Any]],
) -> None:
    now = NOW
    changes = Changes(lambda: now)

    def told() -> list[dict[str, Any]]:
        changes.link(A, "connecting", "failing", "refused")
        return news(logged)

    said = {"event": "endpoint_failing", "endpoint": A, "reason": "refused"}
    assert told() == [said]
    assert told() == told() == []
    now += QUIET_SECONDS
    assert told() == [{**said, "kept_back": 2}]
    changes.link(A, "failing", "ready", "")
    logged.clear()
    assert told() == [said]


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (EndpointsChanged((A,)), "the endpoints have changed"),
        (Connected(A), f"{A} is connected"),
        (Disconnected(A), f"{A} is disconnected"),
        (Disconnected(A, "refused"), f"{A} is disconnected: refused"),
        (FailedOver(A, Failure.TIMED_OUT), f"a call on {A} failed: timed out"),
        (Probed(A, Health(serving=False, reason="deaf")), f"{A} was asked: deaf"),
        (Woken(), "it was time"),
    ],
)
def test_what_has_happened_is_said(event: Any, cause: str) -> None:
    assert cause_of(event) == cause


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (None, Health(serving=True), False),
        (None, Health(serving=True, learner=True), True),
        (Health(serving=True), Health(serving=True, applied_index=9, leads=True), False),
        (Health(serving=True), Health(serving=True, has_leader=False), True),
        (Health(serving=False), Health(serving=False, answered=False), True),
        (Health(serving=True, corrupt=True), Health(serving=True), True),
    ],
)
def test_which_health_is_news(before: Health | None, now: Health, told: bool) -> None:
    assert is_news(before, now) == told


class Deaf(World):
    """Probes are not answered here."""

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        flow.close()


def begun(policy: str) -> Connections:
    """Connections to a and b, both up, a first."""
    connections = Connections(BUILT_IN[policy].build(Random(1), {}), Deaf(), lambda: NOW)
    connections.set_endpoints([Endpoint("a"), Endpoint("b")])
    for url in (A, B):
        if connections.link(url).channel is not None:
            connections.link_changed(connections.link(url), LinkState.READY, "")
    return connections


def of_pins(logged: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    told = [each for each in news(logged) if each["event"] == "pin_changed"]
    return [(each["from"], each["to"], each["why"]) for each in told]


def test_a_pin_that_is_lost(logged: list[dict[str, Any]]) -> None:
    connections = begun("pinned_multi")
    assert of_pins(logged) == [(None, A, f"{A} is connected")]
    connections.link_changed(connections.link(A), LinkState.FAILING, "refused")
    assert of_pins(logged) == [(A, B, f"{A} is disconnected: refused")]
    connections.set_endpoints([Endpoint("a")])
    assert of_pins(logged) == [(B, None, "the endpoints have changed")]


def test_a_pin_that_is_left_and_is_unhealthy_then(logged: list[dict[str, Any]]) -> None:
    connections = begun("pinned_single")
    news(logged)
    connections.failed_over(connections.link(A), Failure.TIMED_OUT)
    why = f"a call on {A} failed: timed out"
    assert news(logged)[:2] == [
        {"event": "pin_changed", "from": A, "to": None, "why": why},
        {"event": "endpoint_ejected", "endpoint": A, "why": f"unhealthy: {why}"},
    ]
    assert connections.view()[A].standing.ejections == 1
    connections.set_endpoints([Endpoint("a"), Endpoint("c")])
    assert {"endpoint_came_back"} & {each["event"] for each in news(logged)}
    assert connections.view()[A].standing.ejections == 1


def test_calls_that_fail_eject(logged: list[dict[str, Any]]) -> None:
    connections = begun("health_aware")
    news(logged)
    for _ in range(2):
        link = connections.pick(Need.QUORUM, NOW, [B])
        assert link is connections.link(A)
        connections.done(link, Failure.UNAVAILABLE, 0.001, NOW)
    (told,) = [each for each in news(logged) if each["event"] == "endpoint_ejected"]
    assert told["endpoint"] == A
    assert told["why"].endswith(f": a call on {A} ended: unavailable")
    assert "in a row failed" in told["why"]
    view = connections.view()
    assert (view[A].standing.ejections, view[B].standing.ejections) == (1, 0)


def test_health_that_a_probe_finds_is_kept_and_told(logged: list[dict[str, Any]]) -> None:
    balancer = Scripted()
    balancer.wishes[EndpointsChanged] = [Connect(A), Connect(B)]
    connections = Connections(balancer, World(), lambda: NOW)
    connections.set_endpoints([Endpoint("a"), Endpoint("b")])
    assert connections.view()[A].health is None
    for _ in range(2):
        balancer.wishes[FailedOver] = [Probe(A, 1.0)]
        connections.failed_over(connections.link(A), Failure.BROKEN)
    (told,) = news(logged)
    assert told["event"] == "endpoint_health_changed"
    assert (told["endpoint"], told["has_leader"], told["learner"]) == (A, False, True)
    health = connections.view()[A].health
    assert health is not None
    assert (health.raft_term, health.leads) == (4, False)


def test_nobody_is_asked_for_standings_unless_somebody_listens() -> None:
    structlog.reset_defaults()
    balancer = Scripted()
    balancer.standings = None  # type: ignore[method-assign, assignment]
    Connections(balancer, World(), lambda: NOW).set_endpoints([Endpoint("a")])


def test_a_listener_may_look_at_the_endpoints(logged: list[dict[str, Any]]) -> None:
    """Nothing is reported with a lock held."""
    connections = Connections(BUILT_IN["pinned_multi"].build(Random(1), {}), World(), lambda: NOW)
    seen: list[int] = []

    def look(_: Any, __: str, line: Any) -> Any:
        seen.append(len(connections.view()))
        raise structlog.DropEvent

    structlog.get_config()["processors"][:] = [look]
    connections.set_endpoints([Endpoint("a"), Endpoint("b")])
    connections.link_changed(connections.link(A), LinkState.READY, "")
    assert seen == [2, 2]
