"""Leases of both clients against both servers, with real faults between them.

Each complaint about other clients that touches leases is a test that cites its number:
python-etcd3's unless another repository is named.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from etcd_pinwheel import (
    AsyncClient,
    Client,
    InvalidArgument,
    LeaseExists,
    LeaseLost,
    LeaseNotFound,
    LossReason,
    NotSent,
)
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
SOON = 10.0
TTL = 2


def outlive(seconds: float) -> None:
    """Let the server's clock run; there is nothing else to wait for."""
    time.sleep(seconds)


def test_a_lease_is_kept_alive_and_revoked_on_leaving(etcd: Any) -> None:
    """#1353, #2409: how do I keep a lease alive?"""
    with etcd.lease(ttl=TTL) as lease:
        etcd.put("l", "v", lease=lease)
        assert etcd.get("l").lease == lease.id
        outlive(1.5 * TTL)
        left = lease.time_to_live(keys=True)
        assert (left.granted_ttl, left.keys) == (TTL, (b"l",))
        assert not lease.lost.is_set()
        lease.lost.check()
    assert etcd.get("l") is None
    assert lease.lost.is_set()
    with pytest.raises(LeaseLost, match="revoked"):
        lease.lost.check()


def test_calls_about_leases(etcd: Any) -> None:
    granted = etcd.leases.grant(60, id=4711)
    assert (granted.id, granted.ttl) == (4711, 60)
    with pytest.raises(LeaseExists):
        etcd.leases.grant(60, id=4711)
    etcd.put("l", "v", lease=4711)
    assert 4711 in etcd.leases.list()
    left = etcd.leases.time_to_live(4711, keys=True)
    assert left.keys == (b"l",)
    assert 0 < left.ttl <= 60
    before = etcd.get("l").mod_revision
    assert etcd.leases.revoke(4711).revision == before + 1
    assert etcd.get("l") is None
    for call in (etcd.leases.revoke, etcd.leases.time_to_live, etcd.leases.keep_alive_once):
        with pytest.raises(LeaseNotFound, match="requested lease not found"):
            call(4711)
    with pytest.raises(InvalidArgument):
        etcd.leases.grant(0)
    with pytest.raises(InvalidArgument, match="open the lease first"):
        _ = etcd.lease(ttl=5).id


def test_a_lease_that_is_gone_is_lost_with_its_reason(etcd: Any) -> None:
    with etcd.lease(ttl=TTL) as lease:
        told: list[LossReason] = []
        lease.lost.add_callback(told.append)
        etcd.leases.revoke(lease.id)
        assert lease.lost.wait(SOON)
        with pytest.raises(LeaseLost) as caught:
            lease.lost.check()
        assert caught.value.reason == "expired"
        assert told == [LossReason.EXPIRED]
        lease.lost.add_callback(told.append)
        assert told == [LossReason.EXPIRED] * 2


def test_who_ends_a_lease_is_not_called_back(etcd: Any) -> None:
    told: list[LossReason] = []
    with etcd.lease(ttl=TTL) as lease:
        lease.lost.add_callback(told.append)
    assert lease.lost.reason is LossReason.REVOKED
    lease.lost.add_callback(told.append)
    assert told == []


def test_lost_before_the_server_lets_go_of_it(
    proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    """microsoft/etcd3#110, #57: loss went unnoticed on a half-open connection."""
    ttl = 4
    with connect([proxy.endpoint]).lease(ttl=ttl) as lease:
        direct.put("l", "v", lease=lease.id)
        proxy.stall()
        assert lease.lost.wait(ttl + SOON)
        assert direct.get("l") is not None, "lost for us before it is for others"
        with pytest.raises(LeaseLost, match="unanswered"):
            lease.lost.check()
        proxy.heal()


@pytest.mark.slow
def test_a_stalled_endpoint_is_left_in_time(
    server: LocalMember, proxy: FaultProxy, connect: Connect, direct: Client
) -> None:
    ttl = 4
    with FaultProxy(server.endpoint) as second:
        client = connect([proxy.endpoint, second.endpoint])
        with client.lease(ttl=ttl) as lease:
            for fault, healthy in ((proxy, second), (second, proxy)):
                healthy.heal()
                fault.stall()
                assert not lease.lost.wait(ttl * 1.25)
            proxy.heal()
            second.heal()
            assert direct.leases.time_to_live(lease.id).ttl >= 0


@pytest.mark.slow
def test_a_reset_connection_and_a_restarted_server_cost_no_lease(
    own_server: LocalMember, connect: Connect
) -> None:
    ttl = 15  # a process takes seconds to start on a machine that is busy
    with FaultProxy(own_server.endpoint) as proxy:
        client = connect([proxy.endpoint])
        with client.lease(ttl=ttl) as lease:
            client.put("l", "v", lease=lease.id)
            for _ in range(5):
                proxy.cut()
                assert not lease.lost.wait(0.1)
            own_server.kill()
            own_server.restart()
            assert not lease.lost.wait(ttl + 1)
            assert client.get("l", timeout=SOON).lease == lease.id


def test_all_leases_and_refreshes_share_one_stream(etcd: Any) -> None:
    """martyanov/aetcd#33: a stream for every refresh; #560: half-closed ones, cancelled."""
    leases = [etcd.lease(ttl=TTL) for _ in range(20)]
    for lease in leases:
        lease.open()
    for _ in range(10):
        for lease in leases[:3]:
            assert etcd.leases.keep_alive_once(lease.id) == TTL
    assert sum(view.streams for view in etcd.endpoints.values()) == 1
    outlive(1.5 * TTL)
    assert not any(lease.lost.is_set() for lease in leases)
    for lease in leases:
        lease.revoke()


def test_a_lease_of_another_process_is_taken_over(etcd: Any, direct: Client) -> None:
    """#2409: by its id, from another process."""
    granted = direct.leases.grant(TTL)
    with etcd.leases.keep_alive(granted.id) as lease:
        assert (lease.id, lease.ttl) == (granted.id, TTL)
        outlive(1.5 * TTL)
        assert not lease.lost.is_set()
    assert direct.leases.time_to_live(granted.id).ttl >= 0, "left alive"
    direct.leases.revoke(granted.id)
    with pytest.raises(LeaseNotFound):
        etcd.leases.keep_alive(granted.id).open()


def test_closing_leaves_the_lease_to_expire(etcd: Any) -> None:
    lease = etcd.lease(ttl=TTL)
    lease.open()
    lease.close()
    assert lease.lost.is_set()
    assert lease.time_to_live().ttl >= 0


def test_the_clients_timeout_does_not_cut_keep_alives(
    server: LocalMember, connect: Connect
) -> None:
    """microsoft/etcd3#133: leases inherited the deadline of calls."""
    client = connect([server.endpoint], timeout=0.5)
    with client.lease(ttl=TTL) as lease:
        assert not lease.lost.wait(1.5 * TTL)


def test_nobody_there(connect: Connect) -> None:
    client = connect(["127.0.0.1:1"], timeout=0.3)
    with pytest.raises(NotSent):
        client.lease(ttl=5).open()
    with pytest.raises(NotSent):
        client.leases.keep_alive_once(1)


def test_an_opening_that_failed_may_be_repeated(etcd: Any) -> None:
    """As whoever starts before etcd does has to."""
    granted = etcd.leases.grant(60)
    new = etcd.lease(ttl=60, id=granted.id)
    for _ in range(2):
        with pytest.raises(LeaseExists):
            new.open()
    etcd.leases.revoke(granted)
    kept = etcd.leases.keep_alive(granted)
    for _ in range(2):
        with pytest.raises(LeaseNotFound):
            kept.open()
    with new, kept:
        assert new.id == kept.id == granted.id
        for lease in (new, kept):
            with pytest.raises(InvalidArgument, match="opened once"):
                lease.open()


def test_leaving_while_nobody_answers_raises_nothing(proxy: FaultProxy, connect: Connect) -> None:
    """Then the lease expires by itself."""
    client = connect([proxy.endpoint], timeout=0.5)
    lease = client.lease(ttl=5)

    def use() -> None:
        with lease:
            proxy.refuse()
            raise KeyError("the block's own")

    with pytest.raises(KeyError, match="the block's own"):
        use()


def test_a_callback_may_use_the_client(server: LocalMember) -> None:
    """It is called without locks held (#187 in spirit)."""
    with Client([server.endpoint]) as client:
        lease = client.lease(ttl=TTL).open()
        done = threading.Event()

        def renew(_reason: LossReason) -> None:
            client.lease(ttl=TTL).open()
            client.close()
            done.set()

        lease.lost.add_callback(renew)
        client.leases.revoke(lease)
        assert done.wait(SOON)


async def test_waiting_for_a_loss_in_asyncio(server: LocalMember) -> None:
    async with AsyncClient([server.endpoint]) as client, client.lease(ttl=TTL) as lease:
        assert not await lease.lost.wait(0.1)
        waiter = asyncio.ensure_future(lease.lost.wait())
        await client.leases.revoke(lease)
        assert await waiter
        assert lease.lost.reason is LossReason.EXPIRED
