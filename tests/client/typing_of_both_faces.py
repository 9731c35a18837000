"""What type checkers must see. Checked, never run: see test_types.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import assert_type

from etcd_pinwheel import (
    Alarm,
    AsyncClient,
    AsyncLeadership,
    AsyncLock,
    Client,
    CompactResult,
    Compare,
    Config,
    DeleteResult,
    EndpointView,
    HashKV,
    KeyValue,
    Leadership,
    Lock,
    LossReason,
    Member,
    Op,
    PutResult,
    RangeResult,
    Status,
    Tls,
    Txn,
    TxnResult,
    delete,
    get,
    put,
    value,
    version,
)


def blocking(etcd: Client) -> None:
    assert_type(etcd.get("k"), KeyValue | None)
    assert_type(etcd.get(b"k", revision=3, serializable=True, timeout=1.5), KeyValue | None)
    assert_type(etcd.range("k", "l", sort_by="mod_revision", order="descend"), RangeResult)
    assert_type(etcd.get_prefix("k", keys_only=True), RangeResult)
    assert_type(etcd.range("k")[0], KeyValue)
    assert_type(etcd.range("k")[1:], tuple[KeyValue, ...])
    assert_type(list(etcd.range("k")), list[KeyValue])
    assert_type(etcd.count("k", prefix=True), int)
    assert_type(etcd.pages("k", prefix=True, page_size=10), Iterator[RangeResult])
    assert_type(etcd.put("k", "v", lease=7, prev_kv=True), PutResult)
    assert_type(etcd.put("k", "v", retry="safe"), PutResult)
    assert_type(etcd.put("k", "v", retry="exactly_once"), PutResult)
    assert_type(etcd.delete("k"), DeleteResult)
    assert_type(etcd.delete("k", retry="at_least_once"), DeleteResult)
    assert_type(etcd.delete_prefix("k", retry="at_least_once"), DeleteResult)
    assert_type(etcd.commit(Txn(), retry="at_least_once"), TxnResult)
    assert_type(etcd.txn().commit(retry="at_least_once"), TxnResult)
    assert_type(etcd.compact(7, physical=True), CompactResult)
    assert_type(version("k") == 0, Compare)
    assert_type(put("k", "v"), Op)
    begun = etcd.txn().when(version("k") == 0, value("k") != "v").then(put("k", "v"))
    assert_type(begun.otherwise(get("k"), delete("k"), Txn()).commit(timeout=1.0), TxnResult)
    assert_type(etcd.members.list(), tuple[Member, ...])
    assert_type(etcd.members.add_learner(["http://a:1"]), Member)
    assert_type(etcd.members.promote(7), tuple[Member, ...])
    assert_type(etcd.maintenance.move_leader(7, endpoint="a:1"), None)
    assert_type(etcd.maintenance.status("a:1"), Status)
    assert_type(etcd.maintenance.hash_kv(revision=3), HashKV)
    assert_type(etcd.maintenance.alarms(), tuple[Alarm, ...])
    assert_type(etcd.maintenance.defragment("a:1"), None)
    assert_type(etcd.endpoints, Mapping[str, EndpointView])
    election = etcd.election("job")
    assert_type(election.leader(), KeyValue | None)
    with election.campaign("me", ttl=10) as leadership, election.observe() as leaders:
        assert_type(leadership, Leadership)
        assert_type(leadership.fence, int)
        assert_type(leadership.condition, Compare)
        assert_type(leadership.lost.wait(1.0), bool)
        assert_type(leadership.lost.reason, LossReason | None)
        assert_type(next(leaders), KeyValue | None)
    with etcd.lease(ttl=10) as lease, etcd.lock("door", lease=lease, timeout=0) as lock:
        assert_type(lock, Lock)
    with Client("a:1", balancer="round_robin", timeout=3.0, ca="ca.pem") as entered:
        assert_type(entered, Client)
    assert_type(Client.from_toml("etcd.toml", timeout=3.0), Client)
    Client(config=Config(timeout=3.0))
    Client(["a:1", {"url": "https://b:1", "ca": "x"}])
    Tls(ca=b"...")


async def awaited(etcd: AsyncClient) -> None:
    assert_type(await etcd.get("k"), KeyValue | None)
    assert_type(await etcd.range("k", prefix=True), RangeResult)
    assert_type(await etcd.count("k"), int)
    assert_type(etcd.pages("k"), AsyncIterator[RangeResult])
    assert_type(await etcd.put("k", "v"), PutResult)
    assert_type(await etcd.delete("k"), DeleteResult)
    assert_type(await etcd.compact(7), CompactResult)
    begun = etcd.txn().when(version("k") == 0).then(put("k", "v"))
    assert_type(await begun.commit(), TxnResult)
    assert_type(await begun.commit(retry="at_least_once"), TxnResult)
    assert_type(await etcd.put("k", "v", retry="at_least_once"), PutResult)
    assert_type(await etcd.members.list(), tuple[Member, ...])
    assert_type(await etcd.maintenance.status(), Status)
    election = etcd.election("job")
    assert_type(await election.leader(), KeyValue | None)
    async with election.campaign("me", ttl=10) as leadership, election.observe() as leaders:
        assert_type(leadership, AsyncLeadership)
        assert_type(await leadership.lost.wait(1.0), bool)
        assert_type(await anext(leaders), KeyValue | None)
    async with etcd.lease(ttl=10) as lease, etcd.lock("door", lease=lease) as lock:
        assert_type(lock, AsyncLock)
    async with AsyncClient("a:1") as entered:
        assert_type(entered, AsyncClient)


def mistakes(etcd: Client) -> None:
    etcd.get()  # type: ignore[call-arg]
    etcd.get("k", colour="red")  # type: ignore[call-arg]
    etcd.get("k", 5)  # type: ignore[call-arg]
    etcd.get(5)  # type: ignore[arg-type]
    etcd.range("k", sort_by="colour")  # type: ignore[arg-type]
    etcd.put("k", "v", lease="seven")  # type: ignore[arg-type]
    etcd.txn().when(True)  # type: ignore[arg-type]
    etcd.txn().then("put")  # type: ignore[arg-type]
    etcd.put("k", "v", retry="twice")  # type: ignore[arg-type]
    Client("a:1", retry="twice")  # type: ignore[arg-type]
    etcd.lock("door", lease=4711)  # type: ignore[arg-type]
    etcd.election("job").campaign("me", tll=10)  # type: ignore[call-arg]
    Client("a:1", tiemout=3)  # type: ignore[call-arg]
    Client(5)  # type: ignore[arg-type]
