"""How a member is asked how it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from ..balancers.api import Health
from ..protos import errors as table
from ..protos.errors import Code
from ..protos.etcdserverpb import RangeRequest, StatusRequest, StatusResponse
from ..protos.rpc import Rpc
from ..protos.rpcs import KV_RANGE, MAINTENANCE_STATUS
from .error_handler import GOS_DEADLINE
from .flow import REQUIRE_LEADER, CallFailed, Flow, Metadata, Send

if TYPE_CHECKING:
    from .connections import Link

HEALTH_CHECK: Final[Rpc[Any, Any]] = Rpc(
    "/grpc.health.v1.Health/Check", HealthCheckRequest, HealthCheckResponse
)

_UNREACHED: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
"""Codes of a question that nobody answered, or not as one who is well."""

_NOTHING_MUCH: Final = RangeRequest(key=b"\0", count_only=True)
"""A read of a key that is not there."""


def examine(
    link: Link,
    timeout_seconds: float,
    *,
    linearizable: bool = False,
    brief: bool = False,
    token: Metadata = (),
) -> Flow[Health]:
    """Ask a member whether it serves, then what it knows of its cluster, then maybe for a read.

    Each question has ``timeout_seconds``, and none is asked after one that was not answered. A
    partitioned member says for a while that it serves and knows its leader: a linearizable read
    tells. Servers without the health service, and learners, which refuse it, are judged by the
    other answers. ``brief``: ask for that read alone. ``token``: what the read carries; if it is
    refused for it, that is an answer like any other.
    """
    if brief:
        return (yield from _by_a_read(link, timeout_seconds, token))
    try:
        serving = yield from _is_serving(link, timeout_seconds)
        status: StatusResponse = yield Send(
            link, MAINTENANCE_STATUS, StatusRequest(), timeout_seconds, None
        )
    except CallFailed as failed:
        return Health(serving=False, reason=failed.text, answered=False)
    has_leader = status.leader != 0
    reason = "; ".join(status.errors) if serving else "says that it is not serving"
    if linearizable and serving and has_leader and not status.isLearner:
        trouble = yield from _reading_linearizably(link, timeout_seconds, token)
        if trouble:
            has_leader, reason = False, f"no linearizable read: {trouble}"
    return Health(
        serving=serving,
        has_leader=has_leader,
        learner=status.isLearner,
        corrupt=any("CORRUPT" in error for error in status.errors),
        raft_term=status.raftTerm,
        applied_index=status.raftAppliedIndex,
        reason=reason,
        leads=has_leader and status.leader == status.header.member_id,
    )


def _is_serving(link: Link, timeout_seconds: float) -> Flow[bool]:
    """Ask grpc.health.v1; raise CallFailed when nobody answers."""
    try:
        reply: Any = yield Send(link, HEALTH_CHECK, HealthCheckRequest(), timeout_seconds, None)
    except CallFailed as failed:
        if failed.code in _UNREACHED and failed.text != table.NOT_SUPPORTED_FOR_LEARNER.text:
            raise
        return True
    return bool(reply.status != HealthCheckResponse.NOT_SERVING)


def _reading_linearizably(link: Link, timeout_seconds: float, token: Metadata) -> Flow[str]:
    """Read a key that is not there; say what went wrong, if anything did.

    A refusal is an answer too: who may not read is told so after the round through the quorum.
    """
    try:
        yield Send(link, KV_RANGE, _NOTHING_MUCH, timeout_seconds, token or None)
    except CallFailed as failed:
        return failed.text or failed.code.name if _code(failed) in _UNREACHED else ""
    return ""


def _by_a_read(link: Link, timeout_seconds: float, token: Metadata) -> Flow[Health]:
    """Judge a member by one linearizable read, which it refuses at once if it has no leader."""
    try:
        yield Send(link, KV_RANGE, _NOTHING_MUCH, timeout_seconds, REQUIRE_LEADER + token)
    except CallFailed as failed:
        if failed.text == table.NOT_SUPPORTED_FOR_LEARNER.text:
            return Health(serving=True, learner=True)
        if failed.text == table.CORRUPT.text:
            return Health(serving=True, corrupt=True)
        if failed.text == table.NO_LEADER.text:
            return Health(serving=True, has_leader=False)
        if _code(failed) in _UNREACHED:
            answered = failed.text in table.BY_TEXT
            reason = f"no linearizable read: {failed.text or failed.code.name}"
            return Health(serving=answered, has_leader=False, reason=reason, answered=answered)
    return Health(serving=True)


def _code(failed: CallFailed) -> Code:
    """What a failure means; etcd sends some refusals, and that time is up, with another code."""
    if failed.text == GOS_DEADLINE:
        return Code.DEADLINE_EXCEEDED
    row = table.BY_TEXT.get(failed.text)
    return failed.code if row is None else row.code
