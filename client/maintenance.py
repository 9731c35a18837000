"""Looking after the members: status, hashes, defragmentation, alarms, who leads.

Most of this concerns one member. ``endpoint`` names it, as one of the client's endpoints; such a
call goes there once, whatever the balancer thinks, and fails at once if there is no connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.message import Message

from ..balancers.api import Need
from ..protos import etcdserverpb as pb
from ..protos import rpcs
from ..protos.rpc import Rpc
from .call import Call
from .errors import CallError, InvalidArgument
from .flow import Flow
from .members import MemberLike, id_of
from .results import Header

Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True)
class Status:
    """How a member is."""

    header: Header
    version: str
    db_size_bytes: int
    """What the store takes on disk."""
    db_size_in_use_bytes: int
    """What it would take after defragmentation."""
    db_size_quota_bytes: int
    """0 where the server does not tell (before 3.6)."""
    leader: int
    """The id of the leader that the member follows; 0: none."""
    raft_term: int
    raft_index: int
    raft_applied_index: int
    learner: bool
    errors: tuple[str, ...]
    """Alarms and the like."""
    storage_version: str

    @classmethod
    def of(cls, status: pb.StatusResponse) -> Status:
        return cls(
            header=Header.of(status.header),
            version=status.version,
            db_size_bytes=status.dbSize,
            db_size_in_use_bytes=status.dbSizeInUse,
            db_size_quota_bytes=status.dbSizeQuota,
            leader=status.leader,
            raft_term=status.raftTerm,
            raft_index=status.raftIndex,
            raft_applied_index=status.raftAppliedIndex,
            learner=status.isLearner,
            errors=tuple(status.errors),
            storage_version=status.storageVersion,
        )


@dataclass(frozen=True, slots=True)
class Hash:
    """A hash over a member's whole store, for comparing it with itself."""

    header: Header
    hash: int


@dataclass(frozen=True, slots=True)
class HashKV:
    """A hash over the keys up to a revision: equal on all members that are right."""

    header: Header
    hash: int
    compact_revision: int
    """Up to where the member's history was compacted."""
    hash_revision: int
    """The revision that was hashed; 0 where the server does not tell (before 3.6)."""


class AlarmType(Enum):
    """What a member can be alarmed about."""

    NOSPACE = pb.NOSPACE
    """The store's quota is used up; writes are refused."""
    CORRUPT = pb.CORRUPT
    """Its store differs from the others'."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is raised."""

    member_id: int
    type: AlarmType


def status(
    call: Call, endpoint: str | None = None, *, timeout: float | None = None
) -> Flow[Status]:
    """Ask a member how it is; None: whichever the balancer picks."""
    reply = yield from _ask(call, endpoint, rpcs.MAINTENANCE_STATUS, pb.StatusRequest(), timeout)
    return Status.of(reply)


def hash_(call: Call, endpoint: str | None = None, *, timeout: float | None = None) -> Flow[Hash]:
    """Hash a member's whole store, history and all."""
    reply = yield from _ask(call, endpoint, rpcs.MAINTENANCE_HASH, pb.HashRequest(), timeout)
    return Hash(Header.of(reply.header), reply.hash)


def hash_kv(
    call: Call,
    endpoint: str | None = None,
    *,
    revision: int = 0,
    timeout: float | None = None,
) -> Flow[HashKV]:
    """Hash a member's keys up to a revision (0: now). Raises Compacted, FutureRevision."""
    request = pb.HashKVRequest(revision=revision)
    reply = yield from _ask(call, endpoint, rpcs.MAINTENANCE_HASH_KV, request, timeout)
    header = Header.of(reply.header)
    return HashKV(header, reply.hash, reply.compact_revision, reply.hash_revision)


def defragment(call: Call, endpoint: str, *, timeout: float = 60.0) -> Flow[None]:
    """Give the space of what was compacted away back to the disk.

    The member answers nothing else meanwhile; do one after the other.
    """
    yield from call.at(endpoint, rpcs.MAINTENANCE_DEFRAGMENT, pb.DefragmentRequest(), timeout)


def alarms(call: Call, *, timeout: float | None = None) -> Flow[tuple[Alarm, ...]]:
    """List the alarms that are raised."""
    request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
    reply = yield from call(rpcs.MAINTENANCE_ALARM, request, timeout)
    return _alarms_of(reply)


def disarm(
    call: Call, alarm: Alarm | None = None, *, timeout: float | None = None
) -> Flow[tuple[Alarm, ...]]:
    """Take an alarm back, or all that are raised; answers with those that were."""
    if alarm is not None and not isinstance(alarm, Alarm):
        raise InvalidArgument(f"alarm: one as alarms() tells it is needed, not {alarm!r}")
    deadline = call.deadline(timeout)
    chosen = (yield from alarms(call, timeout=call.left(deadline))) if alarm is None else (alarm,)
    disarmed: tuple[Alarm, ...] = ()
    for one in chosen:
        request = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE,
            memberID=one.member_id,
            alarm=AlarmType(one.type).value,
        )
        reply = yield from call(rpcs.MAINTENANCE_ALARM, request, call.left(deadline))
        disarmed += _alarms_of(reply)
    return disarmed


def move_leader(
    call: Call, target: MemberLike, *, endpoint: str | None = None, timeout: float | None = None
) -> Flow[None]:
    """Have the leader hand over to another voter, and return when it has.

    Only the leader can: ``endpoint`` is where it is, None: it is looked for among the client's
    endpoints. Raises Refused when the target is a learner or not in the cluster, or when the leader
    is at none of the endpoints, and OutcomeUnknown when the target did not take over in time.
    ``timeout``: seconds for all of it.
    """
    request = pb.MoveLeaderRequest(targetID=id_of(target))
    deadline = call.deadline(timeout)
    if endpoint is None:
        endpoint = yield from _leader_endpoint(call, deadline)
    yield from call.at(endpoint, rpcs.MAINTENANCE_MOVE_LEADER, request, call.left(deadline))


def _leader_endpoint(call: Call, deadline: float) -> Flow[str]:
    """Find the endpoint whose member leads; the last one if none says so, for it to refuse.

    Each may take its share of the time, so that one that hangs leaves some for those after it.
    """
    endpoints = list(call.connections.view())
    for asked, endpoint in enumerate(endpoints[:-1]):
        share = call.left(deadline) / (len(endpoints) - asked)
        try:
            found = yield from status(call, endpoint, timeout=share)
        except CallError:
            continue
        if found.leader == found.header.member_id:
            return endpoint
    return endpoints[-1]


def _alarms_of(reply: pb.AlarmResponse) -> tuple[Alarm, ...]:
    return tuple(Alarm(raised.memberID, AlarmType(raised.alarm)) for raised in reply.alarms)


def _ask(
    call: Call, endpoint: str | None, rpc: Rpc[Any, Reply], request: Message, timeout: float | None
) -> Flow[Reply]:
    if endpoint is None:
        return call(rpc, request, timeout, need=Need.ANY_MEMBER)
    return call.at(endpoint, rpc, request, timeout)
