"""The server's command line: exit codes, readiness, signals, TLS, logs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from etcd_pinwheel.protos.etcdserverpb import (
    PutRequest,
    RangeRequest,
    WatchCreateRequest,
    WatchRequest,
)
from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE, WATCH_WATCH
from etcd_pinwheel.server_stub.local import LocalMember, LocalMemberError, ReservedPorts
from etcd_pinwheel.server_stub.storage.data_dir import DataDir
from etcd_pinwheel.server_stub.storage.segment import segments_of

pytestmark = pytest.mark.process

SERVER = (sys.executable, "-m", "etcd_pinwheel.server_stub")


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERVER, *argv], capture_output=True, text=True, timeout=60)


def refused_start(*flags: str, data_dir: Path) -> tuple[int, str]:
    """Exit code and output of a member that does not start."""
    reserved = ReservedPorts(2)
    client_port, peer_port = reserved.numbers
    member = LocalMember(*flags, data_dir=data_dir, ports=(client_port, peer_port))
    with pytest.raises(LocalMemberError), member:
        pass
    assert member.exit_code is not None
    return member.exit_code, member.output


def put(channel: grpc.Channel, key: bytes, value: bytes) -> int:
    stub = channel.unary_unary(KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString)
    return int(stub(PutRequest(key=key, value=value), timeout=10).header.revision)


def get(channel: grpc.Channel, key: bytes) -> bytes:
    stub = channel.unary_unary(
        KV_RANGE.path, RangeRequest.SerializeToString, KV_RANGE.reply.FromString
    )
    (found,) = stub(RangeRequest(key=key), timeout=10).kvs
    return bytes(found.value)


def test_version() -> None:
    answer = run("--version")
    assert answer.returncode == 0
    assert answer.stdout.startswith("etcd Version: 3.")
    assert answer.stderr == ""


def test_version_imports_next_to_nothing() -> None:
    """It is to answer in 100 ms, and what takes time is imports."""
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", *SERVER[1:], "--version"],
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert "etcd_pinwheel.server_stub.version" in imported
    heavy = {"asyncio", "logging", "dataclasses", "google.protobuf", "grpc", "structlog", "lmdb"}
    assert not imported & heavy
    ours = {name for name in imported if name.startswith("etcd_pinwheel.")}
    assert ours <= {
        "etcd_pinwheel.server_stub",
        "etcd_pinwheel.server_stub.version",
    }


def test_help() -> None:
    answer = run("--help")
    assert answer.returncode == 0
    assert "--listen-client-urls" in answer.stdout


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--bogus", "flag provided but not defined: -bogus"),
        ("--config-file=x.yaml", "YAML"),
        ("--auth-token=jwt", "come later"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(flag: str, reason: str, tmp_path: Path) -> None:
    answer = run(flag, f"--data-dir={tmp_path / 'data'}")
    assert answer.returncode == 2
    assert reason in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_cleanly(number: signal.Signals) -> None:
    with LocalMember() as member:
        with grpc.insecure_channel(member.endpoint) as channel:
            put(channel, b"k", b"v")
            member.signal(number)
            assert member.wait() == 0
        assert "stopped" in member.output.splitlines()[-1]
        member.restart()
        with grpc.insecure_channel(member.endpoint) as channel:
            assert get(channel, b"k") == b"v"
        assert "cut an unfinished write" not in member.output


OpenWatch = Callable[[grpc.Channel], grpc.Call]


@pytest.fixture
def open_watch() -> Iterator[OpenWatch]:
    """Open watches whose client never half-closes, until the test is over."""
    over = threading.Event()
    opened: list[grpc.Call] = []

    def requests() -> Iterator[WatchRequest]:
        yield WatchRequest(create_request=WatchCreateRequest(key=b"k"))
        over.wait(60)

    def open_one(channel: grpc.Channel) -> grpc.Call:
        stream = channel.stream_stream(
            WATCH_WATCH.path, WatchRequest.SerializeToString, WATCH_WATCH.reply.FromString
        )(requests())
        assert next(stream).created
        opened.append(stream)  # gRPC cancels a call that nobody holds
        return stream

    yield open_one
    over.set()


def test_an_open_watch_delays_the_stop_but_does_not_prevent_it(open_watch: OpenWatch) -> None:
    with LocalMember() as member, grpc.insecure_channel(member.endpoint) as channel:
        stream = open_watch(channel)
        assert member.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_second_signal_stops_at_once(open_watch: OpenWatch) -> None:
    with LocalMember() as member, grpc.insecure_channel(member.endpoint) as channel:
        open_watch(channel)
        member.signal(signal.SIGTERM)
        while '"stopping"' not in member.output:
            assert member.is_alive
        member.signal(signal.SIGTERM)
        assert member.wait() == 1
        assert "second signal" in member.output


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        code, output = refused_start(
            f"--listen-client-urls={url}", f"--advertise-client-urls={url}", data_dir=tmp_path
        )
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in output
    assert "Traceback" not in output
    assert not (tmp_path / "data").exists()


def test_a_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.doc").write_bytes(b"mine")
    code, output = refused_start(data_dir=tmp_path)
    assert code == 1
    assert f"cannot use {tmp_path / 'data'}: it holds what no member wrote (thesis.doc)" in output
    assert "Traceback" not in output


def test_a_directory_in_use(tmp_path: Path) -> None:
    held = DataDir.open(tmp_path / "data")
    try:
        code, output = refused_start(data_dir=tmp_path)
    finally:
        held.close()
    assert code == 1
    assert "another process is using it" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_waits_for_a_quorum(
    tmp_path: Path, number: signal.Signals
) -> None:
    reserved = ReservedPorts(3)
    client_port, peer_port, nobody = reserved.numbers
    here, there = (f"http://127.0.0.1:{port}" for port in (peer_port, nobody))
    flags = (
        "--name=a",
        f"--initial-cluster=a={here},b={there}",
        f"--initial-advertise-peer-urls={here}",
        f"--listen-peer-urls={here}",
    )
    member = LocalMember(*flags, data_dir=tmp_path, ports=(client_port, peer_port))
    member.launch()
    while "cannot connect to member" not in member.output:
        assert member.is_alive
        time.sleep(0.02)
    member.signal(number)
    assert member.wait() == 0
    assert "stopped" in member.output.splitlines()[-1]


def test_a_damaged_log(tmp_path: Path) -> None:
    with LocalMember(data_dir=tmp_path) as member:
        with grpc.insecure_channel(member.endpoint) as channel:
            for number in range(20):
                put(channel, b"key", b"some value %d" % number)
        member.stop()
    ((_, path),) = segments_of(tmp_path / "data" / "member" / "wal")
    content = path.read_bytes()
    at = content.index(b"some value 7")
    path.write_bytes(content[:at] + b"S" + content[at + 1 :])
    code, output = refused_start(data_dir=tmp_path)
    assert code == 1
    assert f"corrupt write-ahead log: {path} at offset " in output
    assert "checksum" in output
    assert "Traceback" not in output


def test_logs_are_json_lines_and_go_where_they_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    flag = f"--log-outputs={log},stderr"
    with LocalMember(flag, environment={"ETCD_BOGUS": "1"}) as member:
        member.stop()
        lines = [json.loads(line) for line in member.output.splitlines()]
    assert [json.loads(line) for line in log.read_text().splitlines()] == lines
    assert all(list(line)[:3] == ["level", "ts", "msg"] for line in lines)
    warnings = [line["msg"] for line in lines if line["level"] == "warn"]
    assert warnings == ["environment variable ETCD_BOGUS is not one of the server's"]


def test_logs_for_people() -> None:
    with LocalMember("--log-format=console") as member:
        assert "[info" in member.output


def test_a_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    code, output = refused_start(f"--log-outputs={tmp_path}", data_dir=tmp_path)
    assert code == 1
    assert f"cannot write logs to {tmp_path}: Is a directory" in output


def test_further_addresses_for_metrics() -> None:
    reserved = ReservedPorts(1)
    url = f"http://127.0.0.1:{reserved.numbers[0]}"
    with (
        LocalMember(f"--listen-metrics-urls={url}"),
        urllib.request.urlopen(f"{url}/health", timeout=10) as answer,
    ):
        assert json.load(answer)["health"] == "true"
