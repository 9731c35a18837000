"""A client's inside with a test for a world: no sockets, and the clock is a number."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from random import Random
from typing import Any

from etcd_pinwheel.client.backoff import Backoff
from etcd_pinwheel.client.call import Call
from etcd_pinwheel.client.connections import Connections, Link, LinkState
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import AwaitChange, CallFailed, Flow, Send, Sleep, Step
from etcd_pinwheel.client.generations import BUILT_IN

A, B, C = "http://a:2379", "http://b:2379", "http://c:2379"


class IdleWorld:
    """Opens nothing, and never answers a probe."""

    def __init__(self) -> None:
        self.open_links: list[Link] = []

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        self.open_links.append(link)
        link.channel = object()

    def close(self, link: Link) -> None:
        self.open_links.remove(link)
        link.channel = None

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None: ...

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        flow.close()


class Scene:
    """A client of one policy, all of whose endpoints are connected."""

    def __init__(self, policy: str, *urls: str, seed: int = 0, **settings: Any) -> None:
        self.now = 1000.0
        chosen = BUILT_IN[policy]
        self.world = IdleWorld()
        self.connections = Connections(
            chosen.balancer(Random(seed), {}), self.world, lambda: self.now
        )
        self.connections.set_endpoints(map(Endpoint, urls))
        self.call = Call(
            self.connections,
            chosen.table,
            chosen.retry_rule(Backoff(Random(seed))),
            first_attempt_share=chosen.first_attempt_share,
            clock=lambda: self.now,
            **{"timeout_seconds": 5.0, **settings},
        )
        self.sent: list[Send] = []
        self.attempt_seconds = 0.01
        self.bring_up()

    def bring_up(self) -> None:
        """Connect whatever is wished to be."""
        for link in list(self.world.open_links):
            self.connections.link_changed(link, LinkState.READY, "")

    def play(self, flow: Flow[Any], answer: Callable[[Send], Any]) -> Any:
        """Run a flow; ``answer`` gives each Send its reply, or the CallFailed it ends with."""
        try:
            step = next(flow)
            while True:
                outcome = self._do(step, answer)
                if isinstance(outcome, CallFailed):
                    step = flow.throw(CallFailed(outcome.code, outcome.text))
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value

    def _do(self, step: Step, answer: Callable[[Send], Any]) -> Any:
        match step:
            case Sleep(seconds):
                self.now += seconds
            case AwaitChange():
                self.now += 0.1
                self.bring_up()
            case Send():
                self.sent.append(step)
                self.now += self.attempt_seconds
                return answer(step)
        return None
