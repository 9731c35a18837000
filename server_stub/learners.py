"""What becomes of learners by itself: promoted when they keep up, put in the place of the dead.

Both are off unless asked for, and both are the leader's. etcd's design of learners proposes them
and leaves them to the operator.

**Promotion** (``--learner-auto-promote``): a learner that has kept up without a break for a set
time becomes a voter. To keep up is to be heard of, and to lack no more than so many entries.

**Standby** (``--standby-failover``): a learner that keeps up waits in reserve. When a voter has not
been heard of for a set time, the learner is promoted, and then the dead voter is demoted to a
learner. Both steps are needed: of four voters with a dead one, no other may fail, as of three with
a dead one. Demoted, not removed: a removed member's id never comes back, but a machine may. If it
does, it catches up and is the next one in reserve.

Each step is a change of one voter, so that quorums overlap, and none needs to be followed by the
next: whoever leads then goes by what is there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Final

from .admission import quorum

LOOK_SECONDS: Final = 0.25
"""How often a leader looks after its members."""
SILENCE_ELECTIONS: Final = 2
"""Election timeouts within which the core is sure to notice that a member is gone."""
_MAX_LOOKS_MISSED: Final = 8
"""After a longer pause, this member was stopped, and knows nothing of how others fared."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One member as the leader sees it."""

    id: int
    is_learner: bool
    match: int
    """The last entry that it is known to have."""
    is_heard: bool
    """Whether it was heard of within the last election timeout."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A learner is to become a voter."""

    id: int
    why: str
    verb: ClassVar = "promote"


@dataclass(frozen=True, slots=True)
class Demotion:
    """A voter is to become a learner."""

    id: int
    why: str
    verb: ClassVar = "demote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is to be done by itself."""

    auto_promote: bool = False
    max_lag: int
    """In entries."""
    healthy_seconds: float
    standby_seconds: float = 0.0
    """0: no standby. Else no less than ``SILENCE_ELECTIONS`` election timeouts."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done."""
        return not self.auto_promote and not self.standby_seconds


class Care:
    """What a leader remembers of its members, and what it does about them.

    Times count from the first look on: a new leader does not know how long a member was gone.
    """

    def __init__(self, policy: Policy, election_timeout_seconds: float) -> None:
        self._policy = policy
        self._alive_seconds = SILENCE_ELECTIONS * election_timeout_seconds
        """After how long a silence a member is no longer counted on."""
        self._looked_at: float | None = None
        self._heard_at: dict[int, float] = {}
        """When members were last heard of; those that never were, when they were first missed."""
        self._heard: set[int] = set()
        """Those heard of at least once."""
        self._keeps_up_since: dict[int, float] = {}

    def forget(self) -> None:
        """Begin anew; to be called when this member does not lead."""
        self._looked_at = None

    def look(
        self, own_id: int, members: Collection[Standing], last_index: int, now: float
    ) -> Promotion | Demotion | None:
        """Take in how the members are; return what is to be done now, if anything.

        ``members`` are all of them, this one too; ``last_index`` is the end of its log.
        """
        self._remember(own_id, members, last_index, now)
        voters = [member for member in members if not member.is_learner]
        alive = [voter for voter in voters if self._is_alive(voter, now)]
        if len(alive) < quorum(len(voters)):
            return None  # nothing that is proposed would come about
        ready = self._readiest(members, now)
        if self._policy.standby_seconds and (step := self._replace(voters, ready, now)):
            return step
        if self._policy.auto_promote and ready is not None:
            return Promotion(ready.id, "it keeps up with the leader")
        return None

    def refused(self, member_id: int, now: float) -> None:
        """Take it that a promotion was refused: the learner has to prove itself once more."""
        if member_id in self._keeps_up_since:
            self._keeps_up_since[member_id] = now

    def _replace(
        self, voters: list[Standing], ready: Standing | None, now: float
    ) -> Promotion | Demotion | None:
        """Do the next step to get a dead voter out of the quorum's way."""
        limit_seconds = self._policy.standby_seconds
        dead = [each for each in voters if self._silent_seconds(each, now) >= limit_seconds]
        if not dead:
            return None
        longest = max(dead, key=lambda voter: (self._silent_seconds(voter, now), voter.id))
        if len(voters) % 2 == 0:  # one voter less, and as many may fail as before, or one more
            return Demotion(longest.id, "it is dead, and the other voters suffice")
        if ready is not None:
            return Promotion(ready.id, f"voter {longest.id:x} is dead")
        return None

    def _readiest(self, members: Collection[Standing], now: float) -> Standing | None:
        """Return the learner that has kept up longest, if that is long enough.

        It has to be heard of just now, too: where no voter more may fail, to promote one that
        has died meanwhile costs the quorum.
        """
        ready = [
            member
            for member in members
            if member.is_learner
            and member.is_heard
            and member.id in self._keeps_up_since
            and now - self._keeps_up_since[member.id] >= self._policy.healthy_seconds
        ]
        return min(ready, key=lambda each: (self._keeps_up_since[each.id], each.id), default=None)

    def _is_alive(self, member: Standing, now: float) -> bool:
        return self._silent_seconds(member, now) < self._alive_seconds

    def _silent_seconds(self, member: Standing, now: float) -> float:
        return now - self._heard_at[member.id]

    def _remember(
        self, own_id: int, members: Collection[Standing], last_index: int, now: float
    ) -> None:
        if self._looked_at is None or now - self._looked_at > _MAX_LOOKS_MISSED * LOOK_SECONDS:
            self._heard_at.clear()
            self._heard.clear()
            self._keeps_up_since.clear()
        self._looked_at = now
        self._heard |= {member.id for member in members if member.is_heard}
        self._heard_at = {
            member.id: now
            if member.is_heard or member.id == own_id
            else self._heard_at.get(member.id, now)
            for member in members
        }
        self._keeps_up_since = {
            member.id: self._keeps_up_since.get(member.id, now)
            for member in members
            if member.is_learner
            and member.id in self._heard
            and self._is_alive(member, now)
            and last_index - member.match <= self._policy.max_lag
        }
