"""Changes of who is in a cluster, asked again for as long as the cluster says "later"."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ...protos import errors
from ...protos.etcdserverpb import (
    Member,
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
)
from ...protos.rpcs import (
    CLUSTER_MEMBER_ADD,
    CLUSTER_MEMBER_LIST,
    CLUSTER_MEMBER_PROMOTE,
    CLUSTER_MEMBER_REMOVE,
)
from .calls import CallFailed, call

T = TypeVar("T")
CALL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_LATER: Final = {
    errors.UNHEALTHY.text,  # 5 s have to pass after a start, and after every partition
    errors.NOT_ENOUGH_STARTED.text,
    errors.LEARNER_NOT_READY.text,
    errors.NOT_LEADER.text,
}
_LATER_CODES: Final = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


class Membership:
    """The members that a cluster agrees upon. ``endpoint`` finds a member to ask, each time.

    Raises ``CallFailed`` when the cluster refuses for good, or for longer than the time given.
    """

    def __init__(self, endpoint: Callable[[], str]) -> None:
        self._endpoint = endpoint

    def members(self) -> Sequence[Member]:
        """Return those that there are, after agreement."""
        return self._members(self._endpoint())

    def add(self, peer_url: str, *, is_learner: bool, timeout_seconds: float) -> Member:
        """Announce a member that has not started."""
        request = MemberAddRequest(peerURLs=[peer_url], isLearner=is_learner)
        return self._until(
            lambda endpoint: call(endpoint, CLUSTER_MEMBER_ADD, request, CALL_SECONDS).member,
            lambda members: _found(members, peer_url),
            timeout_seconds,
        )

    def promote(self, peer_url: str, timeout_seconds: float) -> None:
        """Make a learner a voter, once it has caught up."""

        def promote(endpoint: str) -> bool:
            member = _found(self._members(endpoint), peer_url)
            request = MemberPromoteRequest(ID=member.ID if member is not None else 0)
            call(endpoint, CLUSTER_MEMBER_PROMOTE, request, CALL_SECONDS)
            return True

        def is_promoted(members: Sequence[Member]) -> bool | None:
            member = _found(members, peer_url)
            return True if member is not None and not member.isLearner else None

        self._until(promote, is_promoted, timeout_seconds)

    def remove(self, peer_url: str, timeout_seconds: float) -> None:
        """Take a member out of the cluster; nothing happens if it is not in there."""

        def remove(endpoint: str) -> bool:
            member = _found(self._members(endpoint), peer_url)
            if member is not None:
                request = MemberRemoveRequest(ID=member.ID)
                call(endpoint, CLUSTER_MEMBER_REMOVE, request, CALL_SECONDS)
            return True

        self._until(
            remove,
            lambda members: True if _found(members, peer_url) is None else None,
            timeout_seconds,
        )

    def _members(self, endpoint: str) -> Sequence[Member]:
        request = MemberListRequest(linearizable=True)
        return call(endpoint, CLUSTER_MEMBER_LIST, request, CALL_SECONDS).members

    def _until(
        self,
        change: Callable[[str], T],
        outcome: Callable[[Sequence[Member]], T | None],
        timeout_seconds: float,
    ) -> T:
        """Ask for a change until it is there; an attempt that seemed to fail may have worked."""
        deadline = time.monotonic() + timeout_seconds
        may_have_worked = False
        while True:
            try:
                endpoint = self._endpoint()
                if may_have_worked and (done := outcome(self._members(endpoint))) is not None:
                    return done
                return change(endpoint)
            except CallFailed as failed:
                is_final = failed.text not in _LATER and failed.code not in _LATER_CODES
                if is_final or time.monotonic() > deadline:
                    raise
                may_have_worked |= failed.text not in _LATER
                time.sleep(_POLL_SECONDS)


def _found(members: Sequence[Member], peer_url: str) -> Member | None:
    return next((member for member in members if peer_url in member.peerURLs), None)
