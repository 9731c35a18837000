"""Three members in one event loop: what a cluster survives, and how who was away catches up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from inprocess.served import PATIENCE_SECONDS, Stream, until
from inprocess.trio import NAMES, Trio

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import BAD_LEADER_TRANSFEREE, NO_LEADER, STOPPED, Refused
from etcd_pinwheel.server_stub.apply.applier import Applier
from etcd_pinwheel.server_stub.storage.backend import LmdbBackend
from etcd_pinwheel.server_stub.storage.snapshot import SnapshotFiles
from etcd_pinwheel.server_stub.storage.wal import Wal


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    async with Trio(tmp_path) as trio:
        yield trio


def others(name: str) -> list[str]:
    return [each for each in NAMES if each != name]


async def test_any_member_takes_writes_and_all_read_them(trio: Trio) -> None:
    for number, name in enumerate(NAMES):
        assert await trio[name].put(b"k%d" % number, name.encode()) == number + 2
        for reader in NAMES:
            found = await trio[reader](rpcs.KV_RANGE, key=b"k%d" % number)
            assert [kv.value for kv in found.kvs] == [name.encode()]
    await trio.alike()
    members = (await trio["a"](rpcs.CLUSTER_MEMBER_LIST)).members
    assert sorted(each.name for each in members) == list(NAMES)
    assert all(list(each.clientURLs) == [f"http://{each.name}:2379"] for each in members)


async def test_many_writers_at_once(trio: Trio) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        revisions = await asyncio.gather(
            *(trio[NAMES[n % 3]].put(b"k%d" % n, b"v" * 100) for n in range(600))
        )
    assert sorted(revisions) == list(range(2, 602))
    await trio.alike()


async def test_the_founders_need_no_timeout(trio: Trio) -> None:
    assert {trio[name].member.core.term for name in NAMES} == {2}
    assert trio[await trio.led()].member.id == min(trio[name].member.id for name in NAMES)


async def test_a_leader_that_stops_hands_over(trio: Trio) -> None:
    leader = await trio.led()
    await trio[leader].put(b"k", b"1")
    term = trio[leader].member.core.term
    await trio.stop(leader)
    assert await trio.led() != leader
    assert {trio[name].member.core.term for name in trio.up} == {term + 1}, "no further election"
    for name in others(leader):
        assert (await trio[name](rpcs.KV_RANGE, key=b"k")).kvs[0].value == b"1"
    await trio[others(leader)[0]].put(b"k", b"2")
    await trio.start(leader)
    assert (await trio[leader](rpcs.KV_RANGE, key=b"k")).kvs[0].value == b"2"
    await trio.alike()


async def test_a_leader_that_fails_is_replaced(trio: Trio) -> None:
    leader = await trio.led()
    await trio[leader].put(b"k", b"1")
    await trio.crash(leader)
    assert await trio.led() != leader
    assert await trio[others(leader)[0]].put(b"k", b"2") == 3
    await trio.start(leader)
    assert (await trio[leader](rpcs.KV_RANGE, key=b"k")).kvs[0].value == b"2"
    await trio.alike()


async def test_without_a_quorum_nothing_is_written_and_old_data_is_read(trio: Trio) -> None:
    await trio["a"].put(b"k", b"1")
    await trio.alike()
    await trio.crash("b")
    await trio.crash("c")
    await until(lambda: not trio["a"].member.has_leader)
    waiting = asyncio.create_task(trio["a"].put(b"k", b"2"))
    stale = await trio["a"](rpcs.KV_RANGE, key=b"k", serializable=True)
    assert stale.kvs[0].value == b"1"
    status = await trio["a"](rpcs.MAINTENANCE_STATUS)
    assert list(status.errors) == [NO_LEADER.text]
    assert not waiting.done()
    await trio.start("b")
    assert await waiting == 3
    await trio.start("c")
    await trio.alike()


async def test_a_whole_cluster_restarts(trio: Trio) -> None:
    for number in range(30):
        await trio[NAMES[number % 3]].put(b"k%d" % (number % 7), b"%d" % number)
    await trio.stop(*NAMES)
    await trio.start(*NAMES)
    assert (await trio["b"](rpcs.KV_RANGE, key=b"k", range_end=b"l")).count == 7
    assert await trio["c"].put(b"k") == 32
    await trio.alike()


async def test_who_was_away_catches_up_by_the_log(trio: Trio) -> None:
    away = others(await trio.led())[0]
    await trio.stop(away)
    for number in range(100):
        await trio[trio.leader].put(b"k%d" % number)
    await trio.start(away)
    await trio.alike()


async def watched(stream: Stream, count: int) -> list[tuple[bytes, int]]:
    """Read a watch until it has told `count` events; return keys and revisions."""
    told: list[tuple[bytes, int]] = []
    while len(told) < count:
        reply = await stream.next()
        told += [(event.kv.key, event.kv.mod_revision) for event in reply.events]
    return told


SHORT_LOG: dict[str, Any] = {"snapshot_count": 20, "snapshot_catchup_entries": 5}


@pytest.mark.parametrize("is_restarted", [True, False])
async def test_who_was_away_for_long_is_sent_the_state(tmp_path: Path, is_restarted: bool) -> None:
    async with Trio(tmp_path, **SHORT_LOG) as trio:
        await trio["a"](rpcs.LEASE_LEASE_GRANT, ID=7, TTL=1000)
        await trio["a"].put(b"leased", lease=7)
        away = others(await trio.led())[0]
        await trio.stop(away)
        for number in range(200):
            await trio[trio.leader].put(b"k%d" % (number % 50), b"x" * 100)
        await until(lambda: trio[trio.leader].member.core.log.first_index > 150)
        await trio.start(away)
        await trio.alike()
        index = trio[away].member.core.log.compacted[0]
        assert index > 150, "it was not sent the log"
        if is_restarted:
            await trio[away].restart()
            await trio.alike()
        assert list(trio[away].member.lessor.lease(7).keys) == [b"leased"]
        assert not list(trio[away].settings.snap_path.glob("*.snap.db*"))
        await trio[away].put(b"goes on")
        await trio.alike()


STEPS: list[tuple[type, str]] = [
    (SnapshotFiles, "save"),
    (Wal, "install_snapshot"),
    (LmdbBackend, "replace_by"),
    (Applier, "reload"),
]


@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
async def test_a_crash_while_a_state_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, step: str, is_done: bool
) -> None:
    """At every step, the next start finds the old state or the new one, and goes on."""
    real, away = getattr(owner, step), ""

    def crash(self: Any, *given: Any) -> None:
        directory = getattr(self, "directory", tmp_path / away)
        is_elsewhere = tmp_path / away not in (directory, *directory.parents)
        if is_done or is_elsewhere:
            real(self, *given)
        if not is_elsewhere:
            raise OSError("no power")

    async with Trio(tmp_path, **SHORT_LOG) as trio:
        leader = await trio.led()
        away = others(leader)[0]
        await trio[away].put(b"k", b"before")
        await trio.stop(away)
        for number in range(100):
            await trio[leader].put(b"k%d" % (number % 50), b"x" * 100)
        await until(lambda: trio[leader].member.core.log.first_index > 50)
        with monkeypatch.context() as patched:
            patched.setattr(owner, step, crash)
            starting = asyncio.create_task(trio[away].start())
            with pytest.raises(OSError, match="no power"):
                await asyncio.wait_for(starting, PATIENCE_SECONDS)
        await trio.start(away)
        await trio.alike()
        assert not list(trio[away].settings.snap_path.glob("*.snap.db*"))


async def test_a_watch_goes_on_through_an_installed_state(tmp_path: Path) -> None:
    """No event is lost, none comes twice: to those who watched, the state is but more history."""
    async with Trio(tmp_path, **SHORT_LOG) as trio:
        leader = await trio.led()
        away = others(leader)[0]
        stream = trio[away].stream(rpcs.WATCH_WATCH)
        await stream.ask(create_request={"key": b"k", "range_end": b"l"})
        await trio[leader].put(b"k", b"before")
        assert await watched(stream, 1) == [(b"k", 2)]
        peers = trio[away].member.peers
        peers.set_members({})
        for name in others(away):
            trio[name].member.peers.set_members(
                {trio[each].member.id: (trio.peer_urls[each],) for each in others(away)}
            )
        for number in range(200):
            await trio[leader].put(b"k%d" % number)
        await until(lambda: trio[leader].member.core.log.first_index > 150)
        for name in NAMES:
            trio[name].member.membership_changed()
        assert await watched(stream, 200) == [(b"k%d" % n, n + 3) for n in range(200)]
        await trio[away].put(b"k", b"after")
        assert await watched(stream, 1) == [(b"k", 203)]
        await trio.alike()


async def test_the_lead_is_moved_to_whom_one_likes(trio: Trio) -> None:
    leader = await trio.led()
    target = others(leader)[0]
    await trio[leader].member.transfer_leadership(trio[target].member.id)
    assert await trio.led() == target
    with pytest.raises(Refused) as caught:
        await trio[target].member.transfer_leadership(77)
    assert caught.value.refusal is BAD_LEADER_TRANSFEREE


async def test_writes_go_on_while_the_lead_is_moved(trio: Trio) -> None:
    async def write(name: str, count: int) -> list[int]:
        return [await trio[name].put(b"k") for _ in range(count)]

    async with asyncio.timeout(PATIENCE_SECONDS):
        writers = [asyncio.create_task(write(name, 100)) for name in NAMES]
        for _ in range(3):
            leader = await trio.led()
            target = others(leader)[0]
            await trio[leader].member.transfer_leadership(trio[target].member.id)
        revisions = [each for writer in writers for each in await writer]
    assert len(revisions) == len(set(revisions)) == 300


async def test_a_start_without_a_quorum_can_be_called_off(trio: Trio) -> None:
    await trio.stop(*NAMES)
    starting = asyncio.create_task(trio["a"].start())
    await asyncio.sleep(0.3)
    assert not starting.done()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await trio.start(*NAMES)


async def test_a_stop_without_a_quorum_comes_to_its_end(trio: Trio) -> None:
    await trio.crash("b")
    await trio.crash("c")
    waiting = asyncio.create_task(trio["a"].put(b"k"))
    await asyncio.sleep(0)
    await trio.stop("a")
    with pytest.raises(Refused) as caught:
        await waiting
    assert caught.value.refusal is STOPPED
