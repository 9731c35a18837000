"""Writes on a network that loses, delays and repeats: how often was each carried out?

The store is the bundled server's, in this process; the network is the test's.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcd_pinwheel import (
    AnswerLost,
    EtcdError,
    InvalidArgument,
    KeyNotFound,
    LeaseNotFound,
    NotSent,
    OutcomeUnknown,
    Refused,
    Txn,
    delete,
    get,
    put,
    value,
    version,
)
from etcd_pinwheel.client import kv, txn
from etcd_pinwheel.client.flow import CallFailed, Flow, Send
from etcd_pinwheel.client.slots import DEFAULT_PREFIX, Slots
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.etcdserverpb import (
    CompactionRequest,
    InternalRaftRequest,
    LeaseGrantRequest,
    PutRequest,
    TxnRequest,
)

from .scene import A, B, C, Scene
from .unreliable_store import Fate, UnreliableStore

SLOTS = DEFAULT_PREFIX.encode()
POLICIES = ["round_robin", "health_aware", "pinned_single", "pinned_multi"]


class Site:
    """A client of the store; each attempt has the next fate that was said, and then answers."""

    def __init__(self, policy: str = "health_aware", seed: int = 0) -> None:
        slots = Slots(SLOTS, Random(seed))
        self.scene = Scene(policy, A, B, C, seed=seed, slots=slots)
        self.store = UnreliableStore()
        self.fates: list[Fate | Callable[[], Fate]] = []
        self.draw: Callable[[], Fate] = lambda: Fate.ANSWERED

    def do(self, operation: Callable[..., Flow[Any]], *args: Any, **how: Any) -> Any:
        flow = operation(self.scene.call, *args, **{"retry": "exactly_once", **how})
        return self.scene.play(flow, self._answer)

    def warm_up(self) -> None:
        """Make the first slot, so that the next attempt is a write."""
        self.do(kv.put, "warm", "up")
        self.scene.sent.clear()

    def commit_others(self, **request: Any) -> Any:
        return self.store.apply(InternalRaftRequest(**request))

    def _answer(self, send: Send) -> Any:
        fate = self.fates.pop(0) if self.fates else self.draw
        if not isinstance(fate, Fate):
            fate = fate()
        heard = self.store.serve(send, fate)
        if fate in (Fate.DONE_AND_LATE, Fate.LOST_AND_LATE):
            assert send.timeout_seconds is not None
            self.scene.now += send.timeout_seconds
        return heard


def times(store: UnreliableStore, name: str) -> int:
    """How often a write of a key was carried out."""
    found = store.get(name.encode())
    return found.version if found is not None else 0


# Whatever the network does

WRITES: dict[str, Callable[..., Flow[Any]]] = {
    "put": lambda call, name, **how: kv.put(call, name, "v", prev_kv=True, **how),
    "put of what others may make": lambda call, name, **how: kv.put(
        call, name, ignore_value=True, **how
    ),
    "txn": lambda call, name, **how: txn.commit(
        call, Txn().when(version(name) == 0).then(put(name)).otherwise(put(name, "2")), **how
    ),
    "plain txn": lambda call, name, **how: txn.commit(call, Txn().then(put(name)), **how),
}
AT_MOST_ONCE = [fate for fate in Fate if fate not in (Fate.DONE_AND_DELAYED, Fate.DOUBLED)]
"""What a transport does that delivers an attempt once or not at all."""
COPIED = [fate for fate in Fate if fate is not Fate.DOUBLED]
"""And one that makes copies of what it has not answered."""


class Weather:
    """What becomes of every attempt, and what else goes on meanwhile."""

    def __init__(
        self, random: Random, store: UnreliableStore, fates: list[Fate], *, slots_vanish: bool
    ) -> None:
        self._random = random
        self._store = store
        self._fates = fates
        self._copies = fates is not AT_MOST_ONCE
        self._vanish = slots_vanish
        self._calm = random.random()
        self.written = ""
        self.by_others: list[str] = []
        """Keys that others have put; each once."""

    def fate(self) -> Fate:
        self.arrivals(0.4)
        if self._random.random() < 0.1 and self.written not in self.by_others:
            self.by_others.append(self.written)
            self._store.apply(InternalRaftRequest(put=PutRequest(key=self.written.encode())))
        if self._vanish and self._random.random() < 0.1:
            self._store.end_leases()
        return (
            Fate.ANSWERED
            if self._random.random() < self._calm
            else self._random.choice(self._fates)
        )

    def arrivals(self, likely: float) -> None:
        """Let what is on its way arrive, in any order; where there are copies, some of it again."""
        while self._store.on_their_way and self._random.random() < likely:
            stays = self._copies and self._random.random() < 0.3
            self._store.arrive(self._random.randrange(1000), stays=stays)

    def times(self, name: str) -> int:
        """How often our write of a key was carried out."""
        return times(self._store, name) - self.by_others.count(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retry", "fates", "slots_vanish"),
    [
        ("safe", AT_MOST_ONCE, False),
        ("at_least_once", COPIED, False),
        ("exactly_once", AT_MOST_ONCE, True),
        ("exactly_once", COPIED, True),
        ("exactly_once", list(Fate), False),
    ],
    ids=["safe", "at least once", "slots vanish", "copies, slots vanish", "copies of all"],
)
@settings(max_examples=400)
@given(seed=st.integers(0, 2**32))
def test_how_often_a_write_is_carried_out(
    retry: str, fates: list[Fate], slots_vanish: bool, seed: int
) -> None:
    random = Random(seed)
    site = Site(random.choice(POLICIES), seed)
    weather = Weather(random, site.store, fates, slots_vanish=slots_vanish)
    site.draw = weather.fate
    happened, refused = set(), set()
    names = [f"op/{number}" for number in range(4)]
    for name in names:
        weather.written = name
        try:
            site.do(WRITES[random.choice(list(WRITES))], name, retry=retry, timeout=1.0)
        except OutcomeUnknown:
            pass
        except (NotSent, Refused):
            refused.add(name)
        except AnswerLost:
            happened.add(name)
        else:
            happened.add(name)
    weather.arrivals(1.0)
    for name in names:
        count = weather.times(name)
        assert count <= 1 or retry == "at_least_once", name
        assert count >= 1 or name not in happened, name
        assert count == 0 or name not in refused, name


# What its answer was

KEYS = ["a", "b", "c"]
key_names = st.sampled_from(KEYS)
ranges = st.sampled_from([("a", None), ("b", None), ("a", "c"), ("b", "z")])


@st.composite
def operations(draw: st.DrawFn) -> Any:
    match draw(st.integers(0, 3)):
        case 0:
            return put(draw(key_names), draw(st.sampled_from("xyz")), prev_kv=draw(st.booleans()))
        case 1:
            start, end = draw(ranges)
            return delete(start, end, prev_kv=draw(st.booleans()))
        case _:
            start, end = draw(ranges)
            return get(start, end, limit=draw(st.integers(0, 2)), count_only=draw(st.booleans()))


@st.composite
def transactions(draw: st.DrawFn) -> Txn:
    branch = st.lists(operations(), max_size=4)
    wish = Txn().then(*draw(branch)).otherwise(*draw(branch))
    if draw(st.booleans()):
        wish = wish.when(value(draw(key_names)) == draw(st.sampled_from("xyz")))
    return wish


@pytest.mark.slow
@settings(max_examples=100)
@given(st.lists(st.tuples(transactions(), st.booleans()), min_size=1, max_size=5))
def test_the_first_outcome_is_found_out(program: list[tuple[Txn, bool]]) -> None:
    """The same transactions, on two stores: here all is answered, there the first answers lost."""
    plain, troubled = Site(seed=7), Site(seed=7)
    for site in (plain, troubled):
        site.warm_up()
    for wish, is_lost in program:
        told = _outcome(plain, wish)
        troubled.fates = [Fate.DONE_AND_BROKEN] if is_lost else []
        found = _outcome(troubled, wish)
        if isinstance(found, AnswerLost):
            assert is_lost
            assert "of the same keys" in str(found) or "deleted before" in str(found)
            assert found.revision == told.revision
        elif isinstance(told, EtcdError):
            assert type(found) is type(told)
            return  # to make sure of a refusal takes a revision, too
        else:
            assert found == told


def _outcome(site: Site, wish: Txn) -> Any:
    try:
        return site.do(txn.commit, wish)
    except EtcdError as error:
        return error


def test_what_a_put_and_a_delete_answered() -> None:
    site = Site()
    site.warm_up()
    first = site.do(kv.put, "k", "1")
    site.fates = [Fate.DONE_AND_BROKEN]
    second = site.do(kv.put, "k", "2", prev_kv=True)
    assert second.revision == first.revision + 1
    assert (second.prev_kv.value, second.prev_kv.version) == (b"1", 1)
    site.fates = [Fate.DONE_AND_BROKEN, Fate.DONE_AND_GAVE_UP, Fate.LOST]
    third = site.do(kv.delete, "k", prev_kv=True)
    assert (third.deleted, third.prev_kvs[0].value) == (1, b"2")
    assert third.revision == third.header.revision == second.revision + 1


def test_the_answer_is_lost_with_the_history() -> None:
    site = Site()
    site.warm_up()
    site.do(kv.put, "k", "1")

    def done_and_compacted() -> Fate:
        revision = site.store.store.revision
        site.store.apply(InternalRaftRequest(put=PutRequest(key=b"others")))
        site.store.apply(InternalRaftRequest(compaction=CompactionRequest(revision=revision + 1)))
        return Fate.ANSWERED

    site.fates = [Fate.DONE_AND_BROKEN, done_and_compacted]
    with pytest.raises(AnswerLost, match=r"carried out at revision .* compacted") as caught:
        site.do(kv.put, "k", "2", prev_kv=True)
    found = site.store.get(b"k")
    assert found is not None
    assert (found.value, found.mod_revision) == (b"2", caught.value.revision)
    site.fates = [Fate.DONE_AND_BROKEN, done_and_compacted]
    assert site.do(kv.put, "k", "3").revision > 0  # nothing has to be read for that


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (Txn().then(put("a"), get("a", "c"), put("b")), "between writes of the same keys"),
        (Txn().then(delete("a", "c"), delete("b", "d")), "deleted before"),
        (Txn().then(Txn().then(put("a"))), "a transaction in a transaction"),
        (Txn().then(put("a"), get("", prefix=True)), "between writes of the same keys"),
    ],
)
def test_what_cannot_be_found_out(wish: Txn, why: str) -> None:
    site = Site()
    site.warm_up()
    assert site.do(txn.commit, wish).succeeded
    site.fates = [Fate.DONE_AND_BROKEN]
    with pytest.raises(AnswerLost, match=why) as caught:
        site.do(txn.commit, wish)
    assert caught.value.revision == site.store.store.revision


# What it costs, and whose the slots are


def test_one_request_a_write_once_there_is_a_slot() -> None:
    site = Site()
    site.do(kv.put, "k", "v")
    assert [send.rpc for send in site.scene.sent] == [
        rpcs.LEASE_LEASE_GRANT,
        rpcs.KV_TXN,
        rpcs.KV_TXN,
    ]
    for _ in range(3):
        site.do(kv.put, "k", "v")
    assert len(site.scene.sent) == 6
    assert len(site.store.store.range(SLOTS, b"`").kvs) == 1


def test_calls_at_once_have_a_slot_each_and_one_lease() -> None:
    site = Site()
    flows = [kv.put(site.scene.call, "k", "v", retry="exactly_once") for _ in range(5)]
    steps: list[Any] = [next(flow) for flow in flows]
    assert {type(step.request) for step in steps} == {LeaseGrantRequest}
    results = []
    while flows:
        left = []
        for flow, step in zip(flows, steps, strict=True):
            heard = site.store.serve(step, Fate.ANSWERED)
            try:
                if isinstance(heard, CallFailed):
                    left.append((flow, flow.throw(heard)))
                else:
                    left.append((flow, flow.send(heard)))
            except StopIteration as stop:
                results.append(stop.value)
        flows, steps = [flow for flow, _ in left], [step for _, step in left]
    assert len({result.revision for result in results}) == 5
    slots = site.store.store.range(SLOTS, b"`").kvs
    assert len(slots) == 5
    assert len({slot.lease for slot in slots}) == 1


def test_a_transaction_that_only_reads_needs_no_slot() -> None:
    site = Site()
    site.do(txn.commit, Txn().then(get("k")))
    assert [send.rpc for send in site.scene.sent] == [rpcs.KV_TXN]


def test_a_slot_that_somebody_takes_away_costs_another_one() -> None:
    site = Site()
    site.warm_up()
    site.store.end_leases()
    assert site.do(kv.put, "k", "v").revision > 0
    assert times(site.store, "k") == 1


def test_a_slot_that_somebody_changes_is_not_taken_for_a_write_that_was_done() -> None:
    site = Site()
    site.warm_up()
    (slot,) = site.store.store.range(SLOTS, b"`").kvs
    site.store.apply(InternalRaftRequest(put=PutRequest(key=slot.key, value=b"x" * 17)))
    site.do(kv.put, "k", "v")
    assert times(site.store, "k") == 1


def test_with_the_slot_gone_and_an_attempt_in_doubt_it_is_not_known() -> None:
    site = Site()
    site.warm_up()

    def leases_end() -> Fate:
        site.store.end_leases()
        return Fate.ANSWERED

    site.fates = [Fate.LOST, leases_end]
    with pytest.raises(OutcomeUnknown, match="the marker of this write is gone"):
        site.do(kv.put, "k", "v")
    site.do(kv.put, "k", "v")
    assert times(site.store, "k") == 1


def test_a_refusal_in_doubt_is_made_sure_of() -> None:
    """Its first attempt may still arrive: it is kept out, and then the refusal is the truth."""
    site = Site()
    site.warm_up()
    site.fates = [Fate.DELAYED]
    with pytest.raises(KeyNotFound):
        site.do(kv.put, "k", ignore_value=True)
    site.store.apply(InternalRaftRequest(put=PutRequest(key=b"k", value=b"others")))
    assert len(site.store.on_their_way) == 1
    site.store.arrive(0)
    assert times(site.store, "k") == 1


def test_a_refusal_after_it_was_carried_out_is_none() -> None:
    site = Site()
    site.warm_up()
    site.store.apply(InternalRaftRequest(put=PutRequest(key=b"k", value=b"others")))

    def deleted() -> Fate:
        site.store.apply(InternalRaftRequest(delete_range={"key": b"k"}))
        return Fate.ANSWERED

    site.fates = [Fate.DONE_AND_BROKEN, deleted]
    done = site.do(kv.put, "k", ignore_value=True, prev_kv=True)
    assert done.prev_kv.value == b"others"
    assert done.revision == site.store.store.revision - 1


def test_a_refusal_without_doubt_is_raised_and_the_slot_is_used_again() -> None:
    site = Site()
    site.warm_up()
    with pytest.raises(LeaseNotFound):
        site.do(kv.put, "k", "v", lease=99)
    site.do(kv.put, "k", "v")
    assert len(site.scene.sent) == 2


def test_nothing_was_sent_when_no_slot_could_be_made() -> None:
    site = Site()
    site.draw = lambda: Fate.LOST
    with pytest.raises(NotSent, match="its marker could not be made"):
        site.do(kv.put, "k", "v", timeout=0.5)
    assert all(send.rpc is rpcs.LEASE_LEASE_GRANT for send in site.scene.sent)


def test_an_interrupted_write_does_not_give_its_slot_to_the_next() -> None:
    site = Site()
    site.warm_up()
    flow = kv.put(site.scene.call, "k", "v", retry="exactly_once")
    step = next(flow)
    assert isinstance(step, Send)
    flow.close()
    site.do(kv.put, "other", "v")
    site.store.serve(step, Fate.ANSWERED)
    assert times(site.store, "other") == times(site.store, "k") == 1


def test_a_sweeping_deletion_spares_the_slots() -> None:
    site = Site()
    site.warm_up()
    for key in ("A", "_", "__etcd", "z"):
        site.do(kv.put, key, "v")
    answered = site.do(kv.delete, "", prefix=True, prev_kv=True)
    assert answered.deleted == 5
    assert [each.key for each in answered.prev_kvs] == [b"A", b"_", b"__etcd", b"warm", b"z"]
    left = site.store.store.range(b"\0", b"\0").kvs
    assert [each.key.startswith(SLOTS) for each in left] == [True]
    site.do(kv.put, "A", "v")
    site.do(kv.put, "z", "v")
    site.fates = [Fate.DONE_AND_BROKEN]
    assert site.do(kv.delete_prefix, "").deleted == 2


@pytest.mark.parametrize(
    "misuse",
    [
        lambda call: kv.put(call, DEFAULT_PREFIX + "x", retry="exactly_once"),
        lambda call: kv.delete(call, DEFAULT_PREFIX, prefix=True, retry="exactly_once"),
        lambda call: kv.delete(call, DEFAULT_PREFIX + "x", retry="exactly_once"),
        lambda call: txn.commit(
            call, Txn().then(Txn().otherwise(delete("", prefix=True))), retry="exactly_once"
        ),
    ],
)
def test_what_changes_the_slots_is_a_misuse(misuse: Callable[..., Flow[Any]]) -> None:
    site = Site()
    with pytest.raises(InvalidArgument, match="cannot be made to happen exactly once"):
        site.scene.play(misuse(site.scene.call), lambda _: pytest.fail("sent"))


def test_how_many_operations_fit() -> None:
    """Of etcd's 128 the slot takes one, and one more where there are conditions."""
    site = Site()
    for conditions, most in (((), 127), ((version("k") == 0,), 126)):
        fits = Txn().when(*conditions).then(*(put(f"k/{number}") for number in range(most)))
        assert len(site.do(txn.commit, fits).responses) == most
        with pytest.raises(Refused, match="too many operations"):
            site.do(txn.commit, fits.then(put("one more")))


def test_a_repeat_waits_its_turn_and_has_its_share_of_the_time() -> None:
    site = Site()
    site.warm_up()
    site.fates = [Fate.LOST_AND_LATE]
    site.do(kv.put, "k", "v", timeout=10.0)
    first, second = site.scene.sent
    assert first.timeout_seconds == pytest.approx(4.0)
    assert second.timeout_seconds == pytest.approx(3.0, abs=0.1)
    assert isinstance(second.request, TxnRequest)
    assert first.request == second.request
