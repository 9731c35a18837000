"""Each policy under faults, audited: what its clients were told must be one store's doing.

So no write that was acknowledged is lost, none is carried out twice (``retry="safe"``, the
default), no linearizable read is stale, and watches tell all of it once, in order: the judge finds
each of these (test_checker_catches.py), whoever of client and server is to blame.
"""

from __future__ import annotations

import random
import time

import pytest
from consistency.workload import Workload
from faults.staging import POLICIES, new_cluster

from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

TROUBLE_SECONDS = 1.0
CALM_SECONDS = 0.2


def kill(_: LocalCluster, member: AnyMember) -> None:
    member.kill()
    time.sleep(TROUBLE_SECONDS)
    member.start()


def stop(_: LocalCluster, member: AnyMember) -> None:
    member.stop()
    time.sleep(TROUBLE_SECONDS / 2)
    member.start()


def hang(_: LocalCluster, member: AnyMember) -> None:
    member.pause()
    time.sleep(TROUBLE_SECONDS)
    member.resume()


def cut_off(cluster: LocalCluster, member: AnyMember) -> None:
    cluster.isolate(member)
    time.sleep(TROUBLE_SECONDS)
    cluster.heal()


FAULTS = {"killed": (kill,), "stopped, hung, or cut off": (stop, hang, cut_off)}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("faults", FAULTS)
def test_members_struck_one_after_the_other(faults: str, policy: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with new_cluster() as cluster:
        workload = Workload(cluster.endpoints, seed=seed, policy=policy)
        with workload:
            for number, member in enumerate(cluster):  # the leader is among them
                time.sleep(CALM_SECONDS)
                cluster.wait_for_leader()
                strike = FAULTS[faults][number % len(FAULTS[faults])]
                strike(cluster, member)
            cluster.wait_for_leader()
        timeline = workload.judge()
    known = sum(operation.is_known for operation in workload.operations)
    print(f"{known} of {len(workload.operations)} known, up to revision {timeline.last}")
    assert known > 50, "hardly anything was done: this proves nothing"
