"""Members whose answers are late: a leader's looks after its learners, over a real core."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.cluster import ClusterMember, save_members
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.learner_duties import LearnerDuties
from etcd_pinwheel.server_stub.learners import LOOK_SECONDS, Demotion, Promotion
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft, Role
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.reconfiguration import Reconfiguration
from etcd_pinwheel.server_stub.storage.memory import MemoryBackend

ELECTION_MS = 250  # as long as from look to look, so that each sees the same part of it
HEARTBEAT_MS = 50
LOOK_MS = round(LOOK_SECONDS * 1000)
MINUTE_MS = 60_000
LOOK_PHASES = range(0, HEARTBEAT_MS, 10)
"""How long after a tick a look is, in milliseconds."""

ANSWERS = {
    raftpb.MsgPreVote: raftpb.MsgPreVoteResp,
    raftpb.MsgVote: raftpb.MsgVoteResp,
    raftpb.MsgHeartbeat: raftpb.MsgHeartbeatResp,
    raftpb.MsgApp: raftpb.MsgAppResp,
}


def answer_to(asked: Message) -> Message:
    """Return what a member says that agrees to everything."""
    index = asked.index + len(asked.entries) if asked.type == raftpb.MsgApp else 0
    return Message(ANSWERS[asked.type], asked.sender, asked.to, asked.term, index=index)


@dataclass
class Late:
    """A leader, member 1, with others that answer when their time has come; milliseconds."""

    voters: set[int]
    learners: set[int]
    late_ms: dict[int, int]
    settings: dict[str, Any]
    now: int = 0
    silent: set[int] = field(default_factory=set)
    under_way: dict[int, list[Message]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        settings = Settings(
            election_timeout_ms=ELECTION_MS, heartbeat_interval_ms=HEARTBEAT_MS, **self.settings
        )
        backend = MemoryBackend()
        everybody = sorted(self.voters | self.learners)
        save_members(
            backend,
            [ClusterMember(each, (), is_learner=each in self.learners) for each in everybody],
        )
        self.core = Raft(
            Config(id=1, election_ticks=ELECTION_MS // HEARTBEAT_MS),
            Log([]),
            raftpb.HardState(),
            raftpb.ConfState(voters=self.voters, learners=self.learners),
            lambda n: 0,
        )
        self.duties = LearnerDuties(
            1,
            self.core,
            Membership(backend, 7),
            cast("Reconfiguration", None),
            settings,
            lambda: self.now / 1000,
        )
        self.core.campaign()

    def steps(self, for_ms: int, look_phase: int) -> Iterator[tuple[int, Promotion | Demotion]]:
        """Let time pass; tell what is decided, and when. Nothing comes of it."""
        for _ in range(for_ms):
            self.now += 1
            if self.now % HEARTBEAT_MS == 0:
                self.core.tick()
            for message in self.under_way.pop(self.now, ()):
                self.core.step(message)
            self.exchange()
            if self.now % LOOK_MS == look_phase and (step := self.duties.look()):
                yield self.now, step

    def exchange(self) -> None:
        """Save what is to be saved, and send what is to be sent."""
        self.post(self.core.messages())
        while (ready := self.core.ready()) is not None:
            self.core.saved(ready)
            for entry in self.core.committed(1000):
                self.core.applied(entry.Index)
            self.post(self.core.messages())

    def post(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.to not in self.silent:
                at = self.now + self.late_ms.get(message.to, 1)
                self.under_way[at].append(answer_to(message))


STANDBY = {"standby_failover_seconds": 1.0}
PROMOTE = {"learner_auto_promote": True, "learner_promote_healthy_seconds": 10.0}


@pytest.mark.parametrize("look_phase", LOOK_PHASES)
def test_a_voter_whose_answers_are_late_is_not_dead(look_phase: int) -> None:
    late = Late({1, 2, 3, 4}, set(), {4: 30}, STANDBY)
    assert not list(late.steps(3 * MINUTE_MS, look_phase))
    assert late.core.role is Role.LEADER


@pytest.mark.parametrize("look_phase", LOOK_PHASES)
def test_one_that_answers_no_more_is_dead_in_time(look_phase: int) -> None:
    late = Late({1, 2, 3, 4}, set(), {4: 30}, STANDBY)
    assert not list(late.steps(MINUTE_MS, look_phase))
    late.silent.add(4)
    at, step = next(late.steps(MINUTE_MS, look_phase))
    assert isinstance(step, Demotion)
    assert step.id == 4
    assert 1000 - LOOK_MS <= at - MINUTE_MS <= 1000 + ELECTION_MS + LOOK_MS


@pytest.mark.parametrize("look_phase", LOOK_PHASES)
def test_a_learner_whose_answers_are_late_keeps_up(look_phase: int) -> None:
    late = Late({1, 2, 3}, {4}, {4: 30}, PROMOTE)
    at, step = next(late.steps(MINUTE_MS, look_phase))
    assert isinstance(step, Promotion)
    assert step.id == 4
    assert at <= 10_000 + 3 * LOOK_MS
