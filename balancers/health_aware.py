"""``health_aware``: whoever can serve this call, and of two such the less busy and nearer one.

The fourth generation; models no release of etcd's client. One connection per endpoint, and of each
endpoint a :class:`.health_record.Record`, fed by the outcome of calls and by probes.

Rule 1: *in the rotation* is who is connected and not *out*. A pick draws two of the rotation at
random and takes the one with fewer calls under way (power of two choices), each of which weighs as
much as its member is slow, if one is twice as slow as the other: members that differ little share
evenly. Who has answered nothing for a while has no known latency, and is tried again.

Rule 2: what takes a member out. Opinions: it failed several calls in a row; the error handler
failed over from it; it is silent while others answer. They may take out a part of the endpoints
only. Facts, from probes: no answer, not serving, no leader, learner, corrupt, lagging. And a
connection that broke is on trial when it is back.

Rule 3: a member that is out comes back when a probe that includes a linearizable read says that it
is well, and not before; then it grows into its share. It is asked as often as calls would have gone
there, within bounds, so that a fleet's probes do not drown it: who calls much finds out at once,
and who does not has time. There is no fixed penalty, but for one that is ejected again and again,
and each time says that it is well.

Rule 4: less is asked when there is more trouble. If others take long too, or hardly anything is
answered, it is an overload or our own fault, and probes would keep it up. So a member is late only
if it takes several times as long as the last answer did; while answers are late, routine probes
wait; and whatever gets no answer takes from a budget that answers fill (budget.py). With that used
up, one member is asked each ``probe_interval``.

Rule 5: nobody is stranded for an opinion. With an empty rotation all who are connected serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from random import Random
from typing import Final

from .api import (
    Action,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Drain,
    Endpoint,
    EndpointsChanged,
    Event,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    Standing,
    WakeAt,
    Woken,
)
from .budget import Budget
from .health_record import (
    FAILURE_WEIGHT,
    GAIN,
    LATENCY_MULTIPLE,
    LEAST_LATENCY_SECONDS,
    MOST_DOUBT,
    HealthAwareOptions,
    Record,
    Watermark,
)

MUCH_BETTER: Final = 2.0
"""By which factor one of two has to be faster for that to count."""
LOOK_SECONDS: Final = 0.05
"""How often the calls' answers are an occasion to look for members that do not answer."""
TRIAL_PATIENCE: Final = 4.0
"""How many times as long as other probes a first one over a connection that is back may take."""
_QUORUM: Final = Need.QUORUM
"""Held, for Python 3.11 takes ten times as long to look up a member of an Enum."""


class HealthAware:
    """The policy's state: a record of each endpoint, and who of them serves what."""

    def __init__(self, random: Random, options: HealthAwareOptions | None = None) -> None:
        self._random = random
        self._draw = random.random
        self._options = options or HealthAwareOptions()
        self._memory = self._options.latency_memory
        self._records: dict[Endpoint, Record] = {}
        self._rotation: list[Record] = []
        """Who serves calls that need a quorum. Invariant: those with ``in_rotation``."""
        self._any: list[Record] = []
        """Who serves the others. Invariant: those with ``serves_any``."""
        self._able: list[Record] = []
        """Who serves when nobody else does. Invariant: connected."""
        self._watermark = Watermark(self._options.max_lag)
        self._budget = Budget()
        """Of probes: calls and probes without an answer take from it."""
        self._spare_until = -inf
        """Until when nobody is asked, with the budget used up."""
        self._latest = 0.0
        """How long the last answer took."""
        self._look_at = -inf
        self._alarm_at = inf

    # The treaty

    def update(self, event: Event, now: float) -> Sequence[Action]:
        match event:
            case EndpointsChanged(endpoints):
                actions = self._serve_from(endpoints)
            case Connected(endpoint) if record := self._records.get(endpoint):
                actions = self._connected(record, now)
            case Disconnected(endpoint) if record := self._records.get(endpoint):
                record.down()
                actions = []
            case Probed(endpoint, health) if record := self._records.get(endpoint):
                actions = self._probed(record, health, now)
            case FailedOver(endpoint, failure) if record := self._records.get(endpoint):
                actions = self._suspect(record, f"failed over: {failure.name.lower()}", now)
            case Woken():
                self._alarm_at = inf
                actions = self._ask_who_is_due(now)
            case _:
                return ()
        self._arrange()
        return self._with_alarm(actions, now)

    def pick(self, need: Need, now: float, tried: Sequence[Endpoint] = ()) -> Endpoint | None:
        needs_quorum = need is _QUORUM
        pool = self._rotation if needs_quorum else self._any
        if tried or not pool:
            pool = self._untried(pool, tried)
            if not pool:
                return None
        count = len(pool)
        if count == 1:
            record = pool[0]
        else:
            first = int(self._draw() * count)
            second = int(self._draw() * (count - 1))
            if second >= first:
                second += 1
            record = self._better(pool[first], pool[second], now)
        record.in_flight += 1
        if not needs_quorum:
            record.for_any_member += 1
        if record.waiting_since > now:
            record.waiting_since = now
        return record.endpoint

    def done(
        self, endpoint: Endpoint, failure: Failure | None, seconds: float, now: float
    ) -> Sequence[Action]:
        record = self._records.get(endpoint)
        if record is None:
            return ()
        in_flight = record.in_flight
        if in_flight:
            record.in_flight = in_flight = in_flight - 1
        if for_any_member := record.for_any_member:
            record.for_any_member = min(for_any_member, in_flight)
        if failure is not None:
            actions = self._failed(record, failure, seconds, now)
            return self._with_alarm(actions, now) if actions else ()
        latency = seconds
        if now - record.answered_at < self._memory:
            latency = record.latency + GAIN * (seconds - record.latency)
        record.latency = latency if latency > LEAST_LATENCY_SECONDS else LEAST_LATENCY_SECONDS
        record.answered_at = now
        record.waiting_since = now if in_flight else inf
        self._latest = seconds
        if self._budget.spent:
            self._budget.earn()
        if not for_any_member:
            record.failures = record.blame = 0
            record.proved_at = now
        return () if now < self._look_at else self._look_around(now)

    def standings(self, now: float) -> Mapping[Endpoint, Standing]:
        return {
            endpoint: Standing(
                connected=record.connected,
                eligible=record in (self._rotation or self._able),
                ejected_until=max(now, record.hold_until) if record.out else None,
                latency_seconds=record.latency if record.answered_at > -inf else None,
                reason=record.out,
                ejections=record.times_out,
            )
            for endpoint, record in self._records.items()
        }

    # Choosing

    def _better(self, one: Record, other: Record, now: float) -> Record:
        """Take one of two that were drawn: the first, unless the second is much better."""
        if now < one.warm_at and self._draw() * self._options.slow_start < one.warm_at - now:
            return other
        cost: float = one.in_flight + 1
        others: float = other.in_flight + 1
        if one.blame or other.blame:
            cost += FAILURE_WEIGHT * one.blame
            others += FAILURE_WEIGHT * other.blame
        latency, others_latency = one.latency, other.latency
        if latency > MUCH_BETTER * others_latency or others_latency > MUCH_BETTER * latency:
            remembered = now - self._memory
            if one.answered_at > remembered and other.answered_at > remembered:
                cost, others = cost * latency, others * others_latency
        return other if cost > others else one

    def _untried(self, pool: list[Record], tried: Sequence[Endpoint]) -> list[Record]:
        """Narrow a pool down to who has not failed this very call; widen it before it is empty."""
        fresh = [record for record in pool if record.endpoint not in tried]
        if fresh:
            return fresh
        if len(pool) > 1:  # the call has been everywhere: anywhere but where it failed last
            return [record for record in pool if record.endpoint != tried[-1]]
        able = [record for record in self._able if record.endpoint not in tried]
        return able or pool or self._able

    def _arrange(self) -> None:
        records = self._records.values()
        self._rotation = [record for record in records if record.in_rotation]
        self._any = [record for record in records if record.serves_any]
        connected = [record for record in records if record.connected]
        self._able = [record for record in connected if record.can_lead_to_quorum] or connected

    # What calls tell

    def _silence(self) -> float:
        """Say how long any member may be silent: longer while the others take long, too."""
        return max(self._options.silence, LATENCY_MULTIPLE * self._latest)

    def _failed(self, record: Record, failure: Failure, seconds: float, now: float) -> list[Action]:
        silence = self._silence()
        match failure:
            case Failure.CANCELLED:
                record.unheard(now, silence)
                return []
            case Failure.REFUSED:
                record.heard(now)
                return []
            case Failure.TIMED_OUT:
                record.unheard(now, silence)
                if seconds < record.patience(silence):  # the caller was in a hurry
                    return []
                self._budget.spend()
            case Failure.UNAVAILABLE:
                record.heard(now)
            case Failure.NOT_SENT | Failure.BROKEN:
                record.waiting_since = inf
        record.failures += 1
        record.blame += 1
        if record.failures >= self._options.eject_after:
            return self._eject(record, failure, now)
        return self._ask(record, now)

    def _eject(self, record: Record, failure: Failure, now: float) -> list[Action]:
        if not self._may_take_out(record):
            return self._ask(record, now)
        options = self._options
        if now - record.ejected_at > options.forgiven_after:
            record.ejections = 0
        record.ejections += 1
        record.ejected_at = now
        if record.ejections > 1:
            hold = min(options.hold_first * 2 ** min(record.ejections - 2, 30), options.hold_max)
            record.hold_until = now + hold * self._random.uniform(0.75, 1.25)
        reason = f"{record.failures} calls in a row failed: {failure.name.lower()}"
        return [*self._take_out(record, reason), *self._ask(record, now)]

    def _look_around(self, now: float) -> Sequence[Action]:
        """Find who says nothing, and who may be well again. Done when somebody has answered: then
        it is not our own fault."""
        self._look_at = now + LOOK_SECONDS
        actions: list[Action] = []
        silence = self._silence()
        for record in self._rotation:
            silent = now - record.waiting_since
            if silent > record.patience(silence):
                actions += self._suspect(record, f"silent for {silent:.2f} s", now)
        if len(self._rotation) < len(self._records) and self._latest <= self._options.silence:
            actions += self._miss(now)
        return self._with_alarm(actions, now) if actions else ()

    def _miss(self, now: float) -> list[Action]:
        """Ask members that are out for which this would have been a call, as chance has it.

        So however many clients there are, they do not ask a member that is back more often than
        they will call it.
        """
        actions: list[Action] = []
        for record in self._records.values():
            if record.ask_from <= now and self._draw() * len(self._records) < 1.0:
                actions += self._ask_in_turn(record, now, paid=True)
        return actions

    def _suspect(self, record: Record, reason: str, now: float) -> list[Action]:
        """Keep calls away until a probe says more; streams stay where they are."""
        if not self._may_take_out(record):
            return self._ask(record, now)
        record.leave(reason)
        self._arrange()
        return self._ask(record, now)

    def _may_take_out(self, record: Record) -> bool:
        """Whether an opinion may: never the last one, nor more than a part of all."""
        if record.out or not record.connected:
            return False
        connected = [each for each in self._records.values() if each.connected]
        most = max(1, int(self._options.max_ejected_share * len(connected)))
        others_out = sum(1 for each in connected if each.out)
        return len(self._rotation) > 1 and others_out < most

    def _take_out(self, record: Record, reason: str) -> list[Action]:
        """Keep calls away, and have streams leave if there is a better place for them."""
        record.leave(reason)
        self._arrange()
        if record.drained or not self._rotation:
            return []
        record.drained = True
        return [Drain(record.endpoint)]

    # What probes tell

    def _ask(
        self, record: Record, now: float, *, afresh: bool = False, paid: bool = False
    ) -> list[Action]:
        """Probe a member now, unless that is under way; thoroughly, when it has to prove itself."""
        if not record.connected:
            return []
        if now < record.asked_until:  # of a connection before this one, maybe
            record.ask_at, record.ask_from = record.asked_until, inf
            return []
        if not paid and self._budget.exhausted and not self._may_ask_all_the_same(record, now):
            return []
        timeout = self._options.probe_timeout
        silent = now - record.waiting_since > record.patience(self._silence())
        thorough = bool(record.out) or silent or record.blame > 0
        brief = bool(record.out) and record.a_read_tells
        if brief and record.health is None:
            timeout *= TRIAL_PATIENCE
        record.asked = Probe(
            record.endpoint, timeout, fresh_connection=afresh, linearizable=thorough, brief=brief
        )
        record.asked_until = now + 4 * timeout
        record.ask_at, record.ask_from = record.asked_until, inf
        return [record.asked]

    def _may_ask_all_the_same(self, record: Record, now: float) -> bool:
        """Whether it is a member's turn with the budget used up; if not, put it off."""
        if record.ask_at <= now and self._spare_until <= now:
            self._spare_until = now + self._jittered(self._options.probe_interval)
            return True
        # Spread, for the first to be woken gets the turn
        turn = self._spare_until + self._options.reprobe_first * self._draw()
        record.ask_at = max(record.ask_at, turn)
        if record.out:
            record.ask_from = min(record.ask_from, now)
        return False

    def _ask_who_is_due(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for record in self._records.values():
            if record.ask_at > now:
                continue
            proved_until = record.proved_at + self._options.probe_interval
            if not record.out and not record.blame and proved_until > now:
                record.ask_at = proved_until  # a call has just shown more than a probe would
            elif not record.put_off and self._latest > self._options.silence:
                record.put_off = True  # once: they have enough to do, but it may be their nature
                pause = self._options.reprobe_max if record.out else self._options.probe_interval
                record.ask_at = now + self._jittered(pause)
            else:
                if actions and not self._rotation:
                    self._still_unwell(record, now)  # one at a time: the cluster may be overloaded
                    continue
                actions += self._ask_in_turn(record, now)
        return actions

    def _ask_in_turn(self, record: Record, now: float, *, paid: bool = False) -> list[Action]:
        """Probe a member; one that does not answer over a fresh connection every other time."""
        elsewhere = record.bad_probes % 2 == 1 and not record.well_elsewhere
        unheard = record.health is not None and not record.health.serving
        return self._ask(record, now, afresh=elsewhere and unheard, paid=paid)

    def _probed(self, record: Record, health: Health, now: float) -> list[Action]:
        asked, record.asked, record.asked_until = record.asked, None, -inf
        if not record.connected:
            return []
        record.put_off = False
        if health.serving:
            self._budget.earn(1.0)
        elif not health.answered:
            self._budget.spend()
        if asked is not None and asked.fresh_connection:
            record.well_elsewhere = health.serving
            return self._ask(record, now) if health.serving else self._still_unwell(record, now)
        record.health = health
        if health.serving:
            record.blame = 0
            record.heard(now)
        if trouble := self._trouble(health, now):
            return self._unwell(record, trouble, now)
        if health.applied_index:
            self._watermark.see(health.applied_index, now)
        return self._well(record, asked is not None and asked.linearizable, now)

    def _trouble(self, health: Health, now: float) -> str:
        """Say what keeps a member out; empty when nothing does."""
        if not health.serving:
            return health.reason or "not serving"
        if health.corrupt:
            return "corrupt"
        if health.learner:
            return "a learner"
        if not health.has_leader:
            return health.reason or "no leader"
        if health.applied_index and self._watermark.behind(health.applied_index, now):
            if self._rotation:
                return "lagging"
            self._watermark.forget()
        return ""

    def _well(self, record: Record, thorough: bool, now: float) -> list[Action]:
        record.bad_probes = 0
        record.well_elsewhere = False
        if not record.out:
            record.ask_at = now + self._jittered(self._options.probe_interval)
        elif now < record.hold_until:
            record.ask_at = record.hold_until
        elif not thorough:
            return self._ask(record, now)
        else:
            if record.out.startswith("silent"):  # and it was nothing
                record.doubt = min(2 * record.doubt, MOST_DOUBT)
            else:
                record.doubt = 1.0
                record.warm_at = now + self._options.slow_start
            record.out, record.failures, record.drained = "", 0, False
            record.ask_at = now + self._jittered(self._options.probe_interval)
        return []

    def _unwell(self, record: Record, trouble: str, now: float) -> list[Action]:
        actions = self._take_out(record, trouble)
        if not record.health or record.health.serving or not record.well_elsewhere:
            return [*actions, *self._still_unwell(record, now)]
        # The member answers on a new connection, and not on this one: it is the connection's fault
        record.well_elsewhere = False
        return [*actions, Disconnect(record.endpoint), Connect(record.endpoint)]

    def _still_unwell(self, record: Record, now: float) -> list[Action]:
        options = self._options
        pause = options.reprobe_first * 2.0 ** min(record.bad_probes, 30)
        record.bad_probes += 1
        jitter = self._jittered(1.0)
        record.ask_from = now + jitter * min(pause, options.reprobe_max)
        record.ask_at = now + jitter * min(pause, options.probe_interval)
        return []

    def _jittered(self, seconds: float) -> float:
        """Vary a pause, so that clients do not march in step."""
        return seconds * self._random.uniform(0.6, 1.4)

    # Connections and time

    def _serve_from(self, endpoints: tuple[Endpoint, ...]) -> list[Action]:
        gone = [endpoint for endpoint in self._records if endpoint not in endpoints]
        known = self._records
        self._records = {each: known.get(each) or Record(each) for each in endpoints}
        return [*map(Connect, endpoints), *(Disconnect(e, graceful=True) for e in gone)]

    def _connected(self, record: Record, now: float) -> list[Action]:
        """Trust a first connection at once, and one that broke when a probe has said so."""
        if record.connected:
            return []
        record.out = "connected again, and not asked yet" if record.ever_connected else ""
        record.up()
        within = self._options.trial_within if record.out else self._options.probe_interval
        record.ask_at = now + within * self._draw()
        record.ask_from = now if record.out else inf
        return []

    def _with_alarm(self, actions: list[Action], now: float) -> list[Action]:
        """Add the wish to be woken when the next probe is due, if that is news."""
        due = min((each.ask_at for each in self._records.values() if each.connected), default=inf)
        if due < self._alarm_at:
            self._alarm_at = due
            actions.append(WakeAt(due))
        return actions
