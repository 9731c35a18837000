"""How long things may take: as long as was said, ``math.inf`` for ever, and nothing else."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from etcd_pinwheel import AsyncClient, Client, Config, InvalidArgument, TimedOut
from etcd_pinwheel.client import maintenance
from etcd_pinwheel.client.blocking_claim import ClaimLostSignal
from etcd_pinwheel.client.blocking_lease import LostSignal
from etcd_pinwheel.client.channels import channel_setup
from etcd_pinwheel.client.endpoints import Endpoint
from etcd_pinwheel.client.flow import CallFailed, Send
from etcd_pinwheel.client.keep_alive import Keeper
from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.server_stub.local import LocalMember

from .scene import A, B, C, Scene

Connect = Callable[..., Any]
LATE = CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
FOREVER_MS = 2**31 - 1
"""What is never to grpc."""


@pytest.mark.parametrize("face", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("connect_timeout", "grpc.min_reconnect_backoff_ms"),
        ("reconnect_backoff_max", "grpc.max_reconnect_backoff_ms"),
        ("keepalive_time", "grpc.keepalive_time_ms"),
        ("keepalive_timeout", "grpc.keepalive_timeout_ms"),
    ],
)
def test_a_setting_without_an_end(face: Any, setting: str, option: str) -> None:
    settings: Any = {setting: math.inf}
    face("127.0.0.1:1", **settings)
    setup = channel_setup(Config(**settings), Endpoint("127.0.0.1:1"))
    assert dict(setup.options)[option] == FOREVER_MS


@pytest.mark.process
@pytest.mark.parametrize("seconds", [math.inf, 1e10, 2.0**70])
@pytest.mark.parametrize("whose", ["the call's", "the client's"])
def test_no_timeout(whose: str, seconds: float, server: LocalMember, connect: Connect) -> None:
    settings = {"timeout": seconds}
    mine, theirs = (settings, {}) if whose == "the call's" else ({}, settings)
    etcd = connect([server.endpoint], **theirs)
    assert etcd.put("k", "v", **mine).revision
    assert etcd.get("k", **mine).value == b"v"
    granted = etcd.leases.grant(60, **mine)
    assert etcd.leases.keep_alive_once(granted, **mine) == 60
    with etcd.watch("k", **mine) as watch, etcd.lease(60, **mine) as lease:
        etcd.put("k", "w")
        assert watch.next_event(seconds).value == b"w"
        assert not lease.lost.is_set()
    assert etcd.maintenance.status(etcd.config.endpoints[0].url, **mine).leader
    assert sum(map(len, etcd.maintenance.snapshot_chunks(**mine))) > 0


@pytest.mark.process
@pytest.mark.parametrize("seconds", [-1, 0, -math.inf, math.nan])
@pytest.mark.parametrize(
    "call",
    [
        lambda etcd, seconds: etcd.get("k", timeout=seconds),
        lambda etcd, seconds: etcd.watch("k", timeout=seconds).open(),
        lambda etcd, seconds: etcd.lease(60, timeout=seconds).open(),
        lambda etcd, seconds: etcd.leases.keep_alive_once(1, timeout=seconds),
        lambda etcd, seconds: list(etcd.maintenance.snapshot_chunks(timeout=seconds)),
        lambda etcd, seconds: etcd.maintenance.move_leader(1, timeout=seconds),
        lambda etcd, seconds: etcd.maintenance.disarm(timeout=seconds),
    ],
)
def test_what_is_no_timeout(etcd: Any, call: Any, seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="timeout"):
        call(etcd, seconds)


@pytest.mark.parametrize("signal", [LostSignal, ClaimLostSignal])
def test_waiting_for_a_loss_that_may_never_come(signal: Any) -> None:
    lost: Any = LostSignal(Keeper(1, 10), lambda: None)
    if signal is ClaimLostSignal:
        lost = ClaimLostSignal(b"k", lost, lambda: None)
    waits: list[float | None] = []
    lost._event = SimpleNamespace(wait=waits.append)
    lost.wait(math.inf)
    lost.wait(None)
    lost.wait(2.5)
    assert waits == [threading.TIMEOUT_MAX, None, 2.5]


def hanging(scene: Scene, answers: dict[str, Any]) -> Callable[[Send], Any]:
    """Have some endpoints answer, and calls to the others take all the time they may."""

    def answer(step: Send) -> Any:
        if (known := answers.get(step.link.url)) is not None:
            return known[step.rpc]
        assert step.timeout_seconds is not None
        scene.now += step.timeout_seconds
        return LATE

    return answer


def test_looking_for_the_leader_takes_no_longer_than_handing_over_may() -> None:
    scene = Scene("round_robin", A, B, C)
    scene.attempt_seconds = 0.0
    with pytest.raises(TimedOut):
        scene.play(maintenance.move_leader(scene.call, 5, timeout=3.0), hanging(scene, {}))
    assert scene.now == pytest.approx(1003.0, abs=0.01)
    assert [step.link.url for step in scene.sent] == [A, B, C]


def test_a_member_that_hangs_leaves_time_to_find_the_leader_behind_it() -> None:
    scene = Scene("round_robin", A, B, C)
    leader = {
        rpcs.MAINTENANCE_STATUS: pb.StatusResponse(header=pb.ResponseHeader(member_id=7), leader=7),
        rpcs.MAINTENANCE_MOVE_LEADER: pb.MoveLeaderResponse(),
    }
    flow = maintenance.move_leader(scene.call, 5, timeout=3.0)
    scene.play(flow, hanging(scene, {B: leader}))
    assert [step.link.url for step in scene.sent] == [A, B, B]
    assert scene.now < 1002.0


def test_all_alarms_are_disarmed_within_one_timeout() -> None:
    scene = Scene("round_robin", A)
    raised = pb.AlarmResponse(
        alarms=[pb.AlarmMember(memberID=each, alarm=pb.NOSPACE) for each in (1, 2, 3)]
    )
    scene.attempt_seconds = 1.0
    flow = maintenance.disarm(scene.call, timeout=10.0)
    scene.play(flow, lambda _: raised)
    assert [step.timeout_seconds for step in scene.sent] == pytest.approx([10.0, 9.0, 8.0, 7.0])
