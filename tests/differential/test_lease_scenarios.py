"""Leases over time: running out, kept alive, moved between keys."""

from __future__ import annotations

from typing import Any

import pytest
from lockstep.pair import EVERYTHING, Pair
from lockstep.program import keep_alive
from lockstep.watches import by_watcher

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs

EXPIRY_SECONDS = 20.0


def test_a_lease_runs_out(pair: Pair) -> None:
    """Both delete its keys by themselves, as one revision, and forget it."""
    streams = pair.on_each(lambda side: side.stream(rpcs.WATCH_WATCH))
    create = {**EVERYTHING, "prev_kv": True}
    for stream in streams:
        stream.send(pb.WatchRequest(create_request=create))
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=5, TTL=1)
    for key in (b"b", b"a", b"c"):
        pair.call(rpcs.KV_PUT, key=key, lease=5)

    def deleted(stream: Any) -> bool:
        return any(event.type for reply in stream.replies for event in reply.events)

    try:
        for stream in streams:
            assert stream.wait_for(deleted, EXPIRY_SECONDS)
        etcd, ours = (by_watcher(stream.replies)[0] for stream in streams)
        assert etcd == ours
        assert [event.kv.key for event in ours[-1].events] == [b"a", b"b", b"c"]
    finally:
        for stream in streams:
            stream.close()
    pair.call(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=5, keys=True)
    pair.call(rpcs.LEASE_LEASE_LEASES)
    pair.call(rpcs.LEASE_LEASE_REVOKE, ID=5)
    pair.call(rpcs.KV_RANGE, **EVERYTHING)
    assert keep_alive(pair, 5).TTL == 0


def test_a_lease_that_is_kept_alive_outlives_its_time(pair: Pair) -> None:
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=5, TTL=2)
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=6, TTL=2)
    pair.call(rpcs.KV_PUT, key=b"kept", lease=5)
    pair.call(rpcs.KV_PUT, key=b"lost", lease=6)
    watches = pair.on_each(lambda side: side.stream(rpcs.WATCH_WATCH))
    keepers = pair.on_each(lambda side: side.stream(rpcs.LEASE_LEASE_KEEP_ALIVE))
    watched = pb.WatchRequest(create_request={"key": b"lost", "start_revision": pair.revision + 1})
    try:
        for watch in watches:
            watch.send(watched)
            for _ in range(int(EXPIRY_SECONDS / 0.1)):
                for keeper in keepers:
                    keeper.send(pb.LeaseKeepAliveRequest(ID=5))
                if watch.wait_for(lambda s: len(s.replies) > 1, 0.1):
                    break
            else:
                pytest.fail("the other lease did not run out")
    finally:
        for stream in (*watches, *keepers):
            stream.close()
    pair.call(rpcs.KV_RANGE, **EVERYTHING)


def test_the_order_of_leases_is_that_of_their_ends(pair: Pair) -> None:
    for lease, ttl in ((1, 300), (2, 100), (3, 200), (4, 50)):
        pair.call(rpcs.LEASE_LEASE_GRANT, ID=lease, TTL=ttl)
    pair.call(rpcs.LEASE_LEASE_LEASES)
    keep_alive(pair, 4)
    pair.call(rpcs.LEASE_LEASE_REVOKE, ID=2)
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=5, TTL=150)
    reply = pair.call(rpcs.LEASE_LEASE_LEASES).reply
    assert [lease.ID for lease in reply.leases] == [4, 5, 3, 1]


def test_many_messages_on_one_keep_alive_stream(pair: Pair) -> None:
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=5, TTL=100)
    streams = pair.on_each(lambda side: side.stream(rpcs.LEASE_LEASE_KEEP_ALIVE))
    try:
        for stream in streams:
            for lease in (5, 404, 0, -1, 5):
                stream.send(pb.LeaseKeepAliveRequest(ID=lease))
            stream.half_close()
            assert stream.wait_for(lambda s: s.ended is not None, pair.settle_seconds)
        etcd, ours = streams
        assert etcd.replies == ours.replies
        assert etcd.ended == ours.ended == "OK"
        assert len(etcd.replies) == 5
    finally:
        for stream in streams:
            stream.close()


def test_keys_move_between_leases(pair: Pair) -> None:
    for lease in (1, 2):
        pair.call(rpcs.LEASE_LEASE_GRANT, ID=lease, TTL=100)

    def look() -> None:
        for lease in (1, 2):
            pair.call(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=lease, keys=True)

    for lease in (1, 2, 0, 1):
        pair.call(rpcs.KV_PUT, key=b"a", lease=lease)
        look()
    pair.call(rpcs.KV_PUT, key=b"a", ignore_lease=True, value=b"x")
    pair.call(rpcs.KV_DELETE_RANGE, key=b"a")
    look()
    ops = [{"request_put": {"key": b"k%d" % n, "lease": 1 + n % 2}} for n in range(6)]
    pair.call(rpcs.KV_TXN, success=ops)
    look()
    pair.call(rpcs.LEASE_LEASE_REVOKE, ID=1)
    look()
    pair.call(rpcs.KV_RANGE, **EVERYTHING)


def test_revoking_a_lease_without_keys_is_no_revision(pair: Pair) -> None:
    before = pair.revision
    pair.call(rpcs.LEASE_LEASE_GRANT, ID=1, TTL=100)
    pair.call(rpcs.LEASE_LEASE_REVOKE, ID=1)
    pair.call(rpcs.KV_RANGE, **EVERYTHING)
    assert pair.revision == before
