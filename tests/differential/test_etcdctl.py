"""etcdctl 3.5.1, a Go client, drives our server, and says what it says of etcd."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lockstep.etcdctl import Background, Ctl, run_one, snapshot_to
from lockstep.pair import Pair
from lockstep.remote import Remote

from etcd_pinwheel.protos import rpcs

CHECK_PERF_PREFIX = b"/etcdctl-check-perf/"


@pytest.fixture
def ctl(pair: Pair) -> Ctl:
    return Ctl(pair)


@pytest.fixture
def fruit(ctl: Ctl) -> Ctl:
    """A few keys to ask for."""
    for key, value in (("pear", "3"), ("apple", "1"), ("fig", "2"), ("apple", "4")):
        ctl("put", key, value)
    return ctl


Start = Callable[..., list[Background]]


@pytest.fixture
def start_both(pair: Pair) -> Iterator[Start]:
    """Start a command that keeps running against both."""
    started: list[Background] = []

    def start(*words: str) -> list[Background]:
        both = list(pair.on_each(lambda side: Background(side, *words)))
        started.extend(both)
        return both

    yield start
    for each in started:
        each.stop()


GETS = [
    "apple",
    "nothing",
    "apple --write-out=json",
    "apple --write-out=fields",
    "apple --print-value-only",
    "apple --keys-only",
    "a z",
    "--prefix a",
    "--prefix '' ",
    "--from-key b",
    "--prefix '' --count-only --write-out=fields",
    "--prefix '' --limit=2",
    "--prefix '' --sort-by=VALUE --order=DESCEND",
    "--prefix '' --sort-by=MODIFY --order=ASCEND --keys-only",
    "--prefix '' --sort-by=CREATE",
    "--prefix '' --sort-by=VERSION --order=DESCEND --limit=1",
    "--prefix '' --consistency=s",
    "apple --consistency=x",
    "apple --rev=999999999",
    "apple --rev=1",
    "apple --sort-by=nonsense",
    "'' ",
    "--hex apple",
]


@pytest.mark.parametrize("words", GETS)
def test_get(fruit: Ctl, words: str) -> None:
    fruit("get", *(word.strip("'") for word in words.split(" ") if word))


def test_put_and_del(fruit: Ctl) -> None:
    fruit("put", "apple", "5", "--prev-kv")
    fruit("put", "apple", "--ignore-value")
    fruit("put", "nothing", "--ignore-value")
    fruit("put", "apple", "x", "--lease=123abc")
    fruit("put", "apple", stdin="from standard input")
    fruit("put", "", "x")
    fruit("del", "nothing")
    fruit("del", "apple", "--prev-kv")
    fruit("del", "a", "g")
    fruit("del", "--prefix", "", "--prev-kv")
    fruit("get", "--prefix", "")


@pytest.mark.parametrize(
    "script",
    [
        'value("apple") = "4"\n\nput apple 5\nget apple\n\nput apple 6\n\n',
        'value("apple") = "9"\n\nput apple 5\n\nget apple\ndel fig\n\n',
        'mod("apple") > "0"\nversion("apple") = "2"\n\nget --prefix a\n\n\n',
        'create("new") = "0"\n\nput new 1\nput new 2\n\n\n',
        'value("apple") != "0"\n\ndel --prefix ""\nget pear\n\n\n',
        "\n\n\n",
    ],
)
def test_txn_typed_at_it(fruit: Ctl, script: str) -> None:
    fruit("txn", "--interactive", stdin=script)
    fruit("get", "--prefix", "")


def test_watch(fruit: Ctl, pair: Pair, start_both: Start) -> None:
    revision = str(pair.base_revision + 1)
    watches = start_both("watch", "--prefix", "", "--prev-kv", f"--rev={revision}")
    for watch in watches:
        assert len(watch.lines(12)) >= 12
    fruit("put", "kiwi", "7")
    fruit("del", "--prefix", "a")
    etcd, ours = (watch.lines(12 + 3 + 5) for watch in watches)
    assert etcd == ours
    assert "DELETE" in etcd


def test_watch_typed_at_it(fruit: Ctl, start_both: Start) -> None:
    for watch in start_both("watch", "--interactive"):
        watch.say("watch apple --rev=1")  # below what is compacted: canceled
        assert "required revision has been compacted" in watch.lines(1)[0]
        watch.say(f"watch fig --rev={fruit.pair.base_revision + 1}")
        assert watch.lines(4)[1:] == ["PUT", "fig", "2"]
        watch.say("progress")
        assert watch.lines(5)[4] == f"progress notify: {fruit.pair.base_revision + 4}"


def test_watch_that_runs_a_command(fruit: Ctl, start_both: Start, pair: Pair) -> None:
    words = ("watch", "apple", f"--rev={pair.base_revision + 1}", "--", "sh", "-c")
    script = "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"
    etcd, ours = (watch.lines(8) for watch in start_both(*words, script))
    assert etcd == ours
    assert '"PUT" "apple" "4"' in etcd


def lease_of(side: Remote, ttl: int) -> str:
    told = run_one(side, "lease", "grant", str(ttl)).stdout
    return told.split()[1]


def test_leases(ctl: Ctl, pair: Pair) -> None:
    ctl("lease", "grant", "100")
    ids = {side: lease_of(side, 200) for side in pair.sides}
    ctl("lease", "list")
    ctl.each(lambda side: ("put", "leased", "x", f"--lease={ids[side]}"))
    ctl.each(lambda side: ("lease", "timetolive", ids[side], "--keys"))
    ctl.each(lambda side: ("lease", "keep-alive", "--once", ids[side]))
    ctl.each(lambda side: ("lease", "revoke", ids[side]))
    ctl.each(lambda side: ("lease", "timetolive", ids[side]))
    ctl.each(lambda side: ("lease", "keep-alive", "--once", ids[side]))
    ctl("lease", "revoke", "123abc")
    ctl("lease", "timetolive", "123abc")
    ctl("lease", "grant", "9000000001")
    ctl("get", "leased")


def test_lease_kept_alive_until_it_is_revoked(pair: Pair) -> None:
    for side in pair.sides:
        lease = lease_of(side, 2)
        keeper = Background(side, "lease", "keep-alive", lease)
        try:
            assert all("keepalived with TTL(2)" in line for line in keeper.lines(3))
            assert run_one(side, "lease", "revoke", lease).returncode == 0
            assert keeper.wait() == 0
        finally:
            keeper.stop()


def test_compaction(fruit: Ctl, pair: Pair) -> None:
    revision = pair.base_revision + 2
    fruit("compaction", str(revision))
    fruit("compaction", str(revision))
    fruit("compaction", "--physical", str(revision + 1))
    fruit("compaction", "999999999")
    fruit("get", "apple", f"--rev={revision}")
    fruit("get", "apple", f"--rev={revision + 1}")


def test_lock(ctl: Ctl) -> None:
    ctl("lock", "a-lock", "echo", "held")
    ctl("lock", "a-lock", "--ttl=30", "false")


def test_lock_waits_for_its_turn(ctl: Ctl, start_both: Start) -> None:
    holders = start_both("lock", "a-lock")
    for holder in holders:
        assert holder.lines(1)[0].startswith("a-lock/")
    waiters = start_both("lock", "a-lock", "echo", "my turn")
    for holder in holders:
        holder.interrupt()
    for waiter in waiters:
        assert waiter.lines(1) == ["my turn"]


def test_elect(ctl: Ctl, start_both: Start) -> None:
    for leader in start_both("elect", "an-election", "me"):
        key, value = leader.lines(2)
        assert key.startswith("an-election/")
        assert value == "me"
    for observer in start_both("elect", "--listen", "an-election"):
        assert "me" in observer.lines(2)


def test_make_mirror(fruit: Ctl, pair: Pair) -> None:
    """From either server into the other."""
    mirror = Background(pair.ours, "make-mirror", pair.etcd.endpoint, "--dest-prefix", "m/")
    try:
        keys: dict[str, Any] = {"key": b"m/", "range_end": b"m0"}
        mirrored = pair.etcd.stream(rpcs.WATCH_WATCH)
        asked = {**keys, "start_revision": pair.base_revision}
        mirrored.send(rpcs.WATCH_WATCH.request(create_request=asked))
        assert mirrored.wait_for(lambda s: sum(len(r.events) for r in s.replies) >= 3, 20)
        mirrored.close()
        kvs = pair.etcd.call(rpcs.KV_RANGE, rpcs.KV_RANGE.request(**keys)).reply.kvs
        assert [kv.key for kv in kvs[:3]] == [b"m/apple", b"m/fig", b"m/pear"]
    finally:
        mirror.stop()


def test_endpoints_and_members(fruit: Ctl) -> None:
    fruit("endpoint", "health")
    fruit.json("endpoint", "health")
    fruit.json("endpoint", "status")
    fruit.json("endpoint", "hashkv")
    fruit("endpoint", "hashkv")
    fruit("member", "list")
    fruit.json("member", "list")
    fruit("alarm", "list")
    fruit("alarm", "disarm")
    fruit("defrag")


def test_snapshot_save(fruit: Ctl, pair: Pair, tmp_path: Path) -> None:
    """The file of either ends in the digest of what is before it, and its size tells so."""
    for side in pair.sides:
        saved = snapshot_to(side, tmp_path).read_bytes()
        assert len(saved) % 512 == 32
        assert hashlib.sha256(saved[:-32]).digest() == saved[-32:]


def test_check_perf_writes_at_its_rate(start_both: Start, pair: Pair) -> None:
    """Its first seconds; the command itself cannot be told to take less than a minute."""
    start_both("check", "perf", "--load=s")
    written = {"key": CHECK_PERF_PREFIX, "range_end": CHECK_PERF_PREFIX[:-1] + b"0"}
    asked = {**written, "start_revision": pair.base_revision + 1}
    for stream in pair.on_each(lambda side: side.stream(rpcs.WATCH_WATCH)):
        stream.send(rpcs.WATCH_WATCH.request(create_request=asked))
        assert stream.wait_for(lambda s: sum(len(r.events) for r in s.replies) > 150, 20)
        stream.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_check_perf_passes(pair: Pair) -> None:
    check = Background(pair.ours, "check", "perf", "--load=s", "--auto-compact")
    try:
        assert check.wait(120) == 0, check.lines(0)
        text = "\n".join(check.lines(0))
        assert re.search(r"^PASS$", text, re.MULTILINE), text
        assert "FAIL" not in text
    finally:
        check.stop()
