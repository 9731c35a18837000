"""Balancing policies: a connection policy, an error table and a retry rule, together.

Whoever makes one of their own finds what is needed here and in :mod:`etcd_pinwheel.balancers`: a
:class:`Generation` is given to a client as it is, or a name by an entry point in the group
``etcd_pinwheel.balancers``. docs/balancer.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from random import Random
from typing import Any, Final, Protocol

from ..balancers.api import Balancer
from ..balancers.health_aware import HealthAware
from ..balancers.health_record import HealthAwareOptions
from ..balancers.pinned_multi import PinnedMulti
from ..balancers.pinned_single import PinnedSingle
from ..balancers.round_robin import RoundRobin
from .backoff import Backoff, NoBackoff, QuorumBackoff
from .error_handler import ROUND_ROBIN_TABLE, Cause, ErrorTable, Kind, Row, Verdict
from .errors import ConfigError
from .health_aware import FIRST_ATTEMPT_SHARE, HEALTH_AWARE_TABLE, FailoverPace
from .pinned_tables import PINNED_MULTI_TABLE, PINNED_SINGLE_TABLE

__all__ = [
    "BUILT_IN",
    "HEALTH_AWARE_TABLE",
    "PINNED_MULTI_TABLE",
    "PINNED_SINGLE_TABLE",
    "ROUND_ROBIN_TABLE",
    "Backoff",
    "Cause",
    "ErrorTable",
    "FailoverPace",
    "Generation",
    "Kind",
    "NoBackoff",
    "QuorumBackoff",
    "RetryRule",
    "Row",
    "Verdict",
    "generation",
]

ENTRY_POINT_GROUP: Final = "etcd_pinwheel.balancers"


class RetryRule(Protocol):
    """The pace of a call's attempts."""

    def seconds_before_retry(self, failures: int, endpoints: int) -> float:
        """Say how long to wait after so many failures, of a client with so many endpoints."""
        ...


@dataclass(frozen=True, repr=False)
class Generation:
    """A whole policy, and what its name stands for if it has one.

    Raises ConfigError, which names the field, when it cannot be right.
    """

    balancer: Callable[[Random, Mapping[str, Any]], Balancer]
    """Builds the connection policy from its options; raises TypeError or ValueError on bad ones.
    The random numbers are its own, and so is what it builds: one for each client."""
    table: ErrorTable
    """What to do about a call that failed."""
    retry_rule: Callable[[Backoff], RetryRule]
    """Builds the pace of retries from the client's settings."""
    first_attempt_share: float = 1.0
    """How much of a call's time its first attempt gets, if it may be repeated elsewhere."""
    name: str = ""
    """For people; by default, what ``balancer`` is called."""

    def __post_init__(self) -> None:
        for field in ("balancer", "retry_rule"):
            if not callable(made_by := getattr(self, field)):
                raise ConfigError(field, f"a callable is needed that builds it, not {made_by!r}")
        if not isinstance(self.table, ErrorTable):
            raise ConfigError("table", f"an ErrorTable is needed, not {self.table!r}")
        if missing := [cause.name for cause in Cause if cause not in self.table.rows]:
            raise ConfigError("table", f"has no row for {', '.join(missing)}")
        share = self.first_attempt_share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise ConfigError("first_attempt_share", f"above 0 and at most 1, not {share!r}")

    def __str__(self) -> str:
        return self.name or getattr(self.balancer, "__name__", type(self.balancer).__name__)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def build(self, random: Random, options: Mapping[str, Any]) -> Balancer:
        """Build the connection policy. Raises ConfigError on bad options, and on what is none."""
        try:
            built = self.balancer(random, options)
        except (TypeError, ValueError) as error:
            raise ConfigError("balancer_options", str(error)) from error
        if missing := [part for part in _TREATY if not callable(getattr(built, part, None))]:
            raise ConfigError("balancer", f"{self} builds no balancer: {missing[0]} is missing")
        return built


_TREATY: Final = ("update", "pick", "done", "standings")


def _pinned_multi(random: Random, options: Mapping[str, Any]) -> Balancer:
    _check_names("pinned_multi", options, "on_error")
    return PinnedMulti(random, **options)


def _pinned_single(random: Random, options: Mapping[str, Any]) -> Balancer:
    _check_names("pinned_single", options, "dial_timeout_seconds")
    return PinnedSingle(**options)


def _round_robin(random: Random, options: Mapping[str, Any]) -> Balancer:
    _check_names("round_robin", options)
    return RoundRobin(random)


def _health_aware(random: Random, options: Mapping[str, Any]) -> Balancer:
    return HealthAware(random, HealthAwareOptions.of(options))


def _check_names(policy: str, options: Mapping[str, Any], *known: str) -> None:
    for name in options:
        if name not in known:
            others = f"; there are: {', '.join(known)}" if known else ""
            raise ValueError(f"{policy} has no option {name!r}{others}")


BUILT_IN: Final[Mapping[str, Generation]] = {
    each.name: each
    for each in (
        Generation(_pinned_multi, PINNED_MULTI_TABLE, NoBackoff, name="pinned_multi"),
        Generation(_pinned_single, PINNED_SINGLE_TABLE, NoBackoff, name="pinned_single"),
        Generation(_round_robin, ROUND_ROBIN_TABLE, QuorumBackoff, name="round_robin"),
        Generation(
            _health_aware,
            HEALTH_AWARE_TABLE,
            FailoverPace,
            FIRST_ATTEMPT_SHARE,
            name="health_aware",
        ),
    )
}


def generation(name: str | Generation) -> Generation:
    """Find a policy by its name; one that is there already is itself. Raises ConfigError."""
    if isinstance(name, Generation):
        return name
    if found := BUILT_IN.get(name):
        return found
    plugged = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in plugged:
        known = ", ".join(sorted({*BUILT_IN, *plugged}))
        raise ConfigError("balancer", f"no policy is called {name!r}; there are: {known}")
    loaded = plugged[name].load()
    if not isinstance(loaded, Generation):
        raise ConfigError("balancer", f"the entry point {name!r} does not name a Generation")
    return loaded
