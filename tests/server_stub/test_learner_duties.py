"""What a leader sees of its members, and how it carries out what was decided."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from etcd_pinwheel.protos.errors import LEARNER_NOT_READY, Refused
from etcd_pinwheel.server_stub import learner_duties
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.cluster import ClusterMember, save_members
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.learner_duties import LearnerDuties
from etcd_pinwheel.server_stub.learners import LOOK_SECONDS, Promotion
from etcd_pinwheel.server_stub.reconfiguration import Reconfiguration
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend


class Known:
    def __init__(self, match: int, *, is_heard: bool = True) -> None:
        self.match = match
        self.is_heard = is_heard


class Log:
    last_index = 2000


class Core:
    leader = 1
    log = Log()

    def __init__(self) -> None:
        self.progress: Mapping[int, Known] = {1: Known(2000), 2: Known(2000), 3: Known(1500)}

    def hears(self, member: int) -> bool:
        return self.progress[member].is_heard


class Asked:
    """A reconfiguration that writes down what it is asked for, and refuses at first."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.promoted: list[int] = []
        self.done = asyncio.Event()

    async def promote_as_leader(self, learner: int) -> None:
        self.promoted.append(learner)
        if len(self.promoted) <= self.refusals:
            raise Refused(LEARNER_NOT_READY)
        self.done.set()


class Site:
    def __init__(self, refusals: int = 0, **settings: Any) -> None:
        backend = MemoryBackend()
        members = [
            ClusterMember(1, ()),
            ClusterMember(2, ()),
            ClusterMember(3, (), is_learner=True),
        ]
        save_members(backend, members)
        self.core, self.asked, self.now = Core(), Asked(refusals), 0.0
        self.duties = LearnerDuties(
            1,
            self.core,
            Membership(backend, 7),
            cast("Reconfiguration", self.asked),
            Settings(**settings),
            self.clock,
        )

    def clock(self) -> float:
        """Another look's time has passed each time it is looked at."""
        self.now += LOOK_SECONDS
        return self.now


ON: dict[str, Any] = {"learner_auto_promote": True, "learner_promote_healthy_seconds": 1.0}


def test_a_leader_sees_who_keeps_up() -> None:
    site = Site(**ON)
    steps = [site.duties.look() for _ in range(6)]
    assert [isinstance(step, Promotion) for step in steps] == [False] * 4 + [True] * 2
    assert steps[-1] is not None
    assert steps[-1].id == 3


@pytest.mark.parametrize(
    "known", [Known(999), Known(1500, is_heard=False)], ids=["far behind", "not heard of"]
)
def test_a_leader_sees_who_does_not(known: Known) -> None:
    site = Site(**ON)
    site.core.progress = {**site.core.progress, 3: known}
    assert not any(site.duties.look() for _ in range(40))


def test_nobody_else_looks() -> None:
    site = Site(**ON)
    site.core.leader = 2
    assert not any(site.duties.look() for _ in range(40))


async def test_without_the_flags_nothing_is_done() -> None:
    async with asyncio.timeout(5):
        await Site().duties.run()


async def test_a_refusal_is_met_by_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_duties, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(learner_duties, "_ANOTHER_TRY_SECONDS", 0.0)
    site = Site(refusals=2, **ON)
    running = asyncio.create_task(site.duties.run())
    async with asyncio.timeout(10):
        await site.asked.done.wait()
    running.cancel()
    assert site.asked.promoted[:3] == [3, 3, 3]
    assert site.now >= 3.0, "it had to keep up anew each time"
