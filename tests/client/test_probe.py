"""What is asked of a member, and what is made of its answers; no wire, no clock."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckResponse

from etcd_pinwheel.balancers.api import Health
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import REQUIRE_LEADER, CallFailed, Send
from etcd_pinwheel.client.links import Link
from etcd_pinwheel.client.probe import HEALTH_CHECK, examine
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import RangeResponse, ResponseHeader, StatusResponse
from etcd_pinwheel.protos.rpcs import KV_RANGE, MAINTENANCE_STATUS

SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING)
NOT_SERVING = HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING)
FOLLOWER = StatusResponse(leader=7, raftTerm=3, raftAppliedIndex=90)
LEARNER = StatusResponse(leader=7, isLearner=True)
TIMED_OUT = CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
GOS_TIME_IS_UP = CallFailed(Code.UNKNOWN, "context deadline exceeded")


def asked(
    *answers: Message | CallFailed, linearizable: bool = True, brief: bool = False
) -> tuple[list[Any], Health]:
    """Play a probe with these answers; return what was asked, and what was found."""
    flow = examine(Link(Endpoint("a")), 0.7, linearizable=linearizable, brief=brief)
    rpcs: list[Any] = []
    step = next(flow)
    for answer in answers:
        assert isinstance(step, Send)
        assert step.timeout_seconds == 0.7
        assert step.metadata == (REQUIRE_LEADER if brief else None)
        rpcs.append(step.rpc)
        try:
            step = flow.throw(answer) if isinstance(answer, CallFailed) else flow.send(answer)
        except StopIteration as stop:
            return rpcs, stop.value
    raise AssertionError(f"more is asked: {step}")


def test_a_member_that_is_well_is_asked_three_things() -> None:
    rpcs, health = asked(SERVING, FOLLOWER, RangeResponse())
    assert rpcs == [HEALTH_CHECK, MAINTENANCE_STATUS, KV_RANGE]
    assert health == Health(serving=True, raft_term=3, applied_index=90, leads=False)


def test_the_leader_is_known_by_its_own_id() -> None:
    status = StatusResponse(header=ResponseHeader(member_id=7), leader=7)
    _, health = asked(SERVING, status, linearizable=False)
    assert health.leads is True
    _, health = asked(SERVING, StatusResponse(leader=0), linearizable=False)
    assert health.leads is False


def test_a_read_is_asked_only_if_wished() -> None:
    rpcs, health = asked(SERVING, FOLLOWER, linearizable=False)
    assert rpcs == [HEALTH_CHECK, MAINTENANCE_STATUS]
    assert health.serving


@pytest.mark.parametrize(
    "refusal",
    [
        CallFailed(Code.UNIMPLEMENTED, "unknown service grpc.health.v1.Health"),
        CallFailed(Code.NOT_FOUND, "unknown service"),
        CallFailed(Code.UNAVAILABLE, table.NOT_SUPPORTED_FOR_LEARNER.text),
        CallFailed(Code.FAILED_PRECONDITION, table.NOT_SUPPORTED_FOR_LEARNER.text),
    ],
)
def test_without_a_health_service_the_other_answers_count(refusal: CallFailed) -> None:
    """Old servers lack it; learners refuse it (etcd#18801)."""
    _, health = asked(refusal, LEARNER)
    assert (health.serving, health.learner) == (True, True)


def test_who_does_not_answer_is_asked_nothing_more() -> None:
    rpcs, health = asked(TIMED_OUT)
    assert rpcs == [HEALTH_CHECK]
    assert health == Health(serving=False, reason="Deadline Exceeded", answered=False)
    _, health = asked(SERVING, TIMED_OUT)
    assert (health.serving, health.answered) == (False, False)


def test_a_member_that_defragments_says_so() -> None:
    rpcs, health = asked(NOT_SERVING, FOLLOWER)
    assert rpcs == [HEALTH_CHECK, MAINTENANCE_STATUS]
    assert (health.serving, health.reason) == (False, "says that it is not serving")


def test_a_member_that_has_not_noticed_yet_is_found_out_by_a_read() -> None:
    """etcd#8673: a partitioned member says that all is well."""
    _, health = asked(SERVING, FOLLOWER, TIMED_OUT)
    assert (health.serving, health.has_leader) == (True, False)
    assert health.reason == "no linearizable read: Deadline Exceeded"
    _, health = asked(SERVING, FOLLOWER, CallFailed(Code.UNAVAILABLE, table.TIMEOUT.text))
    assert not health.has_leader


@pytest.mark.parametrize("refusal", [table.PERMISSION_DENIED, table.USER_EMPTY])
def test_a_refused_read_is_an_answer(refusal: table.Refusal) -> None:
    _, health = asked(SERVING, FOLLOWER, CallFailed(refusal.code, refusal.text))
    assert health.has_leader


def test_no_read_is_asked_of_who_cannot_serve_it() -> None:
    rpcs, health = asked(SERVING, StatusResponse(leader=0))
    assert KV_RANGE not in rpcs
    assert not health.has_leader


def test_a_corrupt_member_says_so() -> None:
    corrupt = StatusResponse(leader=7, errors=["memberID:7 alarm:CORRUPT "])
    _, health = asked(SERVING, corrupt, RangeResponse())
    assert health.corrupt


# In brief: one linearizable read, which is refused at once where there is no leader


def test_in_brief_one_question_is_enough() -> None:
    rpcs, health = asked(RangeResponse(), brief=True)
    assert rpcs == [KV_RANGE]
    assert health == Health(serving=True)


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (table.NO_LEADER, Health(serving=True, has_leader=False)),
        (table.NOT_SUPPORTED_FOR_LEARNER, Health(serving=True, learner=True)),
        (table.CORRUPT, Health(serving=True, corrupt=True)),
        (table.PERMISSION_DENIED, Health(serving=True)),
        (table.USER_EMPTY, Health(serving=True)),
        (
            table.TIMEOUT_CONNECTION_LOST,
            Health(
                serving=True,
                has_leader=False,
                reason=f"no linearizable read: {table.TIMEOUT_CONNECTION_LOST.text}",
            ),
        ),
    ],
    ids=lambda each: each.text if isinstance(each, table.Refusal) else "",
)
def test_in_brief_a_refusal_tells_why(refusal: table.Refusal, expected: Health) -> None:
    assert asked(CallFailed(refusal.code, refusal.text), brief=True)[1] == expected


def test_that_its_time_was_up_is_no_answer_though_etcd_says_so_with_another_code() -> None:
    _, health = asked(SERVING, FOLLOWER, GOS_TIME_IS_UP)
    assert (health.serving, health.has_leader) == (True, False)


@pytest.mark.parametrize(
    "failed",
    [
        TIMED_OUT,
        GOS_TIME_IS_UP,
        CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)"),
    ],
)
def test_in_brief_no_answer_is_none(failed: CallFailed) -> None:
    _, health = asked(failed, brief=True)
    assert (health.serving, health.has_leader, health.answered) == (False, False, False)
    assert health.reason == f"no linearizable read: {failed.text}"


@pytest.mark.parametrize("brief", [False, True])
def test_the_read_carries_the_token_and_a_refusal_of_it_is_an_answer(brief: bool) -> None:
    token = (("token", "t.1"),)
    flow = examine(Link(Endpoint("a")), 0.7, linearizable=True, brief=brief, token=token)
    step = next(flow)
    for answer in () if brief else (SERVING, FOLLOWER):
        assert isinstance(step, Send)
        assert step.metadata is None
        step = flow.send(answer)
    assert isinstance(step, Send)
    assert step.metadata == ((*REQUIRE_LEADER, *token) if brief else token)
    refusal = table.INVALID_AUTH_TOKEN
    with pytest.raises(StopIteration) as ended:
        flow.throw(CallFailed(refusal.code, refusal.text))
    assert ended.value.value.serving
    assert ended.value.value.has_leader
