"""Bugs in elections, in what is remembered of them, and in reads that rely on them."""

from __future__ import annotations

from typing import Any

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft import core, election, reads
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import NOBODY, Message
from etcd_pinwheel.server_stub.raft.node import Node, ReadState, Role
from etcd_pinwheel.server_stub.reads import ReadQueue
from etcd_pinwheel.server_stub.storage.wal import Wal

from .planting import Plant


def term_and_vote_not_saved(plant: Plant) -> None:
    """1: only entries are saved, so a restart forgets the term and the vote (PySyncObj#84)."""
    save = Wal.save
    plant(Wal, "save", lambda wal, state, entries=(): save(wal, None, entries))


def vote_saved_after_term(plant: Plant) -> None:
    """2: the term is saved first and the vote with the next save (hashicorp/raft#661)."""
    save = Wal.save

    def save_term(wal: Wal, state: Any, entries: Any = ()) -> None:
        if state is not None and state.term != wal._state.term:
            state = raftpb.HardState(term=state.term, commit=state.commit)
        save(wal, state, entries)

    plant(Wal, "save", save_term)


def vote_forgotten_on_stepping_down(plant: Plant) -> None:
    """3: a member that becomes a follower again in its term may vote again (redpanda#14, #19)."""
    become = Node.become_follower

    def forget(node: Node, term: int, leader: int) -> None:
        become(node, term, leader)
        node.vote = NOBODY

    plant(Node, "become_follower", forget)


def votes_twice(plant: Plant) -> None:
    """3b: whoever asks gets the vote, whether it was given before or not."""
    asked = election.on_vote_request

    def vote(node: Node, message: Message) -> None:
        if message.type == raftpb.MsgVote and node.role is Role.FOLLOWER:
            node.vote = NOBODY
        asked(node, message)

    plant(election, "on_vote_request", vote)


def delayed_vote_counted_twice(plant: Plant) -> None:
    """4: a candidate counts answers instead of voters (akka-raft#50)."""
    count = election._count

    def count_answers(node: Node, voter: int, granted: bool) -> None:
        if granted and node.votes.get(voter):
            others = [each for each in node.configuration.voters if each not in node.votes]
            voter = others[0] if others else voter
        count(node, voter, granted)

    plant(election, "_count", count_answers)


def votes_for_shorter_logs(plant: Plant) -> None:
    """4b: nobody looks whether a candidate's log is as complete as its own."""
    plant(Log, "is_up_to_date", lambda log, index, term: True)


def votes_before_it_is_saved(plant: Plant) -> None:
    """2b: a vote is sent while it is still on its way to the disk."""
    hold = Node.send_saved

    def send(node: Node, message: Message) -> None:
        (Node.send if message.type == raftpb.MsgVoteResp else hold)(node, message)

    plant(Node, "send_saved", send)


def learners_campaign(plant: Plant) -> None:
    """12: a member that is no voter becomes a candidate (hashicorp/raft#483)."""

    def is_promotable(node: Node) -> bool:
        return node.id in node.configuration.members() and node.log.snapshot is None

    plant(election, "is_promotable", is_promotable)


def promoted_learner_refuses_to_vote(plant: Plant) -> None:
    """11: a learner never votes, also one that was promoted and does not know (etcd#10998)."""
    asked = election.on_vote_request

    def ignore(node: Node, message: Message) -> None:
        if node.id not in node.configuration.learners:
            asked(node, message)

    plant(election, "on_vote_request", ignore)


def low_term_pre_vote_ignored(plant: Plant) -> None:
    """13: a pre-vote of a lower term gets no answer, nor does a stale leader (etcd#8501)."""
    plant(election, "on_lower_term", lambda node, message: None)


def leads_learners(plant: Plant) -> None:
    """12b: the lead is handed over to a learner."""
    transfer = election.transfer

    def transfer_to_anybody(node: Node, target: int) -> None:
        progress = node.progress.get(target)
        was, learner = progress, progress is not None and progress.is_learner
        if was is not None and learner:
            was.is_learner = False
        transfer(node, target)
        if was is not None and learner:
            was.is_learner = True

    plant(election, "transfer", transfer_to_anybody)


def reads_before_first_commit_of_term(plant: Plant) -> None:
    """14: a new leader answers a read index before it knows what is committed (etcd#7331)."""

    def request(node: Node, sender: int, context: bytes) -> None:
        if node.is_sole_voter:
            reads.answer(node, sender, context, node.log.committed)
            return
        node.pending_reads.append(
            reads.PendingRead(node.round + 1, sender, context, node.log.committed)
        )
        node.wants_round = True

    plant(reads, "request", request)


def reads_without_asking_around(plant: Plant) -> None:
    """16: a leader answers a read index without a round that confirms it (Redis-Raft)."""

    def request(node: Node, sender: int, context: bytes) -> None:
        reads.answer(node, sender, context, node.log.committed)

    plant(reads, "request", request)


def reads_at_followers(plant: Plant) -> None:
    """16b: a follower takes its own commit index for the read index."""

    def read_index(raft: core.Raft, context: bytes) -> None:
        raft.read_states.append(ReadState(raft.commit_index, context))

    plant(core.Raft, "read_index", read_index)


def question_asked_again_under_its_old_id(plant: Plant) -> None:
    """15: the answer to a read index asked first is taken for that asked again (etcd#20418)."""
    new_question = ReadQueue._new_question

    def same_id(queue: ReadQueue[Any], now: float) -> bytes:
        if queue._positions:
            queue._next_id -= 1
        return new_question(queue, now)

    plant(ReadQueue, "_new_question", same_id)
