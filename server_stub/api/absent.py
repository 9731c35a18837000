"""Services of etcd that this server does not have yet: it says so, in so many words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, NoReturn

from ...protos import rpcs
from ...protos.errors import Code, Refusal, Refused
from ...protos.etcdserverpb import AuthStatusRequest, AuthStatusResponse
from ..member import Member
from .call import Call, Method

NO_AUTH: Final = Refusal(
    Code.UNIMPLEMENTED, "etcdserver: authentication is not supported by this server"
)
NO_LOCKS: Final = Refusal(
    Code.UNIMPLEMENTED, "etcdserver: lock and election services are not supported by this server"
)
_ABSENT_SERVICES: Final = {
    "/etcdserverpb.Auth/": NO_AUTH,
    "/v3lockpb.Lock/": NO_LOCKS,
    "/v3electionpb.Election/": NO_LOCKS,
}
_FIRST_AUTH_REVISION: Final = 1


class Absent:
    """AuthStatus, which says that authentication is off, and a refusal for all that is absent."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the services."""
        refused = (
            Method(rpc, _refusing_stream(refusal) if rpc.server_streaming else _refusing(refusal))
            for rpc in rpcs.ALL
            for prefix, refusal in _ABSENT_SERVICES.items()
            if rpc.path.startswith(prefix) and rpc is not rpcs.AUTH_AUTH_STATUS
        )
        return (Method(rpcs.AUTH_AUTH_STATUS, self.AuthStatus), *refused)

    async def AuthStatus(self, request: AuthStatusRequest, call: Call) -> AuthStatusResponse:
        """Tell that authentication is off."""
        reply = AuthStatusResponse(authRevision=_FIRST_AUTH_REVISION)
        self._member.fill_header(reply.header)
        return reply


def _refusing(refusal: Refusal) -> Any:
    async def refuse(request: Any, call: Call) -> NoReturn:
        raise Refused(refusal)

    return refuse


def _refusing_stream(refusal: Refusal) -> Any:
    async def refuse(request: Any, call: Call) -> AsyncIterator[Any]:
        raise Refused(refusal)
        yield  # makes it a generator

    return refuse
