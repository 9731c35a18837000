"""What is done to a cluster under load, and when: the faults, as data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.failover.stage import Stage

FOLLOWER, LEADER, LEARNER = "follower", "leader", "learner"
BETWEEN_MEMBERS_SECONDS: Final = 0.7
DEFRAGMENT_SECONDS: Final = 60.0

Action = Callable[["Stage"], object]


def nothing(_stage: Stage) -> None: ...


def kill(stage: Stage) -> None:
    stage.victim.kill()


def start_again(stage: Stage) -> None:
    stage.victim.start()


def kill_and_start(stage: Stage) -> None:
    stage.victim.kill()
    stage.victim.start()


def hold(stage: Stage) -> None:
    stage.victim.pause()


def let_go(stage: Stage) -> None:
    stage.victim.resume()


def swallow(stage: Stage) -> None:
    stage.proxies[stage.victim.name].stall()


def let_through(stage: Stage) -> None:
    stage.proxies[stage.victim.name].heal()


def cut_off(stage: Stage) -> None:
    stage.cluster.isolate(stage.victim)


def reconnect(stage: Stage) -> None:
    stage.cluster.heal()


def restart_each(stage: Stage) -> None:
    """Restart one member after the other, each as soon as the one before is back and well."""
    for member in list(stage.cluster):
        member.restart()
        stage.wait_until_well()
        time.sleep(BETWEEN_MEMBERS_SECONDS)


def defragment_each(stage: Stage) -> None:
    for member in list(stage.cluster):
        stage.defragment(member, DEFRAGMENT_SECONDS)
        time.sleep(BETWEEN_MEMBERS_SECONDS)


@dataclass(frozen=True)
class Fault:
    """A run: what strikes whom after how many seconds of load, and when it is undone."""

    name: str
    title: str
    """As a heading has it: what is done, to whom."""
    seconds: float
    """Of load, at most: it ends soon after an ``until_done`` strike."""
    struck_at: float = 2.0
    undone_at: float | None = None
    """None: when the strike returns, if it is ``until_done``, else after the load has ended."""
    strike: Action = nothing
    undo: Action = nothing
    victim: str = FOLLOWER
    """Whom it strikes. The pin of the policies that have one is that member."""
    calls: bool = True
    """Whether the clients make calls, or only hold a watch and a lease."""
    reads: bool = True
    until_done: bool = False
    """Whether the strike takes as long as it takes, and undoes itself."""
    proxies: bool = False
    """Whether clients reach the members through proxies that can swallow everything."""
    partitions: bool = False
    learner: bool = False
    filled_mb: int = 0
    """How much is in the store before."""

    @property
    def streams(self) -> bool:
        """Whether clients hold a watch and a lease: a pinned learner would grant neither."""
        return self.reads and not self.learner

    @property
    def undone_late(self) -> bool:
        """Whether it lasts until there is no load any more."""
        return self.undone_at is None and self.undo is not nothing


KILL_FOLLOWER: Final = Fault(
    "kill-follower",
    "a follower is killed, started again later",
    seconds=8.0,
    undone_at=5.0,
    strike=kill,
    undo=start_again,
)
KILL_LEADER: Final = replace(
    KILL_FOLLOWER,
    name="kill-leader",
    title="the leader is killed, started again later",
    victim=LEADER,
    seconds=9.5,
    undone_at=6.5,
)
RESTART: Final = Fault(
    "restart",
    "a follower is killed and started again at once",
    seconds=9.0,
    strike=kill_and_start,
)
HANG: Final = Fault(
    "hang",
    "a follower hangs (SIGSTOP), goes on later",
    seconds=11.0,
    undone_at=8.5,
    strike=hold,
    undo=let_go,
)
BLACK_HOLE: Final = Fault(
    "black-hole",
    "the network between the clients and a follower swallows everything",
    seconds=11.0,
    undone_at=8.5,
    strike=swallow,
    undo=let_through,
    proxies=True,
)
PARTITION: Final = Fault(
    "partition",
    "a follower is cut off from its peers, clients still reach it",
    seconds=11.0,
    undone_at=8.5,
    strike=cut_off,
    undo=reconnect,
    partitions=True,
)
LEARNER_LISTED: Final = Fault(
    "learner",
    "a learner is among the endpoints",
    seconds=4.0,
    struck_at=0.0,
    undone_at=4.0,
    victim=LEARNER,
    learner=True,
)
ROLLING_RESTART: Final = Fault(
    "rolling-restart",
    "every member is restarted, one after the other",
    seconds=40.0,
    struck_at=1.5,
    strike=restart_each,
    until_done=True,
)
ROLLING_DEFRAG: Final = Fault(
    "rolling-defrag",
    "every member is defragmented, one after the other",
    seconds=40.0,
    struck_at=1.5,
    strike=defragment_each,
    until_done=True,
    filled_mb=48,
)
IDLE_HANG: Final = replace(
    HANG,
    name="hang-idle",
    title="a follower hangs (SIGSTOP), and there is only a watch",
    calls=False,
    struck_at=1.5,
    undone_at=13.5,
    seconds=15.0,
)
IDLE_BLACK_HOLE: Final = replace(
    IDLE_HANG,
    name="black-hole-idle",
    title="the network to a follower swallows everything, and there is only a watch",
    strike=swallow,
    undo=let_through,
    proxies=True,
)
IDLE_PARTITION: Final = replace(
    IDLE_HANG,
    name="partition-idle",
    title="a follower is cut off from its peers, and there is only a watch",
    strike=cut_off,
    undo=reconnect,
    partitions=True,
    undone_at=9.5,
    seconds=11.5,
)

FAULTS: Final = (
    KILL_FOLLOWER,
    KILL_LEADER,
    HANG,
    BLACK_HOLE,
    PARTITION,
    RESTART,
    LEARNER_LISTED,
    ROLLING_RESTART,
    ROLLING_DEFRAG,
    IDLE_HANG,
    IDLE_BLACK_HOLE,
    IDLE_PARTITION,
)
BY_NAME: Final = {fault.name: fault for fault in FAULTS}
QUICK: Final = (KILL_FOLLOWER, KILL_LEADER, HANG, PARTITION)
"""What the quick mode shows."""


def _never_undone(fault: Fault, title: str) -> Fault:
    """The same fault with the load and the timing of the "numbers to beat"."""
    return replace(
        fault,
        name=f"{fault.name}-16s",
        title=title,
        seconds=16.0,
        struck_at=5.0,
        undone_at=None,
        reads=False,
    )


KILL_FOLLOWER_NUMBERS: Final = _never_undone(KILL_FOLLOWER, "kill -9 a follower")
KILL_LEADER_NUMBERS: Final = _never_undone(KILL_LEADER, "kill -9 the leader")
HANG_NUMBERS: Final = _never_undone(HANG, "SIGSTOP a follower")
PARTITION_NUMBERS: Final = _never_undone(PARTITION, "cut a follower off from its peers")
NUMBERS: Final = (
    KILL_FOLLOWER_NUMBERS,
    KILL_LEADER_NUMBERS,
    HANG_NUMBERS,
    PARTITION_NUMBERS,
)
"""One put every 10 ms for 16 s, the fault at 5 s, not undone: what other clients were run with."""
