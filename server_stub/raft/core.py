"""One member's Raft: a pure state machine.

Drive it so: on every input (tick, message, proposal) send what :meth:`Raft.messages` holds; when no
save is under way take :meth:`Raft.ready`, make it durable, tell :meth:`Raft.saved`, send again, and
apply :meth:`Raft.committed` in order, telling :meth:`Raft.apply_change` for entries that change
the membership and :meth:`Raft.applied` for all.
"""

from __future__ import annotations

from collections.abc import Callable

from ...protos import raftpb
from . import election, invariants, membership, proposals, reads, replication
from .confchange import AnyChange, Configuration
from .config import Config
from .log import Log, LogLost
from .messages import LOCAL, NOBODY, RESPONSES, Message
from .node import Node, ProposalDropped, ReadState, Ready, Role

__all__ = ["LogLost", "ProposalDropped", "Raft", "ReadState", "Ready", "Role"]

_WITHOUT_TERM = frozenset({raftpb.MsgProp, raftpb.MsgReadIndex, raftpb.MsgTransferLeader})
"""Requests to whoever leads, in whatever term."""


class Raft(Node):
    """One member's part in the consensus of its cluster.

    Facts to read: ``id``, ``term``, ``vote``, ``role``, ``leader`` (0: nobody), ``log``,
    ``configuration``, ``progress`` (of all members, while leading), ``transferee``, ``refused``
    and ``dropped`` (counts of messages ignored and of others' proposals not taken), and the
    properties below.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        hard_state: raftpb.HardState,
        conf_state: raftpb.ConfState,
        random: Callable[[int], int],
        snapshot: Callable[[], raftpb.Snapshot | None] = lambda: None,
    ) -> None:
        """Start as a follower from what is durable.

        ``log.applied`` tells how far the state is that `conf_state` goes with. ``random(n)`` draws
        from 0..n-1. ``snapshot()`` names what a member may be sent whose entries are compacted
        (None: nothing just now); only its metadata is looked at.

        Raises:
            LogLost: the log ends before what is known to be committed.
            ChangeRefused: `conf_state` breaks an invariant.
        """
        configuration = Configuration.from_conf_state(conf_state)
        super().__init__(config, log, hard_state, configuration, random, snapshot)
        log.resume(max(hard_state.commit, membership.implied_commit(log)))
        self._saving: Ready | None = None
        self._released_by_save: list[Message] = []
        self._saved_state: tuple[int, int] = (self.term, self.vote)
        self._saved_commit: int = hard_state.commit
        self._offers_commit = False
        """Whether the commit index alone is worth a save: at most once a tick."""

    # Inputs.

    def tick(self) -> None:
        """Let one tick of time pass."""
        self.ticks += 1
        self._offers_commit = True
        if self.role is Role.LEADER:
            election.tick_leader(self)
        else:
            election.tick(self)

    def step(self, message: Message) -> None:
        """Take a message from the network; what can only be wrong is counted and ignored.

        Raises:
            LogLost: the leader has seen this member hold entries that it does not.
        """
        if self._is_wrong(message):
            self.refused += 1
            return
        if message.term > self.term:
            if not election.on_higher_term(self, message):
                return
        elif message.term < self.term and message.type not in _WITHOUT_TERM:
            election.on_lower_term(self, message)
            return
        if self.role is Role.LEADER:
            self._step_leader(message)
        else:
            self._step_follower(message)

    def _is_wrong(self, message: Message) -> bool:
        """Whether no member could have sent this to this one."""
        type_ = message.type
        return (
            type_ in LOCAL
            or message.to != self.id
            or (type_ in RESPONSES and message.sender not in self.members)
            or (message.term == 0 and type_ not in _WITHOUT_TERM)
        )

    def _step_leader(self, message: Message) -> None:
        match message.type:
            case raftpb.MsgAppResp:
                replication.on_append_response(self, message)
            case raftpb.MsgHeartbeatResp:
                replication.on_heartbeat_response(self, message)
            case raftpb.MsgProp:
                proposals.on_proposals(self, message)
            case raftpb.MsgReadIndex:
                reads.request(self, message.sender, message.context)
            case raftpb.MsgVote | raftpb.MsgPreVote:
                election.on_vote_request(self, message)
            case raftpb.MsgTransferLeader:
                election.transfer(self, message.vote)
            case raftpb.MsgApp | raftpb.MsgHeartbeat | raftpb.MsgSnap:
                self.refused += 1  # another leader in this term: it cannot be

    def _step_follower(self, message: Message) -> None:
        match message.type:
            case raftpb.MsgApp:
                self._follow(message.sender)
                replication.on_append(self, message)
            case raftpb.MsgHeartbeat:
                self._follow(message.sender)
                replication.on_heartbeat(self, message)
            case raftpb.MsgSnap:
                self._follow(message.sender)
                membership.on_snapshot(self, message)
            case raftpb.MsgVote | raftpb.MsgPreVote:
                election.on_vote_request(self, message)
            case raftpb.MsgVoteResp | raftpb.MsgPreVoteResp:
                election.on_vote_response(self, message)
            case raftpb.MsgProp:
                proposals.on_proposals(self, message)
            case raftpb.MsgTimeoutNow if self.role is Role.FOLLOWER:
                election.hup(self, election.Campaign.TRANSFER)
            case raftpb.MsgTransferLeader:
                self.transfer_leader(message.vote)
            case raftpb.MsgReadIndexResp:
                self.read_states.append(ReadState(message.index, message.context))

    def _follow(self, leader: int) -> None:
        """Note that the term's leader was heard of; whoever campaigned in this term has lost."""
        if self.role is not Role.FOLLOWER:
            self.become_follower(self.term, leader)
        self.leader = leader
        self.election_elapsed = 0

    def propose(self, data: bytes) -> None:
        """Append `data` to the log, or hand it to the leader, where it may still get lost.

        Raises:
            ProposalDropped: nobody leads, or this leader takes none just now.
        """
        proposals.propose(self, data)

    def propose_change(self, change: AnyChange) -> None:
        """Propose to change the membership.

        Raises:
            ProposalDropped: as for data; or an earlier change is not applied yet.
        """
        proposals.propose_change(self, change)

    def apply_change(self, change: AnyChange) -> raftpb.ConfState:
        """Switch to the membership that `change` makes, and return it.

        To be called when its entry is applied; for one that is vetoed then, with node id 0.

        Raises:
            ChangeRefused: the change is impossible; nothing has changed.
        """
        membership.apply_change(self, change)
        return self.config_state()

    def read_index(self, context: bytes) -> None:
        """Ask from which index on the state may be read; the answer comes with :meth:`reads`.

        The question may get lost (nobody leads, or no longer): ask again, with a new `context`.
        """
        reads.read_index(self, context)

    def transfer_leader(self, target: int) -> None:
        """Have `target` lead; without effect for learners and strangers, or when nobody leads."""
        if self.role is Role.LEADER:
            election.transfer(self, target)
        elif self.leader != NOBODY:
            self.send(Message(raftpb.MsgTransferLeader, self.leader, self.id, vote=target))

    def campaign(self) -> None:
        """Try to become leader now."""
        election.start(self)

    def forget_leader(self) -> None:
        """Let go of a leader known to be dead, so that others may be voted for at once.

        Without effect with lease reads: the leader trusts that it is not forgotten.
        """
        if self.role is Role.FOLLOWER and not self.config.lease_reads:
            self.leader = NOBODY

    def report_unreachable(self, member: int) -> None:
        """Note that a message to `member` was probably lost."""
        if member in self.progress:
            replication.on_unreachable(self.progress[member])

    def report_snapshot(self, member: int, ok: bool) -> None:
        """Note that the snapshot for `member` was transferred, or not."""
        if member in self.progress:
            replication.on_snapshot_status(self.progress[member], ok)

    # Outputs.

    def messages(self) -> list[Message]:
        """Take what may be sent now, even while a save is under way."""
        if self.role is Role.LEADER:
            replication.flush(self)
        if self.forwards:
            proposals.flush(self)
        if self.held and not self._must_save():
            self.outbox += self.held
            self.held.clear()
        taken, self.outbox = self.outbox, []
        return taken

    def _must_save(self) -> bool:
        """Whether anything is not durable that others may be told of."""
        return self.log.saved < self.log.last_index or (self.term, self.vote) != self._saved_state

    def ready(self) -> Ready | None:
        """Take what must be saved next; None while that is nothing or a save is under way.

        The commit index is saved along with whatever must be, or by itself once a tick.
        """
        if self._saving is not None:
            return None
        must_sync = self._must_save()
        commit = min(self.log.committed, self.log.saved)
        if self.log.snapshot is not None:  # a log counts a snapshot only if it is known committed
            commit = self.log.snapshot.metadata.index
        if not must_sync and not (self._offers_commit and commit > self._saved_commit):
            return None
        unchanged = (self.term, self.vote) == self._saved_state and commit == self._saved_commit
        self._offers_commit = False
        self._saving = Ready(
            None if unchanged else raftpb.HardState(term=self.term, vote=self.vote, commit=commit),
            self.log.unsaved(),
            self.log.snapshot,
            must_sync,
        )
        self._released_by_save, self.held = self.held, []
        return self._saving

    def saved(self, ready: Ready) -> None:
        """Note that `ready` is durable; what depended on it may be sent now.

        Only now do this member's own vote and acknowledgement count.
        """
        if ready is not self._saving:
            raise ValueError("this is not the save that is under way")
        self._saving = None
        if ready.snapshot is not None:
            self.log.installed(ready.snapshot)
        self.log.saved_entries(ready.entries)
        if (state := ready.hard_state) is not None:
            self._saved_state, self._saved_commit = (state.term, state.vote), state.commit
        self.outbox += self._released_by_save
        self._released_by_save = []
        if self.role is Role.LEADER:
            replication.acknowledge_own(self)
        elif self.role is Role.CANDIDATE and self._saved_state == (self.term, self.id):
            election.count_own_vote(self)

    def committed(self, limit: int) -> list[raftpb.Entry]:
        """Take up to `limit` entries to apply: committed, saved here, and not taken before."""
        return self.log.take(limit)

    def applied(self, index: int) -> None:
        """Note that everything up to `index` is applied."""
        membership.on_applied(self, index)

    def reads(self) -> list[ReadState]:
        """Take the answers to :meth:`read_index`."""
        taken, self.read_states = self.read_states, []
        return taken

    # Facts.

    @property
    def commit_index(self) -> int:
        """What is known to be committed."""
        return self.log.committed

    @property
    def applied_index(self) -> int:
        """What is applied."""
        return self.log.applied

    @property
    def is_learner(self) -> bool:
        """Whether this member only learns, as far as it knows."""
        return self.id in self.configuration.learners

    def hears(self, member: int) -> bool:
        """Whether this leader has heard of `member` in as many ticks as an election timeout has.

        Unlike what the quorum is checked by, which begins anew each time, this may be asked at
        any moment: whoever answers heartbeats is heard, however late its answers are.
        """
        progress = self.progress.get(member)
        if progress is None or progress.heard_tick is None:
            return False
        return self.ticks - progress.heard_tick < self.config.election_ticks

    def config_state(self) -> raftpb.ConfState:
        """Return the membership in force."""
        return self.configuration.to_conf_state()

    def check(self) -> None:
        """Assert every invariant that can be told from one member alone.

        Raises:
            AssertionError: what is broken, and where.
        """
        invariants.check(self, self._saved_state)
