"""What clients did and saw, and whether one store could have done that: strict serializability.

Every answer of etcd carries the store's revision, so the order of what succeeded is not guessed
but read: by revision, a write before the reads that saw it. It is left to check

- that every revision has one write, and replaying them gives each answer exactly as it was seen;
- that the order agrees with real time: what began after something ended is not before it.

Only writes whose outcome nobody knows are searched for: the revisions that no known write explains
are each tried with every one of them, depth first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from consistency.model import Change, Delete, Outcome, Put, Read, Request, State, Txn, carry_out

MAX_STEPS = 1_000_000


class Violation(AssertionError):
    """No store could have answered like that; the text says where it shows."""


class Undecided(Exception):
    """The search was given up: too many writes with an unknown outcome at the same time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All that a watch of every key told of one revision, at once."""

    revision: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A watch was told, by an error, that the history before a revision is compacted away."""

    until: int


@dataclass(frozen=True, slots=True)
class Operation:
    """A request of a client, when it was made and answered, and the answer.

    One whose outcome is unknown has no revision and never returned: it may take effect at any time
    from its call on, or not at all.
    """

    client: str
    request: Request
    called: float
    returned: float = inf
    revision: int = 0
    """The store's revision in the answer."""
    outcome: Outcome = None

    @property
    def is_known(self) -> bool:
        return self.revision > 0

    @property
    def wrote(self) -> bool:
        """Whether the answer says that it made a revision."""
        return self.is_known and _wrote(self.request, self.outcome)


def _wrote(request: object, outcome: object) -> bool:
    match request:
        case Put():
            return True
        case Read():
            return False
        case Txn(_, _, then, otherwise):
            assert isinstance(outcome, tuple)
            held, outcomes = outcome
            steps = zip(then if held else otherwise, outcomes, strict=True)
            return any(_wrote(step, each) for step, each in steps)
        case Delete():
            return outcome is not None
        case _:
            return False


@dataclass(slots=True)
class Timeline:
    """The one order that explains a history: a state and its changes for each revision."""

    first: int
    states: list[State]
    changes: list[tuple[Change, ...]] = field(default_factory=lambda: [()])

    @property
    def last(self) -> int:
        return self.first + len(self.states) - 1

    def state(self, revision: int) -> State:
        return self.states[revision - self.first]

    def changed(self, revision: int) -> tuple[Change, ...]:
        return self.changes[revision - self.first]


def explain(
    operations: Sequence[Operation],
    start: State,
    start_revision: int,
    told: Iterable[Seen] = (),
) -> Timeline:
    """Find the order in which one store answered all that; raises ``Violation``, ``Undecided``.

    `start` is what the store held at `start_revision`, before the first operation began. `told` is
    what watches of all keys saw: witnesses of which write of unknown outcome made a revision.
    """
    check_real_time(operations)
    witnessed: dict[int, tuple[Change, ...]] = {}
    for seen in told:
        if not all(change.is_whole for change in seen.changes):
            continue
        changes = witnessed.setdefault(seen.revision, seen.changes)
        if changes != seen.changes:
            raise Violation(f"{seen.revision} was told as {changes}, and as {seen.changes}")
    return _Search(operations, start, start_revision, witnessed).run()


def check_real_time(operations: Sequence[Operation]) -> None:
    """Raise ``Violation`` unless what began after something ended saw at least its revision."""
    known = [each for each in operations if each.is_known]
    by_return = iter(sorted(known, key=lambda each: each.returned))
    ended = next(by_return, None)
    newest: Operation | None = None
    for operation in sorted(known, key=lambda each: each.called):
        while ended is not None and ended.returned < operation.called:
            if newest is None or ended.revision > newest.revision:
                newest = ended
            ended = next(by_return, None)
        if newest is None or _may_be_old(operation):
            continue
        enough = newest.revision + (1 if operation.wrote else 0)
        if operation.revision < enough:
            raise Violation(
                f"{operation} is of revision {operation.revision}, but began after {newest} ended"
            )


def _may_be_old(operation: Operation) -> bool:
    return isinstance(operation.request, Read) and operation.request.serializable


class _Search:
    """Depth-first over the revisions; a choice only where an unknown write must fill one."""

    def __init__(
        self,
        operations: Sequence[Operation],
        start: State,
        first: int,
        witnessed: Mapping[int, tuple[Change, ...]],
    ) -> None:
        self._timeline = Timeline(first, [start])
        self._witnessed = witnessed
        self._writes: dict[int, Operation] = {}
        self._seen_at: dict[int, list[Operation]] = defaultdict(list)
        self._unknown = [
            each for each in operations if not each.is_known and not isinstance(each.request, Read)
        ]
        self._used: list[Operation | None] = []
        self._steps = 0
        self._deepest = (first, "nothing was tried")
        for operation in operations:
            if operation.wrote:
                other = self._writes.setdefault(operation.revision, operation)
                if other is not operation:
                    raise Violation(f"one revision, two writes: {other} and {operation}")
            elif operation.is_known:
                self._seen_at[operation.revision].append(operation)
        known = [each for each in operations if each.is_known]
        self._last = max((first, *(each.revision for each in known), *witnessed))
        too_old = [each for each in known if each.revision < first]
        if too_old:
            raise Violation(f"older than the start, {first}: {too_old[0]}")
        self._deadlines = _deadlines(known, first, self._last)

    def run(self) -> Timeline:
        self._check_answers(self._timeline.first, self._timeline.state(self._timeline.first))
        choices = [self._candidates(self._timeline.first + 1)]
        while choices and len(self._timeline.states) <= self._last - self._timeline.first:
            revision = self._timeline.last + 1
            if self._advance(choices[-1], revision):
                choices.append(self._candidates(revision + 1))
            else:
                choices.pop()
                self._undo()
        if not choices:
            revision, reason = self._deepest
            raise Violation(f"revision {revision} cannot be explained: {reason}")
        return self._timeline

    def _candidates(self, revision: int) -> Iterator[Operation]:
        known = self._writes.get(revision)
        if known is not None:
            return iter((known,))
        by_when = self._deadlines.get(revision, inf)
        used = {id(each) for each in self._used}
        return iter(
            [each for each in self._unknown if id(each) not in used and each.called <= by_when]
        )

    def _advance(self, candidates: Iterator[Operation], revision: int) -> bool:
        """Try the next writes for `revision`, until one fits."""
        for write in candidates:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise Undecided(f"gave up at revision {revision}; deepest: {self._deepest}")
            before = self._timeline.states[-1]
            state, outcome, changes = carry_out(write.request, before, revision)
            if not changes:
                self._note(revision, f"{write} changes nothing there")
                continue
            if write.is_known and outcome != write.outcome:
                self._note(revision, f"{write} should have been answered {outcome}")
                continue
            if self._witnessed.get(revision, changes) != changes:
                self._note(revision, f"{write}, but watched: {self._witnessed[revision]}")
                continue
            try:
                self._check_answers(revision, state)
            except Violation as violation:
                self._note(revision, str(violation))
                continue
            self._timeline.states.append(state)
            self._timeline.changes.append(changes)
            self._used.append(None if write.is_known else write)
            return True
        self._note(revision, "")
        return False

    def _undo(self) -> None:
        if self._used:
            self._used.pop()
            self._timeline.states.pop()
            self._timeline.changes.pop()

    def _check_answers(self, revision: int, state: State) -> None:
        for operation in self._seen_at.get(revision, ()):
            request = operation.request
            if isinstance(request, Read) and request.at:
                past = self._timeline.state(request.at) if request.at < revision else state
                expected: Outcome = past
            else:
                _, expected, changes = carry_out(request, state, revision + 1)
                if changes:
                    raise Violation(f"{operation} should have made a revision")
            if expected != operation.outcome:
                raise Violation(f"{operation} should have been answered {expected}")

    def _note(self, revision: int, reason: str) -> None:
        """Remember why the search got no further than this."""
        if revision > self._deepest[0] or (revision == self._deepest[0] and reason):
            self._deepest = revision, reason or "no write made it"


def _deadlines(known: Sequence[Operation], first: int, last: int) -> dict[int, float]:
    """By when the write of each revision must have been called: somebody had seen it then."""
    deadlines: dict[int, float] = {}
    seen: dict[int, float] = defaultdict(lambda: inf)
    for operation in known:
        seen[operation.revision] = min(seen[operation.revision], operation.returned)
    earliest = inf
    for revision in range(last, first, -1):
        earliest = min(earliest, seen.get(revision, inf))
        deadlines[revision] = earliest
    return deadlines
