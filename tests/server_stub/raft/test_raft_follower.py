"""Replication at a follower: what fits its log, what it answers, and when its log was lost."""

from __future__ import annotations

from itertools import permutations

import pytest
from group import (
    Group,
    append,
    core,
    elected,
    entries_of,
    log_terms,
    only,
    run,
)

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import LogLost
from etcd_pinwheel.server_stub.raft.messages import Message

FAST_REJECTION = [
    # leader's log, follower's log, the rejected (index, term), the hint (term, index), next probe
    ([1, 3, 3, 3, 5, 5, 5, 5, 5], [1, 1, 1, 1, 2, 2], (2, 6), (1, 1)),
    ([1, 3, 3, 3, 5, 5, 5, 5, 5], [1, 1, 1, 1, 1, 1], (1, 6), (1, 1)),
    ([1, 2, 2, 5, 5, 5, 5, 5, 5], [1, 1, 1, 3, 3, 4, 4], (4, 7), (2, 3)),
    ([1, 1, 1, 1, 1, 5, 5], [1, 1, 1, 1, 1, 4, 4], (4, 7), (1, 5)),
    ([1, 2, 2, 2, 2], [1, 2, 2], (2, 3), (2, 3)),
    ([1, 1, 1, 4, 4, 4, 4], [1, 2, 2, 2, 2], (2, 5), (1, 3)),
    ([1, 3, 3, 3, 3], [1, 2, 2, 2], (2, 4), (1, 1)),
]


@pytest.mark.parametrize(("leads", "follows", "hint", "probe"), FAST_REJECTION)
def test_both_sides_skip_terms_to_find_where_they_agree(
    leads: list[int], follows: list[int], hint: tuple[int, int], probe: tuple[int, int]
) -> None:
    """At most one probe per term, not one per entry."""
    leader = elected(core(terms=leads, voters=[1, 2], pre_vote=False))
    follower = core(2, terms=follows, voters=[1, 2])
    last = len(leads)
    follower.step(
        Message(raftpb.MsgApp, 2, 1, leader.term, log_term=leads[-1], index=last, entries=())
    )
    (rejection,) = run(follower)
    assert (rejection.reject, rejection.log_term, rejection.reject_hint) == (True, *hint)
    leader.step(rejection)
    (again,) = only(leader.messages(), raftpb.MsgApp)
    assert (again.log_term, again.index) == probe


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_appends_may_arrive_in_any_order_and_twice(order: tuple[int, ...]) -> None:
    follower = core(1, terms=[1])
    steps = [(1, 1, [2]), (2, 2, [2, 2]), (4, 2, [3]), (5, 3, [4])]
    for place in (*order, *order, *range(4)):
        index, term, terms = steps[place]
        append(follower, index, term, terms)
    assert log_terms(follower) == [1, 2, 2, 2, 3, 4]


def test_a_late_append_does_not_cut_off_what_came_after_it() -> None:
    """Only a conflict does; else acknowledged entries would be lost (paper 5.3, step 3)."""
    follower = core(terms=[1])
    append(follower, 1, 1, [2, 2, 2])
    run(follower)
    append(follower, 1, 1, [2])
    assert log_terms(follower) == [1, 2, 2, 2]
    assert [m.index for m in run(follower)] == [2]


def test_a_conflict_replaces_all_behind_it() -> None:
    follower = core(terms=[1, 2, 2, 2])
    append(follower, 1, 1, [3])
    assert log_terms(follower) == [1, 3]
    assert follower.log.saved == 1
    ready = follower.ready()
    assert ready is not None
    assert [(e.Index, e.Term) for e in ready.entries] == [(2, 3)]


def test_the_commit_index_ends_with_what_is_known_to_agree() -> None:
    follower = core(terms=[1, 1, 1])
    append(follower, 1, 1, [], commit=3)
    assert follower.commit_index == 1
    append(follower, 1, 1, [1], commit=9)
    assert follower.commit_index == 2


def test_an_append_from_before_the_commit_index_is_answered_with_that() -> None:
    follower = core(terms=[1, 1, 1], committed=3)
    append(follower, 1, 1, [1])
    assert [(m.index, m.reject) for m in run(follower)] == [(3, False)]


def test_acknowledgements_of_one_save_are_one_message() -> None:
    follower = core()
    append(follower, 0, 0, [5])
    append(follower, 1, 5, [5, 5])
    append(follower, 3, 5, [5])
    assert not follower.messages()
    assert [(m.type, m.index) for m in run(follower)] == [(raftpb.MsgAppResp, 4)]


def test_entries_that_do_not_follow_one_another_are_ignored() -> None:
    follower = core()
    message = Message(raftpb.MsgApp, 1, 2, 5, entries=entries_of([5, 5], 7))
    follower.step(message)
    assert follower.refused == 1
    assert follower.log.last_index == 0


# Lost logs.


def test_a_member_whose_log_was_lost_says_so_instead_of_going_on() -> None:
    group = Group.of()
    group.elect(1)
    group.propose(1, b"a")
    group.rafts[3] = core(3)
    group[1].tick()
    with pytest.raises(LogLost, match=r"up to entry 2, its log ends at 0"):
        group.settle()


def test_what_is_committed_is_never_replaced() -> None:
    follower = core(terms=[1, 1, 1], committed=2)
    with pytest.raises(LogLost, match="entry 2 conflicts"):
        follower.log.append((1, 1), entries_of([4], 1))


def test_a_log_that_ends_before_its_commit_index_is_not_started_with() -> None:
    with pytest.raises(LogLost, match="up to 3 were committed, the log ends at 2"):
        core(terms=[1, 1], committed=3)
