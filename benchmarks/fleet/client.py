"""One simulated client: a real balancer, error table and retry rule, and grpc's way to reconnect.

It plays the driver's part of the treaty (balancers/api.py), as client/connections.py does, and of a
call's life, as client/call.py does: with the deadline, the verdicts and the pauses of the policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from benchmarks.fleet.world import HANDSHAKE_SECONDS, SERVICE_SECONDS, Clock, Member
from etcd_pinwheel.balancers.api import (
    Action,
    Balancer,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    EndpointsChanged,
    Event,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    WakeAt,
    Woken,
)
from etcd_pinwheel.client.error_handler import Cause, Kind, Verdict
from etcd_pinwheel.client.generations import Generation, RetryRule
from etcd_pinwheel.client.retries import CutShort

DEADLINE_SECONDS = 3.0
SLOW_SECONDS = 0.25
CONNECT_TIMEOUT_SECONDS = 3.0
FIRST_RECONNECT_SECONDS, MOST_RECONNECT_SECONDS = 0.25, 5.0
TIMER_SECONDS = 0.001
"""How late timers are."""
FAILURES = {
    Cause.BROKEN: Failure.BROKEN,
    Cause.NO_ANSWER: Failure.TIMED_OUT,
    Cause.CUT_SHORT: Failure.TIMED_OUT,
    Cause.NO_LEADER: Failure.UNAVAILABLE,
}


@dataclass
class Tally:
    """What the callers of all clients saw."""

    calls: int = 0
    failed: int = 0
    slow: int = 0
    retries: Counter[int] = field(default_factory=Counter)
    """By second."""


@dataclass(slots=True, eq=False)
class Line:
    """A client's connection to one member."""

    member: Member
    wanted: bool = False
    up: bool = False
    dial: int = 0
    """Counts attempts, so that what comes of an abandoned one is ignored."""
    failures: int = 0
    calls: dict[Call, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Call:
    """A call under way."""

    kind: Kind
    started: float
    sent: float = 0.0
    attempts: int = 0
    tried: list[str] = field(default_factory=list)
    line: Line | None = None


class SimulatedClient:
    """A client that calls at random, at a given rate, until the end."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        members: Sequence[Member],
        generation: Generation,
        retry_rule: RetryRule,
        tally: Tally,
        calls_per_second: float,
    ) -> None:
        self._clock = clock
        self._random = random
        self._balancer: Balancer = generation.balancer(random, {})
        self._table = generation.table
        self._cut_short = CutShort(generation.first_attempt_share)
        self._retry_rule = retry_rule
        self._tally = tally
        self._rate = calls_per_second
        self._lines = {member.name: Line(member) for member in members}
        self._waiting: list[Call] = []
        self._alarm = 0

    def start(self) -> None:
        """Connect, and begin to call."""
        self._tell(EndpointsChanged(tuple(self._lines)))
        self._clock.at(self._next_call(), self._call)

    # The treaty

    def _tell(self, event: Event) -> None:
        self._obey(self._balancer.update(event, self._clock.now))
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._attempt(call)

    def _obey(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Connect(endpoint):
                    line = self._lines[endpoint]
                    if not line.wanted:
                        line.wanted, line.failures = True, 0
                        self._dial(line)
                case Disconnect(endpoint):
                    line = self._lines[endpoint]
                    line.wanted = False
                    line.dial += 1
                    self._lose(line, keep_calls=True)
                    self._tell(Disconnected(endpoint, "closed as wished"))
                case Probe():
                    self._probe(action)
                case WakeAt(time):
                    self._alarm += 1
                    late = max(time, self._clock.now) + TIMER_SECONDS
                    self._clock.at(late, self._wake, self._alarm)

    def _wake(self, alarm: int) -> None:
        if alarm == self._alarm:
            self._tell(Woken())

    def _probe(self, probe: Probe) -> None:
        now = self._clock.now
        member = self._lines[probe.endpoint].member
        member.probes[int(now)] += 1
        taken, health = self._examined(member, probe)
        self._clock.at(now + taken, self._tell, Probed(probe.endpoint, health))

    def _examined(self, member: Member, probe: Probe) -> tuple[float, Health]:
        """Say when a probe is over, and how; after a question without an answer none is asked."""
        now, timeout = self._clock.now, probe.timeout_seconds
        unheard = timeout, Health(serving=False, reason="no answer", answered=False)
        if not member.answers or member.seconds_to_answer(now, SERVICE_SECONDS) > timeout:
            return unheard
        health = Health(serving=True, has_leader=member.knows_a_leader(now))
        if probe.linearizable and member.cut_off_at is not None and health.has_leader:
            return (timeout, unheard[1] if probe.brief else Health(serving=True, has_leader=False))
        if probe.brief:  # it was the first question, and is queued already
            return member.seconds_to_answer(now, 0.0), health
        questions = 2 if probe.linearizable and health.has_leader else 1
        return member.seconds_to_answer(now, questions * SERVICE_SECONDS), health

    # Connections

    def _dial(self, line: Line) -> None:
        """Try to connect, as grpc does."""
        now, member = self._clock.now, line.member
        line.dial += 1
        member.dials[int(now)] += 1
        taken = CONNECT_TIMEOUT_SECONDS
        if member.answers:
            taken = member.seconds_to_answer(now, HANDSHAKE_SECONDS)
        elif member.reachable:
            taken = 0.001  # refused
        taken += self._random.uniform(0.0, 0.004)
        self._clock.at(now + taken, self._dialled, line, line.dial)

    def _dialled(self, line: Line, dial: int) -> None:
        if dial != line.dial or not line.wanted:
            return
        if line.member.answers:
            line.up, line.failures = True, 0
            line.member.connections += 1
            self._tell(Connected(line.member.name))
        else:
            self._dial_again(line)
            self._tell(Disconnected(line.member.name, "refused"))

    def _dial_again(self, line: Line) -> None:
        pause = min(FIRST_RECONNECT_SECONDS * 1.6**line.failures, MOST_RECONNECT_SECONDS)
        line.failures += 1
        pause *= self._random.uniform(0.8, 1.2)
        self._clock.at(self._clock.now + pause, self._redial, line, line.dial)

    def _redial(self, line: Line, dial: int) -> None:
        if dial == line.dial and line.wanted:
            self._dial(line)

    def _lose(self, line: Line, *, keep_calls: bool = False) -> None:
        """Be without the connection; calls on one that is closed as wished end by themselves."""
        if line.up:
            line.up = False
            line.member.connections -= 1
        calls, line.calls = line.calls, {}
        for call in calls if not keep_calls else ():
            self._failed(call, Cause.BROKEN)

    def broken(self, name: str) -> None:
        """Take in that the connection to a member is gone, if there was one."""
        line = self._lines[name]
        if line.up:
            self._lose(line)
            self._dial_again(line)
            self._tell(Disconnected(name, "lost"))

    # Calls

    def _next_call(self) -> float:
        return self._clock.now + self._random.expovariate(self._rate)

    def _call(self) -> None:
        self._clock.at(self._next_call(), self._call)
        self._tally.calls += 1
        kind = Kind.REPEATABLE if self._random.random() < 0.5 else Kind.NON_REPEATABLE
        self._attempt(Call(kind, self._clock.now))

    def _attempt(self, call: Call) -> None:
        now = self._clock.now
        left = call.started + DEADLINE_SECONDS - now
        if left <= 0:
            self._tally.failed += 1
            return
        name = self._balancer.pick(Need.QUORUM, now, call.tried)
        if name is None:
            self._waiting.append(call)
            return
        line = self._lines[name]
        member = line.member
        call.line, call.sent = line, now
        line.calls[call] = None
        member.picks[int(now)] += 1
        if not call.attempts and call.kind is Kind.REPEATABLE and len(self._lines) > 1:
            left = self._cut_short.seconds(left)
        taken = left
        if member.answers and member.cut_off_at is None:
            taken = min(left, member.seconds_to_answer(now, SERVICE_SECONDS))
        self._clock.at(now + taken, self._due, call, call.attempts, now + left)

    def _due(self, call: Call, attempt: int, until: float) -> None:
        """Take in the answer, if there is one, or that the time is up."""
        line = call.line
        if line is None or call.attempts != attempt:
            return  # it ended otherwise
        now = self._clock.now
        if now < until and line.member.answers and line.member.cut_off_at is None:
            line.calls.pop(call, None)
            call.line = None
            self._cut_short.latest = now - call.sent
            self._cut_short.earn()
            self._obey(self._balancer.done(line.member.name, None, now - call.sent, now))
            self._tally.slow += now - call.started > SLOW_SECONDS
        elif now < until:
            self._clock.at(until, self._due, call, attempt, until)
        else:
            out_of_time = until >= call.started + DEADLINE_SECONDS
            self._failed(call, Cause.NO_ANSWER if out_of_time else Cause.CUT_SHORT)

    def _failed(self, call: Call, cause: Cause) -> None:
        now, line = self._clock.now, call.line
        assert line is not None
        line.calls.pop(call, None)
        call.line = None
        call.attempts += 1
        name = line.member.name
        call.tried.append(name)
        self._obey(self._balancer.done(name, FAILURES[cause], now - call.sent, now))
        if FAILURES[cause] is Failure.TIMED_OUT:
            self._cut_short.spend()
        verdict = self._table.verdict(cause, call.kind)
        if verdict in (Verdict.FAIL_OVER, Verdict.FAIL_OVER_AND_RETURN):
            self._tell(FailedOver(name, FAILURES[cause]))
        pause = self._retry_rule.seconds_before_retry(call.attempts, len(self._lines))
        ends = verdict in (Verdict.RETURN, Verdict.FAIL_OVER_AND_RETURN)
        if ends or now + pause >= call.started + DEADLINE_SECONDS:
            self._tally.failed += 1
            return
        self._tally.retries[int(now)] += 1
        self._clock.at(now + pause, self._attempt, call)
