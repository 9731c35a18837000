"""Restoring snapshots: what is kept, what is new, and what cannot be restored."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
from inprocess.served import Served

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.etcdserverpb import Metadata
from etcd_pinwheel.server_stub.__main__ import main
from etcd_pinwheel.server_stub.cluster import (
    Cluster,
    load_members,
    remove_member,
    removed_members,
)
from etcd_pinwheel.server_stub.config import FlagError, HelpAsked, Settings
from etcd_pinwheel.server_stub.config.restoring import RestoreOrder, parse_restore
from etcd_pinwheel.server_stub.joining import JoinRefused
from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.restore import RestoreError, restore
from etcd_pinwheel.server_stub.storage.backend import LmdbBackend
from etcd_pinwheel.server_stub.storage.data_dir import DataDirError, held
from etcd_pinwheel.server_stub.storage.position import position_of
from etcd_pinwheel.server_stub.storage.snapshot import SnapshotFiles
from etcd_pinwheel.server_stub.storage.wal import Wal, valid_snapshots

THREE = tuple((name, (f"http://127.0.0.1:{port}",)) for port, name in enumerate("abc", 1))


@pytest.fixture
async def snapshot(tmp_path: Path) -> Path:
    """A file as ``etcdctl snapshot save`` writes it: some keys, a lease, a compaction."""
    path = tmp_path / "backup.db"
    async with Served(tmp_path / "old") as served:
        await served(rpcs.LEASE_LEASE_GRANT, ID=7, TTL=600)
        await served.put(b"leased", b"1", lease=7)
        for number in range(5):
            await served.put(b"counted", b"%d" % number)
        await served(rpcs.KV_COMPACT, revision=4)
        replies = await served.replies(rpcs.MAINTENANCE_SNAPSHOT)
        path.write_bytes(b"".join(reply.blob for reply in replies))
    return path


def order(file: Path, data_dir: Path, **settings: Any) -> RestoreOrder:
    skip = settings.pop("skip_hash_check", False)
    return RestoreOrder(file, Settings(data_dir=data_dir, **settings), skip)


async def test_one_member(snapshot: Path, tmp_path: Path) -> None:
    """Keys, revisions, versions and leases are those of before; the member is another."""
    new = {
        "name": "b",
        "initial_advertise_peer_urls": ("http://127.0.0.1:2",),
        "initial_cluster_token": "again",
    }
    own = await restore(order(snapshot, tmp_path / "new", **new))
    async with Served(tmp_path / "new", **new) as served:
        cluster = Cluster.initial(served.settings)
        listed = await served(rpcs.CLUSTER_MEMBER_LIST)
        assert (listed.header.member_id, listed.header.cluster_id) == (own.id, cluster.id)
        assert [(each.ID, each.name) for each in listed.members] == [(own.id, "b")]
        found = await served(rpcs.KV_RANGE, key=b"counted")
        assert found.header.revision == 7
        assert (found.kvs[0].value, found.kvs[0].version, found.kvs[0].mod_revision) == (b"4", 5, 7)
        old = await served(rpcs.KV_RANGE, key=b"counted", revision=5)
        assert old.kvs[0].value == b"2"
        await served.refusal(rpcs.KV_RANGE, key=b"counted", revision=3)
        lease = await served(rpcs.LEASE_LEASE_TIME_TO_LIVE, ID=7, keys=True)
        assert (lease.grantedTTL, list(lease.keys)) == (600, [b"leased"])
        assert await served.put(b"more") == 8
        await served.restart()
        assert (await served(rpcs.KV_RANGE, key=b"more")).count == 1


async def test_three_members(snapshot: Path, tmp_path: Path) -> None:
    """Each directory is whole by itself, and they agree on everything but whose they are."""
    cluster = Cluster.initial(Settings(initial_cluster=THREE))
    for name, urls in THREE:
        settings = {
            "name": name,
            "initial_cluster": THREE,
            "initial_advertise_peer_urls": urls,
        }
        own = await restore(order(snapshot, tmp_path / name, **settings))
        assert cluster.named(name) == own
        snap_path = tmp_path / name / "member" / "snap"
        position = position_of(snap_path / "db")
        assert (position.index, position.term) == (3, 1)
        assert position.conf_state == cluster.conf_state()
        backend = LmdbBackend(snap_path / "db")
        assert load_members(backend) == cluster.members
        assert removed_members(backend) == frozenset()
        backend.close()
        wal_path = tmp_path / name / "member" / "wal"
        assert list(valid_snapshots(wal_path)) == [(0, 0), (3, 1)]
        newest = SnapshotFiles(snap_path).load_newest([(3, 1)])
        assert newest is not None
        assert newest.metadata == position
        wal, contents = Wal.open(wal_path, (3, 1))
        wal.close()
        assert Metadata.FromString(contents.metadata) == Metadata(
            NodeID=own.id, ClusterID=cluster.id
        )
        assert (contents.hard_state.term, contents.hard_state.commit) == (1, 3)
        wal, contents = Wal.open(wal_path)
        wal.close()
        assert contents.entries == cluster.bootstrap_entries()


async def test_what_the_old_cluster_knew_of_its_members_is_gone(
    snapshot: Path, tmp_path: Path
) -> None:
    """A removed member of the old cluster is no obstacle to a new one of the same id."""
    backend = LmdbBackend(tmp_path / "old" / "member" / "snap" / "db")
    cluster = Cluster.initial(Settings())
    remove_member(backend, cluster.members[0].id)
    backend.put(Bucket.CLUSTER, b"clusterVersion", b"3.6.0")
    backend.close()
    store = tmp_path / "old" / "member" / "snap" / "db"
    await restore(order(store, tmp_path / "new", skip_hash_check=True))
    backend = LmdbBackend(tmp_path / "new" / "member" / "snap" / "db")
    assert load_members(backend) == cluster.members
    assert removed_members(backend) == frozenset()
    assert backend.get(Bucket.CLUSTER, b"clusterVersion") is None
    backend.close()


async def test_a_log_elsewhere(snapshot: Path, tmp_path: Path) -> None:
    settings = {"wal_dir": tmp_path / "log"}
    await restore(order(snapshot, tmp_path / "new", **settings))
    assert not (tmp_path / "new" / "member" / "wal").exists()
    async with Served(tmp_path / "new", **settings) as served:
        assert (await served(rpcs.KV_RANGE, key=b"counted")).count == 1


# What cannot be restored


def content(path: Path) -> bytes:
    return path.read_bytes()


def names_in(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def cut(data: bytes) -> bytes:
    return data[:-100]


def cut_at_a_page(data: bytes) -> bytes:
    return data[: len(data) // 1024 * 512]


def cut_like_a_digest(data: bytes) -> bytes:
    return data[: len(data) // 1024 * 512 + 32]


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def bbolt(data: bytes) -> bytes:
    return with_digest(bytes(16) + (0xED0CDAED).to_bytes(4, "little") + bytes(32768 - 20))


def nonsense(data: bytes) -> bytes:
    return with_digest(b"nonsense" * 4096)


def another_lmdb_file(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "db")
        lmdb.open(str(path), subdir=False, lock=False).close()
        stored = path.read_bytes()
    return with_digest(stored.ljust(-(-len(stored) // 512) * 512, b"\0"))


def with_digest(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "is cut short, or no snapshot: 0 bytes"),
        (cut, "is cut short, or no snapshot"),
        (cut_at_a_page, "has no digest at its end"),
        (cut_like_a_digest, "is damaged: expected sha256"),
        (flipped, "is damaged: expected sha256"),
        (bbolt, "is a snapshot of etcd itself (a bbolt file), which is for etcdutl to restore"),
        (nonsense, "is no snapshot of this server"),
        (another_lmdb_file, "is no snapshot of this server"),
    ],
)
async def test_bad_files(
    snapshot: Path, tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(damage(content(snapshot)))
    with pytest.raises(RestoreError) as caught:
        await restore(order(bad, tmp_path / "new"))
    assert str(caught.value).startswith(str(bad))
    assert reason in str(caught.value)
    assert names_in(tmp_path) == {"old", "backup.db", "bad.db"}, "nothing is left behind"


async def test_files_that_are_none(tmp_path: Path) -> None:
    for file, reason in ((tmp_path / "no.db", "No such file"), (tmp_path, "is a directory")):
        with pytest.raises(RestoreError, match=reason):
            await restore(order(file, tmp_path / "new"))


async def test_a_store_without_a_digest_when_told_so(snapshot: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.db"
    bare.write_bytes(content(snapshot)[:-32])
    with pytest.raises(RestoreError, match="--skip-hash-check"):
        await restore(order(bare, tmp_path / "new"))
    await restore(order(bare, tmp_path / "new", skip_hash_check=True))
    async with Served(tmp_path / "new") as served:
        assert (await served(rpcs.KV_RANGE, key=b"counted")).count == 1


async def test_nothing_is_written_over(snapshot: Path, tmp_path: Path) -> None:
    for settings in (
        {"data_dir": tmp_path / "old"},
        {"data_dir": tmp_path / "new", "wal_dir": tmp_path / "old" / "member" / "wal"},
    ):
        before = sorted((tmp_path / "old").rglob("*"))
        with pytest.raises(RestoreError, match="it is not empty"):
            await restore(order(snapshot, **settings))
        assert sorted((tmp_path / "old").rglob("*")) == before
    (tmp_path / "empty").mkdir()
    await restore(order(snapshot, tmp_path / "empty"))


async def test_where_another_process_restores_or_runs_nothing_is_touched(
    snapshot: Path, tmp_path: Path
) -> None:
    told = order(snapshot, tmp_path / "new", wal_dir=tmp_path / "log")
    for directory in (tmp_path / "new.restoring", tmp_path / "log"):
        directory.mkdir()
        (directory / "of another").touch()
        with held(directory), pytest.raises(DataDirError, match="another process is using it"):
            await restore(told)
        assert [each.name for each in directory.iterdir()] == ["of another"]
        shutil.rmtree(directory)
    assert not (tmp_path / "new.restoring").exists()
    await restore(told)


async def test_what_a_crash_left_is_not_in_the_way(snapshot: Path, tmp_path: Path) -> None:
    left = tmp_path / "new.restoring"
    (left / "member" / "snap").mkdir(parents=True)
    (left / "member" / "snap" / "db").touch()
    await restore(order(snapshot, tmp_path / "new"))
    assert not left.exists()


async def test_a_failure_leaves_nothing(snapshot: Path, tmp_path: Path) -> None:
    """But for a directory that was there before, for the log: that may be a mount."""
    place, damaged = tmp_path / "place", tmp_path / "damaged"
    (place / "log").mkdir(parents=True)
    damaged.write_bytes(content(snapshot)[:-100] + bytes(100))
    with pytest.raises(RestoreError, match="damaged"):
        await restore(order(damaged, place / "new", wal_dir=place / "log"))
    assert list(place.rglob("*")) == [place / "log"]


async def test_flags_that_contradict_each_other(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(JoinRefused, match="couldn't find local name"):
        await restore(order(snapshot, tmp_path / "new", initial_cluster=THREE))
    with pytest.raises(JoinRefused, match="missing from"):
        await restore(order(snapshot, tmp_path / "new", name="a", initial_cluster=THREE))
    assert not (tmp_path / "new").exists()


# The command line


def test_the_command_line() -> None:
    told = parse_restore(
        [
            "--name=a",
            "backup.db",
            "--initial-cluster",
            "a=http://a:1,b=http://b:1",
            "--initial-advertise-peer-urls=http://a:1",
            "--skip-hash-check",
            "--wal-dir=/w",
        ]
    )
    assert told == RestoreOrder(
        Path("backup.db"),
        Settings(
            name="a",
            data_dir=Path("a.etcd"),
            wal_dir=Path("/w"),
            initial_cluster=(("a", ("http://a:1",)), ("b", ("http://b:1",))),
            initial_advertise_peer_urls=("http://a:1",),
        ),
        True,
    )
    assert parse_restore(["f"]) == RestoreOrder(Path("f"), Settings())


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "restore takes one file, and was given 0"),
        (["a", "b"], "restore takes one file, and was given 2"),
        (["a", "--listen-client-urls=http://127.0.0.1:1"], "flag provided but not defined"),
        (["a", "--initial-cluster=x"], 'invalid value "x" for --initial-cluster'),
    ],
)
def test_wrong_command_lines(argv: list[str], reason: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse_restore(argv)
    assert reason in str(caught.value)


def test_help() -> None:
    with pytest.raises(HelpAsked, match="--skip-hash-check"):
        parse_restore(["--help"])


async def test_as_a_command(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["restore", str(snapshot), f"--data-dir={tmp_path / 'new'}"]
    assert await asyncio.to_thread(main, argv) == 0
    out, _ = capsys.readouterr()
    assert out.strip().endswith("as member 8e9e05c52164694d of cluster cdf818194e3a8c32")
    assert await asyncio.to_thread(main, argv) == 1
    _, err = capsys.readouterr()
    assert err == f"restore: cannot restore to {tmp_path / 'new'}: it is not empty\n"
    assert main(["restore"]) == 2
    assert main(["restore", "--help"]) == 0
