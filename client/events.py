"""What the client reports of itself, as structlog events.

A library stays silent: nothing is logged unless the application has configured structlog.

Changes of state are all reported, so that the last report about something tells how it is; what is
only said again is throttled, for a member that is down for an hour fails a connection attempt every
few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from ..balancers.api import Health

_log = structlog.get_logger("etcd_pinwheel")

QUIET_SECONDS: Final = 10.0
"""How long the same news of the same endpoint is kept back."""
MOST_CHANGES: Final = 50
"""Changes of one endpoint, or of the pin, that are reported in as many seconds. A member that takes
connections and drops them makes hundreds."""


class Throttle:
    """Lets the same news through once in a while, and counts what it kept back."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._quiet_seconds = quiet_seconds
        self._lock = threading.Lock()
        self._last: dict[tuple[str, ...], tuple[float, int]] = {}

    def admit(self, news: tuple[str, ...], now: float) -> int | None:
        """Say how many were kept back since the last one let through; None: keep this one back."""
        with self._lock:
            last, kept = self._last.get(news, (-float("inf"), 0))
            if now - last < self._quiet_seconds:
                self._last[news] = (last, kept + 1)
                return None
            if len(self._last) > 1000:
                self._last.clear()
            self._last[news] = (now, 0)
            return kept

    def forget(self, about: str) -> None:
        """Let through at once what begins with this word."""
        with self._lock:
            self._last = {news: last for news, last in self._last.items() if news[0] != about}


_throttle = Throttle()


class Changes:
    """What one client reports of how its endpoints and its pin stand.

    Every change is reported, so that the last report tells how it is; unless they come too fast,
    which is reported then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = Throttle()
        self._lock = threading.Lock()
        self._counted: dict[str, tuple[float, int]] = {}
        """Since when, and how many changes since then."""

    def link(self, endpoint: str, was: str, state: str, reason: str) -> None:
        """Report that a connection came up, went down, or could not be made."""
        if not wanted():
            return
        if state == "ready":
            self._failures.forget(endpoint)
            self._tell("info", "endpoint_connected", endpoint)
        elif state == "failing" and reason:
            kept_back = self._failures.admit((endpoint, reason), self._clock())
            if kept_back is not None:
                facts = {"reason": reason, "kept_back": kept_back}
                self._tell("warning", "endpoint_failing", endpoint, **facts)
        elif was == "ready":
            self._tell("info", "endpoint_disconnected", endpoint, reason=reason)

    def pin(self, left: str | None, to: str | None, why: str) -> None:
        """Report that the one endpoint that serves all calls is another now, or none."""
        self._tell("info", "pin_changed", None, **{"from": left}, to=to, why=why)

    def ejected(self, endpoint: str, why: str) -> None:
        """Report that an endpoint gets no calls although it is connected, or will when it is."""
        self._tell("warning", "endpoint_ejected", endpoint, why=why)

    def came_back(self, endpoint: str, why: str) -> None:
        """Report that an endpoint is not ejected any more."""
        self._tell("info", "endpoint_came_back", endpoint, why=why)

    def health(self, endpoint: str, health: Health) -> None:
        """Report that a probe found a member in another condition than the last one did."""
        self._tell(
            "info",
            "endpoint_health_changed",
            endpoint,
            reason=health.reason,
            answered=health.answered,
            serving=health.serving,
            has_leader=health.has_leader,
            learner=health.learner,
            corrupt=health.corrupt,
        )

    def _tell(self, level: str, event: str, endpoint: str | None, **facts: Any) -> None:
        if not wanted():
            return
        about = {} if endpoint is None else {"endpoint": endpoint}
        times = self._count(endpoint or "the pin")
        if times <= MOST_CHANGES:
            _report(level, event, **about, **facts)
        elif times == MOST_CHANGES + 1:
            _report("warning", "changes_kept_back", **about, seconds=QUIET_SECONDS)

    def _count(self, about: str) -> int:
        """Say how many changes those of late are, with this one."""
        now = self._clock()
        with self._lock:
            since, times = self._counted.get(about, (now, 0))
            if now - since >= QUIET_SECONDS:
                since, times = now, 0
            if len(self._counted) > 1000:  # endpoints that are gone
                self._counted.clear()
            self._counted[about] = (since, times + 1)
            return times + 1


def call_retried(rpc: str, endpoint: str, cause: str, text: str, attempts: int) -> None:
    """Report that a call is tried again."""
    news = (rpc, endpoint, cause)
    _emit(
        "info",
        "call_retried",
        news,
        rpc=rpc,
        endpoint=endpoint,
        cause=cause,
        text=text,
        attempts=attempts,
    )


def call_moved(rpc: str, left: str, to: str, why: str) -> None:
    """Report that a call that failed on one endpoint goes to another."""
    _emit("info", "call_moved", (rpc, left, to, why), rpc=rpc, **{"from": left}, to=to, why=why)


def wanted() -> bool:
    """Whether anybody would see a report."""
    return structlog.is_configured()


def stream_moved(rpc: str, endpoint: str, reason: str) -> None:
    """Report that a stream broke, or left its endpoint, and is opened anew."""
    news = (rpc, endpoint, "moved")
    _emit("info", "stream_moved", news, rpc=rpc, endpoint=endpoint, reason=reason)


def endpoints_changed(before: Sequence[str], after: Sequence[str], why: str) -> None:
    """Report that a client serves from other endpoints now."""
    added = [url for url in after if url not in before]
    removed = [url for url in before if url not in after]
    _report("info", "endpoints_changed", added=added, removed=removed, why=why)


def endpoints_sync_failed(reason: str, failures: int) -> None:
    """Report that who the members are could not be found out, so many times in a row."""
    news = (reason,)
    _emit("warning", "endpoints_sync_failed", news, reason=reason, failures=failures)


def _emit(level: str, event: str, news: tuple[str, ...], **facts: Any) -> None:
    """Report what may be said again and again."""
    if not wanted():
        return
    kept_back = _throttle.admit((event, *news), time.monotonic())
    if kept_back is not None:
        _report(level, event, **facts, kept_back=kept_back)


def _report(level: str, event: str, **facts: Any) -> None:
    """Report, if anybody listens. What the application's logging raises stays here.

    A report is made in the midst of what it is about, which must not end for want of a log.
    """
    if not wanted():
        return
    if not facts.get("kept_back"):
        facts.pop("kept_back", None)
    with suppress(Exception):
        getattr(_log, level)(event, **facts)
