"""The harness itself: a lie in one answer of one server has to be caught, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from lockstep.pair import Disagreement, Pair
from lockstep.program import Call, KeepAlive, Operation, Rev, Run, Watch, run
from lockstep.remote import Outcome, Remote, Stream

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.rpc import Rpc

PROGRAM: list[Operation] = [
    Call("LeaseGrant", {"ID": 1, "TTL": 1000}),
    Call("Put", {"key": b"a", "value": b"1", "lease": 1}),
    Call("Put", {"key": b"a", "value": b"2", "prev_kv": True, "lease": 1}),
    Watch(0, {"create_request": {"key": b"a", "range_end": b"\0", "prev_kv": True}}),
    Watch(0, {"create_request": {"key": b"a", "start_revision": Rev(1), "watch_id": 7}}),
    Call(
        "Txn",
        {
            "success": [
                {"request_put": {"key": b"b", "value": b"1"}},
                {"request_put": {"key": b"c", "value": b"1"}},
                {"request_txn": {"success": [{"request_range": {"key": b"b"}}]}},
            ]
        },
    ),
    Call("Range", {"key": b"a", "range_end": b"\0", "limit": 2}),
    Call("LeaseTimeToLive", {"ID": 1, "keys": True}),
    KeepAlive(1),
    Call("Range", {"key": b"a", "revision": Rev(99)}),
    Call("DeleteRange", {"key": b"a", "prev_kv": True}),
]

Lie = Callable[[Any], list[Any]]


class LyingStream(Stream):
    """A stream that passes each answer through a lie."""

    lie: Lie

    def heard(self, reply: Any) -> list[Any]:
        return self.lie(reply)


class Liar(Remote):
    """Our server, but one kind of answer comes out changed."""

    def __init__(self, honest: Remote, name: str, lie: Lie) -> None:
        super().__init__("liar", honest.endpoint)
        self._name, self._lie = name, lie
        self.lies = False
        """Whether it lies already: while a fresh start is made it must not."""

    def begin(
        self, rpc: Rpc[Any, Any], request: Message, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Callable[[], Outcome]:
        wait = super().begin(rpc, request, metadata)
        return (lambda: self._lie(wait())[0]) if self._lies_about(rpc) else wait

    def stream(self, rpc: Rpc[Any, Any]) -> Stream:
        if not self._lies_about(rpc):
            return super().stream(rpc)
        return type("Lying", (LyingStream,), {"lie": staticmethod(self._lie)})(self.channel, rpc)

    def _lies_about(self, rpc: Rpc[Any, Any]) -> bool:
        return self.lies and rpc.name == self._name


def changed(**fields: Any) -> Lie:
    """Set fields of every reply that went well; ``header__revision`` reaches inside."""

    def lie(answer: Any) -> list[Any]:
        reply = answer.replies[0] if isinstance(answer, Outcome) and answer.replies else answer
        for path, value in fields.items():
            *outer, last = path.split("__")
            target = reply
            for name in outer:
                target = getattr(target, name)
            if hasattr(target, last):
                setattr(target, last, value)
        return [answer]

    return lie


def edited(edit: Callable[[Any], object]) -> Lie:
    """Edit every reply that went well."""

    def lie(answer: Any) -> list[Any]:
        if answer.replies:
            edit(answer.replies[0])
        return [answer]

    return lie


def told(edit: Callable[[Any], object]) -> Lie:
    """Edit every watch response that has events."""

    def lie(reply: Any) -> list[Any]:
        if reply.events:
            edit(reply)
        return [reply]

    return lie


def refusal_as(old: str, new: str) -> Lie:
    return lambda answer: [Outcome(answer.status.replace(old, new), answer.replies)]


def _split(reply: Any) -> list[Any]:
    """Tear the events of one revision apart."""
    if len(reply.events) < 2:
        return [reply]
    first, second = type(reply)(), type(reply)()
    first.CopyFrom(reply)
    second.CopyFrom(reply)
    del first.events[1:]
    del second.events[0]
    return [first, second]


LIES: dict[str, tuple[str, Lie]] = {
    "a revision too high": ("Put", changed(header__revision=10**6)),
    "no header": ("Put", edited(lambda reply: reply.ClearField("header"))),
    "another member": ("Range", changed(header__member_id=7)),
    "no previous pair": ("Put", edited(lambda reply: reply.ClearField("prev_kv"))),
    "one key less": ("Range", edited(lambda reply: reply.kvs and reply.kvs.pop())),
    "another version": ("Range", edited(lambda r: r.kvs and setattr(r.kvs[0], "version", 9))),
    "another value": ("Range", edited(lambda r: r.kvs and setattr(r.kvs[0], "value", b"x"))),
    "more when there is none": ("Range", changed(more=False)),
    "a wrong count": ("Range", changed(count=1)),
    "a refusal with another code": ("Range", refusal_as("OUT_OF_RANGE", "UNKNOWN")),
    "a refusal in other words": ("Range", refusal_as("future", "later")),
    "an answer to a refused call": ("Range", refusal_as("OUT_OF_RANGE", "OK")),
    "a nested answer changed": (
        "Txn",
        edited(lambda r: setattr(r.responses[2].response_txn, "succeeded", False)),
    ),
    "an answer of the txn missing": ("Txn", edited(lambda r: r.responses.pop())),
    "a deletion too many": ("DeleteRange", changed(deleted=2)),
    "a lease with another TTL": ("LeaseGrant", changed(TTL=999)),
    "a lease that runs out soon": ("LeaseTimeToLive", changed(TTL=900)),
    "a lease that is gone": ("LeaseTimeToLive", changed(TTL=-1)),
    "a lease without its keys": ("LeaseTimeToLive", edited(lambda r: r.ClearField("keys"))),
    "a renewal of another length": ("LeaseKeepAlive", changed(TTL=999)),
    "another hash": ("HashKV", edited(lambda r: setattr(r, "hash", r.hash ^ 1))),
    "an event lost": ("Watch", told(lambda reply: reply.events.pop())),
    "an event twice": ("Watch", told(lambda reply: reply.events.append(reply.events[0]))),
    "events out of order": ("Watch", told(lambda reply: reply.events.reverse())),
    "an event of another kind": (
        "Watch",
        told(lambda reply: setattr(reply.events[0], "type", 1 - reply.events[0].type)),
    ),
    "events without previous pairs": (
        "Watch",
        told(lambda reply: reply.events[0].ClearField("prev_kv")),
    ),
    "a response twice": ("Watch", lambda reply: [reply, reply]),
    "a cancellation lost": ("Watch", lambda reply: [] if reply.canceled else [reply]),
    "a revision torn apart": ("Watch", _split),
}


def test_the_program_is_answered_alike(pair: Pair) -> None:
    run(pair, PROGRAM)


@pytest.mark.parametrize("what", LIES)
def test_a_lie_is_caught(pair: Pair, what: str) -> None:
    name, lie = LIES[what]
    liar = Liar(pair.ours, name, lie)
    lying = Pair(pair.etcd, liar)
    lying.settle_seconds = 0.5
    prepared = Run(lying)
    liar.lies = True
    try:
        with pytest.raises(Disagreement):
            prepared(PROGRAM, hashes=True)
    finally:
        liar.close()


def test_a_server_behind_by_one_write_is_caught(pair: Pair) -> None:
    put = rpcs.KV_PUT.request(key=b"a")
    pair.etcd.call(rpcs.KV_PUT, put)
    with pytest.raises(Disagreement, match=r"header\.revision"):
        pair.call(rpcs.KV_PUT, put)
