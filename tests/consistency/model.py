"""The store as a history's judge sees it: what each request does to a state, and answers.

States are plain dictionaries that nobody changes; a request makes a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Stored:
    """A key's value, and where it stands in the store's history."""

    value: bytes
    created: int
    modified: int
    version: int


State: TypeAlias = Mapping[bytes, Stored]


@dataclass(frozen=True, slots=True)
class Put:
    """Write one key; the outcome is what was there before."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key; the outcome is what was deleted, or None."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key within a transaction; the outcome is what is there, or None."""

    key: bytes


Step: TypeAlias = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Txn:
    """Do the one or the other, depending on whether a key was last changed at a revision.

    The outcome is whether it was, and the outcomes of the steps.
    """

    key: bytes
    modified: int
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """Read all keys, as of a revision (0: now); the outcome is the state."""

    at: int = 0
    serializable: bool = False
    """Whether any member may answer from what it has."""


Request: TypeAlias = Put | Delete | Txn | Read
Outcome: TypeAlias = object


@dataclass(frozen=True, slots=True)
class Change:
    """What a revision did to one key; a watch tells it as one event."""

    key: bytes
    before: Stored | None
    after: Stored | None

    @property
    def is_whole(self) -> bool:
        """Whether `before` is there if there was any: etcd leaves it out when it is compacted."""
        created = self.after is not None and self.after.version == 1
        return (self.before is None) == created


def carry_out(
    request: Request | Step, state: State, revision: int
) -> tuple[State, Outcome, tuple[Change, ...]]:
    """Return the state after a write at `revision`, its outcome, and the changes in order."""
    match request:
        case Put(key, value):
            before = state.get(key)
            created, version = (before.created, before.version) if before else (revision, 0)
            after = Stored(value, created, revision, version + 1)
            return {**state, key: after}, before, (Change(key, before, after),)
        case Delete(key):
            before = state.get(key)
            if before is None:
                return state, None, ()
            left = {each: stored for each, stored in state.items() if each != key}
            return left, before, (Change(key, before, None),)
        case Get(key):
            return state, state.get(key), ()
        case Txn(key, modified, then, otherwise):
            found = state.get(key)
            held = (found.modified if found else 0) == modified
            outcomes, changes = [], []
            for step in then if held else otherwise:
                state, outcome, changed = carry_out(step, state, revision)
                outcomes.append(outcome)
                changes.extend(changed)
            return state, (held, tuple(outcomes)), tuple(changes)
        case Read():
            return state, state, ()
