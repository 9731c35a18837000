"""What ``health_aware`` can be told, and what it remembers of one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf, isfinite
from typing import Any, Final

from .api import Endpoint, Health, Probe

GAIN: Final = 0.2
"""How much one answer moves the average latency."""
LEAST_LATENCY_SECONDS: Final = 0.001
"""Differences below this are noise, not a reason to prefer anybody."""
LATENCY_MULTIPLE: Final = 4
"""A member is silent only when it takes so many times as long as it commonly does."""
FAILURE_WEIGHT: Final = 4
"""A failure that is not made good weighs as much as so many calls under way."""
MOST_DOUBT: Final = 4.0


@dataclass(frozen=True, kw_only=True)
class HealthAwareOptions:
    """The options of the policy; times are in seconds."""

    probe_interval: float = 20.0
    """How often a member is asked how it is, unless a call that needs a quorum was answered. Calls
    tell sooner; ten thousand idle clients that ask more often are a load (docs/fleet.md)."""
    probe_timeout: float = 1.0
    """How long each question of a probe may stay unanswered."""
    reprobe_first: float = 0.25
    """How soon a member that is out is asked again; each next time, twice as long."""
    reprobe_max: float = 2.0
    """The longest pause before a member that is out is asked again by a client that calls; one
    that does not call takes up to ``probe_interval``."""
    trial_within: float = 2.0
    """Within what time a member is asked whose connection broke and is back; at random, for all
    clients of a member that was restarted come at once. One that calls asks sooner."""
    silence: float = 0.25
    """How long a member with calls under way may say nothing while others answer."""
    eject_after: int = 2
    """So many failures in a row take a member out."""
    max_ejected_share: float = 0.5
    """The share of the endpoints that failures alone may take out; one at least, but never all."""
    hold_first: float = 1.0
    """How long a member is kept out, although it says that it is well, after its second ejection
    within ``forgiven_after``; doubles with each, up to ``hold_max``. The first is not held."""
    hold_max: float = 30.0
    forgiven_after: float = 60.0
    slow_start: float = 5.0
    """Over how long a member that came back grows into its share."""
    latency_memory: float = 10.0
    """After how long without an answer a latency is forgotten."""
    max_lag: float = 5.0
    """A member lags that has not applied what another one had applied so long ago."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "eject_after":
                if type(value) is not int or value < 1:
                    raise ValueError(f"eject_after: a whole number from 1 on, not {value!r}")
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{option.name}: a number is needed, not {value!r}")
            elif not (value > 0 and isfinite(value)):
                raise ValueError(f"{option.name}: a positive number is needed, not {value!r}")
        if self.max_ejected_share > 1:
            raise ValueError(f"max_ejected_share: at most 1, not {self.max_ejected_share!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> HealthAwareOptions:
        """Take them from a table of a configuration; raises ValueError that names the option."""
        known = [option.name for option in fields(cls)]
        for name in options:
            if name not in known:
                told = ", ".join(known)
                raise ValueError(f"health_aware has no option {name!r}; there are: {told}")
        return cls(**options)


@dataclass(slots=True, eq=False)
class Record:
    """One endpoint, as calls and probes have shown it. Times that are not to come are inf."""

    endpoint: Endpoint
    connected: bool = False
    ever_connected: bool = False
    in_flight: int = 0
    """Picks that are not paid back yet. One from before the endpoint was removed and came back may
    be paid back too. Invariant: not below 0."""
    for_any_member: int = 0
    """An upper bound of those that any member could serve, whose answers prove no quorum.
    Invariant: at most ``in_flight``."""
    latency: float = LEAST_LATENCY_SECONDS
    """The moving average. Invariant: not below the least."""
    answered_at: float = -inf
    proved_at: float = -inf
    """When a call that needs a quorum was answered last."""
    waiting_since: float = inf
    """Since when there are calls, but no answers."""
    doubt: float = 1.0
    """How often its silence turned out to be nothing, as a factor of the patience with it."""
    failures: int = 0
    """In a row. A probe that goes well does not end the row: a disk may hang for writes only."""
    blame: int = 0
    """Failures that neither an answer nor a probe has made good."""
    out: str = ""
    """Why it is not in the rotation; empty while it is."""
    times_out: int = 0
    """How often it left the rotation for another reason than its connection."""
    ejections: int = 0
    """Those not forgiven yet."""
    ejected_at: float = -inf
    hold_until: float = -inf
    """Until when no good answer to a probe brings it back."""
    warm_at: float = -inf
    """When it has its whole share again, having come back."""
    health: Health | None = None
    """The last probe's answer."""
    ask_at: float = inf
    """When it is asked next."""
    ask_from: float = inf
    """From when on calls that would have gone there are an occasion to ask sooner."""
    asked: Probe | None = None
    """The probe under way."""
    asked_until: float = -inf
    """When that one counts as lost."""
    bad_probes: int = 0
    """In a row."""
    well_elsewhere: bool = False
    """Whether the member was well over a fresh connection, when it did not answer over its own."""
    put_off: bool = False
    """Whether its probe that is due was put off, because answers were late."""
    drained: bool = False

    # What it can do

    @property
    def can_lead_to_quorum(self) -> bool:
        """Whether it may serve every call, with luck."""
        return self.health is None or not (self.health.learner or self.health.corrupt)

    @property
    def a_read_tells(self) -> bool:
        """Whether a linearizable read by itself would show that it is well again.

        It does not for one that wants to be spared, or that only followed too slowly.
        """
        health = self.health
        return health is None or not health.answered or (health.serving and not health.has_leader)

    @property
    def in_rotation(self) -> bool:
        return self.connected and not self.out

    @property
    def serves_any(self) -> bool:
        """Whether it is a good choice for what every member can serve."""
        if not self.connected:
            return False
        health = self.health
        known_to_answer = health is not None and health.serving and not health.corrupt
        alone = known_to_answer and health is not None and (health.learner or not health.has_leader)
        return not self.out or (alone and not self.blame and self.waiting_since == inf)

    # What happens to it

    def leave(self, reason: str) -> None:
        """Leave the rotation, or stay out of it for another reason."""
        if not self.out:
            self.times_out += 1
        self.out = reason

    def heard(self, now: float) -> None:
        """Note a sign of life."""
        self.waiting_since = now if self.in_flight else inf

    def unheard(self, now: float, silence: float) -> None:
        """Note a call that ended without an answer; one given up early says nothing."""
        if not self.in_flight and now - self.waiting_since < self.patience(silence):
            self.waiting_since = inf

    def patience(self, silence: float) -> float:
        """Say how long its silence is none yet."""
        return self.doubt * max(silence, LATENCY_MULTIPLE * self.latency)

    def up(self) -> None:
        """Begin with a new connection."""
        self.connected = self.ever_connected = True
        self._forget_calls()

    def down(self) -> None:
        self.connected = False
        self._forget_calls()
        self.health, self.asked = None, None
        self.ask_at = self.ask_from = inf

    def _forget_calls(self) -> None:
        self.failures = self.blame = self.bad_probes = 0
        self.waiting_since = inf
        self.well_elsewhere = self.drained = self.put_off = False
        self.latency, self.answered_at = LEAST_LATENCY_SECONDS, -inf


@dataclass(slots=True)
class Watermark:
    """What some member was seen to have applied, long enough ago for all others to follow."""

    lag_seconds: float
    _old: tuple[float, int] = (inf, 0)
    _new: tuple[float, int] = (inf, 0)

    def behind(self, applied_index: int, now: float) -> bool:
        """Whether a member with that index lags."""
        since, index = self._new if now - self._new[0] >= self.lag_seconds else self._old
        return now - since >= self.lag_seconds and applied_index < index

    def see(self, applied_index: int, now: float) -> None:
        """Take in what a member has applied."""
        since, index = self._new
        if since == inf:
            self._new = now, applied_index
        elif applied_index > index and now - since >= self.lag_seconds:
            self._old, self._new = self._new, (now, applied_index)

    def forget(self) -> None:
        """Begin anew: the cluster was restored, or is another one."""
        self._old = self._new = inf, 0
