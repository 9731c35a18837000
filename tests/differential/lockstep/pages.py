"""Pages of the client port, fetched from both servers."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from .comparison import ABSENT, Delta
from .pair import Pair


@dataclass(frozen=True)
class Page:
    """An answer over HTTP, without what differs from one second to the next."""

    status: int
    content_type: str
    body: str

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def fetch(endpoint: str, method: str, path: str, body: str) -> Page:
    connection = http.client.HTTPConnection(endpoint, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read().decode()
        return Page(answer.status, answer.getheader("content-type", ""), text)
    finally:
        connection.close()


def both(pair: Pair, path: str, method: str = "GET", body: str = "") -> tuple[Page, Page]:
    return pair.on_each(lambda side: fetch(side.endpoint, method, path, body))


OF_ANOTHER_BUILD = (
    # Of Go's run time, of a gateway that is not in this process, of bbolt, of the v2 store.
    "go_",
    "promhttp_",
    "etcd_grpc_proxy_",
    "etcd_debugging_disk_backend_commit_",
    "etcd_debugging_snap_",
    "etcd_debugging_store_",
    "etcd_server_go_version",
)


def differing_metrics(pair: Pair) -> list[Delta]:
    """Which of etcd's metrics ours does not have, or has with another type."""
    etcd, ours = both(pair, "/metrics")
    assert (etcd.status, ours.status) == (200, 200)
    assert etcd.content_type.split(";")[0] == ours.content_type.split(";")[0] == "text/plain"
    theirs, our = _families(etcd.body), _families(ours.body)
    expected = (name for name in theirs if not name.startswith(OF_ANOTHER_BUILD))
    found = [Delta(f"/metrics.{n}", theirs[n], our.get(n, ABSENT)) for n in expected]
    return [delta for delta in found if delta.etcd != delta.ours]


def _families(page: str) -> dict[str, str]:
    """Names of a metrics page, with their types."""
    lines = (line.split() for line in page.splitlines() if line.startswith("# TYPE "))
    return {words[2]: words[3] for words in lines}
