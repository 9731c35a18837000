"""A disk that fails: the log stops for good, and what was acknowledged stays."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.storage.segment import Segment
from etcd_pinwheel.server_stub.storage.wal import Wal, WalFailed

METADATA = b"\x08\x07\x10\x09"


def entry(index: int, size: int = 100) -> raftpb.Entry:
    return raftpb.Entry(Term=1, Index=index, Data=b"x" * size)


class FaultySegment(Segment):
    """Fails the calls named in ``plan``: (method, how many succeed before) -> errno."""

    plan: ClassVar[dict[tuple[str, int], int]] = {}
    calls: ClassVar[dict[str, int]] = {}

    def _called(self, method: str) -> None:
        done = self.calls.get(method, 0)
        self.calls[method] = done + 1
        code = self.plan.get((method, done))
        if code is not None:
            raise OSError(code, os.strerror(code))

    def append(self, data: bytes) -> None:
        try:
            self._called("append")
        except OSError:
            super().append(data[: len(data) // 2])
            raise
        super().append(data)

    def sync(self) -> None:
        self._called("sync")
        super().sync()

    def truncate(self) -> None:
        self._called("truncate")
        super().truncate()

    def finish(self) -> None:
        self._called("finish")
        super().finish()


@pytest.fixture
def faults() -> Iterator[dict[tuple[str, int], int]]:
    FaultySegment.plan.clear()
    FaultySegment.calls.clear()
    yield FaultySegment.plan
    FaultySegment.plan.clear()


def faulty_log(directory: Path) -> Wal:
    wal = Wal.create(directory, METADATA, segment_bytes=8192, segment_type=FaultySegment)
    FaultySegment.calls.clear()
    return wal


def read_back(directory: Path) -> list[int]:
    wal, contents = Wal.open(directory)
    wal.close()
    return [each.Index for each in contents.entries]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("method", ["append", "sync"])
def test_after_a_failure_nothing_is_ever_saved_again(
    tmp_path: Path, faults: dict[tuple[str, int], int], method: str, code: int
) -> None:
    wal = faulty_log(tmp_path / "wal")
    wal.save(None, [entry(1)])
    faults[method, 1] = code
    with pytest.raises(WalFailed) as caught:
        wal.save(None, [entry(2)])
    assert os.strerror(code) in str(caught.value)
    assert str(tmp_path / "wal") in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    synced = FaultySegment.calls["sync"]
    for _ in range(3):
        with pytest.raises(WalFailed, match="failed before"):
            wal.save(None, [entry(2)])
    with pytest.raises(WalFailed, match="failed before"):
        wal.save_snapshot(1, 1, raftpb.ConfState())
    wal.close()
    assert FaultySegment.calls["sync"] == synced, "a failed fsync is never tried again"
    assert read_back(tmp_path / "wal") in ([1], [1, 2])


def test_half_a_write_is_taken_back(tmp_path: Path, faults: dict[tuple[str, int], int]) -> None:
    wal = faulty_log(tmp_path / "wal")
    wal.save(None, [entry(1)])
    faults["append", 1] = errno.ENOSPC
    with pytest.raises(WalFailed, match="No space left on device"):
        wal.save(None, [entry(2)])
    wal.close()
    wal, contents = Wal.open(tmp_path / "wal")
    assert contents.torn is None
    assert [each.Index for each in contents.entries] == [1]
    wal.save(None, [entry(2)])
    wal.close()
    assert read_back(tmp_path / "wal") == [1, 2]


@pytest.mark.parametrize("method", ["finish", "append", "sync"])
def test_a_cut_that_fails_loses_nothing(
    tmp_path: Path, faults: dict[tuple[str, int], int], method: str
) -> None:
    wal = faulty_log(tmp_path / "wal")
    wal.save(None, [entry(1, size=4000)])
    faults[method, 0 if method == "finish" else 2] = errno.ENOSPC
    with pytest.raises(WalFailed, match="No space left on device"):
        wal.save(None, [entry(2, size=5000)])
    wal.close()
    faults.clear()
    assert read_back(tmp_path / "wal") == [1, 2]
    wal, _ = Wal.open(tmp_path / "wal", segment_bytes=8192)
    wal.save(None, [entry(3)])
    wal.close()
    assert read_back(tmp_path / "wal") == [1, 2, 3]


def test_a_log_that_cannot_be_made_is_not_there(
    tmp_path: Path, faults: dict[tuple[str, int], int]
) -> None:
    faults["sync", 0] = errno.EIO
    with pytest.raises(WalFailed, match="Input/output error"):
        Wal.create(tmp_path / "wal", METADATA, segment_bytes=8192, segment_type=FaultySegment)
    assert not (tmp_path / "wal").exists()
    faults.clear()
    Wal.create(tmp_path / "wal", METADATA).close()


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """A limit on the size of files, as a disk that is full for real."""
    limit = 20_000
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old_limits[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)
    signal.signal(signal.SIGXFSZ, old_handler)


def test_a_file_that_cannot_grow(tmp_path: Path, file_size_limit: int) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA, segment_bytes=10_000)
    wal.save(None, [entry(1, size=9000)])
    with pytest.raises(WalFailed, match="File too large"):
        wal.save(None, [entry(2, size=file_size_limit)])
    wal.close()
    assert read_back(tmp_path / "wal") == [1]


def test_no_room_for_the_first_file(tmp_path: Path, file_size_limit: int) -> None:
    with pytest.raises(WalFailed, match="File too large"):
        Wal.create(tmp_path / "wal", METADATA, segment_bytes=2 * file_size_limit)
    assert not (tmp_path / "wal").exists()


def test_closing_a_disk_that_fails_says_so(
    tmp_path: Path, faults: dict[tuple[str, int], int]
) -> None:
    wal = faulty_log(tmp_path / "wal")
    faults["sync", 0] = errno.EIO
    with pytest.raises(WalFailed, match="Input/output error"):
        wal.close()
    wal.close()
