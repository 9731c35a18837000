"""What is refused before a service hears of it: calls of learners, and calls without a leader.

etcd has this in its interceptors; here every :class:`Method` is wrapped once, when the services
are made. The wrapper of a unary method is a plain function, so an accepted call pays for two looks
and for nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from enum import IntEnum
from typing import Any, Final, Protocol

from ...protos import rpcs
from ...protos.errors import NO_LEADER, NOT_SUPPORTED_FOR_LEARNER, Refused
from ...protos.etcdserverpb import MemberListRequest, RangeRequest, TxnRequest
from .call import Call, Method
from .checks import is_read_only, is_serializable


class Served(IntEnum):
    """From which setting of ``--learner-reads`` on a learner serves a request."""

    AS_ETCD = 0
    """``none``: what etcd's learners serve too."""
    STALE = 1
    """``stale``: what can be answered from the learner's own state, however old that is."""
    LINEARIZABLE = 2
    """``linearizable``: what needs the leader's read index, and no more than that."""
    NEVER = 3


LEARNER_READS: Final[Mapping[str, Served]] = {
    "none": Served.AS_ETCD,
    "stale": Served.STALE,
    "linearizable": Served.LINEARIZABLE,
}


def _range(request: RangeRequest) -> Served:
    return Served.AS_ETCD if request.serializable else Served.LINEARIZABLE


def _range_stream(request: RangeRequest) -> Served:
    return Served.STALE if request.serializable else Served.LINEARIZABLE


def _txn(request: TxnRequest) -> Served:
    if not is_read_only(request):
        return Served.NEVER
    return Served.STALE if is_serializable(request) else Served.LINEARIZABLE


def _member_list(request: MemberListRequest) -> Served:
    return Served.LINEARIZABLE if request.linearizable else Served.STALE


def _always(served: Served) -> Callable[[Any], Served]:
    return lambda request: served


LEARNER_SERVES: Final[Mapping[str, Callable[[Any], Served]]] = {
    rpcs.KV_RANGE.path: _range,
    rpcs.KV_RANGE_STREAM.path: _range_stream,
    rpcs.KV_TXN.path: _txn,
    rpcs.WATCH_WATCH.path: _always(Served.STALE),
    rpcs.CLUSTER_MEMBER_LIST.path: _member_list,
    rpcs.MAINTENANCE_STATUS.path: _always(Served.AS_ETCD),
    rpcs.MAINTENANCE_SNAPSHOT.path: _always(Served.AS_ETCD),
    rpcs.MAINTENANCE_HASH_KV.path: _always(Served.STALE),
}
"""What a learner serves at all; everything else is refused, whatever the setting.

A watch of a learner sees every event in order, as that of any member that lags does. The health
service is not among them: a balancer that asks it would go on to send writes.
"""


class Guarded(Protocol):
    """What the guard asks of a member."""

    @property
    def is_learner(self) -> bool: ...
    @property
    def has_leader(self) -> bool: ...
    def while_led(self, replies: AsyncGenerator[Any, None], /) -> AsyncGenerator[Any, None]:
        """Hand replies on; end them with NO_LEADER once nobody has led for too long."""
        raise NotImplementedError


def guarded(method: Method, member: Guarded, learner_reads: str) -> Method:
    """Return `method` behind the guard. `learner_reads` is the setting of that name."""
    needs = LEARNER_SERVES.get(method.rpc.path, _always(Served.NEVER))
    serve, allowed = method.serve, LEARNER_READS[learner_reads]

    def check(request: Any, call: Call) -> None:
        """Raise ``Refused`` if the call must not be served."""
        if member.is_learner and needs(request) > allowed:
            raise Refused(NOT_SUPPORTED_FOR_LEARNER)
        if call.requires_leader and not member.has_leader:
            raise Refused(NO_LEADER)

    def serve_unary(request: Any, call: Call) -> Any:
        if member.is_learner or call.requires_leader:
            check(request, call)
        return serve(request, call)

    def serve_stream(request: Any, call: Call) -> Any:
        try:
            check(request, call)
        except Refused as refused:
            return _refusing(refused)
        replies = serve(request, call)
        return member.while_led(replies) if call.requires_leader else replies

    return replace(method, serve=serve_stream if method.rpc.server_streaming else serve_unary)


async def _refusing(refused: Refused) -> AsyncGenerator[Any, None]:
    raise refused
    yield  # makes it a generator
