"""Elections: who wins, who must not run, and who must not vote."""

from __future__ import annotations

import random

import pytest
from group import ELECTION_TICKS, Group, add_voter, apply, core, only, run, save

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.core import Raft, Role
from etcd_pinwheel.server_stub.raft.messages import CAMPAIGN_TRANSFER, Message


def vote_request(term: int, index: int = 0, log_term: int = 0, *, sender: int = 2) -> Message:
    return Message(raftpb.MsgVote, 1, sender, term, log_term=log_term, index=index)


def granted(raft: Raft, request: Message) -> bool:
    raft.step(request)
    (answer,) = only(run(raft), raftpb.MsgVoteResp)
    return not answer.reject


# Time.


def test_election_timeouts_are_between_one_and_two_times_the_setting() -> None:
    draw = random.Random(7).randrange
    seen = set()
    for _ in range(400):
        raft = core(jitter=draw)
        for ticks in range(1, 3 * ELECTION_TICKS):
            raft.tick()
            if raft.role is not Role.FOLLOWER:
                seen.add(ticks)
                break
    assert seen == set(range(ELECTION_TICKS, 2 * ELECTION_TICKS))


def test_the_timeout_is_drawn_anew_with_every_term() -> None:
    drawn = []

    def draw(n: int) -> int:
        drawn.append(n)
        return 0

    raft = core(jitter=draw)
    before = len(drawn)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 5))
    assert len(drawn) == before + 1
    assert set(drawn) == {ELECTION_TICKS}


def test_a_heartbeat_puts_the_election_off() -> None:
    raft = core()
    for _ in range(5):
        for _ in range(ELECTION_TICKS - 1):
            raft.tick()
        assert raft.role is Role.FOLLOWER
        raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 1))
    for _ in range(ELECTION_TICKS):
        raft.tick()
    assert raft.role is Role.PRE_CANDIDATE


# Winning.


def test_the_only_voter_wins_by_its_own_vote_once_it_is_durable() -> None:
    raft = core(voters=[1])
    raft.campaign()
    assert raft.role is Role.CANDIDATE
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state == raftpb.HardState(term=1, vote=1)
    assert raft.role is Role.CANDIDATE
    raft.saved(ready)
    assert raft.role is Role.LEADER
    assert raft.commit_index == 0, "its own entry is not durable yet"
    save(raft)
    assert raft.commit_index == 1


def test_vote_requests_wait_for_the_candidates_own_term_vote_and_log() -> None:
    raft = core(pre_vote=False)
    raft.campaign()
    assert not raft.messages()
    ready = raft.ready()
    assert ready is not None
    assert not raft.messages()
    raft.saved(ready)
    assert [message.to for message in only(raft.messages(), raftpb.MsgVote)] == [2, 3]


def test_pre_vote_changes_neither_term_nor_vote_and_needs_no_save() -> None:
    raft = core(term=3, vote=2)
    raft.campaign()
    assert {(m.type, m.term) for m in raft.messages()} == {(raftpb.MsgPreVote, 4)}
    assert (raft.term, raft.vote, raft.role) == (3, 2, Role.PRE_CANDIDATE)
    assert raft.ready() is None


def test_an_answer_to_an_older_pre_vote_does_not_count() -> None:
    raft = core(term=3)
    raft.campaign()
    raft.step(Message(raftpb.MsgPreVoteResp, 1, 2, 3))  # asked about term 3, when it was in 2
    assert raft.role is Role.PRE_CANDIDATE
    raft.step(Message(raftpb.MsgPreVoteResp, 1, 2, 4))
    assert raft.role is Role.CANDIDATE


def test_a_vote_counts_once_per_voter() -> None:
    raft = core(voters=[1, 2, 3, 4, 5], pre_vote=False)
    raft.campaign()
    run(raft)
    for _ in range(3):
        raft.step(Message(raftpb.MsgVoteResp, 1, 2, 1))
    assert raft.role is Role.CANDIDATE
    raft.step(Message(raftpb.MsgVoteResp, 1, 3, 1))
    assert raft.role is Role.LEADER


def test_a_vote_once_given_or_refused_stays() -> None:
    raft = core(pre_vote=False)
    raft.campaign()
    run(raft)
    raft.step(Message(raftpb.MsgVoteResp, 1, 2, 1, reject=True))
    raft.step(Message(raftpb.MsgVoteResp, 1, 2, 1))
    assert raft.role is Role.CANDIDATE


def test_a_candidate_that_a_quorum_refuses_follows_again() -> None:
    raft = core(pre_vote=False)
    raft.campaign()
    run(raft)
    for voter in (2, 3):
        raft.step(Message(raftpb.MsgVoteResp, 1, voter, 1, reject=True))
    assert (raft.role, raft.term) == (Role.FOLLOWER, 1)


def test_an_own_vote_of_an_older_term_does_not_count() -> None:
    """The save of the vote ends when the candidate has become another one already."""
    raft = core(voters=[1], pre_vote=False)
    raft.campaign()
    ready = raft.ready()
    raft.campaign()
    assert raft.term == 2
    assert ready is not None
    raft.saved(ready)
    assert raft.role is Role.CANDIDATE
    save(raft)
    assert raft.role is Role.LEADER


def test_a_new_leader_appends_an_empty_entry_of_its_term_at_once() -> None:
    raft = core(terms=[1, 1], pre_vote=False)
    raft.campaign()
    run(raft)
    raft.step(Message(raftpb.MsgVoteResp, 1, 2, 2))
    appends = only(raft.messages(), raftpb.MsgApp)
    assert [(m.to, m.index, m.log_term, len(m.entries)) for m in appends] == [
        (2, 2, 1, 1),
        (3, 2, 1, 1),
    ]
    assert appends[0].entries[0] == raftpb.Entry(Term=2, Index=3)


@pytest.mark.parametrize("candidate", [Role.CANDIDATE, Role.PRE_CANDIDATE])
def test_whoever_campaigns_follows_a_leader_of_its_term(candidate: Role) -> None:
    raft = core(term=2, pre_vote=candidate is Role.PRE_CANDIDATE)
    raft.campaign()
    assert raft.role is candidate
    raft.step(Message(raftpb.MsgHeartbeat, 1, 3, raft.term))
    assert (raft.role, raft.leader) == (Role.FOLLOWER, 3)


# Voting.


@pytest.mark.parametrize(
    ("terms", "index", "log_term", "expected"),
    [
        ([1], 1, 1, True),
        ([1], 2, 1, True),
        ([1, 1], 1, 1, False),
        ([1], 1, 2, True),
        ([1], 2, 2, True),
        ([1, 1], 1, 2, True),
        ([2], 1, 1, False),
        ([2], 2, 1, False),
        ([2, 2], 1, 1, False),
    ],
)
def test_only_a_candidate_with_a_log_at_least_as_complete_gets_a_vote(
    terms: list[int], index: int, log_term: int, expected: bool
) -> None:
    """Paper 5.4.1."""
    raft = core(voters=[1, 2], terms=terms)
    assert granted(raft, vote_request(3, index, log_term)) is expected
    assert raft.vote == (2 if expected else 0)


def test_one_vote_per_term_repeated_to_whom_it_was_given() -> None:
    raft = core()
    assert granted(raft, vote_request(2, sender=2))
    assert granted(raft, vote_request(2, sender=2))
    assert not granted(raft, vote_request(2, sender=3))
    assert granted(raft, vote_request(3, sender=3))


def test_who_follows_a_leader_votes_for_nobody_else_in_its_term() -> None:
    raft = core(check_quorum=False)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 1))
    run(raft)
    assert raft.vote == 0
    assert not granted(raft, vote_request(1, sender=3))


def test_who_votes_gives_the_candidate_time_to_win() -> None:
    raft = core()
    raft.step(Message(raftpb.MsgVoteResp, 1, 2, 1))
    for _ in range(ELECTION_TICKS - 1):
        raft.tick()
    assert granted(raft, vote_request(1, sender=3))
    raft.tick()
    assert raft.role is Role.FOLLOWER


def test_a_vote_is_answered_only_when_it_is_saved() -> None:
    raft = core()
    raft.step(vote_request(2))
    assert not raft.messages()
    ready = raft.ready()
    assert ready is not None
    assert ready.hard_state == raftpb.HardState(term=2, vote=2)
    assert not raft.messages()
    raft.saved(ready)
    assert len(raft.messages()) == 1


def test_a_vote_of_a_term_that_has_passed_before_it_was_saved_is_not_sent() -> None:
    raft = core()
    raft.step(vote_request(2, sender=2))
    raft.step(vote_request(3, sender=3))
    assert [(m.to, m.term) for m in run(raft)] == [(3, 3)]


def test_a_restarted_member_keeps_its_vote() -> None:
    raft = core(term=2, vote=3)
    assert not granted(raft, vote_request(2, sender=2))
    assert granted(raft, vote_request(2, sender=3))


@pytest.mark.parametrize("force", [False, True])
def test_a_member_that_hears_of_a_leader_votes_only_for_whom_that_leader_sends(force: bool) -> None:
    raft = core()
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 1))
    run(raft)
    request = vote_request(2, sender=3)
    request.context = CAMPAIGN_TRANSFER if force else b""
    raft.step(request)
    assert bool(only(run(raft), raftpb.MsgVoteResp)) is force
    assert raft.term == (2 if force else 1)


def test_the_lease_on_a_vote_ends_with_the_election_timeout() -> None:
    raft = core(jitter=lambda n: n - 1)
    raft.step(Message(raftpb.MsgHeartbeat, 1, 2, 1))
    run(raft)
    for _ in range(ELECTION_TICKS):
        raft.tick()
    assert granted(raft, vote_request(2, sender=3))


def test_a_pre_vote_of_a_lower_term_is_refused_and_not_just_ignored() -> None:
    raft = core(term=5)
    raft.step(Message(raftpb.MsgPreVote, 1, 2, 3))
    (answer,) = run(raft)
    assert (answer.type, answer.reject, answer.term) == (raftpb.MsgPreVoteResp, True, 5)


def test_a_pre_vote_is_granted_in_the_term_that_was_asked_about_and_gives_nothing_away() -> None:
    raft = core(term=1)
    for sender in (2, 3):
        raft.step(Message(raftpb.MsgPreVote, 1, sender, 2))
    assert [(m.to, m.term, m.reject) for m in run(raft)] == [(2, 2, False), (3, 2, False)]
    assert (raft.term, raft.vote) == (1, 0)


# Learners.


def test_a_learner_never_campaigns_until_it_is_promoted() -> None:
    raft = core(3, [1, 2], [3])
    for _ in range(5 * ELECTION_TICKS):
        raft.tick()
    raft.campaign()
    raft.step(Message(raftpb.MsgTimeoutNow, 3, 1, 1))
    assert raft.role is Role.FOLLOWER
    raft.apply_change(add_voter(3))
    for _ in range(ELECTION_TICKS):
        raft.tick()
    assert raft.role is Role.PRE_CANDIDATE


def test_a_learner_votes_but_is_not_counted() -> None:
    """It may have been promoted without knowing (etcd#10998)."""
    learner = core(1, [2, 3], [1])
    assert granted(learner, vote_request(1))
    candidate = core(1, [1, 2, 3], [4], pre_vote=False)
    candidate.campaign()
    run(candidate)
    candidate.step(Message(raftpb.MsgVoteResp, 1, 4, 1))
    assert candidate.role is Role.CANDIDATE


def test_a_removed_member_does_not_campaign() -> None:
    raft = core(4)
    for _ in range(5 * ELECTION_TICKS):
        raft.tick()
    assert raft.role is Role.FOLLOWER


# What forbids to campaign.


def test_nobody_campaigns_with_a_committed_change_not_applied() -> None:
    group = Group.of()
    group.elect(1)
    group[1].propose_change(add_voter(4))
    group.settle()
    entries = group[1].log.slice(1, 3)
    assert entries[1].Type == raftpb.EntryConfChange
    follower = core(2)
    follower.step(Message(raftpb.MsgApp, 2, 1, 1, entries=entries, commit=2))
    save(follower)
    follower.campaign()
    assert follower.role is Role.FOLLOWER
    for _ in range(2 * ELECTION_TICKS):
        follower.tick()
    assert follower.role is Role.FOLLOWER
    apply(follower)
    follower.campaign()
    assert follower.role is Role.PRE_CANDIDATE


def test_nobody_campaigns_with_a_snapshot_to_install() -> None:
    raft = core()
    snapshot = raftpb.Snapshot(
        metadata=raftpb.SnapshotMetadata(
            index=5, term=1, conf_state=raftpb.ConfState(voters=[1, 2, 3])
        )
    )
    raft.step(Message(raftpb.MsgSnap, 1, 2, 1, snapshot=snapshot))
    raft.campaign()
    assert raft.role is Role.FOLLOWER
    save(raft)
    raft.campaign()
    assert raft.role is Role.PRE_CANDIDATE
