"""What the leader knows of each member's log, and how fast it feeds it."""

from __future__ import annotations

from collections import deque
from enum import Enum


class State(Enum):
    """How the leader treats a member."""

    PROBE = "probe"
    """Where its log ends is not known: one append per heartbeat, until it agrees."""
    REPLICATE = "replicate"
    """Its log is known: appends go ahead of its answers, within the window."""
    SNAPSHOT = "snapshot"
    """It needs what is compacted: nothing is sent until a snapshot has arrived."""


class Inflights:
    """The window: appends that were sent and not answered, bounded in count and bytes."""

    __slots__ = ("_max_bytes", "_max_count", "_sent", "bytes")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        """Start empty. The bound in bytes is soft: the append that reaches it still goes."""
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._sent: deque[tuple[int, int]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        """How many appends are under way."""
        return len(self._sent)

    @property
    def full(self) -> bool:
        """Whether no more may be sent before an answer."""
        return len(self._sent) >= self._max_count or self.bytes >= self._max_bytes

    @property
    def first_index(self) -> int | None:
        """Last index of the oldest append under way."""
        return self._sent[0][0] if self._sent else None

    @property
    def last_index(self) -> int | None:
        """Last index of the newest append under way."""
        return self._sent[-1][0] if self._sent else None

    def add(self, last_index: int, size: int) -> None:
        """Note an append whose last entry is `last_index`, of `size` bytes of payload."""
        self._sent.append((last_index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Forget what an answer for `index` covers."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self.bytes -= sent.popleft()[1]

    def clear(self) -> None:
        """Forget everything."""
        self._sent.clear()
        self.bytes = 0


class Progress:
    """One member's progress, voter or learner, in the eyes of the leader.

    Invariant: 0 <= match < next; in REPLICATE every append under way ends in (match, next).
    """

    __slots__ = (
        "heard_tick",
        "inflights",
        "is_learner",
        "match",
        "next",
        "paused",
        "pending_snapshot",
        "read_position",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, match: int, next_index: int, inflights: Inflights, is_learner: bool) -> None:
        """Start probing at `next_index`."""
        self.match = match
        """Up to here its saved log is known to be the leader's."""
        self.next = next_index
        """The next entry to send; while probing a guess."""
        self.state = State.PROBE
        self.is_learner = is_learner
        self.recent_active = False
        """Whether it was heard of since the last check of the quorum."""
        self.heard_tick: int | None = None
        """The leader's tick in which it was last heard of; None: never, by this leader."""
        self.paused = False
        """Whether appends wait for a heartbeat's answer: one probe is out, or the window full."""
        self.pending_snapshot = 0
        """SNAPSHOT: the index of the snapshot it was sent."""
        self.sent_commit = 0
        """The highest commit index it was told."""
        self.read_position = 0
        """The newest round of heartbeats it answered in this term, for read index."""
        self.inflights = inflights

    @property
    def is_paused(self) -> bool:
        """Whether it may be sent no append just now."""
        return self.paused or self.state is State.SNAPSHOT

    def heard(self, tick: int) -> None:
        """Note a sign of life."""
        self.recent_active = True
        self.heard_tick = tick

    def _become(self, state: State) -> None:
        self.state = state
        self.paused = False
        self.pending_snapshot = 0
        self.inflights.clear()

    def become_probe(self) -> None:
        """Go back to guessing: behind what it has, or behind the snapshot it was sent."""
        behind = max(self.match, self.pending_snapshot if self.state is State.SNAPSHOT else 0)
        self._become(State.PROBE)
        self.next = behind + 1
        self.sent_commit = min(self.sent_commit, behind)

    def become_replicate(self) -> None:
        """Start to send ahead of answers."""
        self._become(State.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Wait for the snapshot of `index` to arrive."""
        self._become(State.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent(self, count: int, size: int) -> None:
        """Note that an append with the next `count` entries went out, `size` bytes of payload."""
        if self.state is State.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            self.paused = self.inflights.full
        elif count:
            self.paused = True

    def acknowledged(self, index: int) -> bool:
        """Note that it has saved everything up to `index`; False if that is no news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.paused = False
        return True

    def rejected(self, index: int, hint: int) -> bool:
        """Note that it does not agree at `index`, but may at `hint`; False if that is stale.

        Stale: it agreed since (while replicating), or it is not the probe that is out.
        """
        if self.state is State.REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
            self.sent_commit = min(self.sent_commit, self.match)
            return True
        if self.state is State.SNAPSHOT or self.next - 1 != index:
            return False
        self.next = max(min(index, hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.paused = False
        return True

    def can_bump_commit(self, index: int) -> bool:
        """Whether telling it the commit `index` could be news to it.

        Its own commit index cannot pass the entries it was sent.
        """
        return index > self.sent_commit and self.sent_commit < self.next - 1

    def check(self, last_index: int) -> None:
        """Assert the invariants, for a leader whose log ends at `last_index`."""
        assert 0 <= self.match < self.next, f"match {self.match} and next {self.next}"
        assert self.match <= last_index, f"match {self.match} beyond the log's {last_index}"
        first, last = self.inflights.first_index, self.inflights.last_index
        if first is not None and last is not None:
            assert self.state is State.REPLICATE, f"appends under way in {self.state}"
            assert self.match < first <= last < self.next, (
                f"{first}..{last} out of ({self.match}, {self.next})"
            )
