"""Whether a change of the membership may be proposed now, given who is up.

These are etcd's checks before a proposal (``--strict-reconfig-check``): a change must not leave
the cluster with a quorum that it has not got. They go by what the asked member sees, so they are
advice, not proof; what all members must agree on is checked where the change is applied
(:class:`.apply.membership.Membership`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..protos.errors import LEARNER_NOT_READY, NOT_ENOUGH_STARTED, UNHEALTHY, Refused
from .cluster import ClusterMember

HEALTHY_SECONDS: Final = 5.0
"""How long two members must have been connected to count on each other."""
READY_SHARE: Final = 0.9
"""How much of the leader's log a learner must have to be promoted."""


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as one member sees it at one moment."""

    own_id: int
    members: Sequence[ClusterMember]
    connected_since: Callable[[int], float | None]
    """When the connection to another member came about, in seconds; None: there is none."""
    now: float
    """In seconds, of the same clock."""

    @property
    def voters(self) -> list[ClusterMember]:
        """The members whose votes count."""
        return [member for member in self.members if not member.is_learner]

    @property
    def healthy_voters(self) -> int:
        """How many voters this member has been connected to for long enough, itself included."""
        return sum(self._is_healthy(voter.id) for voter in self.voters)

    def is_down(self, member_id: int) -> bool:
        """Whether there is no connection to this member."""
        return member_id != self.own_id and self.connected_since(member_id) is None

    def _is_healthy(self, member_id: int) -> bool:
        if member_id == self.own_id:
            return True
        since = self.connected_since(member_id)
        return since is not None and self.now - since >= HEALTHY_SECONDS


def quorum(voters: int) -> int:
    """How many of so many voters decide."""
    return voters // 2 + 1


def check_addition(view: View, *, is_learner: bool) -> None:
    """Raise ``Refused`` (NOT_ENOUGH_STARTED, UNHEALTHY) unless a member may be added now.

    A newcomer counts as down. A voter alone may add another: it cannot be healthier than it is.
    """
    voters = view.voters
    if not is_learner and not (len(voters) == 1 and _started(voters) == 1):
        _require_started(_started(voters), len(voters) + 1)
    if len(voters) > 1 and view.healthy_voters < quorum(len(voters) + 1):
        raise Refused(UNHEALTHY)


def check_removal(view: View, removed: int) -> None:
    """Raise ``Refused`` (NOT_ENOUGH_STARTED, UNHEALTHY) unless a member may be removed now.

    A learner may always go, and a voter that is down if the started ones of the rest can decide.
    """
    voters = view.voters
    if any(member.id == removed and member.is_learner for member in view.members):
        return
    rest = [voter for voter in voters if voter.id != removed]
    _require_started(_started(rest), len(rest))
    if not view.is_down(removed) and view.healthy_voters - 1 < quorum(len(voters) - 1):
        raise Refused(UNHEALTHY)


def check_promotion(view: View) -> None:
    """Raise ``Refused(NOT_ENOUGH_STARTED)`` unless there may be one more voter, a started one."""
    voters = view.voters
    _require_started(_started(voters) + 1, len(voters) + 1)


def check_readiness(learner_match: int | None, leader_match: int) -> None:
    """Raise ``Refused(LEARNER_NOT_READY)`` for a learner whose log is far behind the leader's.

    ``learner_match`` is None for one that the leader does not know; that is refused later.
    """
    if learner_match is not None and learner_match < READY_SHARE * leader_match:
        raise Refused(LEARNER_NOT_READY)


def _started(members: Sequence[ClusterMember]) -> int:
    """How many have told their name, which is the first thing that they do."""
    return sum(bool(member.name) for member in members)


def _require_started(started: int, voters: int) -> None:
    if started < quorum(voters):
        raise Refused(NOT_ENOUGH_STARTED)
