"""Writes that are repeated because it was asked for: the test is the world, the clock a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcd_pinwheel import (
    Client,
    ConnectionLost,
    InvalidArgument,
    LeaseNotFound,
    NoLeader,
    NotSent,
    TimedOut,
)
from etcd_pinwheel import put as put_op
from etcd_pinwheel.client import kv, lease, maintenance, members, txn
from etcd_pinwheel.client.call import Call
from etcd_pinwheel.client.flow import CallFailed, Flow, Send
from etcd_pinwheel.client.retries import CutShort
from etcd_pinwheel.client.txn import Txn
from etcd_pinwheel.client.txn import get as get_op
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.etcdserverpb import (
    DeleteRangeResponse,
    PutResponse,
    RangeResponse,
    ResponseHeader,
    TxnResponse,
)

from .scene import A, B, C, Scene

HEADER = ResponseHeader(revision=8)
REPLIES = {
    rpcs.KV_PUT: PutResponse(header=HEADER),
    rpcs.KV_DELETE_RANGE: DeleteRangeResponse(header=HEADER, deleted=1),
    rpcs.KV_TXN: TxnResponse(header=HEADER, succeeded=True),
}
WRITES: dict[str, Callable[..., Flow[Any]]] = {
    "put": lambda call, **how: kv.put(call, "k", "v", **how),
    "delete": lambda call, **how: kv.delete(call, "k", **how),
    "delete_prefix": lambda call, **how: kv.delete_prefix(call, "k", **how),
    "commit": lambda call, **how: txn.commit(call, Txn().then(put_op("k", "v")), **how),
}
NOT_SENT = CallFailed(Code.UNAVAILABLE, "failed to connect to all addresses")
BROKEN = CallFailed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
GAVE_UP = CallFailed(Code.UNAVAILABLE, table.LEADER_CHANGED.text)
NO_LEASE = CallFailed(Code.NOT_FOUND, table.LEASE_NOT_FOUND.text)
NO_LEADER = CallFailed(Code.UNAVAILABLE, table.NO_LEADER.text)
POLICIES = ("round_robin", "health_aware")


def write(scene: Scene, name: str, *failures: CallFailed, **how: Any) -> Any:
    """Let a write fail in these ways before it is answered."""
    left = list(failures)
    return scene.play(
        WRITES[name](scene.call, **how),
        lambda send: left.pop(0) if left else REPLIES[send.rpc],
    )


def put_forever(scene: Scene, first: CallFailed, then: CallFailed) -> None:
    flow = kv.put(scene.call, "k", "v", retry="at_least_once", timeout=1.0)
    scene.play(flow, lambda _: first if len(scene.sent) == 1 else then)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("failure", [BROKEN, GAVE_UP])
def test_at_least_once_repeats_what_may_have_been_carried_out(
    policy: str, name: str, failure: CallFailed
) -> None:
    scene = Scene(policy, A, B, C)
    assert write(scene, name, failure, failure, retry="at_least_once").revision == 8
    assert len(scene.sent) == 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", WRITES)
def test_safe_does_not(policy: str, name: str) -> None:
    scene = Scene(policy, A, B, C)
    with pytest.raises(ConnectionLost):
        write(scene, name, BROKEN)
    assert len(scene.sent) == 1


@pytest.mark.parametrize("name", WRITES)
def test_the_call_goes_before_the_client(name: str) -> None:
    scene = Scene("round_robin", A, B, C, retry="at_least_once")
    write(scene, name, BROKEN)
    assert len(scene.sent) == 2
    with pytest.raises(ConnectionLost):
        write(scene, name, BROKEN, retry="safe")
    assert len(scene.sent) == 3


@pytest.mark.parametrize("last", [NO_LEASE, NO_LEADER, NOT_SENT])
def test_a_refusal_does_not_hide_that_an_earlier_attempt_may_have_been_carried_out(
    last: CallFailed,
) -> None:
    """After a refusal nothing has changed, says the tree of errors."""
    scene = Scene("health_aware", A, B)
    with pytest.raises(ConnectionLost, match=f"; later: {last.text}"):
        put_forever(scene, BROKEN, last)


CHANGES: dict[str, Callable[[Call], Flow[Any]]] = {
    "grant": lambda call: lease.grant(call, 60, timeout=1.0),
    "revoke": lambda call: lease.revoke(call, 7, timeout=1.0),
    "disarm": lambda call: maintenance.disarm(call, timeout=1.0),
}


@pytest.mark.parametrize("last", [NO_LEADER, NOT_SENT])
@pytest.mark.parametrize("name", CHANGES)
def test_nor_does_it_where_every_policy_repeats(name: str, last: CallFailed) -> None:
    scene = Scene("health_aware", A, B)
    with pytest.raises(ConnectionLost, match=f"; later: {last.text}"):
        scene.play(CHANGES[name](scene.call), lambda _: BROKEN if len(scene.sent) == 1 else last)


def test_a_lease_that_an_earlier_attempt_may_have_revoked_is_gone() -> None:
    scene = Scene("health_aware", A, B)
    flow = CHANGES["revoke"](scene.call)
    with pytest.raises(LeaseNotFound):
        scene.play(flow, lambda _: BROKEN if len(scene.sent) == 1 else NO_LEASE)


@pytest.mark.parametrize(
    ("failure", "error"), [(NO_LEASE, LeaseNotFound), (NO_LEADER, NoLeader), (NOT_SENT, NotSent)]
)
def test_a_refusal_of_all_attempts_is_one(failure: CallFailed, error: type[Exception]) -> None:
    scene = Scene("health_aware", A, B)
    with pytest.raises(error):
        put_forever(scene, failure, failure)


def test_a_transaction_that_only_reads_may_end_with_a_refusal() -> None:
    scene = Scene("health_aware", A, B)
    flow = txn.commit(scene.call, Txn().then(get_op("k")), retry="at_least_once", timeout=1.0)
    with pytest.raises(NoLeader):
        scene.play(flow, lambda _: BROKEN if len(scene.sent) == 1 else NO_LEADER)


@pytest.mark.parametrize("retry", ["at_least_once"])
def test_the_first_attempt_of_a_write_that_is_repeated_leaves_time_for_another(retry: Any) -> None:
    scene = Scene("health_aware", A, B)
    for asked, seconds in ((retry, 2.0), ("safe", 5.0)):
        flow = kv.put(scene.call, "k", "v", retry=asked)
        step = next(flow)
        assert isinstance(step, Send)
        assert step.timeout_seconds == pytest.approx(seconds)
        flow.close()


def hanging(scene: Scene) -> Callable[[Send], CallFailed]:
    """Let every attempt take all the time that it has, in vain."""

    def hang(send: Send) -> CallFailed:
        assert send.timeout_seconds is not None
        scene.now += send.timeout_seconds
        return CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    return hang


def test_a_write_that_is_lost_with_its_leader_twice_has_time_for_a_third_attempt() -> None:
    scene = Scene("health_aware", A, B, C)
    scene.attempt_seconds = 0.0

    with pytest.raises(TimedOut):
        scene.play(kv.put(scene.call, "k", "v", retry="at_least_once"), hanging(scene))
    assert [send.timeout_seconds for send in scene.sent] == pytest.approx([2.0, 1.5, 1.5])
    scene = Scene("health_aware", A, B, C)
    scene.attempt_seconds = 0.0
    with pytest.raises(NotSent, match="marker could not be made"):  # which is a write, too
        scene.play(kv.put(scene.call, "k", "v", retry="exactly_once"), hanging(scene))
    assert [send.timeout_seconds for send in scene.sent] == pytest.approx([2.0, 1.5, 1.5])
    scene = Scene("health_aware", A, B, C)
    scene.attempt_seconds = 0.0
    with pytest.raises(TimedOut):
        scene.play(kv.get(scene.call, "k"), hanging(scene))
    assert [send.timeout_seconds for send in scene.sent] == pytest.approx([2.0, 3.0])


@pytest.mark.parametrize("name", WRITES)
def test_what_is_no_way_to_retry_is_a_misuse(name: str) -> None:
    scene = Scene("round_robin", A)
    with pytest.raises(InvalidArgument, match="retry: one of safe, at_least_once"):
        WRITES[name](scene.call, retry="twice")
    assert scene.sent == []


def test_the_setting_reaches_the_calls() -> None:
    client = Client("a:1", retry="at_least_once")
    assert client._call.retry == "at_least_once"


@pytest.mark.parametrize("retry", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize(
    "change",
    [
        lambda call: lease.grant(call, 10, id=7),
        lambda call: kv.compact(call, 5),
        lambda call: members.add(call, ["http://d:2380"]),
    ],
    ids=["a grant with an id of the caller's own", "a compaction", "a new member"],
)
def test_what_writes_no_keys_is_as_under_safe_whatever_the_client_says(
    change: Callable[[Any], Flow[Any]], retry: Any
) -> None:
    scene = Scene("health_aware", A, B, C, retry=retry)
    with pytest.raises(ConnectionLost):
        scene.play(change(scene.call), lambda _: BROKEN)
    assert len(scene.sent) == 1


# Reads that are cut short


def test_a_read_is_not_cut_short_when_nothing_is_answered() -> None:
    """A second attempt of what is only late would add to what made it late."""
    scene = Scene("health_aware", A, B, C)
    scene.attempt_seconds = 0.0
    hangs = True

    def late(send: Send) -> RangeResponse | CallFailed:
        assert send.timeout_seconds is not None
        if not hangs:
            return RangeResponse()
        scene.now += send.timeout_seconds
        return CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")

    sent = []
    for hangs in (True, True, True, *[False] * 10, True):
        scene.sent.clear()
        if hangs:
            with pytest.raises(TimedOut):
                scene.play(kv.get(scene.call, "k"), late)
            sent.append([send.timeout_seconds for send in scene.sent])
        else:
            scene.play(kv.get(scene.call, "k"), late)
    assert sent == [
        pytest.approx([2.0, 3.0]),
        pytest.approx([2.0, 3.0]),
        pytest.approx([5.0]),
        pytest.approx([2.0, 3.0]),
    ]


def test_a_read_is_not_cut_short_when_the_last_one_took_nearly_as_long() -> None:
    cut_short = CutShort(0.4)
    given = []
    for cut_short.latest in (0.0, 0.1, 0.6, 1.0, 10.0):
        given.append(cut_short.seconds(5.0))
    assert given == pytest.approx([2.0, 2.0, 2.4, 4.0, 5.0])


def test_a_write_that_may_be_repeated_is_cut_short_whatever_happens() -> None:
    scene = Scene("health_aware", A, B, C)
    scene.attempt_seconds = 0.0

    for _ in range(5):
        scene.sent.clear()
        with pytest.raises(TimedOut):
            scene.play(kv.put(scene.call, "k", "v", retry="at_least_once"), hanging(scene))
        assert len(scene.sent) == 3
