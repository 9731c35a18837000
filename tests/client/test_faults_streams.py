"""What befalls watches, leases and snapshots when the member that serves them is struck.

The tables say where failing over is transparent, and where a generation's model does not allow it.
Whatever happens, a watch tells every event once and in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
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
    stream_of,
    warm,
)

from etcd_pinwheel import Client, ConnectionLost, LossReason, TimedOut, WaitTimedOut
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

Connect = Callable[..., Any]
SILENT_SECONDS = 2.0
"""For how long nothing has to come of a watch that is stuck."""
HUNG_AND_PINGED = replace(HUNG, name="hung, with pings")
PINGS = {"keepalive_time": 5.0, "keepalive_timeout": 1.0}

MOVES, STAYS = True, False

WATCHES: dict[Fault, tuple[bool, bool, bool, bool]] = {
    #         multi  single round  aware
    KILLED: (MOVES, MOVES, MOVES, MOVES),
    LEADER_KILLED: (MOVES, MOVES, MOVES, MOVES),
    STOPPED: (MOVES, MOVES, MOVES, MOVES),
    HUNG: (STAYS, STAYS, STAYS, MOVES),
    HUNG_AND_PINGED: (MOVES, MOVES, MOVES, MOVES),
    BLACK_HOLE: (STAYS, STAYS, STAYS, MOVES),
    # "no leader" ends it, and where does it go then?
    CUT_OFF: (STAYS, STAYS, MOVES, MOVES),
}
"""Whether a watch, alone on its client, gets events while the fault lasts."""

LEASES: dict[Fault, tuple[bool, bool, bool, bool]] = {
    #         multi  single round  aware
    LEADER_KILLED: (MOVES, MOVES, MOVES, MOVES),
    STOPPED: (MOVES, MOVES, MOVES, MOVES),
    HUNG: (STAYS, STAYS, MOVES, MOVES),
    BLACK_HOLE: (STAYS, STAYS, MOVES, MOVES),
    CUT_OFF: (STAYS, STAYS, MOVES, MOVES),
}
"""Whether renewals, which are answered or not, go elsewhere in time."""


def cells(table: dict[Fault, tuple[bool, bool, bool, bool]], *like_others: Fault) -> list[Any]:
    """Every fault with every policy, on one face or the other in turn.

    What resembles another fault of the table is only run where all are.
    """
    return [
        pytest.param(
            fault,
            policy,
            moves,
            face,
            id=f"{fault.name}-{policy}-{face}",
            marks=[pytest.mark.exhaustive] if fault in like_others else [],
        )
        for row, (fault, expected) in enumerate(table.items())
        for column, (policy, moves) in enumerate(zip(POLICIES, expected, strict=True))
        for face in [("sync", "async")[(row + column) % 2]]
    ]


@pytest.fixture(scope="module")
def clusters() -> Iterator[LocalCluster]:
    """The cluster of all these tests, started once."""
    with new_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(clusters: LocalCluster) -> LocalCluster:
    """The cluster, all of it well."""
    mend(clusters)
    return clusters


@pytest.fixture
def stage(cluster: LocalCluster, fault: Fault) -> Iterator[Stage]:
    """The cluster as the fault needs it."""
    with ExitStack() as stack:
        yield stack.enter_context(behind_proxies(cluster)) if fault.proxied else Stage(cluster)


def serving(stage: Stage, client: Any, fault: Fault) -> AnyMember:
    """The member that serves the client's stream, in the role that the fault is about."""
    found: list[AnyMember] = []

    def settled() -> bool:
        url = stream_of(client)
        if not url:
            return False
        member = stage.member_at(url)
        stage.lead(member if fault.of_leader else stage.others(member)[0])
        found[:] = [member]
        return stream_of(client) == url

    eventually(settled, "a stream is served")
    return found[0]


class Counting:
    """A writer of numbers, and a watch that has to tell them."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self._written = 0
        self._told = 0

    def write(self, client: Client, count: int) -> None:
        for _ in range(count):
            client.put("counting/n", str(self._written), timeout=SOON)
            self._written += 1

    def are_told(self) -> None:
        """Every number that was written comes, once, in order."""
        while self._told < self._written:
            event = self._watch.next_event(SOON)
            assert int(event.value) == self._told
            self._told += 1

    def nothing_comes(self) -> None:
        with pytest.raises(WaitTimedOut):
            self._watch.next_event(SILENT_SECONDS)


@pytest.mark.parametrize(("fault", "policy", "moves", "face"), cells(WATCHES), indirect=["face"])
def test_a_watch(fault: Fault, policy: str, moves: bool, stage: Stage, connect: Connect) -> None:
    pings = PINGS if fault is HUNG_AND_PINGED else {}
    client = connect(stage.endpoints, **settings_of(policy, **pings))
    warm(client, policy)
    with client.watch("counting/", prefix=True) as watch:
        numbers = Counting(watch)
        struck = serving(stage, client, fault)
        with stage.writer() as all_of_them, stage.writer(struck) as others:
            numbers.write(all_of_them, 3)
            numbers.are_told()
            fault.strike(stage, struck)
            settle(stage.cluster, without=struck)
            numbers.write(others, 5)
            if moves:
                numbers.are_told()
                assert stream_of(client) != stage.url_of(struck)
            else:
                numbers.nothing_comes()
                assert stream_of(client) in ("", stage.url_of(struck))
            fault.undo(stage, struck)
            settle(stage.cluster)
            numbers.write(all_of_them, 5)
            numbers.are_told()
    client.close()


@pytest.mark.parametrize(
    ("fault", "policy", "moves", "face"), cells(LEASES, STOPPED, BLACK_HOLE), indirect=["face"]
)
def test_a_lease(fault: Fault, policy: str, moves: bool, stage: Stage, connect: Connect) -> None:
    client = connect(stage.endpoints, **settings_of(policy))
    warm(client, policy)
    with client.lease(ttl=9 if moves else 3) as lease:
        struck = serving(stage, client, fault)
        fault.strike(stage, struck)
        if moves:
            with stage.writer(struck) as others:
                eventually(lambda: is_renewed(others, lease), "renewed elsewhere")
            assert stream_of(client) != stage.url_of(struck)
            assert not lease.lost.is_set()
        else:
            assert lease.lost.wait(SOON)
            assert lease.lost.reason is LossReason.UNANSWERED
        fault.undo(stage, struck)
        settle(stage.cluster)
        if moves:
            client.put("leased", "v", lease=lease.id, timeout=SOON)
            assert not lease.lost.is_set()
    client.close()


def is_renewed(others: Client, lease: Any) -> bool:
    """Whether the lease's time to live has risen meanwhile; look soon again if not."""
    left = others.leases.time_to_live(lease.id, timeout=SOON).ttl
    assert left >= 0, "expired"
    lowest = min(left, getattr(others, "lowest", left))
    others.lowest = lowest  # type: ignore[attr-defined]
    return left > lowest


# Snapshots


@pytest.fixture
def filled(cluster: LocalCluster) -> Iterator[Stage]:
    """The cluster behind proxies, with more in its store than a connection holds on its way."""
    with behind_proxies(cluster) as stage:
        with stage.writer() as writer:
            if not writer.get("large/39", timeout=SOON):
                for number in range(40):
                    writer.put(f"large/{number}", os.urandom(200_000), timeout=SOON)
        yield stage


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("face", ["async"], indirect=True)
def test_a_snapshot_that_has_begun_is_not_begun_elsewhere(
    policy: str, filled: Stage, connect: Connect, tmp_path: Path
) -> None:
    client = connect(filled.endpoints, **settings_of(policy))
    warm(client, policy)

    def each(do: Callable[[Any], None]) -> None:
        for proxy in filled.proxies.values():
            do(proxy)

    with pytest.raises(ConnectionLost):
        client.maintenance.snapshot(
            tmp_path / "s.db", progress=lambda *_: each(lambda proxy: proxy.cut())
        )
    assert os.listdir(tmp_path) == []
    with pytest.raises(TimedOut):
        client.maintenance.snapshot(
            tmp_path / "s.db", timeout=5.0, progress=lambda *_: each(lambda proxy: proxy.stall())
        )
    assert os.listdir(tmp_path) == []
    each(lambda proxy: proxy.heal())
    client.maintenance.snapshot(tmp_path / "s.db")
    client.close()


SNAPSHOTS: dict[Fault, tuple[bool, bool, bool, bool]] = {
    #         multi  single round  aware
    KILLED: (MOVES, MOVES, MOVES, MOVES),
    HUNG: (STAYS, STAYS, MOVES, MOVES),
    BLACK_HOLE: (STAYS, STAYS, MOVES, MOVES),
}
"""Whether a snapshot that has not begun is begun elsewhere."""


@pytest.mark.parametrize(
    ("fault", "policy", "moves", "face"), cells(SNAPSHOTS, BLACK_HOLE), indirect=["face"]
)
def test_a_snapshot_that_has_not_begun(
    fault: Fault, policy: str, moves: bool, stage: Stage, connect: Connect, tmp_path: Path
) -> None:
    client = connect(stage.endpoints, **settings_of(policy, timeout=12.0 if moves else 3.0))
    warm(client, policy)
    struck = stage.member_at(pin_of(client)) if policy in PINNED else stage.cluster[0]
    fault.strike(stage, struck)
    for number in range(3):  # one to each member, of the policies that have them take turns
        if moves:
            client.maintenance.snapshot(tmp_path / f"{number}.db")
        else:
            with pytest.raises(TimedOut):
                client.maintenance.snapshot(tmp_path / f"{number}.db")
            break
    assert len(os.listdir(tmp_path)) == (3 if moves else 0)
    client.close()
