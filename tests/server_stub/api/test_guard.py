"""The guard before all services: what learners serve, and what needs a leader."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import NO_LEADER, NOT_SUPPORTED_FOR_LEARNER, Refusal, Refused
from etcd_pinwheel.protos.rpc import Rpc
from etcd_pinwheel.server_stub.api.call import Call, Method
from etcd_pinwheel.server_stub.api.guard import LEARNER_SERVES, guarded

READ = {"request_range": {"key": b"k"}}
STALE_READ = {"request_range": {"key": b"k", "serializable": True}}
WRITE = {"request_put": {"key": b"k"}}
NESTED = {"request_txn": {"success": [STALE_READ]}}

AS_ETCD: list[tuple[Rpc[Any, Any], dict[str, Any]]] = [
    (rpcs.MAINTENANCE_STATUS, {}),
    (rpcs.MAINTENANCE_SNAPSHOT, {}),
    (rpcs.KV_RANGE, {"key": b"k", "serializable": True}),
]
STALE: list[tuple[Rpc[Any, Any], dict[str, Any]]] = [
    (rpcs.KV_RANGE_STREAM, {"key": b"k", "serializable": True}),
    (rpcs.KV_TXN, {"success": [STALE_READ], "failure": [STALE_READ]}),
    (rpcs.KV_TXN, {}),
    (rpcs.WATCH_WATCH, {}),
    (rpcs.CLUSTER_MEMBER_LIST, {}),
    (rpcs.MAINTENANCE_HASH_KV, {}),
]
LINEARIZABLE: list[tuple[Rpc[Any, Any], dict[str, Any]]] = [
    (rpcs.KV_RANGE, {"key": b"k"}),
    (rpcs.KV_RANGE_STREAM, {"key": b"k"}),
    (rpcs.KV_TXN, {"success": [STALE_READ], "failure": [READ]}),
    (rpcs.CLUSTER_MEMBER_LIST, {"linearizable": True}),
]
NEVER: list[tuple[Rpc[Any, Any], dict[str, Any]]] = [
    (rpcs.KV_TXN, {"success": [WRITE]}),
    (rpcs.KV_TXN, {"failure": [WRITE]}),
    (rpcs.KV_TXN, {"success": [NESTED]}),
    *((rpc, {}) for rpc in rpcs.ALL if rpc.path not in LEARNER_SERVES),
]
SETTINGS = {"none": AS_ETCD, "stale": AS_ETCD + STALE}
SETTINGS["linearizable"] = SETTINGS["stale"] + LINEARIZABLE
EVERYTHING = AS_ETCD + STALE + LINEARIZABLE + NEVER


class FakeMember:
    def __init__(self) -> None:
        self.is_learner, self.has_leader, self.led = False, True, 0

    async def while_led(self, replies: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        self.led += 1
        async for reply in replies:
            yield reply


@pytest.fixture
def member() -> FakeMember:
    return FakeMember()


async def _serve_one(request: Any, call: Call) -> str:
    return "served"


async def _serve_many(request: Any, call: Call) -> AsyncGenerator[str, None]:
    yield "served"


async def outcome(
    member: FakeMember,
    rpc: Rpc[Any, Any],
    fields: dict[str, Any],
    learner_reads: str = "none",
    **metadata: str,
) -> Refusal | None:
    """Call a method through the guard; None if it was served."""
    many = rpc.server_streaming
    method = guarded(Method(rpc, _serve_many if many else _serve_one), member, learner_reads)
    assert method.rpc is rpc
    request = iter(()) if rpc.client_streaming else rpc.request(**fields)
    try:
        if many:
            assert [reply async for reply in method.serve(request, Call(metadata))] == ["served"]
        else:
            assert await method.serve(request, Call(metadata)) == "served"
    except Refused as refused:
        return refused.refusal
    return None


def name(case: Any) -> str:
    return case.name if isinstance(case, Rpc) else str(case)[:60]


def test_every_rpc_is_in_the_tables_above() -> None:
    assert {rpc.path for rpc, _ in EVERYTHING} == {rpc.path for rpc in rpcs.ALL}
    assert len(rpcs.ALL) == 49


@pytest.mark.parametrize(("rpc", "fields"), EVERYTHING, ids=name)
async def test_what_learners_serve(
    member: FakeMember, rpc: Rpc[Any, Any], fields: dict[str, Any]
) -> None:
    assert await outcome(member, rpc, fields) is None, "a voter serves it"
    member.is_learner = True
    for setting, served in SETTINGS.items():
        expected = None if (rpc, fields) in served else NOT_SUPPORTED_FOR_LEARNER
        assert await outcome(member, rpc, fields, setting) is expected, setting


async def test_a_promoted_learner_serves_at_once(member: FakeMember) -> None:
    method = guarded(Method(rpcs.KV_PUT, _serve_one), member, "none")
    member.is_learner = True
    with pytest.raises(Refused):
        method.serve(rpcs.KV_PUT.request(), Call({}))
    member.is_learner = False
    assert await method.serve(rpcs.KV_PUT.request(), Call({})) == "served"


@pytest.mark.parametrize("rpc", rpcs.ALL, ids=name)
async def test_who_requires_a_leader_is_told_at_once_that_there_is_none(
    member: FakeMember, rpc: Rpc[Any, Any]
) -> None:
    assert await outcome(member, rpc, {}, hasleader="true") is None
    assert member.led == rpc.server_streaming, "streams are watched over"
    member.has_leader = False
    assert await outcome(member, rpc, {}, hasleader="true") is NO_LEADER
    assert await outcome(member, rpc, {}) is None
    assert await outcome(member, rpc, {}, hasleader="false") is None


async def test_a_learner_says_so_before_it_looks_for_a_leader(member: FakeMember) -> None:
    member.is_learner, member.has_leader = True, False
    refusal = await outcome(member, rpcs.KV_PUT, {}, hasleader="true")
    assert refusal is NOT_SUPPORTED_FOR_LEARNER
