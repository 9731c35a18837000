"""What servers do by themselves after a while: tell of progress, compact."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lockstep.comparison import plain
from lockstep.pair import Pair
from lockstep.servers import PROGRESS_BY_THE_CLOCK, Servers
from lockstep.watches import by_watcher

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

StartServers = Callable[..., Servers]
PATIENCE_SECONDS = 30.0


def test_progress_is_told_by_the_clock(start_servers: StartServers) -> None:
    """Only to watchers that asked for it, and again while nothing happens."""
    pair = start_servers(**PROGRESS_BY_THE_CLOCK).pair
    pair.call(rpcs.KV_PUT, key=b"a")
    creates: list[dict[str, Any]] = [
        {"key": b"a", "progress_notify": True},
        {"key": b"a"},
        {"key": b"b", "progress_notify": True, "start_revision": 1},
    ]
    streams = pair.on_each(lambda side: side.stream(rpcs.WATCH_WATCH))
    told = []
    for stream in streams:
        for create in creates:
            stream.send(pb.WatchRequest(create_request=create))
        assert stream.wait_for(lambda s: len(s.replies) >= len(creates) + 3, PATIENCE_SECONDS)
        told.append([plain(reply) for reply in by_watcher(stream.replies)[0][:2]])
        stream.close()
    etcd, ours = told
    assert etcd == ours


def is_compacted(side: Any, revision: int) -> bool:
    asked = pb.RangeRequest(key=b"a", revision=revision)
    return "compacted" in side.call(rpcs.KV_RANGE, asked).status


def await_compaction(pair: Pair, revision: int) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if all(pair.on_each(lambda side: is_compacted(side, revision))):
            return True
        time.sleep(0.1)
    return False


def test_old_revisions_are_compacted_by_the_clock(start_servers: StartServers) -> None:
    pair = start_servers("--auto-compaction-mode=periodic", "--auto-compaction-retention=1s").pair
    for number in range(20):
        pair.call(rpcs.KV_PUT, key=b"a", value=b"%d" % number)
    assert await_compaction(pair, pair.revision - 1)
    pair.call(rpcs.KV_RANGE, key=b"a", revision=pair.revision)
