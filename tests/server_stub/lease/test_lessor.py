"""The lessor, with time as an argument."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from etcd_pinwheel.protos import leasepb
from etcd_pinwheel.protos.errors import (
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    LEASE_TTL_TOO_LARGE,
    Refusal,
    Refused,
)
from etcd_pinwheel.server_stub.lease.lessor import MAX_TTL_SECONDS, REVOKES_PER_SECOND, Lessor


def primary(min_ttl_seconds: int = 2, *, checkpoints: bool = False) -> Lessor:
    lessor = Lessor(min_ttl_seconds, checkpoints=checkpoints)
    lessor.promote(0.0, 0.0)
    return lessor


@pytest.mark.parametrize(
    ("asked", "granted"),
    [(-1, 2), (0, 2), (1, 2), (2, 2), (3, 3), (MAX_TTL_SECONDS, MAX_TTL_SECONDS)],
)
def test_a_ttl_under_the_minimum_is_raised(asked: int, granted: int) -> None:
    assert primary().grant(1, asked, 0.0).ttl_seconds == granted


REFUSALS: list[tuple[Callable[[Lessor], object], Refusal]] = [
    (lambda lessor: lessor.grant(0, 10, 0.0), LEASE_NOT_FOUND),
    (lambda lessor: lessor.grant(1, 10, 0.0), LEASE_EXISTS),
    (lambda lessor: lessor.grant(2, MAX_TTL_SECONDS + 1, 0.0), LEASE_TTL_TOO_LARGE),
    (lambda lessor: lessor.grant(1, MAX_TTL_SECONDS + 1, 0.0), LEASE_TTL_TOO_LARGE),
    (lambda lessor: lessor.remove(9), LEASE_NOT_FOUND),
    (lambda lessor: lessor.renew(9, 0.0), LEASE_NOT_FOUND),
    (lambda lessor: lessor.renew(1, 10.0), LEASE_NOT_FOUND),
    (lambda lessor: lessor.time_to_live(9, 0.0), LEASE_NOT_FOUND),
    (lambda lessor: lessor.attach(9, b"k"), LEASE_NOT_FOUND),
]


@pytest.mark.parametrize(("act", "refusal"), REFUSALS)
def test_what_it_refuses(act: Callable[[Lessor], object], refusal: Refusal) -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    with pytest.raises(Refused) as caught:
        act(lessor)
    assert caught.value.refusal is refusal
    lessor._check()


def test_a_key_hangs_on_one_lease_at_a_time() -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    lessor.grant(2, 10, 0.0)
    lessor.attach(1, b"k")
    lessor.attach(2, b"k")
    assert lessor.lease_of(b"k") == 2
    assert (lessor.lease(1).keys, lessor.lease(2).keys) == (set(), {b"k"})
    lessor.detach(b"k")
    lessor.detach(b"k")
    assert lessor.lease_of(b"k") == 0
    lessor._check()


def test_a_removed_lease_lets_go_of_its_keys() -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    lessor.attach(1, b"k")
    lessor.remove(1)
    assert (lessor.exists(1), lessor.lease_of(b"k")) == (False, 0)
    lessor._check()


@pytest.mark.parametrize(("now", "left"), [(0.0, 10), (0.1, 9), (9.5, 0), (10.5, 0), (11.5, -1)])
def test_time_to_live_is_cut_towards_zero(now: float, left: int) -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    assert lessor.time_to_live(1, now) == left


def test_only_the_primary_lets_time_run() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 10, 0.0)
    assert lessor.expired(1e9) == []
    lessor.promote(100.0, 1.0)
    assert lessor.expired(110.9) == []
    lessor.demote()
    assert lessor.expired(1e9) == []
    assert lessor.lease(1).expiry == inf
    lessor._check()


def test_an_expired_lease_is_named_once_and_again_after_a_while() -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    assert lessor.expired(9.9) == []
    assert lessor.expired(10.0) == [1]
    assert lessor.expired(12.9) == []
    assert lessor.expired(13.0) == [1]
    lessor.remove(1)
    assert lessor.expired(100.0) == []
    lessor._check()


def test_whether_there_is_anything_to_do() -> None:
    lessor = primary(checkpoints=True)
    assert not lessor.has_due(1e9)
    lessor.grant(1, 10, 0.0)
    lessor.grant(2, 1000, 0.0)
    assert not lessor.has_due(9.9)
    assert lessor.has_due(10.0)
    lessor.remove(1)
    assert lessor.expired(10.0) == []
    assert not lessor.has_due(299.9)
    assert lessor.has_due(300.0)
    lessor.demote()
    assert not lessor.has_due(1e9)


def test_a_renewed_lease_does_not_expire() -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    assert lessor.renew(1, 9.0) == 10
    assert lessor.expired(18.9) == []
    assert lessor.expired(19.0) == [1]


def test_a_lease_granted_again_under_its_old_id_starts_afresh() -> None:
    lessor = primary()
    lessor.grant(1, 10, 0.0)
    lessor.remove(1)
    lessor.grant(1, 20, 0.0)
    assert lessor.expired(10.0) == []
    assert lessor.expired(20.0) == [1]
    lessor._check()


def test_expired_leases_come_in_order_and_in_bounded_portions() -> None:
    lessor = primary()
    for lease_id in range(1, 8):
        lessor.grant(lease_id, 20 - lease_id, 0.0)
    assert lessor.expired(100.0, limit=3) == [7, 6, 5]
    assert lessor.expired(100.0, limit=3) == [4, 3, 2]
    assert [lease.id for lease in lessor.leases()] == [7, 6, 5, 4, 3, 2, 1]


def test_a_new_primary_gives_every_lease_its_span_and_an_extension() -> None:
    lessor = Lessor(2)
    lessor.recover([leasepb.Lease(ID=1, TTL=10), leasepb.Lease(ID=2, TTL=10, RemainingTTL=4)])
    lessor.promote(100.0, 1.0)
    assert [(lease.id, lease.expiry) for lease in lessor.leases()] == [(2, 105.0), (1, 111.0)]
    assert lessor.renew(2, 101.0) == 10
    assert lessor.time_to_live(2, 101.0) == 10


def test_leases_that_would_expire_together_are_spread() -> None:
    lessor = Lessor(2)
    number = 3 * REVOKES_PER_SECOND
    lessor.recover(leasepb.Lease(ID=lease_id, TTL=10) for lease_id in range(1, number + 1))
    lessor.promote(0.0, 0.0)
    in_second = [0] * 30
    for lease in lessor.leases():
        in_second[int(lease.expiry)] += 1
    assert sum(in_second) == number
    assert max(in_second) <= REVOKES_PER_SECOND
    assert in_second[:10] == [0] * 10


def test_checkpoints_tell_what_is_left_of_long_leases() -> None:
    lessor = primary(checkpoints=True)
    lessor.grant(1, 1000, 0.0)
    lessor.grant(2, 60, 0.0)
    assert lessor.due_checkpoints(299.0) == []
    assert lessor.due_checkpoints(300.0) == [(1, 700)]
    assert lessor.due_checkpoints(900.0) == []
    assert lessor.checkpoint(1, 700, 300.0) is not None
    assert lessor.due_checkpoints(600.0) == [(1, 400)]
    assert lessor.lease(1).to_record() == leasepb.Lease(ID=1, TTL=1000, RemainingTTL=700)
    assert lessor.checkpoint(9, 1, 300.0) is None
    lessor.renew(1, 600.0)
    assert lessor.lease(1).remaining_seconds == 0


def test_a_renewal_has_to_clear_what_the_log_says_or_will_say() -> None:
    lessor = primary(checkpoints=True)
    lessor.grant(1, 1000, 0.0)
    assert not lessor.must_clear_checkpoint(1, 0.0)
    assert lessor.due_checkpoints(300.0) == [(1, 700)]
    assert lessor.must_clear_checkpoint(1, 300.0), "it is under way"
    lessor.checkpoint(1, 700, 300.0)
    assert lessor.must_clear_checkpoint(1, 599.0)
    assert lessor.due_checkpoints(600.0) == [], "not before that is cleared"
    lessor.checkpoint(1, 0, 600.0)
    assert not lessor.must_clear_checkpoint(1, 600.0)


def test_checkpoints_that_failed_are_due_again_after_a_while() -> None:
    lessor = primary(checkpoints=True)
    for lease_id in (1, 2, 3):
        lessor.grant(lease_id, 1000, 0.0)
    assert lessor.due_checkpoints(300.0) == [(1, 700), (2, 700), (3, 700)]
    lessor.remove(1)
    lessor.checkpoint(2, 700, 300.0)
    lessor.checkpoints_failed([1, 2, 3], 300.0)
    assert lessor.due_checkpoints(302.9) == []
    assert lessor.due_checkpoints(303.0) == [(3, 697)]
    lessor.demote()
    lessor.checkpoints_failed([3], 310.0)
    lessor.promote(310.0, 0.0)
    assert lessor.due_checkpoints(320.0) == []
    assert not lessor.must_clear_checkpoint(3, 320.0)


def test_no_checkpoints_unless_asked_for() -> None:
    lessor = primary()
    lessor.grant(1, 1000, 0.0)
    assert lessor.due_checkpoints(1e6) == []


class LessorAgainstTwin(RuleBasedStateMachine):
    """Random programs against a twin that knows only {lease: (ttl, expiry, keys)}."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.lessor = primary()
        self.twin: dict[int, tuple[int, float, set[bytes]]] = {}

    ids = st.integers(1, 5)
    keys = st.sampled_from([b"a", b"b", b"c"])

    @rule(lease_id=ids, ttl=st.integers(0, 9))
    def grant(self, lease_id: int, ttl: int) -> None:
        if lease_id in self.twin:
            with pytest.raises(Refused):
                self.lessor.grant(lease_id, ttl, self.now)
            return
        self.lessor.grant(lease_id, ttl, self.now)
        ttl = max(ttl, 2)
        self.twin[lease_id] = (ttl, self.now + ttl, set())

    @precondition(lambda self: self.twin)
    @rule(data=st.data(), key=keys)
    def attach(self, data: st.DataObject, key: bytes) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.twin)))
        self.lessor.attach(lease_id, key)
        for _, _, held in self.twin.values():
            held.discard(key)
        self.twin[lease_id][2].add(key)

    @precondition(lambda self: self.twin)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.twin)))
        self.lessor.remove(lease_id)
        del self.twin[lease_id]

    @precondition(lambda self: self.twin)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.twin)))
        ttl, expiry, keys = self.twin[lease_id]
        if expiry <= self.now:
            with pytest.raises(Refused):
                self.lessor.renew(lease_id, self.now)
            return
        assert self.lessor.renew(lease_id, self.now) == ttl
        self.twin[lease_id] = (ttl, self.now + ttl, keys)

    @rule(seconds=st.integers(1, 4))
    def pass_time_and_revoke(self, seconds: int) -> None:
        self.now += seconds
        gone = sorted(id_ for id_, lease in self.twin.items() if lease[1] <= self.now)
        assert sorted(self.lessor.expired(self.now)) == gone
        for lease_id in gone:
            self.lessor.remove(lease_id)
            del self.twin[lease_id]

    @invariant()
    def agree(self) -> None:
        self.lessor._check()
        seen = {
            lease.id: (lease.ttl_seconds, lease.expiry, lease.keys)
            for lease in self.lessor.leases()
        }
        assert seen == self.twin


TestLessorAgainstTwin = LessorAgainstTwin.TestCase
TestLessorAgainstTwin.settings = settings(max_examples=60, stateful_step_count=40)
