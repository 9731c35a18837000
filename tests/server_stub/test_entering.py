"""How a member begins to take part: what it does when the cluster does not let it yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_pinwheel.protos.errors import STOPPED, TIMEOUT, TOO_MANY_REQUESTS, Refusal, Refused
from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest
from etcd_pinwheel.server_stub.entering import RETRY_SECONDS, publish
from etcd_pinwheel.server_stub.member import Member


class Newcomer:
    """A member as far as entering asks of it, and what it was refused before it is not."""

    def __init__(self, *refusals: Refusal) -> None:
        self.id = 7
        self.settings = SimpleNamespace(name="a", advertise_client_urls=("http://a:2379",))
        self.proposed: list[InternalRaftRequest] = []
        self.slept: list[float] = []
        self._refusals = list(refusals)

    def propose(self, request: InternalRaftRequest) -> Awaitable[None]:
        """Refuse as ``Proposals`` does: by raising, before there is anything to be awaited."""
        self.proposed.append(request)
        if self._refusals:
            raise Refused(self._refusals.pop(0))
        return asyncio.sleep(0)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def enter(self, step: Callable[..., Awaitable[None]]) -> None:
        await step(cast("Member", cast("Any", self)), self.sleep)


@pytest.mark.parametrize("refusal", [TOO_MANY_REQUESTS, TIMEOUT])
async def test_who_this_is_is_told_again_after_a_pause(refusal: Refusal) -> None:
    """Without one, a member that is far behind would never get to apply what it is behind by."""
    newcomer = Newcomer(refusal, refusal)
    await newcomer.enter(publish)
    assert newcomer.slept == [RETRY_SECONDS, RETRY_SECONDS]
    assert [each.cluster_member_attr_set.member_ID for each in newcomer.proposed] == [7, 7, 7]


async def test_a_member_that_is_stopped_tells_nothing_more() -> None:
    newcomer = Newcomer(STOPPED)
    with pytest.raises(Refused) as caught:
        await newcomer.enter(publish)
    assert caught.value.refusal is STOPPED
    assert not newcomer.slept
