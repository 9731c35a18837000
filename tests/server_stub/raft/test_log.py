"""The log in memory, against the rules of its marks and against a naive twin."""

from __future__ import annotations

import pytest
from group import entries_of, snapshot_of
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.log import Log, LogLost

TERMS = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def log_of(terms: list[int], *, compacted: tuple[int, int] = (0, 0)) -> Log:
    return Log(entries_of(terms, compacted[0]), compacted=compacted)


def terms_of(log: Log) -> list[int]:
    return [entry.Term for entry in log.slice(log.first_index, log.last_index + 1)]


def test_terms_are_known_from_the_last_compacted_entry_on() -> None:
    log = log_of([2, 3], compacted=(5, 2))
    assert [log.term(index) for index in range(4, 9)] == [None, 2, 2, 3, None]
    assert (log.first_index, log.last_index, log.last_term) == (6, 7, 3)


def test_an_empty_log_ends_with_what_was_compacted() -> None:
    log = log_of([], compacted=(5, 2))
    assert (log.first_index, log.last_index, log.last_term) == (6, 5, 2)
    assert log_of([]).term(0) == 0


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(9, 1, False), (2, 2, False), (3, 2, True), (4, 2, True), (1, 3, True)],
)
def test_up_to_date_compares_the_last_term_and_then_the_length(
    index: int, term: int, expected: bool
) -> None:
    assert log_of([1, 1, 2]).is_up_to_date(index, term) is expected


@given(TERMS, st.integers(1, 14), st.integers(1, 14), st.integers(0, 30))
def test_a_slice_is_what_fits_and_at_least_one(
    terms: list[int], low: int, high: int, limit: int
) -> None:
    log = Log(
        [
            raftpb.Entry(Index=index, Term=term, Data=b"x" * (index * term % 7))
            for index, term in enumerate(terms, 1)
        ]
    )
    taken = list(log.slice(low, high, limit))
    wanted = [entry for entry in log.slice(1, len(terms) + 1) if low <= entry.Index < high]
    assert taken == wanted[: len(taken)]
    assert log.size(low, low + len(taken)) == sum(len(entry.Data) for entry in taken)
    if wanted:
        assert taken
    if len(taken) > 1:
        assert log.size(low, low + len(taken)) <= limit
    if len(taken) < len(wanted):
        assert log.size(low, low + len(taken) + 1) > limit


def test_compacted_entries_cannot_be_had() -> None:
    log = log_of([1, 1, 1])
    log.applied = log.handed = log.committed = 2
    log.compact(2)
    with pytest.raises(IndexError, match="entry 2 is compacted, the first is 3"):
        log.slice(2, 4)
    log.check()


def test_only_what_is_applied_is_compacted() -> None:
    log = log_of([1, 1, 1])
    with pytest.raises(ValueError, match="up to 1, applied is 0"):
        log.compact(1)
    log.committed = log.handed = log.applied = 3
    log.compact(3)
    log.compact(1)
    assert log.compacted == (3, 1)
    log.extend(entries_of([2], 3))
    assert (terms_of(log), log.size(4, 5)) == ([2], 3)
    log.check()


@given(TERMS, TERMS, st.integers(0, 12))
def test_appending_is_paper_5_3(mine: list[int], theirs: list[int], previous: int) -> None:
    """Nothing without a match; the first conflict replaces the rest; no conflict cuts nothing."""
    previous = min(previous, len(theirs))
    log = log_of(mine)
    term = theirs[previous - 1] if previous else 0
    taken = log.append((previous, term), entries_of(theirs, 0)[previous:])
    if not (previous == 0 or (previous <= len(mine) and mine[previous - 1] == term)):
        assert not taken
        assert terms_of(log) == mine
        return
    assert taken
    new = theirs[previous:]
    old = mine[previous:]
    common = 0
    while common < min(len(new), len(old)) and new[common] == old[common]:
        common += 1
    kept = mine if common == len(new) else mine[: previous + common] + new[common:]
    assert terms_of(log) == kept
    assert log.saved == (len(mine) if common == len(new) else previous + common)
    log.check()


@given(TERMS, st.integers(0, 14), st.integers(0, 6), st.integers(0, 6))
def test_the_agreement_is_the_last_entry_of_no_higher_term(
    terms: list[int], index: int, term: int, compacted: int
) -> None:
    log = log_of(terms)
    log.committed = log.handed = log.applied = min(compacted, len(terms))
    log.compact(log.applied)
    found, found_term = log.agreement(index, term)
    expected = max(
        (at for at, of in enumerate([0, *terms]) if at <= index and of <= term), default=0
    )
    if expected >= log.compacted[0]:
        assert (found, found_term) == (expected, [0, *terms][expected])
    else:
        assert expected <= found <= max(log.compacted[0], 0), "no further back than needed"
        assert found_term == 0


def test_the_commit_index_never_falls_and_never_leaves_the_log() -> None:
    log = log_of([1, 1, 1])
    assert log.commit_to(2)
    assert not log.commit_to(1)
    assert log.committed == 2
    with pytest.raises(LogLost, match="up to entry 4, its log ends at 3"):
        log.commit_to(4)


def test_a_save_counts_for_the_entries_that_are_still_there() -> None:
    log = log_of([1])
    log.extend(entries_of([1, 1, 1], 1))
    saving = log.unsaved()
    assert [entry.Index for entry in saving] == [2, 3, 4]
    log.append((2, 1), entries_of([2, 2], 2))
    log.saved_entries(saving)
    assert (log.saved, terms_of(log)) == (2, [1, 1, 2, 2])
    assert [(entry.Index, entry.Term) for entry in log.unsaved()] == [(3, 2), (4, 2)]


def test_a_save_of_what_was_replaced_altogether_counts_for_nothing() -> None:
    log = log_of([])
    log.extend(entries_of([1, 1]))
    saving = log.unsaved()
    log.append((0, 0), entries_of([2]))
    log.saved_entries(saving)
    assert log.saved == 0


def test_entries_that_were_replaced_and_came_back_are_saved() -> None:
    """Same index and term is the same entry (log matching)."""
    log = log_of([1])
    log.extend(entries_of([2, 2], 1))
    saving = log.unsaved()
    log.append((1, 1), entries_of([3], 1))
    log.append((1, 1), entries_of([2, 2, 4], 1))
    log.saved_entries(saving)
    assert log.saved == 3
    assert [entry.Index for entry in log.unsaved()] == [4]


def test_only_what_is_saved_and_committed_is_handed_out() -> None:
    log = log_of([1, 1])
    log.extend(entries_of([1, 1], 2))
    log.commit_to(3)
    assert [entry.Index for entry in log.take(9)] == [1, 2]
    assert log.take(9) == []
    log.saved_entries(log.unsaved())
    assert [entry.Index for entry in log.take(9)] == [3]
    log.check()


def test_a_restored_log_hands_out_nothing_before_the_snapshot_is_installed() -> None:
    log = log_of([1, 1, 1])
    log.commit_to(2)
    snapshot = snapshot_of(9, 4)
    log.restore(snapshot)
    log.extend(entries_of([4] * 12, 9))
    log.commit_to(10)
    assert log.take(9) == []
    assert log.saved == 2
    log.check()
    log.installed(snapshot)
    log.check()
    assert (log.applied, log.saved, log.compacted) == (9, 9, (9, 4))
    assert [entry.Index for entry in log.unsaved()] == list(range(10, 22))


def test_no_save_counts_while_a_snapshot_is_to_be_installed() -> None:
    log = log_of([])
    log.extend(entries_of([1, 1]))
    saving = log.unsaved()
    log.append((0, 0), entries_of([2]))
    log.restore(snapshot_of(2, 1))
    log.saved_entries(saving)
    assert log.saved == 0


def test_restarting_trusts_what_is_applied_and_refuses_a_hole() -> None:
    log = log_of([1, 1, 1])
    log.applied = 2
    log.resume(1)
    assert (log.committed, log.handed) == (2, 2)
    gone = log_of([1], compacted=(5, 1))
    gone.applied = 3
    with pytest.raises(LogLost, match="entries behind 3 are not there, only from 5"):
        gone.resume(5)
    ahead = log_of([1])
    ahead.applied = 2
    with pytest.raises(LogLost, match="up to 2 were committed, the log ends at 1"):
        ahead.resume(0)


@pytest.mark.parametrize(
    ("mark", "value"), [("applied", 2), ("handed", 3), ("committed", 9), ("saved", 9)]
)
def test_the_check_finds_marks_out_of_order(mark: str, value: int) -> None:
    log = log_of([1, 1, 1])
    log.committed = 2
    log.handed = log.applied = 1
    log.saved = 2
    log.check()
    setattr(log, mark, value)
    with pytest.raises(AssertionError, match=r"self\.applied="):
        log.check()


@pytest.mark.parametrize(
    ("terms", "indexes", "what"),
    [([1, 1, 1], [1, 1, 3], "a gap behind entry 1"), ([2, 1], [1, 2], "falls behind entry 1")],
)
def test_the_check_finds_a_log_that_is_not_one(
    terms: list[int], indexes: list[int], what: str
) -> None:
    entries = [
        raftpb.Entry(Index=index, Term=term) for index, term in zip(indexes, terms, strict=True)
    ]
    with pytest.raises(AssertionError, match=what):
        Log(entries).check()
