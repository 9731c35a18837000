"""What raises where nobody can catch it: reported, and no harm to all the others."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from etcd_pinwheel.client.aio_claim import AsyncClaimLostSignal
from etcd_pinwheel.client.aio_lease import AsyncLostSignal
from etcd_pinwheel.client.aio_streams import AsyncPump
from etcd_pinwheel.client.blocking_claim import ClaimLostSignal
from etcd_pinwheel.client.blocking_lease import LostSignal
from etcd_pinwheel.client.blocking_streams import Alarms, BlockingPump
from etcd_pinwheel.client.keep_alive import KeepAliveMachine, Keeper, LossReason
from etcd_pinwheel.protos.etcdserverpb import LeaseKeepAliveResponse
from etcd_pinwheel.protos.rpcs import LEASE_LEASE_KEEP_ALIVE

WORLD: Any = SimpleNamespace(run=None)
CALL: Any = None
LONG_SECONDS = 60.0


class Machine(KeepAliveMachine):
    """One that has a mistake in what it does when its time has come, if it is ``wrong``."""

    wrong = False

    def _on_time(self, now: float) -> None:
        if self.wrong:
            raise KeyError("a mistake of ours")
        super()._on_time(now)


class ThreadsPump(BlockingPump[Any, Any]):
    """One whose stream is opened by the test."""

    def __init__(self, machine: Machine, alarms: Alarms) -> None:
        super().__init__(WORLD, CALL, LEASE_LEASE_KEEP_ALIVE, machine, alarms, ())

    def _open(self) -> None:
        pass


class LoopPump(AsyncPump[Any, Any]):
    """One whose stream is opened by the test."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(WORLD, CALL, LEASE_LEASE_KEEP_ALIVE, machine, ())

    def _open(self) -> None:
        pass


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What threading.excepthook is told."""
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: seen.append(told.exc_value))
    return seen


def oops(*_: object) -> None:
    raise LookupError("oops")


def leave(*_: object) -> None:
    sys.exit("as one does when all is lost")


def lose_one_of_two(
    pump: BlockingPump[Any, Any] | AsyncPump[Any, Any],
    machine: Machine,
    callback: Callable[[LossReason], object],
) -> tuple[list[object], Keeper]:
    """Have a lease expire whose owner wants to be called back; return who was told, and another."""
    signal: Any = LostSignal if isinstance(pump, BlockingPump) else AsyncLostSignal
    one, other = (Keeper.granted(lease_id, 10, 0.0) for lease_id in (1, 2))
    loss = signal(one, lambda: None)
    told: list[object] = []
    loss.add_callback(callback)
    loss.add_callback(told.append)
    pump.on_wake(one, loss.tell)
    for keeper in (one, other):
        pump.tell(lambda now, keeper=keeper: machine.add(keeper, 0.0))
    pump.tell(lambda now: machine.opened(0.0))
    pump.tell(lambda now: machine.received(LeaseKeepAliveResponse(ID=1, TTL=0), 0.0))
    return told, other


def test_a_callback_that_raises_concerns_no_other_lease(reported: list[object]) -> None:
    machine = Machine(Random(1))
    pump = ThreadsPump(machine, SimpleNamespace(set=lambda *_: None))  # type: ignore[arg-type]
    told, other = lose_one_of_two(pump, machine, oops)
    assert told == [LossReason.EXPIRED], "the next callback of the same lease, too"
    assert other.loss is None
    assert [type(error) for error in reported] == [LookupError]


async def test_nor_in_asyncio() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    machine = Machine(Random(1))
    pump = LoopPump(machine)
    told, other = lose_one_of_two(pump, machine, oops)
    assert told == [LossReason.EXPIRED]
    assert other.loss is None
    assert [type(report["exception"]) for report in reports] == [LookupError]
    pump.close(ConnectionError("the test is over"))


def test_a_callback_that_exits_ends_no_thread_of_ours(reported: list[object]) -> None:
    """It would end a thread that others depend on, and not the program."""
    machine = Machine(Random(1))
    pump = ThreadsPump(machine, SimpleNamespace(set=lambda *_: None))  # type: ignore[arg-type]
    outcome: list[tuple[list[object], Keeper]] = []
    thread = threading.Thread(target=lambda: outcome.append(lose_one_of_two(pump, machine, leave)))
    thread.start()
    thread.join()
    [(told, other)] = outcome
    assert told == [LossReason.EXPIRED]
    assert other.loss is None
    assert [type(error) for error in reported] == [SystemExit]


@pytest.mark.parametrize("signal", [ClaimLostSignal, AsyncClaimLostSignal])
def test_those_who_want_to_know_of_a_lost_claim_are_all_told(
    signal: Any, reported: list[object]
) -> None:
    told: list[object] = []
    claim = signal(b"k", LostSignal(Keeper(1, 10), lambda: None), lambda: None)
    claim.add_callback(oops)
    claim.add_callback(told.append)
    claim.end(LossReason.DELETED)
    assert told == [LossReason.DELETED]
    assert [type(error) for error in reported] == [LookupError]


def test_who_is_told_at_once_is_reported_like_the_others(reported: list[object]) -> None:
    keeper = Keeper(1, 10, loss=LossReason.EXPIRED)
    loss = LostSignal(keeper, lambda: None)
    loss.tell()
    loss.add_callback(oops)
    assert [type(error) for error in reported] == [LookupError]


def test_whoever_is_woken_and_raises_keeps_nobody_asleep(reported: list[object]) -> None:
    machine = Machine(Random(1))
    pump = ThreadsPump(machine, SimpleNamespace(set=lambda *_: None))  # type: ignore[arg-type]
    first, second = (Keeper.granted(lease_id, 10, 0.0) for lease_id in (1, 2))
    woken: list[object] = []
    pump.on_wake(first, oops)
    pump.on_wake(second, lambda: woken.append(second))
    for keeper in (first, second):
        pump.tell(lambda now, keeper=keeper: machine.add(keeper, 0.0))  # type: ignore[misc]
    pump.close(ConnectionError("gone"))
    assert woken == [second]
    assert [type(error) for error in reported] == [LookupError]


def test_an_alarm_that_raises_silences_no_other(reported: list[object]) -> None:
    alarms = Alarms(lambda: 1.0)
    rung = threading.Event()
    alarms.set(oops, 0.0)
    alarms.set(rung.set, 0.5)
    assert rung.wait(LONG_SECONDS)
    alarms.join()
    assert [type(error) for error in reported] == [LookupError]


def test_alarms_without_a_thread_ring_once_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    alarms = Alarms(lambda: 1.0)
    early, late = threading.Event(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            alarms.set(early.set, 0.0)
    alarms.set(late.set, 0.5)
    assert early.wait(LONG_SECONDS)
    assert late.wait(LONG_SECONDS)
    alarms.join()


def test_a_machine_that_errs_in_its_time_tells_who_relies_on_it(reported: list[object]) -> None:
    """A mistake of ours must not look as if all went on."""
    machine = Machine(Random(1))
    alarms = Alarms()
    pump = ThreadsPump(machine, alarms)
    keeper = Keeper.granted(1, 10, -10.0)
    lost = threading.Event()
    pump.on_wake(keeper, lost.set)
    machine.wrong = True
    pump.tell(lambda now: machine.add(keeper, now))
    assert lost.wait(LONG_SECONDS)
    alarms.join()
    assert keeper.loss is LossReason.CLOSED
    assert isinstance(keeper.cause, KeyError)
    assert reported == [keeper.cause]


async def test_so_does_one_in_asyncio() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    machine = Machine(Random(1))
    pump = LoopPump(machine)
    keeper = Keeper.granted(1, 10, -10.0)
    lost = asyncio.Event()
    pump.on_wake(keeper, lost.set)
    machine.wrong = True
    pump.tell(lambda now: machine.add(keeper, now))
    async with asyncio.timeout(LONG_SECONDS):
        await lost.wait()
    assert keeper.loss is LossReason.CLOSED
    assert isinstance(keeper.cause, KeyError)
    assert [report["exception"] for report in reports] == [keeper.cause]
