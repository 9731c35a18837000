"""What each policy's calls meet when it is the cluster that changes, rather than one member.

No leader, a new leader, a learner among the endpoints, members restarted or defragmented one after
the other: with a watch open, which has to tell every acknowledged write once, in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.staging import (
    PINNED,
    POLICIES,
    SOON,
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

from etcd_pinwheel import (
    CallError,
    LearnerCannotServe,
    NoLeader,
    NotSent,
    OutcomeUnknown,
    version,
)
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

Connect = Callable[..., Any]
WRITES = 6
TURNS = [
    pytest.param(policy, face, id=f"{policy}-{face}")
    for policy, face in zip(POLICIES, ("sync", "async") * 2, strict=True)
]
OTHER_TURNS = [
    pytest.param(policy, face, id=f"{policy}-{face}")
    for policy, face in zip(POLICIES, ("async", "sync") * 2, strict=True)
]


@pytest.fixture(scope="module")
def clusters() -> Iterator[LocalCluster]:
    with new_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(clusters: LocalCluster) -> LocalCluster:
    """The cluster, all of it well."""
    mend(clusters)
    return clusters


class Load:
    """Writes and reads, one after the other, and a watch beside them, within a ``with``."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[int] = []
        self.unknown: dict[int, str] = {}
        """What may have been carried out, and why that is not known."""
        self.not_done: dict[int, str] = {}
        self.failed_reads: list[str] = []
        self._watch = client.watch("load/", prefix=True)

    @property
    def done(self) -> int:
        return len(self.acknowledged)

    def __enter__(self) -> Load:
        self._watch.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()
        if error[0] is None:
            self._audit()
        self._watch.__exit__(*error)

    def goes_on(self) -> None:
        """Wait for some more writes to be acknowledged."""
        wanted = self.done + 5
        eventually(lambda: self.done >= wanted, "writes are acknowledged")

    def _run(self) -> None:
        number = 0
        while not self._ending.is_set():
            try:
                self._client.put("load/n", str(number), timeout=SOON)
            except OutcomeUnknown as error:
                self.unknown[number] = repr(error)
            except CallError as error:
                self.not_done[number] = repr(error)
            else:
                self.acknowledged.append(number)
            number += 1
            try:
                self._client.get("load/n", timeout=SOON)
            except CallError as error:
                self.failed_reads.append(repr(error))

    def _audit(self) -> None:
        """Hold what the watch tells against what the writes were answered."""
        self._client.put("load/n", "-1", timeout=SOON)
        told = []
        while (number := int(self._watch.next_event(SOON).value)) >= 0:
            told.append(number)
        assert told == sorted(set(told)), "an event twice, or out of order"
        missing = set(self.acknowledged) - set(told)
        assert not missing, "acknowledged and lost"
        assert set(told) <= {*self.acknowledged, *self.unknown}, "done, though said not to be"


@pytest.mark.parametrize(("policy", "face"), TURNS, indirect=["face"])
def test_no_leader_and_one_again(policy: str, cluster: LocalCluster, connect: Connect) -> None:
    stage = Stage(cluster)
    client = connect(stage.endpoints, **settings_of(policy))
    warm(client, policy)
    left = stage.member_at(pin_of(client)) if policy in PINNED else cluster[0]
    client.put("quorum", "had", timeout=SOON)
    eventually(
        lambda: client.get("quorum", serializable=True, timeout=SOON).value == b"had", "read"
    )
    for member in stage.others(left):
        member.kill()
    eventually(
        lambda: cluster.statuses().get(left.name) and not cluster.statuses()[left.name].leader_id,
        "the one that is left knows of no leader",
    )
    with pytest.raises((OutcomeUnknown, NoLeader)):
        client.put("quorum", "lost", timeout=1.0)
    # That put the pin on the list of the unhealthy, for the hold time, and nobody else is there
    refused = (NotSent,) if policy == "pinned_single" else ()
    with pytest.raises((OutcomeUnknown, NoLeader, *refused)):
        client.get("quorum", timeout=1.0)
    with pytest.raises((OutcomeUnknown, NoLeader, *refused)):
        client.txn().when(version("quorum") != 0).commit(timeout=1.0)
    assert client.get("quorum", serializable=True, timeout=SOON) is not None
    cluster.start()
    settle(cluster)
    assert client.get("quorum", timeout=SOON).value in (b"had", b"lost")
    client.put("quorum", "regained", timeout=SOON)
    kv = client.get("quorum", timeout=SOON)
    assert kv.value == b"regained"
    client.delete("quorum", timeout=SOON)
    client.close()


@pytest.mark.parametrize(("policy", "face"), OTHER_TURNS, indirect=["face"])
def test_the_lead_moves_on(policy: str, cluster: LocalCluster, connect: Connect) -> None:
    stage = Stage(cluster)
    client = connect(stage.endpoints, **settings_of(policy))
    warm(client, policy)
    with Load(client) as load:
        for member in (*cluster, cluster[0]):
            load.goes_on()
            stage.lead(member)
        load.goes_on()
    assert load.failed_reads == []
    client.close()


@pytest.mark.parametrize(("policy", "face"), TURNS, indirect=["face"])
def test_a_rolling_restart(policy: str, cluster: LocalCluster, connect: Connect) -> None:
    client = connect(cluster.endpoints, **settings_of(policy))
    warm(client, policy)
    with Load(client) as load:
        for member in cluster:
            load.goes_on()
            member.stop()
            member.start()
            cluster.wait_for_leader()
        load.goes_on()
    print(load.unknown, load.not_done)
    assert load.failed_reads == []
    assert len(load.unknown) <= 2 * len(cluster), load.unknown
    client.close()


@pytest.mark.parametrize(("policy", "face"), OTHER_TURNS, indirect=["face"])
def test_a_rolling_defragment(policy: str, cluster: LocalCluster, connect: Connect) -> None:
    client = connect(cluster.endpoints, **settings_of(policy))
    warm(client, policy)
    with Load(client) as load:
        for member in cluster:
            load.goes_on()
            client.maintenance.defragment(member.endpoint, timeout=SOON)
        load.goes_on()
    assert load.failed_reads == []
    assert (load.unknown, load.not_done) == ({}, {})
    client.close()


# A learner among the endpoints


@pytest.fixture(scope="module")
def with_learner(clusters: LocalCluster) -> Iterator[tuple[LocalCluster, AnyMember]]:
    mend(clusters)
    learner = clusters.add_learner()
    yield clusters, learner
    mend(clusters)
    clusters.remove(learner)


FAILED_AT_THE_LEARNER = {"pinned_multi": WRITES, "pinned_single": 1}
"""How many of the writes, where it was the first to be connected; of the others' none."""


@pytest.mark.parametrize(("policy", "face"), TURNS, indirect=["face"])
def test_a_learner_that_is_connected_first(
    policy: str, with_learner: tuple[LocalCluster, AnyMember], connect: Connect
) -> None:
    cluster, learner = with_learner
    with behind_proxies(cluster) as stage:
        for member in stage.others(learner):
            stage.proxies[member.name].refuse()
        client = connect(stage.endpoints, **settings_of(policy))
        assert client.get("nothing", serializable=True, timeout=SOON) is None
        for member in stage.others(learner):
            stage.proxies[member.name].heal()
        cluster.wait_for_leader()
        if policy != "pinned_single":
            eventually(
                lambda: all(view.standing.connected for view in client.endpoints.values()),
                "connected",
            )
        expected = FAILED_AT_THE_LEARNER.get(policy, 0)
        for number in range(WRITES):
            if number < expected:
                with pytest.raises(LearnerCannotServe) as caught:
                    client.put("learner", str(number), timeout=SOON)
                assert caught.value.endpoint == stage.url_of(learner)
            else:
                client.put("learner", str(number), timeout=SOON)
        client.close()
