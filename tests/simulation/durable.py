"""What each member's disk must give back, whatever happens: kept by the run beside the disk."""

from __future__ import annotations

from collections.abc import Iterable

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.storage.wal import WalContents

from .ledger import digest_of
from .violation import demand


class Chain:
    """Log matching over all logs of a run, entry by entry.

    Two logs that have an entry of the same index and term have the same entry there, and the same
    term before it; so, by induction, the same entries all the way down.
    """

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], tuple[int, int]] = {}

    def add(self, entry: raftpb.Entry, previous_term: int, who: str) -> None:
        """Note an entry that stands in some log behind one of `previous_term`."""
        link = (previous_term, digest_of(entry))
        known = self._links.setdefault((entry.Index, entry.Term), link)
        demand(
            known == link,
            "log matching",
            f"{who} has entry {entry.Index} of term {entry.Term} behind term {previous_term}"
            f" with data {link[1]:08x}; elsewhere behind {known[0]} with {known[1]:08x}",
        )


class Durable:
    """One member's log and state, as far as they were synced."""

    def __init__(self, chain: Chain) -> None:
        self.term = 0
        self.vote = 0
        self.start = (0, 0)
        """Index and term of what a snapshot stands for."""
        self.last = 0
        self.terms: dict[int, int] = {}
        self._tried: set[tuple[int, int]] = set()
        """Index and term of entries that may be there, or not: a crash came in between."""
        self._chain = chain

    def term_at(self, index: int) -> int | None:
        """The term of an entry; None when it is not there, or compacted."""
        return self.start[1] if index == self.start[0] else self.terms.get(index)

    def holds(self, index: int, term: int | None) -> bool:
        """Whether everything up to this entry is safe here."""
        return index <= self.start[0] or (term is not None and self.terms.get(index) == term)

    def save(
        self, state: raftpb.HardState | None, entries: Iterable[raftpb.Entry], who: str
    ) -> None:
        """Note what a save that returned has made durable."""
        if state is not None:
            self.term, self.vote = state.term, state.vote
        for entry in entries:
            self._append(entry, who)

    def tries(self, entries: Iterable[raftpb.Entry]) -> None:
        """Note what a save that does not return may leave."""
        self._tried.update((entry.Index, entry.Term) for entry in entries)

    def _append(self, entry: raftpb.Entry, who: str) -> None:
        index = entry.Index
        previous = self.term_at(index - 1)
        demand(previous is not None or index <= self.start[0], "no gaps", f"{who} at {index}")
        for above in range(index + 1, self.last + 1):
            del self.terms[above]
        self.terms[index] = entry.Term
        self.last = index
        if previous is not None:
            self._chain.add(entry, previous, who)

    def install(self, index: int, term: int) -> None:
        """Note that a snapshot has taken the place of the whole log."""
        self.start, self.last = (index, term), index
        self._tried.clear()
        self.terms.clear()

    def compare(self, contents: WalContents, start: tuple[int, int], who: str) -> None:
        """Hold what a restart reads against what was synced; then take it for synced.

        More may be there than was synced, never less: an entry may only be missing when a later
        one has overwritten it.
        """
        state = contents.hard_state
        demand(
            state.term > self.term or (state.term == self.term and self.vote in (0, state.vote)),
            "term and vote survive",
            f"{who} reads term {state.term} vote {state.vote},"
            f" synced were {self.term} and {self.vote}",
        )
        read = {entry.Index: entry.Term for entry in contents.entries}
        for index in range(max(start[0], self.start[0]) + 1, self.last + 1):
            if read.get(index) != self.terms[index]:
                newer = any(term > self.terms[index] for at, term in read.items() if at <= index)
                demand(newer, "synced entries survive", f"{who} has lost entry {index}")
                break
        for index, term in read.items():
            demand(
                self.terms.get(index) == term or (index, term) in self._tried,
                "nothing comes back that was gone",
                f"{who} reads entry {index} of term {term}; synced was {self.terms.get(index)}",
            )
        self.term, self.vote = state.term, state.vote
        self.install(*start)
        for entry in contents.entries:
            self._append(entry, who)
