"""Snapshot files: whole or not there, named as etcd names them, believed only by checksum."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from etcd_pinwheel.protos import raftpb, snappb
from etcd_pinwheel.server_stub.storage import snapshot as snapshot_module
from etcd_pinwheel.server_stub.storage.record import extend_crc
from etcd_pinwheel.server_stub.storage.snapshot import (
    SnapshotCorrupt,
    SnapshotFiles,
    read_snapshot,
)


def snapshot(index: int, term: int = 2) -> raftpb.Snapshot:
    return raftpb.Snapshot(
        data=b"data",
        metadata=raftpb.SnapshotMetadata(
            index=index, term=term, conf_state=raftpb.ConfState(voters=[7])
        ),
    )


def test_saved_and_read_back(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path / "snap")
    path = files.save(snapshot(0xAB))
    assert path.name == "0000000000000002-00000000000000ab.snap"
    assert read_snapshot(path) == snapshot(0xAB)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_envelope_is_etcds(tmp_path: Path) -> None:
    path = SnapshotFiles(tmp_path).save(snapshot(1))
    envelope = snappb.snapshot.FromString(path.read_bytes())
    assert envelope.crc == extend_crc(0, envelope.data)


def test_the_newest_that_the_log_vouches_for(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path)
    for index in (10, 20, 30):
        files.save(snapshot(index))
    assert files.load_newest([(0, 0), (10, 2), (20, 2)]) == snapshot(20)
    assert files.load_newest([(0, 0)]) is None
    assert files.load_newest([(20, 1)]) is None


def test_none_in_a_new_directory(tmp_path: Path) -> None:
    assert SnapshotFiles(tmp_path / "none").load_newest([(1, 1)]) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"garbled"])
def test_a_corrupt_one_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    files = SnapshotFiles(tmp_path)
    files.save(snapshot(10))
    newest = files.save(snapshot(20))
    newest.write_bytes(content)
    assert files.load_newest([(10, 2), (20, 2)]) == snapshot(10)
    assert newest.with_suffix(".snap.broken").exists()
    assert str(newest) in caplog.text


def test_no_flipped_bit_gives_another_snapshot(tmp_path: Path) -> None:
    path = SnapshotFiles(tmp_path).save(snapshot(10))
    sound = path.read_bytes()
    seen = 0
    for bit in range(len(sound) * 8):
        garbled = bytearray(sound)
        garbled[bit // 8] ^= 1 << bit % 8
        path.write_bytes(garbled)
        try:
            assert read_snapshot(path) == snapshot(
                10
            )  # bits of the checksum's varint that mean nothing
        except SnapshotCorrupt:
            seen += 1
    assert seen > 7 * len(sound)


def test_release_keeps_the_newest(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path)
    paths = [files.save(snapshot(index)) for index in range(1, 8)]
    (tmp_path / "db").write_bytes(b"the store")
    (tmp_path / "0000000000000002-0000000000000009.snap.tmp").write_bytes(b"half")
    assert len(files.release(keep=5)) == 3
    assert sorted(tmp_path.iterdir()) == sorted([*paths[2:], tmp_path / "db"])
    assert files.release(keep=0) == []


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    files = SnapshotFiles(tmp_path)
    files.save(snapshot(1))
    monkeypatch.setattr(snapshot_module, "_write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        files.save(snapshot(2))
    assert len(list(tmp_path.iterdir())) == 1
    assert files.load_newest([(1, 2), (2, 2)]) == snapshot(1)
