"""The dangers of etcd's learner design page, each as steps that anybody can repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.membership.stage import Stage
from etcd_pinwheel import Client

CALM_SECONDS: Final = 1.0
TROUBLE_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 3.0
BIG_KEYS, BIG_BYTES = 400, 100_000
"""What a newcomer has to be sent, where that is the trouble: 40 MB."""
SMALL_LOG: Final = ("--snapshot-count=100", "--snapshot-catchup-entries=50")
"""So that the newcomer needs the whole store, and not just the log."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One question, and how it is put."""

    name: str
    question: str
    size: int
    play: Callable[[Stage], None]
    flags: Sequence[str] = ()


def overload(stage: Stage) -> None:
    """Add an empty member to a cluster with a large store."""
    with Client(stage.cluster.endpoints, timeout=30.0) as client:
        for number in range(BIG_KEYS):
            client.put(f"benchmark/big/{number}", b"v" * BIG_BYTES)
    stage.wait(CALM_SECONDS)
    if stage.add_and_start():
        stage.wait(TROUBLE_SECONDS)
        stage.try_to_undo()


def isolated_leader(stage: Stage) -> None:
    """Cut the leader off from all others, of whom one is new."""
    if _newcomer_settled(stage):
        _mark_and_isolate(stage, "leader")


def three_and_one(stage: Stage) -> None:
    """Cut the newcomer off from all others."""
    if _newcomer_settled(stage):
        _mark_and_isolate(stage, "newcomer")


def two_and_two(stage: Stage) -> None:
    """Leave the newcomer with the leader, and the two others with each other."""
    if _newcomer_settled(stage):
        assert stage.newcomer_process is not None
        others = stage.followers
        stage.record.mark("2 + 2")
        stage.cluster.partition(others)
        stage.wait(TROUBLE_SECONDS)
        stage.try_to_undo()


def added_during_a_partition(stage: Stage) -> None:
    """Add a member that nobody reaches yet, while one of three is cut off."""
    stage.wait(CALM_SECONDS)
    stage.record.mark("one is cut off")
    stage.cluster.isolate(stage.followers[0])
    stage.wait(CALM_SECONDS)
    if stage.announce():
        stage.wait(TROUBLE_SECONDS)
        stage.try_to_undo()


def one_to_two(stage: Stage) -> None:
    """Add a second member to a single one, and start it a while later."""
    stage.wait(CALM_SECONDS)
    if stage.add_and_start(start=False):
        stage.wait(TROUBLE_SECONDS)
        stage.start_newcomer()
        stage.wait(SETTLE_SECONDS)
        stage.try_to_undo()


def wrong_url(stage: Stage) -> None:
    """Add a member under a URL where nobody is."""
    stage.wait(CALM_SECONDS)
    if stage.announce():
        stage.wait(TROUBLE_SECONDS)
        stage.try_to_undo()


def wrong_url_then_a_loss(stage: Stage) -> None:
    """Add a member under a URL where nobody is; then one of the three dies."""
    stage.wait(CALM_SECONDS)
    if stage.announce():
        stage.wait(CALM_SECONDS)
        stage.record.mark("one dies")
        stage.followers[0].kill()
        stage.wait(TROUBLE_SECONDS)
        stage.try_to_undo()


def _newcomer_settled(stage: Stage) -> bool:
    stage.wait(CALM_SECONDS)
    if not stage.add_and_start():
        return False
    assert stage.newcomer_process is not None
    stage.newcomer_process.wait_until_ready()
    stage.wait(CALM_SECONDS)
    return True


def _mark_and_isolate(stage: Stage, who: str) -> None:
    stage.record.mark(f"{who} cut off")
    victim = stage.leader if who == "leader" else stage.newcomer_process
    assert victim is not None
    stage.cluster.isolate(victim)
    stage.wait(TROUBLE_SECONDS)
    stage.try_to_undo()


EXPERIMENTS: Final = (
    Experiment("overload", "An empty member joins a cluster with 40 MB.", 3, overload, SMALL_LOG),
    Experiment("leader isolated", "The leader is cut off from all.", 3, isolated_leader),
    Experiment("3 + 1", "The newcomer is cut off from the three.", 3, three_and_one),
    Experiment("2 + 2", "Leader and newcomer are cut off from the others.", 3, two_and_two),
    Experiment(
        "during a partition",
        "Added while one of three is cut off, and not started.",
        3,
        added_during_a_partition,
    ),
    Experiment("1 to 2", "A single member gets a second, started 5 s later.", 1, one_to_two),
    Experiment("wrong URL, of one", "A single member gets one nobody can reach.", 1, wrong_url),
    Experiment("wrong URL, of three", "Three get one nobody can reach.", 3, wrong_url),
    Experiment(
        "wrong URL, then a loss",
        "Three get one nobody can reach; then one of the three dies.",
        3,
        wrong_url_then_a_loss,
    ),
)
