"""A driver that keeps its side of the treaty, and checks at every step that the policy does too."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from etcd_pinwheel.balancers.api import (
    Action,
    Balancer,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Drain,
    EndpointsChanged,
    Event,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    WakeAt,
    Woken,
)
from etcd_pinwheel.client.generations import BUILT_IN

WELL = Health(serving=True)
SOON = 0.001
"""Within what time, in seconds, timers are taken to go off."""


class Driver:
    """Connections that are there or not as the test says, and a clock that is a number."""

    def __init__(self, policy: str, seed: int = 0) -> None:
        self.policy = policy
        self.now = 0.0
        self.balancer: Balancer = BUILT_IN[policy].balancer(Random(seed), {})
        self.endpoints: tuple[str, ...] = ()
        self.wanted: set[str] = set()
        self.connected: set[str] = set()
        self.owed: list[str] = []
        """Picks that are yet to be paid back."""
        self.probes: list[str] = []
        self.alarm: float | None = None
        self.last_pin: str | None = None

    # What happens

    def change(self, *endpoints: str) -> None:
        gone = set(self.endpoints) - set(endpoints)
        self.endpoints = endpoints
        self.tell(EndpointsChanged(endpoints))
        assert self.wanted, "with nothing connected a policy has to connect to somebody"
        assert not (gone & self.wanted), "endpoints that are gone are disconnected"

    def connect(self, endpoint: str) -> None:
        self.connected.add(endpoint)
        self.tell(Connected(endpoint))

    def connect_all(self) -> None:
        """Make every wish for a connection come true, and the wishes that come of that."""
        while waiting := sorted(self.wanted - self.connected):
            self.connect(waiting[0])

    def disconnect(self, endpoint: str) -> None:
        self.connected.discard(endpoint)
        self.tell(Disconnected(endpoint, "refused"))

    def answer_probes(self, health: Health = WELL) -> None:
        while self.probes:
            self.answer_one(health)

    def answer_one(self, health: Health) -> None:
        self.tell(Probed(self.probes.pop(0), health))

    def pass_time(self, seconds: float) -> None:
        """Let time pass; a timer that is due goes off, and does not ask for the time that it is."""
        self.now += seconds
        for _ in range(2):
            if self.alarm is None or self.alarm > self.now:
                return
            self.alarm = None
            self.tell(Woken())
        assert self.alarm is None or self.alarm > self.now, "a timer that goes off for ever"

    def sleep_until_woken(self) -> None:
        if self.alarm is not None:
            self.pass_time(max(0.0, self.alarm - self.now) + SOON)

    # What the policy says

    def pick(self, need: Need = Need.QUORUM, tried: Sequence[str] = ()) -> str | None:
        """Pick without paying back."""
        picked = self.balancer.pick(need, self.now, tried)
        if picked is not None:
            assert picked in self.endpoints, "only one of the endpoints may serve"
            assert picked in self.connected, "only a connected endpoint can serve"
        return picked

    def done(self, endpoint: str, failure: Failure | None = None, seconds: float = 0.001) -> None:
        actions = self.balancer.done(endpoint, failure, seconds, self.now)
        assert len(actions) <= 2 * len(self.endpoints) + 2, "done is on every call, and cheap"
        self.obey(actions)

    def picked(self, need: Need = Need.ANY_MEMBER, tried: Sequence[str] = ()) -> str | None:
        """Pick, and pay back at once."""
        picked = self.pick(need, tried)
        if picked is not None:
            self.done(picked)
        return picked

    def pinned(self) -> str | None:
        pins = [each for each, how in self.balancer.standings(self.now).items() if how.pinned]
        assert len(pins) <= 1
        return pins[0] if pins else None

    def tell(self, event: Event) -> None:
        known = len(self.endpoints) + len(self.wanted)
        actions = self.balancer.update(event, self.now)
        assert len(actions) <= 3 * known + 2, "a decision is a bounded piece of work"
        meanwhile = self._called_before_it_is_done() if self.endpoints else ()
        self.obey([*actions, *meanwhile])

    def _called_before_it_is_done(self) -> Sequence[Action]:
        """Call while the wishes are yet to be carried out, as other threads may."""
        if (picked := self.pick(Need.ANY_MEMBER)) is None:
            return ()
        return self.balancer.done(picked, None, 0.001, self.now)

    def obey(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Connect(endpoint):
                    assert endpoint in self.endpoints
                    self.wanted.add(endpoint)
                case Disconnect(endpoint):
                    self.wanted.discard(endpoint)
                    if endpoint in self.connected:
                        self.connected.discard(endpoint)
                        self.tell(Disconnected(endpoint, "closed as wished"))
                case Probe(endpoint, timeout):
                    assert endpoint in self.endpoints
                    assert timeout > 0
                    self.probes.append(endpoint)
                case Drain(endpoint):
                    assert endpoint in self.endpoints
                case WakeAt(time):
                    self.alarm = time


def settled(policy: str, *endpoints: str, seed: int = 0) -> Driver:
    """A driver whose every wish for a connection came true."""
    driver = Driver(policy, seed)
    driver.change(*endpoints)
    driver.connect_all()
    return driver


# What the model of a generation says of itself, at all times


def keeps_all_and_picks_whoever_is_connected(driver: Driver) -> None:
    """As the treaty wants it: nobody is stranded while anybody is connected."""
    assert driver.wanted == set(driver.endpoints)
    for need in Need:
        for tried in ((), driver.endpoints, driver.endpoints * 2):
            assert (driver.picked(need, tried) is not None) == bool(driver.connected)


def keeps_all_and_picks_one(driver: Driver) -> None:
    """An exception to fairness: as long as the pin is connected, it is the one."""
    keeps_all_and_picks_whoever_is_connected(driver)
    pin = driver.picked()
    assert pin == driver.pinned()
    assert pin == driver.picked(tried=[pin, pin] if pin else [])
    if driver.last_pin in driver.connected:
        assert pin == driver.last_pin
    driver.last_pin = pin


def keeps_one_and_picks_it(driver: Driver) -> None:
    """An exception to fairness, and to never stranding a client while somebody is connected."""
    pin = driver.picked()
    assert pin == driver.pinned()
    if pin is not None:
        assert driver.wanted == driver.connected == {pin}
        assert pin == driver.picked(tried=[pin, pin])
        return
    standings = driver.balancer.standings(driver.now)
    held_back = {each for each in driver.endpoints if standings[each].ejected_until is not None}
    assert driver.connected <= held_back, "one that is well and connected is the pin"
    assert held_back < set(driver.endpoints) or not driver.connected
    assert driver.alarm is not None, "or it would never be offered anybody else"


MODELS = {
    "pinned_multi": keeps_all_and_picks_one,
    "pinned_single": keeps_one_and_picks_it,
    "round_robin": keeps_all_and_picks_whoever_is_connected,
    "health_aware": keeps_all_and_picks_whoever_is_connected,
}
