"""Calls of a client with a password, played without sockets: the test is the world."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Generator
from random import Random
from typing import Any

import pytest

from etcd_pinwheel import (
    CallError,
    ClientClosed,
    NotEtcd,
    NotSent,
    PermissionDenied,
    Unauthenticated,
)
from etcd_pinwheel.client.backoff import Backoff
from etcd_pinwheel.client.call import Call
from etcd_pinwheel.client.connections import Connections, Link, LinkState
from etcd_pinwheel.client.credentials import Credentials
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import AwaitChange, CallFailed, Flow, Send, Sleep, Step
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code, Refusal
from etcd_pinwheel.protos.etcdserverpb import (
    AuthenticateRequest,
    AuthenticateResponse,
    HashKVRequest,
    PutRequest,
    PutResponse,
    StatusRequest,
    StatusResponse,
)
from etcd_pinwheel.protos.rpc import Rpc

A, B = "http://a:2379", "http://b:2379"
ALL = tuple(BUILT_IN)
OK = PutResponse()


def refused(row: Refusal) -> CallFailed:
    return CallFailed(row.wire_code, row.text)


OLD = refused(table.INVALID_AUTH_TOKEN)
NOT_ENABLED = refused(table.AUTH_NOT_ENABLED)
WRONG = refused(table.AUTH_FAILED)
NO_LEADER = refused(table.NO_LEADER)
UNSENT = CallFailed(Code.UNAVAILABLE, "failed to connect to all addresses")
BROKEN = CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
LEARNER = CallFailed(Code.UNAVAILABLE, table.NOT_SUPPORTED_FOR_LEARNER.text)


class NoWorld:
    """Opens nothing, and says so."""

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        link.channel = object()

    def close(self, link: Link) -> None:
        link.channel = None

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None: ...

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None: ...


class Stage:
    """A client's inside, and servers that hand out the tokens t1, t2, ...

    ``logins`` is what becomes of the next Authenticates, ``outcomes`` of other calls; after them
    all goes well. ``sent`` has each call's token, and "login" for each Authenticate.
    """

    def __init__(self, policy: str = "round_robin", *urls: str) -> None:
        self.now = 1000.0
        chosen = BUILT_IN[policy]
        clock = lambda: self.now  # noqa: E731
        self.credentials = Credentials("alice", "secret")
        self.connections = Connections(chosen.balancer(Random(1), {}), NoWorld(), clock)
        self.connections.set_endpoints(map(Endpoint, urls or (A, B)))
        for url in urls or (A, B):
            self.connections.link_changed(self.connections.link(url), LinkState.READY, "")
        self.call = Call(
            self.connections,
            chosen.table,
            chosen.retry_rule(Backoff(Random(1))),
            timeout_seconds=5.0,
            credentials=self.credentials,
            clock=clock,
        )
        self.logins: deque[Any] = deque()
        self.outcomes: deque[Any] = deque()
        self.sent: list[str] = []
        self.at: list[str] = []
        self.given = 0

    def put(self, timeout: float | None = None) -> Flow[Any]:
        return self.call(rpcs.KV_PUT, PutRequest(key=b"k"), timeout)

    def answer(self, step: Send) -> Any:
        """Answer a Send, or raise the CallFailed that becomes of it."""
        self.now += 0.01
        self.at.append(step.link.endpoint.url)
        is_login = step.rpc is rpcs.AUTH_AUTHENTICATE
        if is_login:
            assert step.request == AuthenticateRequest(name="alice", password="secret")
            assert step.metadata is None
            self.sent.append("login")
        else:
            self.sent.append(dict(step.metadata or ()).get("token", ""))
        due = self.logins if is_login else self.outcomes
        outcome = due.popleft() if due else None
        if isinstance(outcome, CallFailed):
            raise CallFailed(outcome.code, outcome.text)
        if is_login and outcome is None:
            self.given += 1
            return AuthenticateResponse(token=f"t{self.given}")
        return outcome or OK

    def play(self, flow: Flow[Any]) -> Any:
        try:
            step = next(flow)
            while True:
                try:
                    step = flow.send(self.do(step))
                except CallFailed as failed:
                    step = flow.throw(failed)
        except StopIteration as stop:
            return stop.value

    def do(self, step: Step) -> Any:
        match step:
            case Send():
                return self.answer(step)
            case Sleep(seconds) | AwaitChange(_, float() as seconds):
                self.now += seconds
        return None


class Crowd:
    """Calls under way at the same time; each is at its last step."""

    def __init__(self, stage: Stage, flows: list[Flow[Any]]) -> None:
        self.stage = stage
        self.steps: dict[Generator[Step, Any, Any], Step] = {}
        self.ends: list[Any] = []
        for flow in flows:
            self._go(flow, lambda flow=flow: next(flow))

    def at(self, kind: type[Any], rpc: Rpc[Any, Any] | None = None) -> list[Flow[Any]]:
        """Those who are at such a step."""
        found = []
        for flow, step in self.steps.items():
            if isinstance(step, kind) and (rpc is None or getattr(step, "rpc", None) is rpc):
                found.append(flow)
        return found

    def go(self, *flows: Flow[Any]) -> None:
        """Have these go on: what they sent is answered, what they waited for has come."""
        for flow in flows:
            step = self.steps.pop(flow)
            try:
                outcome = self.stage.answer(step) if isinstance(step, Send) else None
            except CallFailed as failed:
                self._go(flow, lambda flow=flow, failed=failed: flow.throw(failed))
            else:
                self._go(flow, lambda flow=flow, outcome=outcome: flow.send(outcome))

    def throw(self, flow: Flow[Any], error: BaseException) -> None:
        del self.steps[flow]
        self._go(flow, lambda: flow.throw(error))

    def _go(self, flow: Flow[Any], move: Callable[[], Step]) -> None:
        try:
            self.steps[flow] = move()
        except StopIteration as stop:
            self.ends.append(stop.value)
        except (CallError, ClientClosed, KeyboardInterrupt) as error:
            self.ends.append(error)


def test_the_first_call_gets_a_token_and_the_next_ones_have_it() -> None:
    stage = Stage()
    for _ in range(3):
        stage.play(stage.put())
    assert stage.sent == ["login", "t1", "t1", "t1"]


@pytest.mark.parametrize("policy", ALL)
def test_a_write_whose_token_is_refused_is_sent_again_with_a_new_one(policy: str) -> None:
    stage = Stage(policy)
    stage.play(stage.put())
    stage.outcomes.append(OLD)
    assert stage.play(stage.put()) is OK
    assert stage.sent == ["login", "t1", "t1", "login", "t2"]


@pytest.mark.parametrize("policy", ALL)
def test_a_second_refusal_in_a_row_is_raised(policy: str) -> None:
    stage = Stage(policy)
    stage.outcomes.extend([OLD, OLD])
    with pytest.raises(Unauthenticated) as caught:
        stage.play(stage.put())
    assert stage.sent == ["login", "t1", "login", "t2"]
    assert caught.value.attempts == 2
    assert caught.value.text == table.INVALID_AUTH_TOKEN.text
    stage.play(stage.put())
    assert stage.sent[-2:] == ["login", "t3"]  # what was refused is not carried again


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("row", [table.AUTH_OLD_REVISION, table.USER_EMPTY])
def test_other_words_for_it_are_known_since_3_4(policy: str, row: Refusal) -> None:
    stage = Stage(policy)
    stage.outcomes.append(refused(row))
    if policy.startswith("pinned"):
        with pytest.raises(Unauthenticated):
            stage.play(stage.put())
    else:
        assert stage.play(stage.put()) is OK
        assert stage.sent == ["login", "t1", "login", "t2"]


@pytest.mark.parametrize(
    ("policy", "refreshes"),
    [("pinned_multi", False), ("pinned_single", False), ("round_robin", True)],
)
def test_maintenance_calls_refresh_where_the_generation_did(policy: str, refreshes: bool) -> None:
    for row in (table.INVALID_AUTH_TOKEN, table.STORE_INVALID_AUTH_TOKEN):
        stage = Stage(policy)
        stage.outcomes.append(refused(row))
        flow = stage.call.at(A, rpcs.MAINTENANCE_HASH_KV, HashKVRequest())
        if refreshes:
            stage.play(flow)
            assert stage.sent == ["login", "t1", "login", "t2"]
            assert [stage.at[1], stage.at[3]] == [A, A]
        else:
            with pytest.raises(Unauthenticated):
                stage.play(flow)


def test_a_call_to_one_endpoint_ends_with_the_second_refusal_too() -> None:
    stage = Stage()
    stage.outcomes.extend([OLD, OLD])
    with pytest.raises(Unauthenticated):
        stage.play(stage.call.at(A, rpcs.MAINTENANCE_HASH_KV, HashKVRequest()))
    assert stage.sent == ["login", "t1", "login", "t2"]


def test_a_status_is_asked_for_without_waiting_for_a_token() -> None:
    """It is asked of members of clusters that are too ill to hand out tokens."""
    stage = Stage()
    stage.play(stage.call.at(A, rpcs.MAINTENANCE_STATUS, StatusRequest()))
    assert stage.sent == [""]
    stage.outcomes.extend([refused(table.USER_EMPTY), StatusResponse(leader=7)])
    reply = stage.play(stage.call.at(A, rpcs.MAINTENANCE_STATUS, StatusRequest()))
    assert reply.leader == 7
    assert stage.sent == ["", "", "login", "t1"]  # but gets one from a server that insists


def test_refusals_with_something_else_between_them_are_not_in_a_row() -> None:
    stage = Stage()
    stage.outcomes.extend([OLD, UNSENT, OLD, UNSENT, OLD])
    assert stage.play(stage.put()) is OK
    assert stage.sent == ["login", "t1", "login", "t2", "t2", "login", "t3", "t3", "login", "t4"]


def test_permission_denied_is_nothing_that_a_token_would_help() -> None:
    stage = Stage()
    stage.outcomes.append(refused(table.PERMISSION_DENIED))
    with pytest.raises(PermissionDenied):
        stage.play(stage.put())
    assert stage.sent == ["login", "t1"]


# Servers that do not ask


def test_without_authentication_on_the_server_no_token_is_sent() -> None:
    stage = Stage()
    stage.logins.append(NOT_ENABLED)
    for _ in range(3):
        stage.play(stage.put())
    assert stage.sent == ["login", "", "", ""]


def test_when_it_is_enabled_later_a_token_is_asked_for() -> None:
    stage = Stage()
    stage.logins.append(NOT_ENABLED)
    stage.play(stage.put())
    stage.outcomes.append(refused(table.USER_EMPTY))
    assert stage.play(stage.put()) is OK
    assert stage.sent == ["login", "", "", "login", "t1"]


def test_when_it_is_disabled_later_the_token_is_dropped() -> None:
    """etcd 3.5 refuses tokens that it does not know also when it asks for none."""
    stage = Stage()
    stage.play(stage.put())
    stage.outcomes.append(OLD)
    stage.logins.append(NOT_ENABLED)
    assert stage.play(stage.put()) is OK
    assert stage.sent == ["login", "t1", "t1", "login", ""]


def test_a_server_that_knows_no_authentication_is_told_as_it_is() -> None:
    """The bundled server."""
    stage = Stage()
    text = "etcdserver: authentication is not supported by this server"
    stage.logins.append(CallFailed(Code.UNIMPLEMENTED, text))
    with pytest.raises(NotEtcd, match="not supported by this server"):
        stage.play(stage.put())
    assert stage.sent == ["login"]


# When no token is to be had


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("row", [table.AUTH_FAILED, table.NO_PASSWORD_USER])
def test_a_wrong_password_is_told_at_once_in_the_servers_words(policy: str, row: Refusal) -> None:
    stage = Stage(policy)
    stage.logins.append(refused(row))
    with pytest.raises(Unauthenticated) as caught:
        stage.play(stage.put())
    assert stage.sent == ["login"]
    assert caught.value.text == row.text
    assert caught.value.rpc == rpcs.AUTH_AUTHENTICATE.path
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("policy", ["pinned_single", "round_robin", "health_aware"])
@pytest.mark.parametrize("trouble", [UNSENT, BROKEN, NO_LEADER, LEARNER])
def test_an_authenticate_that_fails_goes_elsewhere(policy: str, trouble: CallFailed) -> None:
    """Also where the trouble may have been carried out: a token twice harms nobody."""
    stage = Stage(policy)
    if policy == "pinned_single":
        stage.logins.append(trouble)
        flow = stage.put()
        step = next(flow)
        assert isinstance(step, Send)
        first = step.link.endpoint.url
        step = flow.throw(CallFailed(trouble.code, trouble.text))
        while not isinstance(step, Send):
            for url in (A, B):
                stage.connections.link_changed(stage.connections.link(url), LinkState.READY, "")
            step = flow.send(None)
        assert step.rpc is rpcs.AUTH_AUTHENTICATE
        assert step.link.endpoint.url != first
        return
    stage.logins.append(trouble)
    assert stage.play(stage.put()) is OK
    assert stage.sent == ["login", "login", "t1"]
    assert stage.at[0] != stage.at[1]


def test_without_a_token_in_time_a_write_was_not_sent_whatever_became_of_the_authenticate() -> None:
    stage = Stage("round_robin", A)
    stage.logins.extend([BROKEN] * 1000)
    with pytest.raises(NotSent, match=r"nothing was sent: no token: Stream removed") as caught:
        stage.play(stage.put(timeout=1.0))
    assert set(stage.sent) == {"login"}
    assert caught.value.rpc == rpcs.KV_PUT.path
    assert caught.value.__cause__ is not None
    assert caught.value.elapsed_seconds <= 1.0


# Many at once


def test_of_a_hundred_calls_one_authenticates_and_the_others_wait() -> None:
    stage = Stage()
    crowd = Crowd(stage, [stage.put() for _ in range(100)])
    (first,) = crowd.at(Send)
    assert len(crowd.at(AwaitChange)) == 99
    crowd.go(first)
    crowd.go(*crowd.at(AwaitChange))
    assert len(crowd.at(Send, rpcs.KV_PUT)) == 100
    crowd.go(*crowd.at(Send))
    assert crowd.ends == [OK] * 100
    assert stage.sent == ["login", *["t1"] * 100]


def test_of_a_hundred_calls_whose_token_is_refused_one_authenticates() -> None:
    stage = Stage()
    stage.play(stage.put())
    crowd = Crowd(stage, [stage.put() for _ in range(100)])
    stage.outcomes.extend([OLD] * 100)
    crowd.go(*crowd.at(Send))
    (first,) = crowd.at(Send, rpcs.AUTH_AUTHENTICATE)
    crowd.go(first)
    crowd.go(*crowd.at(AwaitChange))
    crowd.go(*crowd.at(Send))
    assert crowd.ends == [OK] * 100
    assert stage.sent.count("login") == 2
    assert stage.sent.count("t2") == 100


def test_a_call_that_learns_late_of_an_old_token_uses_the_new_one() -> None:
    stage = Stage()
    stage.play(stage.put())
    crowd = Crowd(stage, [stage.put(), stage.put()])
    early, late = crowd.at(Send)
    stage.outcomes.append(OLD)
    crowd.go(early)
    crowd.go(early)  # its Authenticate
    crowd.go(early)
    stage.outcomes.append(OLD)
    crowd.go(late)
    crowd.go(late)
    assert crowd.ends == [OK, OK]
    assert stage.sent == ["login", "t1", "t1", "login", "t2", "t1", "t2"]


def test_a_wrong_password_is_told_to_all_who_wait() -> None:
    stage = Stage()
    crowd = Crowd(stage, [stage.put() for _ in range(100)])
    stage.logins.append(WRONG)
    crowd.go(*crowd.at(Send))
    crowd.go(*crowd.at(AwaitChange))
    assert [type(end) for end in crowd.ends] == [Unauthenticated] * 100
    assert len(set(map(id, crowd.ends))) == 100  # each has a traceback of its own
    assert stage.sent == ["login"]


def test_who_waits_waits_within_his_own_time() -> None:
    stage = Stage()
    crowd = Crowd(stage, [stage.put(timeout=3.0), stage.put(timeout=0.5)])
    (patient,), (hasty,) = crowd.at(Send), crowd.at(AwaitChange)
    step = crowd.steps[hasty]
    assert isinstance(step, AwaitChange)
    assert step.seconds == pytest.approx(0.5)
    stage.now += 0.5
    crowd.go(hasty)
    (error,) = crowd.ends
    assert isinstance(error, NotSent)
    assert error.code is Code.DEADLINE_EXCEEDED
    crowd.go(patient)
    crowd.go(patient)
    assert crowd.ends[1] is OK


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ClientClosed("closed")])
def test_whoever_is_interrupted_while_he_authenticates_leaves_it_to_another(
    error: BaseException,
) -> None:
    stage = Stage()
    crowd = Crowd(stage, [stage.put() for _ in range(3)])
    (first,) = crowd.at(Send)
    crowd.throw(first, error)
    crowd.go(*crowd.at(AwaitChange))
    (second,) = crowd.at(Send)
    crowd.go(second)
    crowd.go(*crowd.at(AwaitChange))
    crowd.go(*crowd.at(Send))
    assert crowd.ends == [error, OK, OK]
    assert stage.sent == ["login", "t1", "t1"]


def test_a_flow_that_is_dropped_while_it_authenticates_holds_up_nobody() -> None:
    stage = Stage()
    flow = stage.put()
    next(flow)
    flow.close()
    assert stage.play(stage.put()) is OK
    assert stage.sent == ["login", "t1"]


def test_closing_the_client_ends_those_who_wait_for_a_token() -> None:
    stage = Stage()
    crowd = Crowd(stage, [stage.put(), stage.put()])
    (waiting,) = crowd.at(AwaitChange)
    stage.connections.close()
    crowd.go(waiting)
    (error,) = crowd.ends
    assert isinstance(error, ClientClosed)
