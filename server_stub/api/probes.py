"""``/livez`` and ``/readyz``: is the process to be restarted, is it to be sent requests.

As in etcd 3.6 a probe is a list of named checks: each has a path of its own, ``?exclude=name``
leaves one out, ``?verbose`` tells of each; what fails is always told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from ...protos.errors import STOPPED, Refused
from ...protos.etcdserverpb import CORRUPT, RangeRequest
from ..apply.alarms import name_of
from ..apply.ranges import read_range
from ..member import Member
from .call import HttpHandler, HttpRequest, HttpResponse

PLAIN_TEXT: Final = "text/plain; charset=utf-8"
_NOT_ALLOWED: Final = HttpResponse(405, b"Method Not Allowed\n", PLAIN_TEXT)
LIVEZ: Final = ("serializable_read",)
READYZ: Final = ("data_corruption", "serializable_read", "linearizable_read", "non_learner")

Check = Callable[[], Awaitable[str]]
"""Returns what is wrong; empty if nothing is."""


class Checks:
    """What can be checked of a member, by name."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.by_name: Mapping[str, Check] = {
            "data_corruption": self._data_corruption,
            "serializable_read": self._serializable_read,
            "linearizable_read": self._linearizable_read,
            "non_learner": self._non_learner,
        }

    async def read(self, *, serializable: bool) -> str:
        """Read something; return why that failed, or nothing."""
        if not self._member.is_serving:
            return STOPPED.text
        try:
            if not serializable:
                await self._member.read_barrier()
            read_range(self._member.store, RangeRequest(key=b"\0", limit=1, keys_only=True))
        except Refused as refused:
            return str(refused)
        return ""

    async def _serializable_read(self) -> str:
        return await self.read(serializable=True)

    async def _linearizable_read(self) -> str:
        return await self.read(serializable=False)

    async def _data_corruption(self) -> str:
        raised = [alarm.alarm for alarm in self._member.applier.alarms.raised()]
        return f"alarm activated: {name_of(CORRUPT)}" if CORRUPT in raised else ""

    async def _non_learner(self) -> str:
        return "not supported for learner" if self._member.is_learner else ""


Count = Callable[[str, str, bool], None]
"""Is told of each check: (probe, check, whether all was well)."""


def routes(checks: Checks, count: Count) -> Mapping[str, HttpHandler]:
    """Return the handlers of the probes and of each of their checks, by path."""
    made: dict[str, HttpHandler] = {}
    for probe, names in (("livez", LIVEZ), ("readyz", READYZ)):
        made[f"/{probe}"] = _handler(probe, names, checks, count)
        for name in names:
            made[f"/{probe}/{name}"] = _handler(probe, (name,), checks, count)
    return made


def _handler(probe: str, names: Iterable[str], checks: Checks, count: Count) -> HttpHandler:
    async def answer(request: HttpRequest) -> HttpResponse:
        if request.method != "GET":
            return _NOT_ALLOWED
        excluded, lines, ok = set(request.query.get("exclude", ())), [], True
        for name in names:
            if name in excluded:
                continue
            wrong = await checks.by_name[name]()
            count(probe, name, not wrong)
            lines.append(f"[-]{name} failed: {wrong}\n" if wrong else f"[+]{name} ok\n")
            ok = ok and not wrong
        told = "".join(lines)
        if not ok:
            return HttpResponse(503, (told + "\n").encode(), PLAIN_TEXT)
        return HttpResponse(
            200, ((told if "verbose" in request.query else "") + "ok\n").encode(), PLAIN_TEXT
        )

    return answer
