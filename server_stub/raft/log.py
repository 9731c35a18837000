"""The log in memory: what was appended, how much of it is saved, committed and applied."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ...protos import raftpb


class LogLost(Exception):
    """This member's log lacks, or contradicts, what the cluster knows it to have had.

    Its directory was lost or damaged. It must stop: what it voted and acknowledged is forgotten.
    """


class Log:
    """Entries behind a compaction point; the copy on disk is kept by whoever saves them.

    Invariants: compacted <= applied <= handed <= committed <= last_index, handed <= saved <=
    last_index (but for a snapshot not installed yet, which may be ahead of applied, handed and
    saved); indexes have no gap, terms never fall; committed never falls, and nothing up to it is
    ever replaced.
    """

    __slots__ = (
        "_ends",
        "_entries",
        "_offset",
        "_term_before",
        "applied",
        "committed",
        "handed",
        "saved",
        "snapshot",
    )

    def __init__(
        self, entries: Iterable[raftpb.Entry] = (), *, compacted: tuple[int, int] = (0, 0)
    ) -> None:
        """Start from saved `entries`, contiguous from behind ``compacted`` (index, term)."""
        self._offset, self._term_before = compacted
        self._entries: list[raftpb.Entry] = []
        self._ends: list[int] = [0]
        """Bytes of payload before each entry, and behind the last; plus a constant."""
        self.snapshot: raftpb.Snapshot | None = None
        """Taken in place of the log, and not installed yet."""
        self.extend(list(entries))
        self.saved = self.last_index
        """Up to here this very log is durable."""
        self.committed = self._offset
        self.handed = self._offset
        """Up to here entries were handed out to be applied."""
        self.applied = self._offset

    def resume(self, committed: int) -> None:
        """Go on after a restart: what is applied is committed, and was handed out.

        Raises:
            LogLost: the log ends before what is `committed`, or applied.
        """
        known = max(self.applied, self.committed, committed)
        if known > self.last_index:
            raise LogLost(
                f"entries up to {known} were committed, the log ends at {self.last_index}"
            )
        if self.applied < self._offset:
            raise LogLost(f"entries behind {self.applied} are not there, only from {self._offset}")
        self.committed = known
        self.handed = self.applied

    @property
    def compacted(self) -> tuple[int, int]:
        """Index and term of the last entry that is not here any more."""
        return self._offset, self._term_before

    @property
    def first_index(self) -> int:
        """Index of the first entry still here (or to come)."""
        return self._offset + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self._offset + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._entries[-1].Term if self._entries else self._term_before

    def term(self, index: int) -> int | None:
        """Return the term of the entry at `index`; None if it is compacted or not there.

        The last compacted entry's term is still known.
        """
        place = index - self._offset - 1
        if 0 <= place < len(self._entries):
            return self._entries[place].Term
        return self._term_before if place == -1 else None

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` has this term, and so all before it agree (paper 5.3)."""
        return self.term(index) == term

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends so is at least as complete as this one (paper 5.4.1)."""
        mine = self.last_term
        return term > mine or (term == mine and index >= self.last_index)

    def slice(self, low: int, high: int, max_bytes: int | None = None) -> Sequence[raftpb.Entry]:
        """Return entries of ``low <= index < high``, at least one, within `max_bytes` of payload.

        Raises:
            IndexError: `low` is compacted.
        """
        first, last = low - self.first_index, min(high, self.last_index + 1) - self.first_index
        if first < 0:
            raise IndexError(f"entry {low} is compacted, the first is {self.first_index}")
        if max_bytes is not None and first < last:
            limit = self._ends[first] + max_bytes
            last = max(first + 1, bisect_right(self._ends, limit, first, last + 1) - 1)
        return self._entries[first:last]

    def size(self, low: int, high: int) -> int:
        """Return the bytes of payload of ``low <= index < high``, as far as they are here."""
        first = max(low - self.first_index, 0)
        last = min(high - self.first_index, len(self._entries))
        return self._ends[last] - self._ends[first] if first < last else 0

    def extend(self, entries: Sequence[raftpb.Entry]) -> None:
        """Append entries that follow the last one."""
        ends = self._ends
        end = ends[-1]
        for entry in entries:
            end += len(entry.Data)
            ends.append(end)
        self._entries.extend(entries)

    def append(self, previous: tuple[int, int], entries: Sequence[raftpb.Entry]) -> bool:
        """Take a leader's entries that follow its ``previous`` (index, term).

        False: this log has no such entry. What conflicts is replaced together with all behind it,
        and nothing is cut off that does not conflict: an append may be late (paper 5.3).

        Raises:
            LogLost: what conflicts is committed.
        """
        index, term = previous
        if index == self.last_index and term == self.last_term:
            self.extend(entries)
            return True
        if not self.matches(index, term):
            return False
        for place, entry in enumerate(entries):
            at = index + 1 + place
            if self.term(at) != entry.Term:
                self._cut(at)
                self.extend(entries[place:])
                break
        return True

    def _cut(self, index: int) -> None:
        """Drop the entries from `index` on."""
        if index <= self.committed:
            raise LogLost(f"entry {index} conflicts, but all up to {self.committed} is committed")
        del self._entries[index - self.first_index :]
        del self._ends[index - self._offset :]
        self.saved = min(self.saved, index - 1)

    def commit_to(self, index: int) -> bool:
        """Note that everything up to `index` is committed; False if that is no news.

        Raises:
            LogLost: the log ends before.
        """
        if index <= self.committed:
            return False
        if index > self.last_index:
            raise LogLost(
                f"the leader saw this member save up to entry {index}, its log ends at "
                f"{self.last_index}: its data were lost or damaged"
            )
        self.committed = index
        return True

    def agreement(self, index: int, term: int) -> tuple[int, int]:
        """Return the last (index, term) at or before `index` of a term not above `term`.

        All that another log holding `term` at `index` can share with this one is up to there. The
        term is 0 where it is not known any more.
        """
        index = min(index, self.last_index)
        if index < self._offset:
            return index, 0
        place = bisect_right(self._entries, term, 0, index - self._offset, key=_term_of)
        if place:
            return self._offset + place, self._entries[place - 1].Term
        if self._term_before <= term:
            return self._offset, self._term_before
        return max(self._offset - 1, 0), 0

    def unsaved(self) -> list[raftpb.Entry]:
        """Return the entries that are still to be saved."""
        return self._entries[max(self.saved - self._offset, 0) :]

    def saved_entries(self, entries: Sequence[raftpb.Entry]) -> None:
        """Note that `entries`, handed out as unsaved before, are durable.

        Those replaced in the meantime are not this log's any more, and count for nothing.
        """
        if self.snapshot is not None or not entries:
            return
        last = entries[-1].Index
        if not self.matches(last, entries[-1].Term):
            last = self._last_common(entries)
        self.saved = max(self.saved, last)

    def _last_common(self, entries: Sequence[raftpb.Entry]) -> int:
        """Return the index of the last of `entries` that this log still holds; 0: none."""
        kept = bisect_left(entries, True, key=lambda e: not self.matches(e.Index, e.Term))
        return entries[kept - 1].Index if kept else 0

    def take(self, limit: int) -> list[raftpb.Entry]:
        """Hand out up to `limit` entries to apply: committed, saved, not handed out before."""
        end = min(self.committed, self.saved, self.handed + limit)
        if end <= self.handed or self.snapshot is not None:
            return []
        low, self.handed = self.handed - self._offset, end
        return self._entries[low : end - self._offset]

    def restore(self, snapshot: raftpb.Snapshot) -> None:
        """Take a snapshot in place of everything; it is to be installed yet.

        Of what is saved only what was committed is still known to be right, so that the end of
        the log is not saved until the snapshot is.
        """
        self.saved = min(self.saved, self.committed)
        self._offset, self._term_before = snapshot.metadata.index, snapshot.metadata.term
        self._entries.clear()
        self._ends = [0]
        self.committed = self._offset
        self.snapshot = snapshot

    def installed(self, snapshot: raftpb.Snapshot) -> None:
        """Note that `snapshot` is durable, and all that it covers thereby applied."""
        index = snapshot.metadata.index
        self.applied = max(self.applied, index)
        self.handed = max(self.handed, index)
        self.saved = max(self.saved, index)
        if self.snapshot is snapshot:
            self.snapshot = None

    def compact(self, index: int) -> None:
        """Drop the entries up to `index`; without effect if that is done already.

        Raises:
            ValueError: they are not applied yet.
        """
        if index > self.applied:
            raise ValueError(f"cannot compact up to {index}, applied is {self.applied}")
        term = self.term(index)
        if index <= self._offset or term is None:
            return
        count = index - self._offset
        del self._entries[:count]
        del self._ends[:count]
        self._offset, self._term_before = index, term

    def check(self) -> None:
        """Assert the invariants; of the entries, those at the end."""
        marks = f"{self.applied=} {self.handed=} {self.committed=} {self.saved=} {self.last_index=}"
        assert self.applied <= self.handed <= self.committed <= self.last_index, marks
        assert self.handed <= self.saved, marks
        assert self.saved <= self.last_index, marks
        if self.snapshot is None:
            assert self._offset <= self.applied, f"{self._offset=} {marks}"
        else:
            assert self.saved < self._offset, f"{self._offset=} not installed, but {marks}"
        assert len(self._ends) == len(self._entries) + 1, "sizes and entries differ"
        tail = self._entries[-8:]
        assert not tail or tail[-1].Index == self.last_index, f"{tail[-1].Index} {marks}"
        for before, after in pairwise(tail):
            assert before.Index + 1 == after.Index, f"a gap behind entry {before.Index}"
            assert before.Term <= after.Term, f"the term falls behind entry {before.Index}"


def _term_of(entry: raftpb.Entry) -> int:
    return entry.Term
