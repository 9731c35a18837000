"""Who leads an election, revision by revision, as its observers follow it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .claim import holder_among
from .results import KeyValue
from .watch import EventType, WatchBatch


class Standings:
    """All candidates of an election, as of a revision.

    Observers follow all of them rather than the leader alone (as clientv3's do, which read anew
    when it goes): so whoever leads next is known without asking, and no short reign is missed.
    """

    def __init__(self) -> None:
        self.revision = 0
        """Everything up to here is taken in."""
        self._candidates: dict[bytes, KeyValue] = {}
        self._leader: KeyValue | None = None
        self._told = False

    @property
    def leader(self) -> KeyValue | None:
        """Who leads as of the revision; None: nobody."""
        return self._leader

    def read(self, candidates: Iterable[KeyValue], revision: int) -> bool:
        """Begin with, or begin anew from, what was read; return whether there is news to tell."""
        self._candidates = {kv.key: kv for kv in candidates}
        self.revision = revision
        return self._settle()

    def take(self, batch: WatchBatch) -> bool:
        """Take in what a revision changed; return whether there is news to tell.

        News is another leader, another value of the leader's, or that nobody leads.
        """
        if batch.revision <= self.revision:
            return False
        for event in batch.events:
            if event.type is EventType.PUT:
                self._candidates[event.key] = event.kv
            else:
                self._candidates.pop(event.key, None)
        self.revision = batch.revision
        return bool(batch.events) and self._settle()

    def _settle(self) -> bool:
        before, self._leader = self._leader, holder_among(self._candidates.values())
        first, self._told = not self._told, True
        return first or _state(before) != _state(self._leader)


def _state(leader: KeyValue | None) -> tuple[int, int] | None:
    return (leader.create_revision, leader.mod_revision) if leader else None
