"""Each row of the table is provoked; a row that nothing provokes has no place in it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lockstep import document
from lockstep.comparison import Delta, between
from lockstep.differences import Excuses, rows
from lockstep.orphan import answers
from lockstep.pages import both, differing_metrics
from lockstep.pair import EVERYTHING, Pair
from lockstep.remote import Outcome, Remote, Stream
from lockstep.servers import ETCD, PROGRESS_BY_THE_CLOCK, SUBJECT, Servers
from lockstep.watches import by_watcher

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.server_stub.local import LocalCluster

MIB = 1024 * 1024

Fresh = Callable[..., Servers]
"""Start servers that may be killed."""

SCENARIOS: dict[str, Callable[[Pair, Fresh], None]] = {}

Scenario = Callable[[Pair, Fresh], None]


def provokes(*ids: str) -> Callable[[Scenario], Scenario]:
    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.update(dict.fromkeys(ids, scenario))
        return scenario

    return register


def behaves(pair: Pair, what: str, etcd: str, ours: str) -> None:
    """Report a difference that is not in the fields of one reply."""
    assert not list(pair.excuses.unexplained("behaviour", [Delta(what, etcd, ours)]))


@provokes("invalid-sort-option")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.KV_RANGE, key=b"a", sort_order=3)
    pair.call(rpcs.KV_TXN, success=[{"request_range": {"key": b"a", "sort_order": 3}}])


def killed_by(servers: Servers, rpc: Any, **fields: Any) -> tuple[str, str]:
    """Ask what kills etcd; answer what became of it, and the status that ours answered."""
    request = rpc.request(**fields)
    servers.pair.etcd.call(rpc, request)
    servers.etcd.wait(10)
    outcome: Outcome = servers.pair.ours.call(rpc, request)
    assert servers.ours.is_alive
    assert servers.pair.ours.call(rpcs.KV_PUT, pb.PutRequest(key=b"a")).status == "OK"
    return "the server dies", outcome.status


@provokes("invalid-sort-target")
def _(pair: Pair, fresh: Fresh) -> None:
    ends = killed_by(fresh(), rpcs.KV_RANGE, key=b"a", range_end=b"z", sort_target=5)
    behaves(pair, "a range sorted by a target that does not exist", *ends)


@provokes("invalid-alarm")
def _(pair: Pair, fresh: Fresh) -> None:
    for fields in ({"action": 3, "alarm": 1}, {"action": 1, "alarm": 3}):
        ends = killed_by(fresh(), rpcs.MAINTENANCE_ALARM, **fields)
        behaves(pair, "an alarm request with an action or a type that does not exist", *ends)


@provokes("put-of-what-a-txn-has-deleted")
def _(pair: Pair, fresh: Fresh) -> None:
    servers = fresh()
    servers.pair.call(rpcs.KV_PUT, key=b"a", value=b"kept")
    ops = [
        {"request_delete_range": {"key": b"a", "range_end": b"\0"}},
        {"request_put": {"key": b"a", "ignore_value": True}},
    ]
    ours = servers.pair.ours
    outcome = killed_by(servers, rpcs.KV_TXN, success=ops)
    what = "a txn that deletes from a key on, and then puts the key with ignore_value"
    behaves(pair, what, *outcome)
    assert ours.call(rpcs.KV_RANGE, pb.RangeRequest(key=b"a")).reply.kvs[0].version == 2


def nested_txns(others: int) -> bytes:
    """Return a txn with so many within each other."""
    whole = innermost = pb.TxnRequest()
    for _ in range(others):
        innermost = innermost.success.add().request_txn
    innermost.success.add().request_put.key = b"a"
    return whole.SerializeToString()


@provokes("deeply-nested-txn")
def _(pair: Pair, fresh: Fresh) -> None:
    path = rpcs.KV_TXN.path
    pair.call_raw("Txn", path, nested_txns(40))
    refusals = {
        41: "INVALID_ARGUMENT etcdserver: txns are nested more than 40 deep",
        50: "INTERNAL grpc: error unmarshalling request: ",
    }
    for others, refusal in refusals.items():
        payload = nested_txns(others)
        etcd, ours = (side.call_raw(path, payload).status for side in pair.sides)
        outcome = "refused" if ours.startswith(refusal) else ours
        behaves(pair, f"a txn with {others} others within each other", etcd, outcome)


@provokes("order-of-equals")
def _(pair: Pair, fresh: Fresh) -> None:
    for rest in range(3):
        numbers = range(rest, 300, 3)
        pair.call(rpcs.KV_TXN, success=[{"request_put": {"key": b"k%03d" % n}} for n in numbers])
    asked = pb.RangeRequest(key=b"k", range_end=b"l", sort_target="MOD", sort_order="DESCEND")

    def order(side: Remote) -> str:
        kvs = side.call(rpcs.KV_RANGE, asked).reply.kvs
        by_key = sorted(kvs, key=lambda kv: (-kv.mod_revision, kv.key))
        return "in the order of the keys" if list(kvs) == by_key else "in some order"

    behaves(pair, "a range sorted by what many keys have in common", *pair.on_each(order))


@provokes("token-without-auth")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.KV_PUT, key=b"a", metadata=(("token", "abc.1"),))


@provokes("malformed-method-name")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call_raw("unknown method", "/nothing", b"")


@provokes("words-about-malformed-messages")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call_raw("malformed message", rpcs.KV_RANGE.path, b"\xff")


@provokes("watch-from-a-negative-revision")
def _(pair: Pair, fresh: Fresh) -> None:
    create = pb.WatchRequest(create_request={"key": b"a", "start_revision": -1})
    ends = []
    for stream in pair.on_each(lambda side: watch_stream(side, create)):
        assert stream.wait_for(lambda s: any(r.canceled for r in s.replies), 10)
        created, canceled = stream.replies[0], stream.replies[-1]
        assert created.created
        if created is canceled:
            assert created.watch_id == -1
            assert "compacted" in created.cancel_reason
            ends.append("refused as compacted")
        else:
            assert canceled.compact_revision == pair.compacted_revision
            ends.append("created, then canceled as compacted")
        stream.close()
    behaves(pair, "a watch from a negative revision", *ends)


@provokes("watcher-of-a-refused-id")
def _(pair: Pair, fresh: Fresh) -> None:
    """Another watcher of the key tells when the first put has been told to all."""
    own = pb.WatchRequest(create_request={"key": b"refused", "watch_id": -1})
    empty = pb.WatchRequest(create_request={"key": b"b", "range_end": b"a"})
    other = pb.WatchRequest(create_request={"key": b"refused"})
    streams = pair.on_each(lambda side: watch_stream(side, own, empty, other))
    for stream in streams:
        assert stream.wait_for(lambda s: sum(r.created for r in s.replies) == 3, 10)
    for puts in (1, 2):
        pair.call(rpcs.KV_PUT, key=b"refused")
        for stream in streams:
            assert stream.wait_for(lambda s, n=puts: len(told(s, 0)) >= n, 10)
    ends = ["told" if told(stream, -1) else "silent" for stream in streams]
    for stream in streams:
        stream.close()
    behaves(pair, "a watcher that asked for the id -1, after another was refused", *ends)


def told(stream: Stream, watch_id: int) -> list[Any]:
    """The answers with events to one watcher."""
    return [each for each in stream.replies if each.watch_id == watch_id and each.events]


@provokes("txn-of-deletions-without-space")
def _(pair: Pair, fresh: Fresh) -> None:
    servers = fresh(f"--quota-backend-bytes={MIB}")
    delete = pb.TxnRequest(success=[{"request_delete_range": {"key": b"k0"}}])
    ends = []
    for side in (servers.pair.etcd, servers.pair.ours):
        # Each costs less than a page: where no page is left for a put, none is for a deletion
        for number in range(2000):
            put = pb.PutRequest(key=b"k%d" % number, value=b"x" * 1024)
            if (refusal := side.call(rpcs.KV_PUT, put).status) != "OK":
                break
        assert refusal.endswith("database space exceeded")
        ends.append(side.call(rpcs.KV_TXN, delete).status)
    behaves(pair, "a txn that only deletes, when the quota is reached", *ends)


@provokes("hash-revision", "hash-at-compacted-revision")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.KV_PUT, key=b"a")
    pair.call(rpcs.MAINTENANCE_HASH_KV)
    pair.call(rpcs.MAINTENANCE_HASH_KV, revision=pair.compacted_revision)


@provokes("status-version", "status-storage-version", "status-quota", "status-downgrade-info")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.MAINTENANCE_STATUS)


@provokes("hash-of-everything")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.MAINTENANCE_HASH)


def snapshot_of(side: Remote) -> tuple[Any, bytes]:
    outcome = side.call(rpcs.MAINTENANCE_SNAPSHOT, pb.SnapshotRequest())
    first: Any = outcome.replies[0]
    return first, first.blob[:64]


@provokes("snapshot-version", "snapshot-format")
def _(pair: Pair, fresh: Fresh) -> None:
    (etcd, etcd_start), (ours, our_start) = pair.on_each(snapshot_of)
    found = list(between({"version": "absent"}, {"version": ours.version}))
    assert not etcd.version
    assert not list(pair.excuses.unexplained("Snapshot", found))
    bbolt, lmdb = bytes.fromhex("edda0ced"), bytes.fromhex("dec0efbe")
    makes = {bbolt: "a page of bbolt", lmdb: "a page of LMDB"}
    named = [
        next((make for magic, make in makes.items() if magic in start), "something else")
        for start in (etcd_start, our_start)
    ]
    behaves(pair, "the first bytes of a snapshot", *named)


@provokes("range-stream")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.KV_RANGE_STREAM, key=b"a")


def watch_stream(side: Remote, *requests: pb.WatchRequest) -> Stream:
    stream = side.stream(rpcs.WATCH_WATCH)
    for request in requests:
        stream.send(request)
    return stream


PROGRESS = pb.WatchRequest(progress_request={})


@provokes("progress-without-watchers")
def _(pair: Pair, fresh: Fresh) -> None:
    create = pb.WatchRequest(create_request={"key": b"a"})
    ends = []
    for stream in pair.on_each(lambda side: watch_stream(side, PROGRESS, create)):
        assert stream.wait_for(lambda s: any(r.created for r in s.replies), 10)
        ends.append("no answer" if stream.replies[0].created else "an answer")
        stream.close()
    behaves(pair, "progress asked for on a stream without watchers", *ends)


@provokes("progress-of-those-behind")
def _(pair: Pair, fresh: Fresh) -> None:
    start = pair.base_revision + 1
    pair.call(rpcs.KV_PUT, key=b"a")
    create = pb.WatchRequest(create_request={"start_revision": start, **EVERYTHING})
    ends = []
    for stream in pair.on_each(lambda side: watch_stream(side, create, PROGRESS)):
        assert stream.wait_for(lambda s: any(r.events for r in s.replies), 10)
        told = [reply.watch_id == -1 for reply in stream.replies]
        had = [bool(reply.events) for reply in stream.replies]
        before = True in told and told.index(True) < had.index(True)
        ends.append("told before the events" if before else "not told before the events")
        stream.close()
    behaves(pair, "progress asked for while a watcher is behind", *ends)


@provokes("progress-before-the-start")
def _(pair: Pair, fresh: Fresh) -> None:
    """A watcher of now on the same stream tells when the clock has struck."""
    pair = Pair(*(fresh(**PROGRESS_BY_THE_CLOCK).pair.sides), pair.excuses)
    future = pb.WatchCreateRequest(key=b"a", progress_notify=True, start_revision=1000)
    creates = [future, pb.WatchCreateRequest(key=b"a", progress_notify=True)]
    ends = []
    for side in pair.sides:
        stream = watch_stream(side, *(pb.WatchRequest(create_request=each) for each in creates))
        assert stream.wait_for(lambda s: len(by_watcher(s.replies).get(1, [])) >= 4, 30)
        ends.append("told" if len(by_watcher(stream.replies)[0]) > 1 else "not told")
        stream.close()
    behaves(pair, "progress of a watch of the future", *ends)


@provokes("much-of-the-past-in-pieces")
def _(pair: Pair, fresh: Fresh) -> None:
    for _ in range(20):
        pair.call(rpcs.KV_PUT, key=b"a", value=b"x" * MIB)
    start = pair.base_revision + 1
    create = pb.WatchRequest(create_request={"key": b"a", "start_revision": start})
    ends = []
    for stream in pair.on_each(lambda side: watch_stream(side, create)):
        assert stream.wait_for(lambda s: sum(len(r.events) for r in s.replies) == 20, 20)
        with_events = sum(bool(reply.events) for reply in stream.replies)
        ends.append("one answer" if with_events == 1 else "several answers")
        stream.close()
    behaves(pair, "a watch that is told 20 MiB of the past", *ends)


@provokes("tombstone-at-compaction")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.KV_PUT, key=b"a")
    deletion = pair.call(rpcs.KV_DELETE_RANGE, key=b"a").reply.header.revision
    pair.call(rpcs.KV_COMPACT, revision=deletion, physical=True)
    pair.call(rpcs.KV_PUT, key=b"a")
    create = pb.WatchRequest(create_request={"key": b"a", "start_revision": deletion})
    ends = []
    for stream in pair.on_each(lambda side: watch_stream(side, create)):
        assert stream.wait_for(lambda s: any(r.events for r in s.replies), 10)
        events = [event for reply in stream.replies for event in reply.events]
        ends.append("a deletion" if events[0].type else "no event")
        stream.close()
    behaves(pair, "watch from the compacted revision, which is a deletion", *ends)


@provokes("version-page")
def _(pair: Pair, fresh: Fresh) -> None:
    etcd, ours = both(pair, "/version")
    found = between(etcd.document, ours.document, "/version.body")
    assert not list(pair.excuses.unexplained("http", found))


@provokes("proposals-without-a-leader", "local-health")
def _(pair: Pair, fresh: Fresh) -> None:
    for row in rows():
        for path in row.path:
            asked, _, _ = path.partition(", of a member without a quorum")
            if asked in answers():
                behaves(pair, path, *answers()[asked])


@provokes("no-authentication")
def _(pair: Pair, fresh: Fresh) -> None:
    """Each with a request that has no effect on etcd."""
    for rpc in rpcs.ALL:
        if rpc.path.startswith("/etcdserverpb.Auth/") and rpc is not rpcs.AUTH_AUTH_STATUS:
            pair.call(rpc)


@provokes("no-lock-and-election-services")
def _(pair: Pair, fresh: Fresh) -> None:
    pair.call(rpcs.LOCK_UNLOCK, key=b"none")
    pair.call(rpcs.ELECTION_LEADER, name=b"none")


@provokes("no-json-gateway")
def _(pair: Pair, fresh: Fresh) -> None:
    etcd, ours = both(pair, "/v3/kv/range", "POST", '{"key":"YQ=="}')
    found = between({"status": etcd.status}, {"status": ours.status}, "/v3/kv/range")
    assert not list(pair.excuses.unexplained("http", found))


@provokes("metrics-without-total", "metrics-not-measured")
def _(pair: Pair, fresh: Fresh) -> None:
    """All that a row names, for it has a list of them; etcd has one only once it happened."""
    pair.call(rpcs.CLUSTER_MEMBER_PROMOTE, ID=404)
    missed = {delta.path: delta for delta in differing_metrics(pair)}
    for row in rows():
        if row.id.startswith("metrics-"):
            named = [missed.pop(path) for path in row.path]
            assert not list(pair.excuses.unexplained("http", named))
    assert not missed


@provokes("member-update-with-bad-urls")
def _(pair: Pair, fresh: Fresh) -> None:
    servers = fresh()

    def update(side: Remote, urls: list[str]) -> str:
        (own,) = side.call(rpcs.CLUSTER_MEMBER_LIST, pb.MemberListRequest()).reply.members
        asked = pb.MemberUpdateRequest(ID=own.ID, peerURLs=urls)
        return side.call(rpcs.CLUSTER_MEMBER_UPDATE, asked).status

    for urls in ([], ["nonsense"]):
        etcd, ours = (update(side, urls) for side in (servers.pair.etcd, servers.pair.ours))
        behaves(pair, "an update of a member to URLs that are none", etcd, ours)


@provokes("member-remove-of-the-last-voter")
def _(pair: Pair, fresh: Fresh) -> None:
    servers = fresh("--strict-reconfig-check=false")
    (own,) = servers.pair.ours.call(rpcs.CLUSTER_MEMBER_LIST, pb.MemberListRequest()).reply.members
    ends = killed_by(servers, rpcs.CLUSTER_MEMBER_REMOVE, ID=own.ID)
    behaves(pair, "a removal of the last voter, without the strict check", *ends)


@provokes("member-update-of-a-learner")
def _(pair: Pair, fresh: Fresh) -> None:
    servers = fresh()

    def updated(side: Remote) -> bool:
        asked = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:9"], isLearner=True)
        learner = side.call(rpcs.CLUSTER_MEMBER_ADD, asked).reply.member
        update = pb.MemberUpdateRequest(ID=learner.ID, peerURLs=["http://127.0.0.1:8"])
        members = side.call(rpcs.CLUSTER_MEMBER_UPDATE, update).reply.members
        return bool(next(each.isLearner for each in members if each.ID == learner.ID))

    etcd, ours = (str(updated(side)) for side in (servers.pair.etcd, servers.pair.ours))
    behaves(pair, "whether a learner is listed as one after an update", etcd, ours)


@provokes("not-supported-for-learner")
def _(pair: Pair, fresh: Fresh) -> None:
    def refused(binary: Path | None) -> str:
        with LocalCluster(size=1, processes=True, binary=binary) as cluster:
            learner = Remote("learner", cluster.add_learner().endpoint)
            return learner.call(rpcs.KV_PUT, pb.PutRequest(key=b"a")).status

    behaves(pair, "what a learner does not serve", refused(ETCD), refused(None))


def added_again(side: Remote) -> str | None:
    """Add, remove and add a learner within one second; None when the second was over."""
    asked = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:9"], isLearner=True)
    began = int(time.time())
    first = side.call(rpcs.CLUSTER_MEMBER_ADD, asked).reply.member
    side.call(rpcs.CLUSTER_MEMBER_REMOVE, pb.MemberRemoveRequest(ID=first.ID))
    again = side.call(rpcs.CLUSTER_MEMBER_ADD, asked)
    if again.status == "OK":
        member = again.reply.member
        side.call(rpcs.CLUSTER_MEMBER_REMOVE, pb.MemberRemoveRequest(ID=member.ID))
    return again.status if int(time.time()) == began else None


@provokes("member-added-again-within-a-second")
def _(pair: Pair, fresh: Fresh) -> None:
    servers = fresh()
    found: dict[str, str] = {}
    while len(found) < 2:
        time.sleep(1.1 - time.time() % 1)  # the beginning of a second
        for name, side in (("etcd", servers.pair.etcd), ("ours", servers.pair.ours)):
            if (status := added_again(side)) is not None:
                found[name] = status
    what = "a member added again in the second in which it was added and removed"
    behaves(pair, what, found["etcd"], found["ours"])


@pytest.mark.skipif(SUBJECT is not None, reason="two etcds of one release do not differ")
@pytest.mark.parametrize("row", [row.id for row in rows()])
def test_the_difference_is_there(
    pair: Pair, start_servers: Callable[..., Servers], row: str
) -> None:
    watched = Pair(pair.etcd, pair.ours, Excuses())
    vars(watched).update({**vars(pair), "excuses": watched.excuses})
    SCENARIOS[row](watched, start_servers)
    assert row in watched.excuses.fired


def test_every_scenario_is_of_a_row() -> None:
    assert SCENARIOS.keys() == {row.id for row in rows()}


def test_rows_are_told_apart_by_their_names() -> None:
    assert len({row.id for row in rows()}) == len(rows())
    for row in rows():
        prose = (row.what, row.etcd_does, row.ours_does, row.reason)
        assert all(prose), row.id
        assert not any("|" in text for text in prose), row.id


def test_the_document_is_up_to_date() -> None:
    assert document.DOCUMENT.read_text() == document.text()


def test_a_row_explains_nothing_else() -> None:
    """One value off, and the row does not hold."""
    row = next(row for row in rows() if row.id == "hash-at-compacted-revision")
    delta = Delta("status", row.etcd, row.ours)
    excuses = Excuses()
    asked = pb.HashKVRequest(revision=3)
    assert not list(excuses.unexplained("HashKV", [delta], asked, at_compacted_revision=True))
    for other in (
        dataclasses.replace(delta, path="hash"),
        dataclasses.replace(delta, etcd="OK"),
        dataclasses.replace(delta, ours=row.etcd + "!"),
    ):
        assert list(excuses.unexplained("HashKV", [other], asked, at_compacted_revision=True))
    assert list(excuses.unexplained("HashKV", [delta], asked, at_compacted_revision=False))
    assert list(excuses.unexplained("Range", [delta], asked, at_compacted_revision=True))
