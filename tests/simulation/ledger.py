"""What the cluster has agreed on, as the run has seen it: the history all members must share."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.replica import Applied

from .model import Expected, Model
from .violation import Violation, demand


@dataclass(frozen=True, slots=True)
class Fact:
    """A committed entry."""

    term: int
    digest: int
    committed_in: int
    """The term of the leader that committed it."""


class Ledger:
    """Committed entries, what applying them came to, and what clients were told."""

    def __init__(self) -> None:
        self.model = Model()
        self.facts: dict[int, Fact] = {}
        self.last_committed = 0
        self.last_applied = 0
        self.outcomes: dict[int, int] = {}
        """By index: a digest of what applying the entry came to."""
        self.expected: dict[int, Expected] = {}
        self.index_of: dict[int, int] = {}
        """By the id of a request: where in the log it is."""
        self.never: set[int] = set()
        """Ids of requests that were turned away before they were proposed."""
        self.acknowledged_index = 0
        self.acknowledged_revision = 1
        """The newest revision that any client was told of."""
        self.hashes: dict[tuple[int, int], int] = {}
        """By compacted revision and revision: HashKV."""
        self.granted_at: dict[int, tuple[float, int]] = {}
        """By lease: when it was first there anywhere, and its TTL."""

    def commit(self, entry: raftpb.Entry, term: int, who: str) -> None:
        """A member of this term takes an entry for committed."""
        digest = digest_of(entry)
        fact = self.facts.get(entry.Index)
        if fact is None:
            self.facts[entry.Index] = Fact(entry.Term, digest, term)
            self.last_committed = max(self.last_committed, entry.Index)
        elif (fact.term, fact.digest) != (entry.Term, digest):
            raise Violation(
                "state-machine safety",
                f"{who} commits entry {entry.Index} of term {entry.Term} ({digest:08x});"
                f" committed before: term {fact.term} ({fact.digest:08x})",
            )

    def applied(self, applied: Applied, revision: int, who: str, now: float) -> None:
        """A member has applied an entry, and its store is at ``revision`` now."""
        index = applied.entry.Index
        outcome = _digest_of_outcome(applied, revision)
        known = self.outcomes.get(index)
        if known is not None:
            demand(
                known == outcome,
                "same outcome everywhere",
                f"{who} applies entry {index} with another result: revision {revision},"
                f" {applied.reply} {applied.refused}",
            )
            return
        demand(
            index == self.last_applied + 1,
            "applied in order",
            f"{who} applies entry {index}, nobody has applied {self.last_applied + 1}",
        )
        self.outcomes[index] = outcome
        self.last_applied = index
        if applied.request is not None:
            self._account(applied, revision, who, now)

    def _account(self, applied: Applied, revision: int, who: str, now: float) -> None:
        """Hold the first outcome of a request against the model."""
        request, index = applied.request, applied.entry.Index
        assert request is not None
        number = request.header.ID
        demand(number not in self.never, "refused means never", f"request {number:x} is applied")
        if number:
            demand(number not in self.index_of, "exactly once", f"{number:x} is applied again")
            self.index_of[number] = index
        expected = self.model.apply(request)
        self.expected[index] = expected
        if request.HasField("lease_grant") and not expected.refused:
            self.granted_at[request.lease_grant.ID] = (now, request.lease_grant.TTL)
        refused = applied.refused is not None
        demand(
            revision == expected.revision and refused == expected.refused,
            "applied as the model says",
            f"{who} at entry {index}: revision {revision}, refused {refused}; {expected}",
        )
        if request.HasField("txn") and not refused:
            demand(
                applied.reply.succeeded == expected.succeeded,  # type: ignore[union-attr]
                "applied as the model says",
                f"entry {index}: {applied.reply}",
            )

    def acknowledge(self, index: int, revision: int) -> None:
        """A client was told the outcome of an entry, or what a read saw."""
        self.acknowledged_index = max(self.acknowledged_index, index)
        self.acknowledged_revision = max(self.acknowledged_revision, revision)

    def note_hash(self, compacted: int, revision: int, value: int, who: str) -> None:
        """A member has computed HashKV."""
        known = self.hashes.setdefault((compacted, revision), value)
        demand(
            known == value,
            "same HashKV everywhere",
            f"{who} has {value:08x} at revision {revision}, not {known:08x}",
        )


def digest_of(entry: raftpb.Entry) -> int:
    """What tells two entries of one index and term apart."""
    return crc32(entry.Data, entry.Type)


def _digest_of_outcome(applied: Applied, revision: int) -> int:
    reply = b"" if applied.reply is None else applied.reply.SerializeToString(deterministic=True)
    refused = b"" if applied.refused is None else str(applied.refused).encode()
    return crc32(b"%d %b %b" % (revision, reply, refused))
