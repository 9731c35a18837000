"""A balancer and a world that do as the test says, and write down what they are told."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from etcd_pinwheel.balancers.api import Action, Event, Failure, Need, Standing
from etcd_pinwheel.client.connections import Link
from etcd_pinwheel.client.flow import Flow, Send
from etcd_pinwheel.client.probe import HEALTH_CHECK
from etcd_pinwheel.protos.etcdserverpb import RangeResponse, StatusResponse
from etcd_pinwheel.protos.rpcs import KV_RANGE, MAINTENANCE_STATUS

A, B = "http://a:2379", "http://b:2379"


class Scripted:
    """A balancer that wishes what the test says, and writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.paid: list[tuple[str, Failure | None]] = []
        self.wishes: dict[type[Event], list[Action]] = {}
        self.wishes_when_done: list[Action] = []
        self.next: str | None = A

    def update(self, event: Event, now: float) -> Sequence[Action]:
        self.told.append(event)
        return self.wishes.pop(type(event), [])

    def pick(self, need: Need, now: float, tried: Sequence[str] = ()) -> str | None:
        return self.next

    def done(
        self, endpoint: str, failure: Failure | None, seconds: float, now: float
    ) -> Sequence[Action]:
        self.paid.append((endpoint, failure))
        wishes, self.wishes_when_done = self.wishes_when_done, []
        return wishes

    def standings(self, now: float) -> Mapping[str, Standing]:
        return {A: Standing(True, True), B: Standing(False, False)}


class World:
    """Writes down what is wished; flows are run with Status answered at once."""

    def __init__(self) -> None:
        self.did: list[tuple[str, str]] = []
        self.wake: Callable[[], None] | None = None

    def open(self, link: Link, changed: weakref.WeakMethod[Any]) -> None:
        self.did.append(("open", link.endpoint.url))
        link.channel = object()

    def close(self, link: Link) -> None:
        self.did.append(("close", link.endpoint.url))
        link.channel = None

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None:
        self.did.append(("wake_at", str(moment)))
        self.wake = wake

    def spawn(self, flow: Flow[Any], then: Callable[[Any], None]) -> None:
        step = next(flow)
        assert isinstance(step, Send)
        if step.rpc is KV_RANGE:
            self.did.append(("brief probe", step.link.endpoint.url))
            with pytest.raises(StopIteration) as answered:
                flow.send(RangeResponse())
            then(answered.value.value)
            return
        assert step.rpc is HEALTH_CHECK
        step = flow.send(HealthCheckResponse(status=HealthCheckResponse.SERVING))
        assert isinstance(step, Send)
        assert step.rpc is MAINTENANCE_STATUS
        assert step.link.channel is not None
        assert step.link.busy
        self.did.append(("probe", step.link.endpoint.url))
        with pytest.raises(StopIteration) as stop:
            flow.send(StatusResponse(leader=0, raftTerm=4, isLearner=True))
        then(stop.value.value)
