"""What users see of a watch: its options, events and batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..protos.etcdserverpb import WatchCreateRequest
from ..protos.mvccpb import Event
from .arguments import flag, revision, seconds, whole_number
from .call import Call
from .errors import InvalidArgument, WaitTimedOut
from .keys import KeyLike, to_range
from .results import KeyValue
from .watcher import Taken, Watcher

DEFAULT_BUFFER_EVENTS: Final = 4096


class EventType(Enum):
    """What happened to a key."""

    PUT = "put"
    DELETE = "delete"


class WatchFilter(Enum):
    """What a watch leaves out, already on the server."""

    NOPUT = "noput"
    NODELETE = "nodelete"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A change of one key."""

    type: EventType
    kv: KeyValue
    """The key as it is after the change; of a deleted one only key and mod_revision are set."""
    prev_kv: KeyValue | None
    """The key as it was before: with ``prev_kv=True``, if there was one and it is not compacted."""

    @classmethod
    def of(cls, event: Event) -> WatchEvent:
        previous = KeyValue.of(event.prev_kv) if event.HasField("prev_kv") else None
        return cls(_TYPES[event.type], KeyValue.of(event.kv), previous)

    @property
    def key(self) -> bytes:
        return self.kv.key

    @property
    def value(self) -> bytes:
        """The new value; empty for a deletion."""
        return self.kv.value

    @property
    def revision(self) -> int:
        """The revision that made the change."""
        return self.kv.mod_revision

    @property
    def is_create(self) -> bool:
        """Whether a put made the key, rather than changed it."""
        return self.type is EventType.PUT and self.kv.create_revision == self.kv.mod_revision


_TYPES: Final = {Event.PUT: EventType.PUT, Event.DELETE: EventType.DELETE}


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """All that one revision changed, as far as the watch asked for it."""

    revision: int
    events: tuple[WatchEvent, ...]
    """Empty: progress. Everything up to the revision has been delivered."""

    @property
    def is_progress(self) -> bool:
        return not self.events


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What ``watch`` was asked for, checked."""

    request: WatchCreateRequest
    require_leader: bool
    buffer_events: int
    max_outage_seconds: float | None
    timeout_seconds: float

    def watcher(self) -> Watcher:
        return Watcher(
            self.request,
            buffer_events=self.buffer_events,
            max_outage_seconds=self.max_outage_seconds,
        )


def watch(
    call: Call,
    key: KeyLike,
    range_end: KeyLike | None = None,
    *,
    prefix: bool = False,
    from_key: bool = False,
    start_revision: int = 0,
    prev_kv: bool = False,
    filters: Iterable[WatchFilter | str] = (),
    progress_notify: bool = False,
    fragment: bool | None = None,
    require_leader: bool = True,
    buffer_events: int = DEFAULT_BUFFER_EVENTS,
    max_outage: float | None = None,
    timeout: float | None = None,
) -> WatchOptions:
    """Watch a key, a range or a prefix; see :class:`Watch`.

    ``start_revision``: deliver what happened from there on; 0 is from now on. ``filters``: leave
    out puts or deletions. ``progress_notify``: have the server tell, every ten minutes without an
    event, how far the watch has got. ``fragment``: let the server split answers of more than
    2 MiB; they are joined here, and a revision is always delivered whole. None: if the client's
    ``max_receive_bytes`` was lowered. (etcd 3.5 takes seconds to split 25,000 small events.)

    ``require_leader``: leave a member that has lost its leader, where the watch would be silent.
    ``max_outage``: end the watch with WatchInterrupted when no member has served it for so many
    seconds; None: try for ever. ``timeout``: how many seconds creating it may take; None: the
    client's own.

    ``buffer_events``: when so many events wait to be taken, the watch pauses: it is cancelled on
    the server, and resumed where it was as soon as half of them are taken. So a slow consumer
    costs bounded memory (those, and one answer of the server, which is up to 1,000 revisions)
    and holds up nobody; it loses nothing unless what it still needs is compacted away meanwhile
    (Compacted).
    """
    start, end = to_range(key, range_end, prefix, from_key)
    request = WatchCreateRequest(
        key=start,
        range_end=end,
        start_revision=revision("start_revision", start_revision),
        prev_kv=flag("prev_kv", prev_kv),
        filters=_filters(filters),
        progress_notify=flag("progress_notify", progress_notify),
        fragment=call.receive_limited if fragment is None else flag("fragment", fragment),
    )
    return WatchOptions(
        request,
        flag("require_leader", require_leader),
        whole_number("buffer_events", buffer_events, 1),
        seconds("max_outage", max_outage),
        call.allowance(timeout),
    )


_FILTERS: Final = {
    WatchFilter.NOPUT: WatchCreateRequest.NOPUT,
    WatchFilter.NODELETE: WatchCreateRequest.NODELETE,
}


def _filters(filters: Iterable[WatchFilter | str]) -> list[WatchCreateRequest.FilterType]:
    try:
        return [_FILTERS[WatchFilter(each)] for each in filters]
    except (TypeError, ValueError) as error:
        problem = f"filters: a list of noput, nodelete or both is needed: {error}"
        raise InvalidArgument(problem) from None


class Reading:
    """What a consumer has taken of a watch, so that stopping in mid-revision loses nothing."""

    def __init__(self) -> None:
        self.revision = 0
        """Everything up to here has been handed out; a new watch goes on one later."""
        self._current: deque[Event] = deque()
        self._current_revision = 0

    def begin(self, taken: Taken) -> None:
        """Go on with the next revision."""
        self._current.extend(taken.events)
        self._current_revision = taken.revision
        if not taken.events:
            self._finish()

    def next_event(self) -> WatchEvent | None:
        """Hand out the next event of the revision begun; None: it has no more."""
        if not self._current:
            return None
        event = WatchEvent.of(self._current.popleft())
        if not self._current:
            self._finish()
        return event

    def rest(self) -> WatchBatch | None:
        """Hand out what is left of the revision begun; None: nothing."""
        return self._batch() if self._current else None

    def batch(self, taken: Taken) -> WatchBatch:
        """Hand out a whole revision."""
        self.begin(taken)
        return self._batch()

    def _batch(self) -> WatchBatch:
        events = tuple(map(WatchEvent.of, self._current))
        self._current.clear()
        self._finish()
        return WatchBatch(self._current_revision, events)

    def _finish(self) -> None:
        self.revision = max(self.revision, self._current_revision)


def wait_error() -> WaitTimedOut:
    """Say that nothing came of a watch in time."""
    return WaitTimedOut("nothing came of the watch in time; it goes on")
