"""What the client port answers to plain HTTP: health, version, metrics."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final

from ..apply.alarms import name_of
from ..member import Member
from ..version import SERVER_VERSION
from . import probes
from .call import HttpHandler, HttpRequest, HttpResponse
from .latencies import DISK_BOUNDS_SECONDS, Latencies

if TYPE_CHECKING:
    from .metrics import Metrics

_PLAIN_TEXT: Final = probes.PLAIN_TEXT
_NOT_ALLOWED: Final = HttpResponse(405, b"Method Not Allowed\n", _PLAIN_TEXT)


class Http:
    """The routes and what they answer."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._checks = probes.Checks(member)
        self._syncs = Latencies(DISK_BOUNDS_SECONDS)
        self._commits = Latencies(DISK_BOUNDS_SECONDS)
        member.wal.on_sync = self._syncs.observe
        member.backend.on_commit = self._commits.observe

    @cached_property
    def _metrics(self) -> Metrics:
        """Made when somebody asks: a start does not wait for Prometheus' library to load."""
        from .metrics import Metrics

        return Metrics(self._member, self._syncs, self._commits)

    def routes(self) -> Mapping[str, HttpHandler]:
        """Return the handlers by path."""
        return {
            "/health": _get_only(self.health),
            "/version": _get_only(self.version),
            "/metrics": _get_only(self.metrics),
            **probes.routes(self._checks, self._count_check),
        }

    async def health(self, request: HttpRequest) -> HttpResponse:
        """Tell whether the member can serve: 200, or 503 with a reason.

        ``exclude=NOSPACE`` overlooks an alarm, ``serializable=true`` asks for no leader.
        """
        serializable = request.query.get("serializable") == ["true"]
        reason = await self._sickness(set(request.query.get("exclude", ())), serializable)
        self._metrics.count_health_check(ok=not reason)
        health = _json({"health": "false" if reason else "true", "reason": reason})
        if reason:
            return HttpResponse(503, health + b"\n", _PLAIN_TEXT)
        return HttpResponse(200, health, _PLAIN_TEXT)  # JSON, but etcd calls it plain text

    async def _sickness(self, excluded: set[str], serializable: bool) -> str:
        """Return why the member cannot serve; empty if it can."""
        for alarm in self._member.applier.alarms.raised():
            if name_of(alarm.alarm) not in excluded:
                return f"ALARM {name_of(alarm.alarm)}"
        if not serializable and not self._member.has_leader:
            return "RAFT NO LEADER"
        if not self._member.is_serving:
            return "SERVER STOPPED"
        wrong = await self._checks.read(serializable=serializable)
        return f"RANGE ERROR:{wrong}" if wrong else ""

    async def version(self, request: HttpRequest) -> HttpResponse:
        """Tell the versions of server, cluster and storage."""
        cluster = self._member.applier.membership.version or "not_decided"
        versions = {"etcdserver": SERVER_VERSION, "etcdcluster": cluster, "storage": cluster}
        return HttpResponse(200, _json(versions))

    async def metrics(self, request: HttpRequest) -> HttpResponse:
        """Expose the metrics in Prometheus' text format."""
        return HttpResponse(200, self._metrics.expose(), self._metrics.content_type)

    def _count_check(self, probe: str, name: str, ok: bool) -> None:
        self._metrics.count_check(probe, name, ok)


def _get_only(
    handler: Callable[[HttpRequest], Awaitable[HttpResponse]],
) -> HttpHandler:
    async def handle(request: HttpRequest) -> HttpResponse:
        return await handler(request) if request.method == "GET" else _NOT_ALLOWED

    return handle


def _json(content: Mapping[str, str]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
