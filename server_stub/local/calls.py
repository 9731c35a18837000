"""Calls to members that tell what they think of their cluster, and that change who is in it.

grpc is loaded with the first call, so that starting members does not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from ...protos.etcdserverpb import StatusRequest, StatusResponse
from ...protos.rpc import Rpc
from ...protos.rpcs import MAINTENANCE_STATUS
from .errors import LocalMemberError

if TYPE_CHECKING:
    import grpc

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class CallFailed(LocalMemberError):
    """A call to a member that was refused, or not answered."""

    def __init__(self, endpoint: str, rpc: str, code: str, text: str) -> None:
        super().__init__(f"{rpc} at {endpoint}: {code}: {text}")
        self.code = code
        """The name of the gRPC code, e.g. ``UNAVAILABLE``."""
        self.text = text


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What a member says of itself and of its cluster."""

    member_id: int
    cluster_id: int
    leader_id: int
    """0: it knows of none."""
    term: int
    is_learner: bool
    commit_index: int
    applied_index: int
    revision: int
    version: str
    db_size_bytes: int
    errors: Sequence[str]

    @property
    def is_leader(self) -> bool:
        """Whether it takes itself for the leader; one that was cut off may be wrong."""
        return self.leader_id == self.member_id

    @classmethod
    def of(cls, reply: StatusResponse) -> MemberStatus:
        """What the Maintenance service answered."""
        return cls(
            member_id=reply.header.member_id,
            cluster_id=reply.header.cluster_id,
            leader_id=reply.leader,
            term=reply.raftTerm,
            is_learner=reply.isLearner,
            commit_index=reply.raftIndex,
            applied_index=reply.raftAppliedIndex,
            revision=reply.header.revision,
            version=reply.version,
            db_size_bytes=reply.dbSize,
            errors=tuple(reply.errors),
        )


def status_of(endpoint: str, timeout_seconds: float) -> MemberStatus:
    """Ask one member for its status; raises ``CallFailed``."""
    return MemberStatus.of(call(endpoint, MAINTENANCE_STATUS, StatusRequest(), timeout_seconds))


def statuses_of(endpoints: Sequence[str], timeout_seconds: float) -> list[MemberStatus | None]:
    """Ask members for their status, all at once; None for one that does not answer."""
    import grpc

    with ExitStack() as stack:
        asked = [
            _stub(stack.enter_context(_channel(each)), MAINTENANCE_STATUS).future(
                StatusRequest(), timeout=timeout_seconds
            )
            for each in endpoints
        ]
        found: list[MemberStatus | None] = []
        for answer in asked:
            try:
                found.append(MemberStatus.of(answer.result()))
            except grpc.RpcError:
                found.append(None)
        return found


def call(
    endpoint: str, rpc: Rpc[Request, Reply], request: Request, timeout_seconds: float
) -> Reply:
    """Call a unary method of one member; raises ``CallFailed``."""
    import grpc

    with _channel(endpoint) as channel:
        try:
            reply: Reply = _stub(channel, rpc)(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            failure: Any = error
            code, text = failure.code().name, failure.details()
            raise CallFailed(endpoint, rpc.name, code, text) from error
        return reply


def _channel(endpoint: str) -> grpc.Channel:
    import grpc

    return grpc.insecure_channel(
        endpoint,
        options=(("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)),
    )


def _stub(channel: grpc.Channel, rpc: Rpc[Any, Any]) -> Any:
    return channel.unary_unary(
        rpc.path,
        request_serializer=rpc.request.SerializeToString,
        response_deserializer=rpc.reply.FromString,
    )
