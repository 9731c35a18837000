"""What a load observes of its own process: sockets, the balancer's opinions, the client's news."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from benchmarks.failover import record
from etcd_pinwheel import AsyncClient
from etcd_pinwheel.client import events

_TCP_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED: Final = "01"


class Sockets:
    """Counts this process's TCP connections to each endpoint; Linux only, else nothing."""

    def __init__(self, endpoints: Sequence[str], now: Callable[[], float]) -> None:
        self.samples: list[record.Sample] = []
        self._now = now
        self._ports = {int(each.rpartition(":")[2]): each for each in endpoints}

    def look(self) -> None:
        """Count, and keep what has changed."""
        counts = self._count()
        if not self.samples or self.samples[-1].counts != counts:
            self.samples.append(record.Sample(self._now(), counts))

    def _count(self) -> dict[str, int]:
        own = own_sockets()
        counts: Counter[str] = Counter()
        for row in tcp_rows():
            fields = row.split()
            port = int(fields[2].rpartition(":")[2], 16)
            if port in self._ports and fields[3] == _ESTABLISHED and fields[9] in own:
                counts[self._ports[port]] += 1
        return dict(counts)


def tcp_rows() -> list[str]:
    """Return the kernel's rows about TCP connections; none where it does not tell."""
    rows = []
    for table in _TCP_TABLES:
        with suppress(OSError):
            rows += table.read_text().splitlines()[1:]
    return rows


def own_sockets() -> set[str]:
    """Return the inodes of the sockets that this process has open."""
    found: set[str] = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        with suppress(OSError):  # closed meanwhile
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


class Standings:
    """Follows what the client's balancer thinks of each endpoint."""

    def __init__(self, etcd: AsyncClient, now: Callable[[], float]) -> None:
        self.changes: list[record.Standing] = []
        self._etcd = etcd
        self._now = now
        self._last: dict[str, tuple[bool, bool, str]] = {}

    def look(self) -> None:
        for url, view in self._etcd.endpoints.items():
            standing = view.standing
            reason = standing.reason if not standing.eligible or standing.ejected_until else ""
            seen = standing.pinned, standing.eligible, reason
            if self._last.get(url) != seen:
                self._last[url] = seen
                self.changes.append(record.Standing(self._now(), url, *seen))


@dataclass(frozen=True, slots=True)
class News:
    """A structlog event, on the monotonic clock."""

    at: float
    event: str
    endpoint: str

    def record(self, began: float) -> record.News:
        return record.News(self.at - began, self.event, self.endpoint)


def collect_news() -> list[News]:
    """Have the client's events kept in a list, every one of them."""
    collected: list[News] = []

    def keep(_logger: Any, _method: str, facts: MutableMapping[str, Any]) -> Any:
        endpoint = str(facts.get("endpoint", ""))
        collected.append(News(time.monotonic(), str(facts["event"]), endpoint))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    events._throttle = events.Throttle(quiet_seconds=0.0)
    return collected
