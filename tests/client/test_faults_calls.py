"""What each policy's calls meet when one of three members is struck: the generations' models.

``EXPECTED`` is the table. Writes show it, for they are sent once. Nothing is timed: calls that are
expected to be answered have all the time they want, those that cannot be have little.

The table is about one fault. A cluster that is starved of processor time may elect another leader
in the middle, which fails writes anywhere: the term tells, and then the cell is played again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from enum import Enum, auto
from typing import Any

import pytest
from faults.staging import (
    BLACK_HOLE,
    CUT_OFF,
    HUNG,
    KILLED,
    LEADER_KILLED,
    PINNED,
    POLICIES,
    SOON,
    STOPPED,
    Fault,
    Stage,
    behind_proxies,
    eventually,
    mend,
    new_cluster,
    pin_of,
    settings_of,
    settle,
    warm,
)

from etcd_pinwheel import CallError, OutcomeUnknown
from etcd_pinwheel.balancers.health_record import HealthAwareOptions
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

Connect = Callable[..., Any]
DOOMED_SECONDS = 3.0
"""What a write gets whose member may be unable to answer. Ample for one that is able."""
WRITES = 6
EJECT_AFTER = HealthAwareOptions().eject_after
PLAYS = 5
"""How often an election may come in between before it counts as a failure."""


class Loss(Enum):
    """Which of the writes fail while the fault lasts."""

    NONE = auto()
    """None, but the one that was sent before the end of the connection was noticed: the pinned
    policies' first, or that of the others' whose turn it was on the struck member."""
    FIRST = auto()
    """The first: it is how the client finds out."""
    SHARE = auto()
    """A third, those that went to the struck member, for as long as it lasts."""
    ALL = auto()
    """All of them, for as long as it lasts."""
    FEW = auto()
    """As many as it takes to eject a member, or fewer; none once it is out. Which ones is chance:
    the struck member is drawn early or late, and probes may find out before any write does."""


NONE, FIRST, SHARE, ALL, FEW = Loss

EXPECTED: dict[str, tuple[Loss, Loss, Loss, Loss]] = {
    #                  multi single  round  aware
    KILLED.name: (NONE, NONE, NONE, NONE),
    LEADER_KILLED.name: (NONE, NONE, NONE, NONE),  # once there is a new one
    STOPPED.name: (NONE, NONE, NONE, NONE),
    HUNG.name: (ALL, FIRST, SHARE, FEW),
    BLACK_HOLE.name: (ALL, FIRST, SHARE, FEW),
    CUT_OFF.name: (ALL, FIRST, SHARE, FEW),
}
FAULTS = (KILLED, LEADER_KILLED, STOPPED, HUNG, BLACK_HOLE, CUT_OFF)


def cells(*faults: Fault) -> list[Any]:
    """Every policy with every fault, on one face or the other in turn."""
    return [
        pytest.param(fault, policy, face, id=f"{fault.name}-{policy}-{face}")
        for row, fault in enumerate(faults)
        for column, policy in enumerate(POLICIES)
        for face in [("sync", "async")[(row + column) % 2]]
    ]


@pytest.fixture(scope="module")
def clusters() -> Iterator[Callable[[str], LocalCluster]]:
    """The cluster of each make, started once."""
    made: dict[str, LocalCluster] = {}

    def get(make: str) -> LocalCluster:
        if make not in made:
            made[make] = new_cluster(make).__enter__()
        return made[make]

    yield get
    for cluster in made.values():
        cluster.close()


def strikable(stage: Stage, client: Any, policy: str, fault: Fault) -> AnyMember:
    """The member that the policy's fault is about, in the role that it is about."""
    member = stage.member_at(pin_of(client)) if policy in PINNED else stage.cluster[0]
    stage.lead(member if fault.of_leader else stage.others(member)[0])
    return member


def writes(client: Any, count: int, timeout: float) -> list[CallError | None]:
    """Write so often, one after the other; tell how each ended."""
    ended: list[CallError | None] = []
    for number in range(count):
        try:
            client.put(f"faults/{number}", "v", timeout=timeout)
        except CallError as error:
            ended.append(error)
        else:
            ended.append(None)
    return ended


def check(loss: Loss, policy: str, ended: list[CallError | None], struck: str) -> None:
    """Hold the outcomes against the table."""
    failed = [number for number, error in enumerate(ended) if error is not None]
    errors = [error for error in ended if error is not None]
    told = [str(error) for error in errors]
    match loss:
        case Loss.NONE:
            assert len(failed) <= 1, told
            assert policy not in PINNED or failed in ([], [0]), told
            assert all(isinstance(error, OutcomeUnknown) for error in errors), told
        case Loss.FIRST:
            assert failed == [0], told
        case Loss.SHARE:
            assert len(failed) == len(ended) / 3, told
        case Loss.ALL:
            assert len(failed) == len(ended), told
        case Loss.FEW:
            assert len(failed) <= EJECT_AFTER, told
    assert {error.endpoint for error in errors} <= {struck}, told


def play(stage: Stage, client: Any, policy: str, fault: Fault) -> bool:
    """Strike, write and read, undo, and write and read again; False if there was an election."""
    warm(client, policy)
    member = strikable(stage, client, policy, fault)
    struck = stage.url_of(member)
    warm(client, policy)
    loss = EXPECTED[fault.name][POLICIES.index(policy)]
    fault.strike(stage, member)
    term = settle(stage.cluster, without=member)
    later: list[CallError | None] = []
    if fault.drops:
        ended = writes(client, WRITES, SOON)
        for _ in range(WRITES):
            client.get("faults/0", timeout=SOON)
    else:
        ended = writes(client, 2 if loss is Loss.ALL else WRITES, DOOMED_SECONDS)
        if loss is Loss.FEW:
            eventually(
                lambda: not client.endpoints[struck].standing.eligible,
                "the struck member is out",
                lambda: client.endpoints,
            )
            later = writes(client, WRITES, SOON)
    pinned = client.endpoints[struck].standing.pinned
    undisturbed = settle(stage.cluster, without=member) == term
    if undisturbed:
        check(loss, policy, ended, struck)
        assert not any(later), later
        assert pinned == (loss is Loss.ALL)
    fault.undo(stage, member)
    settle(stage.cluster)
    client.put("faults/end", "v", timeout=SOON)
    assert client.get("faults/end", timeout=SOON).value == b"v"
    return undisturbed


def play_undisturbed(cluster: LocalCluster, policy: str, fault: Fault, connect: Connect) -> None:
    """Play with a new client, again if there was an election."""
    for _ in range(PLAYS):
        mend(cluster)
        with behind_proxies(cluster) if fault.proxied else nullcontext(Stage(cluster)) as stage:
            client = connect(stage.endpoints, **settings_of(policy))
            undisturbed = play(stage, client, policy, fault)
            client.close()
        if undisturbed:
            return
    pytest.fail(f"an election in each of {PLAYS} plays")


@pytest.mark.parametrize(("fault", "policy", "face"), cells(*FAULTS), indirect=["face"])
def test_the_table(fault: Fault, policy: str, clusters: Any, connect: Connect) -> None:
    play_undisturbed(clusters("ours"), policy, fault, connect)


@pytest.mark.exhaustive
@pytest.mark.differential
@pytest.mark.parametrize(
    ("fault", "policy", "face"), cells(LEADER_KILLED, HUNG, CUT_OFF), indirect=["face"]
)
def test_the_table_with_real_etcds(
    fault: Fault, policy: str, clusters: Any, connect: Connect
) -> None:
    play_undisturbed(clusters("etcd"), policy, fault, connect)
