"""What the client reports of itself, as structlog events.

A library stays silent: nothing is logged unless the application has configured structlog.
Events about the same endpoint and state are throttled, for a member that is down for an hour
fails a connection attempt every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from ..balancers.api import Health

_log = structlog.get_logger("etcd_pinwheel")

QUIET_SECONDS: Final = 10.0
"""How long the same news of the same endpoint is kept back."""


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


_throttle = Throttle()


def link_changed(endpoint: str, was: str, state: str, reason: str) -> None:
    """Report that a connection came up, went down, or could not be made."""
    if state == "ready":
        _emit("info", "endpoint_connected", (endpoint, state), endpoint=endpoint)
    elif state == "failing" and reason:
        news = (endpoint, state, reason)
        _emit("warning", "endpoint_failing", news, endpoint=endpoint, reason=reason)
    elif was == "ready":
        _emit("info", "endpoint_disconnected", (endpoint, state), endpoint=endpoint, reason=reason)


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


def pin_changed(left: str | None, to: str | None, why: str) -> None:
    """Report that the one endpoint that serves all calls is another now, or none."""
    _emit("info", "pin_changed", (str(left), str(to)), **{"from": left}, to=to, why=why)


def endpoint_ejected(endpoint: str, why: str) -> None:
    """Report that an endpoint gets no calls although it is connected, or will when it is."""
    _emit("warning", "endpoint_ejected", (endpoint,), endpoint=endpoint, why=why)


def endpoint_came_back(endpoint: str, why: str) -> None:
    """Report that an endpoint is not ejected any more."""
    _emit("info", "endpoint_came_back", (endpoint,), endpoint=endpoint, why=why)


def endpoint_health_changed(endpoint: str, health: Health) -> None:
    """Report that a probe found a member in another condition than the last one did."""
    facts = {
        "answered": health.answered,
        "serving": health.serving,
        "has_leader": health.has_leader,
        "learner": health.learner,
        "corrupt": health.corrupt,
    }
    news = (endpoint, *(name for name, is_so in facts.items() if is_so))
    _emit(
        "info",
        "endpoint_health_changed",
        news,
        endpoint=endpoint,
        reason=health.reason,
        **facts,
    )


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
    news = (*added, "for", *removed)
    _emit("info", "endpoints_changed", news, added=added, removed=removed, why=why)


def endpoints_sync_failed(reason: str, failures: int) -> None:
    """Report that who the members are could not be found out, so many times in a row."""
    news = (reason,)
    _emit("warning", "endpoints_sync_failed", news, reason=reason, failures=failures)


def _emit(level: str, event: str, news: tuple[str, ...], **facts: Any) -> None:
    """Report, if anybody listens. What the application's logging raises stays here.

    A report is made in the midst of what it is about, which must not end for want of a log.
    """
    if not wanted():
        return
    kept_back = _throttle.admit((event, *news), time.monotonic())
    if kept_back is None:
        return
    if kept_back:
        facts["kept_back"] = kept_back
    with suppress(Exception):
        getattr(_log, level)(event, **facts)
