"""A walk on a member of its own: put, get, txn, watch, lease."""

from __future__ import annotations

import time
from itertools import islice

from narration import say, show

from etcd_pinwheel import Client, Watch, WatchEvent, value, version
from etcd_pinwheel import get as read
from etcd_pinwheel import put as write
from etcd_pinwheel.server_stub.local import LocalMember


def walk() -> None:
    started = time.monotonic()
    with LocalMember() as member:
        say("a member", f"{member.endpoint}, ready after {time.monotonic() - started:.1f} s")
        with Client([member.endpoint], balancer="round_robin") as etcd:
            key_values(etcd)
            transactions(etcd)
            watches(etcd)
            leases(etcd)
    say("gone", f"after {time.monotonic() - started:.1f} s, with its directory")


def key_values(etcd: Client) -> None:
    say("put, get", "every write is a revision of the whole store")
    put = etcd.put("config/colour", "blue")
    show('etcd.put("config/colour", "blue")', f"revision {put.revision}")
    etcd.put("config/colour", "green")
    now = etcd.get("config/colour")
    then = etcd.get("config/colour", revision=put.revision)
    assert now is not None
    assert then is not None
    show('etcd.get("config/colour")', f"{now.value!r}, version {now.version}")
    show(f'etcd.get("config/colour", revision={put.revision})', f"{then.value!r}: the past stays")


def transactions(etcd: Client) -> None:
    say("txn", "compare, then write, as one revision")
    for attempt in ("first", "second"):
        result = (
            etcd.txn()
            .when(version("jobs/42") == 0)
            .then(write("jobs/42", attempt))
            .otherwise(read("jobs/42"))
            .commit()
        )
        show(
            f'txn: if nobody made jobs/42, put "{attempt}"',
            "made it" if result.succeeded else "somebody was faster",
        )
    guarded = etcd.txn().when(value("jobs/42") == b"first").then(write("jobs/42", "done")).commit()
    show('txn: if jobs/42 is still "first", put "done"', f"succeeded: {guarded.succeeded}")


def watches(etcd: Client) -> None:
    say("watch", "no event lost, none repeated, in the order of revisions")
    with etcd.watch("config/", prefix=True) as watch:
        etcd.put("config/size", "large")
        etcd.delete("config/colour")
        show('with etcd.watch("config/", prefix=True) as watch: ...', describe(first(watch, 2)))


def first(watch: Watch, count: int) -> list[WatchEvent]:
    """The next ``count`` events; each comes as soon as the server has it."""
    return list(islice(watch, count))


def describe(events: list[WatchEvent]) -> str:
    return ", ".join(f"{event.type.name} {event.kv.key.decode()}" for event in events)


def leases(etcd: Client) -> None:
    say("lease", "keys that live as long as their owner")
    with etcd.watch("services/", prefix=True) as watch:
        with etcd.lease(ttl=5) as lease:
            etcd.put("services/web-1", "10.0.0.1:80", lease=lease)
            show("etcd.put(..., lease=lease)", f"kept alive, {lease.ttl} s at a time")
        show("the owner leaves", describe(first(watch, 2)))
