"""The state of one member, and the two transitions that every part needs.

The parts (:mod:`.reads`, :mod:`.replication`, :mod:`.election`, :mod:`.membership`,
:mod:`.proposals`) are functions of this state; :class:`.core.Raft` is the state with all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from ...protos import raftpb
from .confchange import Configuration
from .config import Config
from .log import Log
from .messages import NOBODY, Message
from .progress import Inflights, Progress


class ProposalDropped(Exception):
    """A proposal that was not taken, for the reason given; it has had no effect."""


class Role(Enum):
    """What a member is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class ReadState:
    """The answer to a read index: what was asked with `context` may be read from `index` on."""

    index: int
    context: bytes


@dataclass(frozen=True, slots=True)
class PendingRead:
    """A read that waits for a round of heartbeats to confirm that this leader still leads."""

    round: int
    """The first round that was sent after it came."""
    sender: int
    context: bytes
    index: int
    """What was committed when it came."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What is to be made durable next, in one go: the snapshot first, then entries and state.

    Saving entry i discards what was saved at i and behind it.
    """

    hard_state: raftpb.HardState | None
    """None: unchanged. Its commit index never exceeds what was durable before this save, so that
    a log which is shorter than it is known to be damaged; or it is that of the snapshot."""
    entries: list[raftpb.Entry] = field(default_factory=list)
    snapshot: raftpb.Snapshot | None = None
    """To install in place of everything, before the entries."""
    must_sync: bool = True
    """False: only the commit index moved, which may be lost."""


class Node:
    """The state of one member.

    Invariants: term never falls, and in a term the vote is given once; a leader's term and a
    counted own vote are durable; `progress` holds exactly the members while leading, else nobody.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        hard_state: raftpb.HardState,
        configuration: Configuration,
        random: Callable[[int], int],
        snapshot: Callable[[], raftpb.Snapshot | None],
    ) -> None:
        """Be a follower of nobody, with what is durable."""
        self.config = config
        self.id = config.id
        self.log = log
        self.term: int = hard_state.term
        self.vote: int = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.configuration = configuration
        self.members = configuration.members()
        self.snapshot = snapshot
        self._random = random

        self.ticks = 0
        """All that have passed."""
        self.election_elapsed = 0
        """Ticks since the leader was heard of (leading: since the quorum was checked)."""
        self.election_timeout = 0
        """Ticks after which to campaign; drawn anew on every change of term or role."""
        self.heartbeat_elapsed = 0
        self.votes: dict[int, bool] = {}

        self.progress: dict[int, Progress] = {}
        self.transferee = NOBODY
        """Who is to take over the lead; no proposals are taken meanwhile."""
        self.pending_conf_index = 0
        """No change of the membership behind this index is in the log; it may be unapplied."""

        self.waiting_reads: list[tuple[int, bytes]] = []
        """(sender, context) of reads that came before a commit in this term."""
        self.pending_reads: deque[PendingRead] = deque()
        self.read_states: list[ReadState] = []
        self.round = 0
        """How many rounds of heartbeats were sent for reads; the context of heartbeats."""

        self.wants_appends = False
        """Whether the members are to hear of new entries or a new commit index."""
        self.wants_heartbeats = False
        self.wants_round = False
        self.forwards: list[raftpb.Entry] = []
        """Proposals for the leader."""
        self.refused = 0
        """Messages that were ignored because they can only be wrong."""
        self.dropped = 0
        """Others' proposals that were not taken."""

        self.outbox: list[Message] = []
        self.held: list[Message] = []
        """Messages that say what is not durable yet; all of the current term, see `send_saved`."""
        self.draw_timeout()

    def draw_timeout(self) -> None:
        """Choose an election timeout at random, so that members seldom campaign together."""
        self.election_timeout = self.config.election_ticks + self._random(
            self.config.election_ticks
        )

    def send(self, message: Message) -> None:
        """Send at once.

        Right for whatever promises nothing that a crash could undo: appends, heartbeats and
        snapshots (the term that one leads in is durable before one leads, see `election`), answers
        to heartbeats (a quorum has this term durably, or nobody would lead in it), pre-votes (they
        bind nobody), read indexes, and requests without a term.
        """
        self.outbox.append(message)

    def send_saved(self, message: Message) -> None:
        """Send as soon as the term, the vote and the log of now are durable.

        For every answer about entries and votes, and for requests for votes. Were such a request
        sent before, a candidate could crash, come back with the old term and a shorter log, run
        in the same term again, and count votes that were given for the longer log.

        What is held is forgotten when the term changes, before anybody could have relied on it.
        """
        held = self.held
        if held and message.type == raftpb.MsgAppResp and not message.reject:
            last = held[-1]
            if last.type == raftpb.MsgAppResp and not last.reject and last.to == message.to:
                last.index = max(last.index, message.index)  # acknowledgements are cumulative
                return
        held.append(message)

    def reset(self, term: int) -> None:
        """Begin `term`, or a new role in it."""
        if term != self.term:
            self.term = term
            self.vote = NOBODY
            self.held.clear()
        self.leader = NOBODY
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.draw_timeout()
        self.votes.clear()
        self.progress.clear()
        self.transferee = NOBODY
        self.pending_conf_index = 0
        self.waiting_reads.clear()
        self.pending_reads.clear()
        self.wants_appends = self.wants_heartbeats = self.wants_round = False

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader` in `term`."""
        self.reset(term)
        self.role = Role.FOLLOWER
        self.leader = leader

    def new_progress(self, member: int, *, match: int, next_index: int) -> Progress:
        """Return the progress of a member that nothing is known of yet."""
        window = Inflights(self.config.max_inflight_messages, self.config.max_inflight_bytes)
        learns = member in self.configuration.learners
        return Progress(match, next_index, window, learns)

    @property
    def is_sole_voter(self) -> bool:
        """Whether no other member's vote or acknowledgement is needed for anything."""
        return self.configuration.voters.ids == {self.id}

    @property
    def committed_in_term(self) -> bool:
        """Whether an entry of the current term is committed: a leader then knows all that are."""
        return self.log.term(self.log.committed) == self.term
