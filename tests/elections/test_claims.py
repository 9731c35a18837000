"""Claims: who holds, whom to wait for, and that every write may be repeated."""

from __future__ import annotations

from typing import Any

import pytest
from elections.store import Store, StoreCall, run
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import (
    Compacted,
    ConnectionLost,
    InvalidArgument,
    KeyValue,
    NoLeader,
    NotSent,
    PermissionDenied,
    ReplyTooLarge,
    TimedOut,
)
from etcd_pinwheel.client import claim
from etcd_pinwheel.client.error_handler import Kind
from etcd_pinwheel.protos.errors import Code

JOB = b"job/"


def kv(key: bytes, created: int) -> KeyValue:
    return KeyValue(key, b"", created, created, 1, 1)


def test_the_oldest_claim_holds() -> None:
    assert claim.holder_among([]) is None
    a, b, c = kv(b"job/a", 7), kv(b"job/b", 5), kv(b"job/c", 5)
    assert claim.holder_among([a, c, b]) is b


def test_where_claims_are() -> None:
    assert claim.prefix_of("job") == b"job/"
    assert claim.prefix_of("job/") == b"job//", "as clientv3 has it"
    assert claim.key_of(b"job/", 0x694D9F) == b"job/694d9f"
    with pytest.raises(InvalidArgument, match="a name is needed"):
        claim.prefix_of("")


@pytest.mark.parametrize(
    ("kind", "passing"),
    [
        (NotSent, True),
        (TimedOut, True),
        (ConnectionLost, True),
        (NoLeader, True),
        (ReplyTooLarge, False),
        (PermissionDenied, False),
        (Compacted, False),
    ],
)
def test_what_may_pass(kind: Any, passing: bool) -> None:
    assert claim.passes(kind("...", code=Code.UNKNOWN)) is passing


def test_entering_and_looking_in_line() -> None:
    store, call = Store(), StoreCall()
    store.put(b"job/unrelated", b"")
    store.delete(b"job/unrelated")
    entries = [run(claim.enter(call, JOB, lease, b"v"), store) for lease in (3, 2, 1)]
    assert [entry.holds for entry in entries] == [True, False, False]
    assert run(claim.holder(call, JOB), store) == entries[0].own
    lines = [run(claim.look(call, JOB, entry.own), store) for entry in entries]
    assert [line.holds for line in lines] == [True, False, False]
    ahead = [line.ahead and line.ahead.key for line in lines]
    assert ahead == [None, b"job/3", b"job/2"], "each waits for the one just before it"
    store.revoke(2)
    line = run(claim.look(call, JOB, entries[2].own), store)
    assert line.ahead.key == b"job/3"
    line = run(claim.look(call, JOB, entries[1].own), store)
    assert (line.own, line.holds) == (None, False)


def test_a_key_made_anew_is_another_claim() -> None:
    store, call = Store(), StoreCall()
    first = run(claim.enter(call, JOB, 1, b"v"), store)
    run(claim.enter(call, JOB, 2, b"v"), store)
    store.delete(first.own.key)
    again = run(claim.enter(call, JOB, 1, b"v"), store)
    assert not again.holds
    assert run(claim.look(call, JOB, first.own), store).own is None
    assert run(claim.rename(call, first.own, 1, b"w"), store) is None
    run(claim.leave(call, first.own.key, 1, first.own.create_revision), store)
    assert first.own.key in store.keys, "only what was entered is deleted"
    run(claim.leave(call, first.own.key, 1, None), store)
    assert first.own.key not in store.keys


def test_entering_twice_is_entering_once() -> None:
    store, call = Store(), StoreCall()
    first = run(claim.enter(call, JOB, 1, b"v"), store)
    again = run(claim.enter(call, JOB, 1, b"v"), store)
    assert first.own == again.own
    renamed = run(claim.enter(call, JOB, 1, b"w"), store)
    assert renamed.own.create_revision == first.own.create_revision
    assert store.keys[first.own.key].value == b"w"


def test_a_value_told_again_is_written_again() -> None:
    store, call = Store(), StoreCall()
    own = run(claim.enter(call, JOB, 1, b"v"), store).own
    again = run(claim.rename(call, own, 1, b"v"), store)
    assert again.version == 2


def test_all_writes_are_sent_as_repeatable() -> None:
    store, call = Store(), StoreCall()
    own = run(claim.enter(call, JOB, 1, b"v"), store).own
    run(claim.rename(call, own, 1, b"w"), store)
    run(claim.leave(call, own.key, 1, own.create_revision), store)
    assert call.kinds == [Kind.REPEATABLE] * 3


def repeatedly(flow: Any, store: Store, counts: list[int], late: list[Any]) -> Any:
    """Carry a flow out over a network that delivers requests again, and late ones after others."""
    try:
        request = next(flow)
        while True:
            for _ in range(counts.pop() if counts else 0):
                store.answer(request)
            late.append(request)
            reply = store.answer(request)
            if counts and counts[-1] % 2:
                store.answer(late[counts[-1] % len(late)])
            request = flow.send(reply)
    except StopIteration as stop:
        return stop.value


@given(
    st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), max_size=30),
)
def test_values_are_told_once_and_in_order_whatever_is_repeated(
    values: list[bytes], counts: list[int]
) -> None:
    store, call, late = Store(), StoreCall(), []
    own = repeatedly(claim.enter(call, JOB, 1, b"first"), store, counts, late).own
    told = [b"first"]
    for value in values:
        own = repeatedly(claim.rename(call, own, 1, value), store, counts, late)
        assert own == KeyValue.of(store.keys[own.key])
        told.append(value)
    assert [event.kv.value for _, event in store.history] == told
    repeatedly(claim.leave(call, own.key, 1, own.create_revision), store, counts, [])
    assert own.key not in store.keys


def test_a_claim_is_looked_for_as_long_as_it_takes() -> None:
    store, call = Store(), StoreCall()
    own = run(claim.enter(call, JOB, 1, b"v"), store).own
    flow = claim.still_held(call, own, lambda: True)
    next(flow)
    flow.throw(NotSent("...", code=Code.UNAVAILABLE))
    request = next(flow)
    with pytest.raises(StopIteration) as stop:
        flow.send(store.answer(request))
    assert stop.value.value == store.revision
    refused = claim.still_held(call, own, lambda: True)
    next(refused)
    with pytest.raises(StopIteration) as stop:
        refused.throw(PermissionDenied("...", code=Code.PERMISSION_DENIED))
    assert stop.value.value == 0
    assert run(claim.still_held(call, own, lambda: False), store) == 0
    store.delete(own.key)
    assert run(claim.still_held(call, own, lambda: True), store) == 0
