"""Majorities and joint majorities: tables of cases, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.server_stub.raft.quorum import UNBOUNDED, Joint, Majority, Vote

CASES = sorted((Path(__file__).parents[2] / "data/raft/quorum").glob("*.txt"))

VOTERS = st.frozensets(st.integers(1, 12), max_size=9)
INDEXES = st.dictionaries(st.integers(1, 12), st.integers(0, 20))
VOTES = st.dictionaries(st.integers(1, 12), st.booleans())


def acknowledged_index(word: str) -> tuple[int, int | None]:
    voter, _, index = word.partition(":")
    return int(voter), int(index) if index else None


def vote_of(word: str) -> tuple[int, bool | None]:
    return int(word.rstrip("+-")), {"+": True, "-": False}.get(word[-1])


def outcome(case: str) -> str:
    """Evaluate the left side of a case: a verb, the voters of each half, and perhaps others."""
    verb, _, rest = case.partition(" ")
    halves, _, others = rest.partition("others")
    read: Callable[[str], tuple[int, int | None]] = (
        acknowledged_index if verb == "committed" else vote_of
    )
    sides = [dict(map(read, half.split())) for half in halves.split("&")]
    heard = {
        voter: value
        for side in (*reversed(sides), dict(map(read, others.split())))
        for voter, value in side.items()
        if value is not None
    }
    quorums = [Majority(frozenset(side)) for side in sides]
    quorum = Joint(*quorums) if "&" in halves else quorums[0]
    if verb == "vote":
        return quorum.vote_result({voter: bool(vote) for voter, vote in heard.items()}).value
    index = quorum.committed_index(heard.get)
    return "unbounded" if index == UNBOUNDED else str(index)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_in_a_table(path: Path) -> None:
    wrong = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            case, expected = (side.strip() for side in line.split("->"))
            if (got := outcome(case)) != expected:
                wrong.append(f"{path.name}:{number}: {case} gave {got}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_all_tables_are_there() -> None:
    assert [path.stem for path in CASES] == [
        "joint_commit",
        "joint_vote",
        "majority_commit",
        "majority_vote",
    ]


def largest_index_held_by_more_than_half(voters: frozenset[int], indexes: dict[int, int]) -> int:
    """Another way to the committed index: try every index that anybody has, largest first."""
    for index in sorted({*indexes.values(), 0}, reverse=True):
        if 2 * sum(indexes.get(voter, 0) >= index for voter in voters) > len(voters):
            return index
    return UNBOUNDED


@given(VOTERS, INDEXES)
def test_two_ways_to_the_committed_index_agree(
    voters: frozenset[int], indexes: dict[int, int]
) -> None:
    expected = largest_index_held_by_more_than_half(voters, indexes)
    assert Majority(voters).committed_index(indexes.get) == expected


@given(VOTERS, INDEXES, VOTES)
def test_joint_with_nobody_or_itself_is_the_majority_alone(
    voters: frozenset[int], indexes: dict[int, int], votes: dict[int, bool]
) -> None:
    alone = Majority(voters)
    for joint in (Joint(alone), Joint(Majority(), alone), Joint(alone, alone)):
        assert joint.committed_index(indexes.get) == alone.committed_index(indexes.get)
        assert joint.vote_result(votes) == alone.vote_result(votes)


@given(VOTERS, VOTERS, INDEXES)
def test_joint_commits_what_both_halves_commit(
    incoming: frozenset[int], outgoing: frozenset[int], indexes: dict[int, int]
) -> None:
    joint = Joint.of(incoming, outgoing).committed_index(indexes.get)
    assert joint == min(
        largest_index_held_by_more_than_half(incoming, indexes),
        largest_index_held_by_more_than_half(outgoing, indexes),
    )


@given(VOTERS, VOTERS, VOTES, st.integers(1, 12), st.booleans())
def test_a_decided_vote_stays_decided(
    incoming: frozenset[int],
    outgoing: frozenset[int],
    votes: dict[int, bool],
    voter: int,
    vote: bool,
) -> None:
    """One more vote can decide a vote that is pending, and can never turn one that is decided."""
    quorum = Joint.of(incoming, outgoing)
    before, after = quorum.vote_result(votes), quorum.vote_result({voter: vote} | votes)
    assert before in (Vote.PENDING, after)


@given(VOTERS.filter(bool), VOTES, VOTES)
def test_two_candidates_cannot_both_win(
    voters: frozenset[int], votes: dict[int, bool], missing: dict[int, bool]
) -> None:
    """Every voter votes for one of the two or for neither: never for both."""
    rival = {voter: not vote for voter, vote in votes.items() if voter not in missing}
    results = [Majority(voters).vote_result(votes), Majority(voters).vote_result(rival)]
    assert results != [Vote.WON, Vote.WON]


@given(VOTERS, VOTERS, VOTES)
def test_a_vote_is_won_with_exactly_the_quorums_that_commit(
    incoming: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    """Elections and commitment count alike: what they overlap in is what makes Raft safe."""
    quorum = Joint.of(incoming, outgoing)
    granted = {voter: 1 for voter, vote in votes.items() if vote}
    assert (quorum.vote_result(votes) is Vote.WON) == (quorum.committed_index(granted.get) > 0)
