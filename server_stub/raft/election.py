"""Elections: who may lead, and who must not go on to (paper 5.2, 5.4.1; thesis 3.10, 4.2.3, 9.6).

A pre-vote finds out whether an election could be won, in nobody's term. Check-quorum makes a leader
without an active quorum step down, and in return members that hear of a leader refuse to vote;
only with both is a member that was cut off unable to disturb the others when it comes back.

A candidate's own vote counts once it is durable, and its requests are not sent before (see
`Node.send_saved`). So the term that somebody leads in is always durable.
"""

from __future__ import annotations

from enum import Enum

from ...protos import raftpb
from . import replication
from .messages import CAMPAIGN_TRANSFER, NOBODY, Message
from .node import Node, Role
from .quorum import Vote


class Campaign(Enum):
    """How a member goes about becoming leader."""

    PRE_VOTE = "pre-vote"
    ELECTION = "election"
    TRANSFER = "transfer"
    """An election that the leader asked for: at once, and in spite of its lease."""


# Campaigning.


def is_promotable(node: Node) -> bool:
    """Whether this member could lead: a voter, as far as it knows, with its log at hand."""
    return node.id in node.configuration.voters and node.log.snapshot is None


def has_unapplied_change(node: Node) -> bool:
    """Whether a change of the membership is committed and not applied yet.

    To campaign then would be unsafe: a quorum of the old members may not be one any more (one of
    the three rules of changes that take effect when applied, etcd#7625).
    """
    log = node.log
    return any(
        entry.Type != raftpb.EntryNormal for entry in log.slice(log.applied + 1, log.committed + 1)
    )


def hup(node: Node, campaign: Campaign) -> None:
    """Campaign, if that is allowed and of use."""
    if node.role is Role.LEADER or not is_promotable(node) or has_unapplied_change(node):
        return
    if campaign is Campaign.PRE_VOTE:
        _become_pre_candidate(node)
    else:
        _become_candidate(node, campaign)


def start(node: Node) -> None:
    """Campaign in the way that is configured."""
    hup(node, Campaign.PRE_VOTE if node.config.pre_vote else Campaign.ELECTION)


def _become_pre_candidate(node: Node) -> None:
    """Ask around, in a term that begins only if the answers are good."""
    node.votes.clear()
    node.leader = NOBODY
    node.role = Role.PRE_CANDIDATE
    for message in _requests(node, raftpb.MsgPreVote, node.term + 1):
        node.send(message)
    _count(node, node.id, True)


def _become_candidate(node: Node, campaign: Campaign) -> None:
    """Begin a term and vote for oneself in it; the vote counts when it is saved."""
    node.reset(node.term + 1)
    node.vote = node.id
    node.role = Role.CANDIDATE
    context = CAMPAIGN_TRANSFER if campaign is Campaign.TRANSFER else b""
    for message in _requests(node, raftpb.MsgVote, node.term, context):
        node.send_saved(message)


def _requests(node: Node, type_: int, term: int, context: bytes = b"") -> list[Message]:
    log = node.log
    return [
        Message(
            type_,
            voter,
            node.id,
            term,
            index=log.last_index,
            log_term=log.last_term,
            context=context,
        )
        for voter in node.configuration.voters
        if voter != node.id
    ]


def count_own_vote(node: Node) -> None:
    """Count a candidate's own vote, now that it is durable."""
    if node.id not in node.votes:
        _count(node, node.id, True)


def on_vote_response(node: Node, message: Message) -> None:
    """Count an answer to this very campaign."""
    if message.type == raftpb.MsgVoteResp:
        current = node.role is Role.CANDIDATE
    else:
        asked = node.term if message.reject else node.term + 1
        current = node.role is Role.PRE_CANDIDATE and message.term == asked
    if current:
        _count(node, message.sender, not message.reject)


def _count(node: Node, voter: int, granted: bool) -> None:
    """Count a vote once; those of learners are in no quorum."""
    node.votes.setdefault(voter, granted)
    result = node.configuration.voters.vote_result(node.votes)
    if result is Vote.LOST:
        node.become_follower(node.term, NOBODY)
    elif result is Vote.WON and node.role is Role.PRE_CANDIDATE:
        _become_candidate(node, Campaign.ELECTION)
    elif result is Vote.WON:
        _become_leader(node)


def _become_leader(node: Node) -> None:
    """Lead: probe every member, and commit an entry to learn what is committed (paper 8)."""
    node.reset(node.term)
    node.role = Role.LEADER
    node.leader = node.id
    last_index = node.log.last_index
    for member in sorted(node.members):
        node.progress[member] = node.new_progress(member, match=0, next_index=last_index + 1)
    own = node.progress.get(node.id)
    if own is not None:
        own.match = node.log.saved
        own.recent_active = True
        own.become_replicate()
    # Whatever is not applied yet may hold a change: no other one before it is.
    node.pending_conf_index = last_index
    replication.append_entry(node, b"")


# Being asked.


def on_vote_request(node: Node, message: Message) -> None:
    """Vote, whatever this member takes itself for.

    A learner as well: it may have been promoted and not know yet (etcd#10998).
    """
    pre_vote = message.type == raftpb.MsgPreVote
    free = (
        node.vote == message.sender
        or (node.vote == NOBODY and node.leader == NOBODY)
        or (pre_vote and message.term > node.term)
    )
    granted = free and node.log.is_up_to_date(message.index, message.log_term)
    if granted and not pre_vote:
        node.vote = message.sender
        node.election_elapsed = 0
    answer = raftpb.MsgPreVoteResp if pre_vote else raftpb.MsgVoteResp
    term = message.term if granted else node.term
    node.send_saved(Message(answer, message.sender, node.id, term, reject=not granted))


# Terms.


def on_higher_term(node: Node, message: Message) -> bool:
    """Step into a message's higher term; False if the message is to be ignored instead."""
    type_ = message.type
    if type_ in (raftpb.MsgVote, raftpb.MsgPreVote):
        if _hears_of_a_leader(node) and message.context != CAMPAIGN_TRANSFER:
            return False
        if type_ == raftpb.MsgPreVote:
            return True
    elif type_ == raftpb.MsgPreVoteResp and not message.reject:
        return True  # the term it was asked about, not one that anybody is in
    leads = type_ in (raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap)
    node.become_follower(message.term, message.sender if leads else NOBODY)
    return True


def _hears_of_a_leader(node: Node) -> bool:
    """Whether a leader's lease on this member's vote runs (thesis 4.2.3)."""
    return (
        node.config.check_quorum
        and node.leader != NOBODY
        and node.election_elapsed < node.config.election_ticks
    )


def on_lower_term(node: Node, message: Message) -> None:
    """Let the sender know, if that could be what it needs to go on."""
    type_ = message.type
    if type_ in (raftpb.MsgApp, raftpb.MsgHeartbeat):
        if node.config.check_quorum or node.config.pre_vote:
            # A leader that lost this member to a higher term cannot be told by a vote request:
            # the others would ignore it (stuck candidate), or it would never be sent (pre-vote).
            node.send_saved(Message(raftpb.MsgAppResp, message.sender, node.id, node.term))
    elif type_ == raftpb.MsgPreVote:
        # Ignored, two members that run for one another's votes could wait for ever (etcd#8501).
        node.send_saved(
            Message(raftpb.MsgPreVoteResp, message.sender, node.id, node.term, reject=True)
        )


# Time.


def tick(node: Node) -> None:
    """Let a tick pass for whoever does not lead."""
    node.election_elapsed += 1
    if node.election_elapsed >= node.election_timeout and is_promotable(node):
        node.election_elapsed = 0
        start(node)


def tick_leader(node: Node) -> None:
    """Let a tick pass for the leader: heartbeats, and now and then a look at the quorum."""
    node.heartbeat_elapsed += 1
    node.election_elapsed += 1
    if node.election_elapsed >= node.config.election_ticks:
        node.election_elapsed = 0
        node.transferee = NOBODY  # it had its time
        if node.config.check_quorum and not _has_active_quorum(node):
            node.become_follower(node.term, NOBODY)
            return
    if node.heartbeat_elapsed >= node.config.heartbeat_ticks:
        node.heartbeat_elapsed = 0
        node.wants_heartbeats = True


def _has_active_quorum(node: Node) -> bool:
    """Whether a quorum was heard of since the last look."""
    active = {}
    for member, progress in node.progress.items():
        active[member] = progress.recent_active or member == node.id
        progress.recent_active = False
    return node.configuration.voters.vote_result(active) is Vote.WON


def transfer(node: Node, target: int) -> None:
    """Hand the lead to `target`, once it has the whole log (thesis 3.10)."""
    progress = node.progress.get(target)
    if progress is None or progress.is_learner or target == node.transferee:
        return
    node.transferee = NOBODY  # a later wish replaces an earlier one, also the wish to stay
    if target == node.id:
        return
    node.election_elapsed = 0
    node.transferee = target
    if progress.match == node.log.last_index:
        replication.send_timeout_now(node, target)
    else:
        replication.send_append(node, target, progress, even_if_empty=True)
