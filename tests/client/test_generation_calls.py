"""A call's life under each of clientv3's generations: the test is the world, the clock a number."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from etcd_pinwheel import (
    Client,
    Config,
    ConnectionLost,
    NoLeader,
    OutcomeUnknown,
    TimedOut,
    Unauthenticated,
)
from etcd_pinwheel.balancers.api import Failure
from etcd_pinwheel.client.backoff import Backoff
from etcd_pinwheel.client.call import Call
from etcd_pinwheel.client.connections import Connections, Link, LinkState
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.error_handler import Kind
from etcd_pinwheel.client.flow import AwaitChange, CallFailed, Flow, Send, Sleep, Step
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import PutRequest, RangeRequest, RangeResponse, TxnRequest

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"

NOT_SENT = CallFailed(Code.UNAVAILABLE, "failed to connect to all addresses")
BROKEN = CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
NO_LEADER = CallFailed(Code.UNAVAILABLE, table.NO_LEADER.text)
CANCELLED = CallFailed(Code.CANCELLED, "context canceled")
LATE = CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
NO_TOKEN = CallFailed(Code.UNAUTHENTICATED, table.INVALID_AUTH_TOKEN.text)
OK = RangeResponse()

PINNED = ("pinned_multi", "pinned_single")


class World:
    """Opens and closes nothing, and says so."""

    def __init__(self) -> None:
        self.open_links: list[Link] = []

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        self.open_links.append(link)
        link.channel = object()

    def close(self, link: Link) -> None:
        self.open_links.remove(link)
        link.channel = None

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None: ...

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        raise NotImplementedError

    def urls(self) -> list[str]:
        return [link.endpoint.url for link in self.open_links]


class Stage:
    """A client's inside; connections come up in the order of the endpoints, but only on demand."""

    def __init__(self, policy: str, *urls: str) -> None:
        self.now = 1000.0
        chosen = BUILT_IN[policy]
        self.world = World()
        clock = lambda: self.now  # noqa: E731
        self.connections = Connections(chosen.balancer(Random(0), {}), self.world, clock)
        self.connections.set_endpoints(map(Endpoint, urls))
        rule = chosen.retry_rule(Backoff(Random(0)))
        self.call = Call(self.connections, chosen.table, rule, timeout_seconds=5.0, clock=clock)
        self.sent: list[str] = []
        self.pauses: list[float] = []
        self.attempt_seconds = 0.01

    def bring_up(self) -> None:
        """Connect whatever is wished to be, one after the other."""
        for link in list(self.world.open_links):
            if link in self.world.open_links:
                self.connections.link_changed(link, LinkState.READY, "")

    def play(self, flow: Flow[Any], *outcomes: Any) -> Any:
        """Run a flow; each Send gets the next outcome, and the last one again and again."""
        left = list(outcomes)
        try:
            step = next(flow)
            while True:
                try:
                    step = flow.send(self._do(step, left))
                except CallFailed as failed:
                    step = flow.throw(failed)
        except StopIteration as stop:
            return stop.value

    def _do(self, step: Step, left: list[Any]) -> Any:
        match step:
            case Sleep(seconds):
                self.pauses.append(seconds)
                self.now += seconds
            case AwaitChange():
                self.bring_up()
            case Send():
                self.sent.append(step.link.endpoint.url)
                self.now += self.attempt_seconds
                outcome = left.pop(0) if len(left) > 1 else left[0]
                if isinstance(outcome, CallFailed):
                    raise CallFailed(outcome.code, outcome.text)
                return outcome
        return None

    def get(self, timeout: float | None = None) -> Flow[RangeResponse]:
        return self.call(rpcs.KV_RANGE, RangeRequest(key=b"k"), timeout)

    def put(self, timeout: float | None = None) -> Flow[Any]:
        return self.call(rpcs.KV_PUT, PutRequest(key=b"k"), timeout)

    @property
    def pin(self) -> str | None:
        view = self.connections.view()
        return next((url for url, each in view.items() if each.standing.pinned), None)


def pinned(policy: str, *urls: str) -> Stage:
    stage = Stage(policy, *urls)
    stage.bring_up()
    assert stage.pin == urls[0]
    return stage


@pytest.mark.parametrize("policy", PINNED)
def test_a_call_waits_until_somebody_is_pinned(policy: str) -> None:
    stage = Stage(policy, A, B)
    assert stage.play(stage.put(), OK) is OK
    assert stage.sent == [A]


@pytest.mark.parametrize("policy", PINNED)
def test_connections_kept(policy: str) -> None:
    stage = pinned(policy, A, B, C)
    assert stage.world.urls() == ([A, B, C] if policy == "pinned_multi" else [A])


# pinned_multi


@pytest.mark.parametrize("failure", [BROKEN, NO_LEADER])
def test_multi_a_read_is_repeated_on_the_pin_as_fast_as_it_fails(failure: CallFailed) -> None:
    """Its known weakness: nobody else is asked, and nothing slows it down."""
    stage = pinned("pinned_multi", A, B, C)
    with pytest.raises((ConnectionLost, NoLeader)):
        stage.play(stage.get(timeout=1.0), failure)
    assert set(stage.sent) == {A}
    assert len(stage.sent) >= 99
    assert stage.pauses == []


def test_multi_a_read_goes_on_where_the_next_pin_is() -> None:
    stage = pinned("pinned_multi", A, B)
    flow = stage.get()
    assert isinstance(next(flow), Send)
    stage.connections.link_changed(stage.connections.link(A), LinkState.FAILING, "reset")
    step = flow.throw(BROKEN)
    assert isinstance(step, Send)
    assert step.link.endpoint.url == B


@pytest.mark.parametrize("failure", [BROKEN, NO_LEADER, CANCELLED, LATE])
def test_multi_a_write_that_was_sent_is_sent_once(failure: CallFailed) -> None:
    stage = pinned("pinned_multi", A, B)
    with pytest.raises((OutcomeUnknown, NoLeader)):
        stage.play(stage.put(), failure)
    assert stage.sent == [A]
    assert stage.pin == A


# pinned_single


@pytest.mark.parametrize("failure", [BROKEN, NO_LEADER])
def test_single_a_read_switches_and_is_repeated_elsewhere_at_once(failure: CallFailed) -> None:
    stage = pinned("pinned_single", A, B, C)
    assert stage.play(stage.get(), failure, OK) is OK
    assert stage.sent == [A, B]
    assert stage.pauses == []
    assert stage.world.urls() == [B]


@pytest.mark.parametrize("failure", [BROKEN, NO_LEADER, LATE])
def test_single_a_write_switches_and_is_not_repeated(failure: CallFailed) -> None:
    stage = pinned("pinned_single", A, B)
    with pytest.raises((OutcomeUnknown, NoLeader)):
        stage.play(stage.put(), failure)
    assert stage.sent == [A]
    assert stage.pin is None
    stage.play(stage.put(), OK)
    assert stage.sent == [A, B]


def test_single_a_read_whose_own_deadline_passes_switches_all_the_same() -> None:
    """The false positive: the member may be as well as any."""
    stage = pinned("pinned_single", A, B)
    stage.attempt_seconds = 0.2
    with pytest.raises(TimedOut):
        stage.play(stage.get(timeout=0.1), LATE)
    assert stage.pin is None
    assert stage.connections.view()[A].standing.reason == "unhealthy"


@pytest.mark.parametrize("kind", ["get", "put"])
def test_single_what_the_other_side_cancels_is_told_and_switches_nothing(kind: str) -> None:
    stage = pinned("pinned_single", A, B)
    with pytest.raises(OutcomeUnknown):
        stage.play(getattr(stage, kind)(), CANCELLED)
    assert stage.sent == [A]
    assert stage.pin == A


def test_single_a_caller_who_gives_up_switches_nothing() -> None:
    stage = pinned("pinned_single", A, B)
    flow = stage.get()
    next(flow)
    flow.close()
    assert stage.pin == A


def test_single_a_write_that_was_not_sent_is_sent_again_without_a_switch() -> None:
    stage = pinned("pinned_single", A, B)
    assert stage.play(stage.put(), NOT_SENT, NOT_SENT, OK) is OK
    assert stage.sent == [A, A, A]


def test_single_with_everybody_failing_goes_round_without_a_pause_until_time_is_up() -> None:
    stage = pinned("pinned_single", A, B, C)
    with pytest.raises(NoLeader):
        stage.play(stage.get(timeout=1.0), NO_LEADER)
    assert stage.sent[:4] == [A, B, C, A]
    assert len(stage.sent) >= 99
    assert stage.pauses == []
    assert len(stage.world.open_links) <= 3


def test_single_of_calls_under_way_one_switches_and_the_others_go_on() -> None:
    stage = pinned("pinned_single", A, B)
    other = stage.get()
    step = next(other)
    assert isinstance(step, Send)
    with pytest.raises(ConnectionLost):
        stage.play(stage.put(), BROKEN)
    assert step.link.channel is not None  # what is on it may end
    assert stage.world.urls() == [A, B]
    with pytest.raises(StopIteration):
        other.send(OK)
    assert step.link.channel is None
    assert stage.world.urls() == [B]


# Streams, calls to one endpoint, tokens


@pytest.mark.parametrize("policy", ["pinned_multi", "pinned_single", "round_robin"])
def test_a_stream_that_breaks_switches_nothing(policy: str) -> None:
    stage = Stage(policy, A, B)
    stage.bring_up()
    pin = stage.pin
    link = stage.connections.link(A)
    for failed in (BROKEN, NO_LEADER, LATE):
        failure, _ = stage.call.judge_stream(rpcs.WATCH_WATCH, link, failed, stage.now)
        assert failure in Failure
    assert stage.pin == pin


def test_a_call_to_an_endpoint_that_is_not_connected_has_a_connection_of_its_own() -> None:
    stage = pinned("pinned_single", A, B)
    flow = stage.call.at("b", rpcs.KV_RANGE, RangeRequest(key=b"k"))
    step = next(flow)
    assert isinstance(step, Send)
    assert step.link.endpoint.url == B
    assert stage.world.urls() == [A, B]
    with pytest.raises(StopIteration):
        flow.send(OK)
    assert stage.world.urls() == [A]
    assert stage.pin == A


@pytest.mark.parametrize("policy", ["pinned_multi", "pinned_single", "round_robin"])
def test_an_old_token_is_told_since_there_is_no_password_to_get_another(policy: str) -> None:
    stage = Stage(policy, A, B)
    with pytest.raises(Unauthenticated):
        stage.play(stage.get(), NO_TOKEN)
    assert len(stage.sent) == 1


@pytest.mark.parametrize(
    ("policy", "attempts"), [("pinned_multi", 2), ("pinned_single", 1), ("round_robin", 1)]
)
def test_a_transaction_that_only_reads(policy: str, attempts: int) -> None:
    """clientv3 stopped repeating it in 3.2.10 (etcd#8735)."""
    stage = Stage(policy, A, B)
    flow = stage.call(rpcs.KV_TXN, TxnRequest(), kind=Kind.REPEATABLE)
    try:
        assert stage.play(flow, BROKEN, OK) is OK
    except ConnectionLost:
        assert attempts == 1
    assert len(stage.sent) == attempts


@pytest.mark.parametrize("policy", PINNED)
def test_it_is_chosen_by_name_in_a_file_and_in_the_environment(
    policy: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = {"pinned_multi": 'on_error = "switch"', "pinned_single": "dial_timeout_seconds = 5"}
    file = tmp_path / "client.toml"
    file.write_text(f'balancer = "{policy}"\n[balancer_options]\n{option[policy]}\n')
    Client(config=Config.from_toml(file)).close()
    monkeypatch.setenv("ETCD_PINWHEEL_BALANCER", policy)
    Client().close()
