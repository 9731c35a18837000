"""What the leader makes of a member's answers, and the window it keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.raft.progress import Inflights, Progress, State


def progress(
    match: int = 0, next_index: int = 1, *, replicates: bool = False, window: int = 3
) -> Progress:
    made = Progress(match, next_index, Inflights(window, 100), False)
    if replicates:
        made.become_replicate()
        made.next = next_index
    return made


# The window.


def test_the_window_is_full_by_count_or_by_bytes() -> None:
    window = Inflights(2, 100)
    window.add(1, 10)
    assert not window.full
    window.add(2, 10)
    assert window.full
    window.free_to(1)
    assert not window.full
    window.add(3, 95)  # the one that reaches the bound still goes
    assert window.full
    assert window.bytes == 105


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50)), max_size=20), st.integers(0, 60))
def test_an_answer_frees_all_that_it_covers(appends: list[tuple[int, int]], answered: int) -> None:
    window = Inflights(100, 10_000)
    index = 0
    left = []
    for count, size in appends:
        index += count
        window.add(index, size)
        if index > answered:
            left.append((index, size))
    window.free_to(answered)
    assert len(window) == len(left)
    assert window.bytes == sum(size for _, size in left)
    assert window.first_index == (left[0][0] if left else None)
    assert window.last_index == (left[-1][0] if left else None)


# Transitions.


def test_replicating_goes_on_behind_what_is_known() -> None:
    one = progress(match=3, next_index=9)
    one.become_replicate()
    assert (one.state, one.next) == (State.REPLICATE, 4)


@pytest.mark.parametrize(("match", "pending", "next_index"), [(1, 5, 6), (7, 5, 8), (1, 0, 2)])
def test_probing_starts_behind_the_snapshot_or_what_is_known(
    match: int, pending: int, next_index: int
) -> None:
    one = progress(match=match, next_index=match + 1)
    if pending:
        one.become_snapshot(pending)
    one.match = match
    one.become_probe()
    assert (one.state, one.next, one.pending_snapshot) == (State.PROBE, next_index, 0)


def test_every_transition_empties_the_window_and_ends_a_pause() -> None:
    for become in (Progress.become_probe, Progress.become_replicate):
        one = progress(replicates=True, window=1)
        one.sent(1, 10)
        assert one.is_paused
        become(one)
        assert not one.is_paused
        assert len(one.inflights) == 0
    one.become_snapshot(5)
    assert one.is_paused


def test_a_probe_with_entries_pauses_and_an_empty_one_does_not() -> None:
    one = progress()
    one.sent(0, 0)
    assert not one.is_paused
    one.sent(3, 10)
    assert one.is_paused
    assert one.next == 1, "a guess is not moved"


def test_sending_ahead_moves_next_and_pauses_when_the_window_is_full() -> None:
    one = progress(replicates=True, window=2)
    one.sent(3, 10)
    assert (one.next, one.is_paused) == (4, False)
    one.sent(1, 10)
    assert (one.next, one.is_paused) == (5, True)
    one.check(9)


@pytest.mark.parametrize(
    ("match", "next_index", "index", "news", "after"),
    [
        (3, 5, 2, False, (3, 5)),
        (3, 5, 3, False, (3, 5)),
        (3, 5, 4, True, (4, 5)),
        (3, 5, 8, True, (8, 9)),
    ],
)
def test_only_a_higher_acknowledgement_is_news(
    match: int, next_index: int, index: int, news: bool, after: tuple[int, int]
) -> None:
    one = progress(match, next_index)
    assert one.acknowledged(index) is news
    assert (one.match, one.next) == after


@pytest.mark.parametrize(
    ("replicates", "match", "next_index", "index", "hint", "news", "after"),
    [
        (True, 5, 10, 5, 5, False, 10),
        (True, 5, 10, 4, 4, False, 10),
        (True, 5, 10, 9, 9, True, 6),
        (False, 0, 0, 0, 0, False, 0),
        (False, 0, 10, 5, 5, False, 10),
        (False, 0, 10, 9, 9, True, 9),
        (False, 0, 2, 1, 1, True, 1),
        (False, 0, 1, 0, 0, True, 1),
        (False, 0, 10, 9, 2, True, 3),
        (False, 0, 10, 9, 0, True, 1),
        (False, 4, 10, 9, 1, True, 5),
    ],
)
def test_only_a_rejection_of_what_is_out_moves_next_back(
    replicates: bool,
    match: int,
    next_index: int,
    index: int,
    hint: int,
    news: bool,
    after: int,
) -> None:
    one = progress(match, next_index, replicates=replicates)
    assert one.rejected(index, hint) is news
    assert one.next == after


def test_while_a_snapshot_is_under_way_no_rejection_counts() -> None:
    one = progress()
    one.become_snapshot(5)
    assert not one.rejected(5, 0)
    assert (one.state, one.next) == (State.SNAPSHOT, 6)


@pytest.mark.parametrize(
    ("told", "next_index", "commit", "expected"),
    [(0, 3, 1, True), (1, 3, 1, False), (1, 3, 2, True), (2, 3, 9, False), (0, 1, 5, False)],
)
def test_a_commit_index_is_news_only_up_to_the_entries_that_were_sent(
    told: int, next_index: int, commit: int, expected: bool
) -> None:
    one = progress(0, next_index)
    one.sent_commit = told
    assert one.can_bump_commit(commit) is expected


@pytest.mark.parametrize(
    ("match", "next_index", "what"), [(3, 3, "match 3 and next 3"), (7, 8, "beyond the log's 5")]
)
def test_the_check_finds_what_cannot_be(match: int, next_index: int, what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        progress(match, next_index).check(5)


def test_the_check_finds_a_window_that_does_not_fit() -> None:
    one = progress(1, 4, replicates=True)
    one.inflights.add(4, 1)
    with pytest.raises(AssertionError, match=r"4\.\.4 out of"):
        one.check(9)
