"""The index of one key: which revisions it has, grouped into generations.

A generation is one life of the key, from its creation to the tombstone that ends it; the last one
is open, and empty while the key does not exist:

    put@2  put@5  delete@6  put@9      ->    [[2, 5, 6(tombstone)], [9]]
    compact(5)                         ->    [[5, 6(tombstone)], [9]]
    compact(6)                         ->    [[6(tombstone)], [9]]
    compact(7)                         ->    [[9]]

Invariants, held by :meth:`KeyIndex._check`:

- there is a generation; all but the last are non-empty and end with a tombstone;
- revisions ascend, within a generation and from one to the next;
- ``version`` is 0 just when the open generation is empty, and no less than its revisions else.
"""

from __future__ import annotations

from bisect import bisect_left

from .revision import REVISION_KEY_BYTES, TOMBSTONE_MARK, RevisionKey, main_of, revision_key


class KeyIndex:
    """The revisions of one key, newest last."""

    __slots__ = ("created", "generations", "version")

    def __init__(self) -> None:
        self.created: int = 0
        """Main revision that opened the last generation; 0 while that is empty."""
        self.version: int = 0
        """Puts since then; more than the revisions still listed once compacted."""
        self.generations: list[list[RevisionKey]] = [[]]

    @classmethod
    def restored(cls, revision: RevisionKey, created: int, version: int) -> KeyIndex:
        """Return the index of a key whose revisions before `revision` are compacted."""
        index = cls()
        index.created, index.version = created, version
        index.generations[0].append(revision)
        return index

    @classmethod
    def restored_tombstone(cls, revision: RevisionKey) -> KeyIndex:
        """Return the index of a key of which only a tombstone is left."""
        index = cls()
        index.generations.insert(0, [revision])
        return index

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is known of the key."""
        return len(self.generations) == 1 and not self.generations[0]

    def put(self, revision: RevisionKey) -> tuple[int, int]:
        """Add a put, newer than everything here; return create revision and version of the key."""
        if not self.version:
            self.created = main_of(revision)
        self.version += 1
        self.generations[-1].append(revision)
        return self.created, self.version

    def end_generation(self, tombstone: RevisionKey) -> None:
        """Add a tombstone; the key must exist."""
        self.generations[-1].append(tombstone)
        self.generations.append([])
        self.created = self.version = 0

    def newest(self) -> RevisionKey | None:
        """Return the revision that holds the key's value now, or None if it does not exist."""
        generation = self.generations[-1]
        return generation[-1] if generation else None

    def newest_before(self, bound: RevisionKey) -> RevisionKey | None:
        """Return the revision that held the key's value just before `bound`, or None."""
        generations = self.generations
        position = self._generation_before(bound)
        if position is None:
            return None
        generation = generations[position]
        count = bisect_left(generation, bound)
        ended = count == len(generation) and position < len(generations) - 1
        return None if ended else generation[count - 1]

    def compact(self, main: int) -> list[bytes]:
        """Forget what no read at `main` or later can see; return its keys in the B+tree.

        Kept are: the value that the key has at `main`, a tombstone written by `main` itself
        (watchers that start there want it; etcd since 3.4.34 and 3.5.16), everything newer.
        """
        bound = revision_key(main + 1)
        position = self._generation_before(bound)
        if position is None:
            return []
        generations = self.generations
        dropped: list[bytes] = []
        for generation in generations[:position]:
            dropped += _stored_keys(generation, ended=True)
        generation = generations[position]
        count = bisect_left(generation, bound)
        ended = count == len(generation) and position < len(generations) - 1
        if ended and main_of(generation[-1]) < main:
            dropped += _stored_keys(generation, ended=True)
            position += 1
        else:
            dropped += generation[: count - 1]
            del generation[: count - 1]
        del generations[:position]
        return dropped

    def _generation_before(self, bound: RevisionKey) -> int | None:
        """Return the position of the newest generation that began before `bound`."""
        for position in range(len(self.generations) - 1, -1, -1):
            generation = self.generations[position]
            if generation and generation[0] < bound:
                return position
        return None

    def _check(self) -> None:
        assert self.generations
        assert all(self.generations[:-1])
        revisions = [revision for generation in self.generations for revision in generation]
        assert revisions == sorted(set(revisions))
        assert all(len(revision) == REVISION_KEY_BYTES for revision in revisions)
        assert (self.version == 0) == (not self.generations[-1])
        assert self.version >= len(self.generations[-1])
        assert (self.created == 0) == (self.version == 0)


def _stored_keys(generation: list[RevisionKey], *, ended: bool) -> list[bytes]:
    """Return the generation's keys in the B+tree."""
    if not ended:
        return generation
    return [*generation[:-1], generation[-1] + TOMBSTONE_MARK]
