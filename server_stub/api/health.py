"""grpc.health.v1: what load balancers and clients ask to see whether a member serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from ...protos.errors import Code, Refusal, Refused
from ...protos.rpc import Rpc
from ..member import Member
from .call import Call, Method

UNKNOWN_SERVICE: Final = Refusal(Code.NOT_FOUND, "unknown service")
WHOLE_SERVER: Final = ""
"""The one service that etcd answers for."""


class Health:
    """SERVING for the whole server, as long as it runs."""

    def __init__(self, member: Member) -> None:
        from grpc_health.v1 import health_pb2  # not before a server is made: it imports slowly

        self._member = member
        self._messages: Any = health_pb2

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the service."""
        pb = self._messages
        path = "/grpc.health.v1.Health/"
        check: Rpc[Any, Any] = Rpc(path + "Check", pb.HealthCheckRequest, pb.HealthCheckResponse)
        watch: Rpc[Any, Any] = Rpc(
            path + "Watch", pb.HealthCheckRequest, pb.HealthCheckResponse, server_streaming=True
        )
        return (Method(check, self.Check), Method(watch, self.Watch))

    async def Check(self, request: Any, call: Call) -> Any:
        """Tell whether the server serves."""
        if request.service != WHOLE_SERVER:
            raise Refused(UNKNOWN_SERVICE)
        return self._messages.HealthCheckResponse(status=self._status())

    async def Watch(self, request: Any, call: Call) -> AsyncIterator[Any]:
        """Tell whether the server serves, now and whenever that changes."""
        if request.service == WHOLE_SERVER:
            yield self._messages.HealthCheckResponse(status=self._status())
            with suppress(Exception):
                await self._member.failed()
            yield self._messages.HealthCheckResponse(status=self._status())
        else:
            status = self._messages.HealthCheckResponse.SERVICE_UNKNOWN
            yield self._messages.HealthCheckResponse(status=status)
        await asyncio.Event().wait()

    def _status(self) -> Any:
        response = self._messages.HealthCheckResponse
        return response.SERVING if self._member.is_serving else response.NOT_SERVING
