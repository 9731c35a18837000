"""How a member begins to take part: what it does when the cluster does not let it yet."""

from __future__ import annotations

from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_pinwheel.protos.errors import STOPPED, TIMEOUT, TOO_MANY_REQUESTS, Refusal, Refused
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest
from etcd_pinwheel.server_stub.entering import (
    RETRY_SECONDS,
    VERSION_SECONDS,
    publish,
    see_to_cluster_version,
    set_cluster_version,
)
from etcd_pinwheel.server_stub.member import Member
from etcd_pinwheel.server_stub.version import CLUSTER_VERSION


class Newcomer:
    """A member as far as entering asks of it, and what it was refused before it is not."""

    def __init__(self, *refusals: Refusal) -> None:
        self.id = 7
        self.settings = SimpleNamespace(name="a", advertise_client_urls=("http://a:2379",))
        self.is_leader = True
        self.applier = SimpleNamespace(membership=SimpleNamespace(version=""))
        self.leads_after: list[bool] = []
        """Whether it leads after each sleep; in the end as before."""
        self.proposed: list[InternalRaftRequest] = []
        self.slept: list[float] = []
        self._refusals = list(refusals)

    def propose(self, request: InternalRaftRequest) -> Awaitable[None]:
        """Refuse as ``Proposals`` does: by raising, before there is anything to be awaited."""
        self.proposed.append(request)
        if self._refusals:
            raise Refused(self._refusals.pop(0))
        return self._apply(request)

    async def _apply(self, request: InternalRaftRequest) -> None:
        if request.HasField("cluster_version_set"):
            self.applier.membership.version = request.cluster_version_set.ver

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.leads_after:
            self.is_leader = self.leads_after.pop(0)

    @property
    def as_member(self) -> Member:
        return cast("Member", cast("Any", self))


@pytest.mark.parametrize("refusal", [TOO_MANY_REQUESTS, TIMEOUT])
async def test_who_this_is_is_told_again_after_a_pause(refusal: Refusal) -> None:
    """Without one, a member that is far behind would never get to apply what it is behind by."""
    newcomer = Newcomer(refusal, refusal)
    await publish(newcomer.as_member, newcomer.sleep)
    assert newcomer.slept == [RETRY_SECONDS, RETRY_SECONDS]
    assert [each.cluster_member_attr_set.member_ID for each in newcomer.proposed] == [7, 7, 7]


async def test_a_member_that_is_stopped_tells_nothing_more() -> None:
    newcomer = Newcomer(STOPPED)
    with pytest.raises(Refused) as caught:
        await publish(newcomer.as_member, newcomer.sleep)
    assert caught.value.refusal is STOPPED
    assert not newcomer.slept


@pytest.mark.parametrize("refusal", [TIMEOUT, TOO_MANY_REQUESTS, STOPPED])
async def test_a_leader_that_cannot_set_the_version_goes_on(refusal: Refusal) -> None:
    newcomer = Newcomer(refusal)
    await set_cluster_version(newcomer.as_member)
    assert not newcomer.applier.membership.version
    await see_to_cluster_version(newcomer.as_member, newcomer.sleep)
    assert newcomer.applier.membership.version == CLUSTER_VERSION
    assert newcomer.slept == [VERSION_SECONDS]
    assert len(newcomer.proposed) == 2


async def test_whoever_leads_later_sets_the_version() -> None:
    newcomer = Newcomer(TIMEOUT)
    newcomer.leads_after = [False, False, True, False, True]
    await see_to_cluster_version(newcomer.as_member, newcomer.sleep)
    assert newcomer.slept == [VERSION_SECONDS] * 5
    assert len(newcomer.proposed) == 2


async def test_a_version_is_set_once() -> None:
    newcomer = Newcomer()
    newcomer.applier.membership.version = "3.6.0"
    await see_to_cluster_version(newcomer.as_member, newcomer.sleep)
    await set_cluster_version(newcomer.as_member)
    assert not newcomer.slept
    assert not newcomer.proposed
