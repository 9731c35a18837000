"""A log that goes on behind another member's state, and what a crash leaves of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.storage import wal as wal_module
from etcd_pinwheel.server_stub.storage.segment import segments_of
from etcd_pinwheel.server_stub.storage.wal import Wal, WalFailed, valid_snapshots

SMALL = 8_192
VOTERS = raftpb.ConfState(voters=[1, 2, 3])


def entries(first: int, last: int, term: int) -> list[raftpb.Entry]:
    return [
        raftpb.Entry(Index=index, Term=term, Data=b"%d" % index) for index in range(first, last + 1)
    ]


def state(commit: int, term: int) -> raftpb.HardState:
    return raftpb.HardState(term=term, vote=2, commit=commit)


@pytest.fixture
def wal(tmp_path: Path) -> Wal:
    """A log with entries 1 to 10 of term 1, of which 5 are committed."""
    wal = Wal.create(tmp_path / "wal", b"metadata", segment_bytes=SMALL)
    wal.save(state(0, 1), entries(1, 10, 1))
    wal.save(state(5, 1))
    return wal


def read(wal: Wal, start: tuple[int, int]) -> tuple[list[tuple[int, int]], int]:
    """Close the log, read it; return its entries (index, term), and what is committed."""
    wal.close()
    again, contents = Wal.open(wal.directory, start, segment_bytes=SMALL)
    again.close()
    return [(each.Index, each.Term) for each in contents.entries], contents.hard_state.commit


def test_what_comes_behind_a_snapshot_is_all_there_is(wal: Wal) -> None:
    wal.install_snapshot(state(100, 3), 100, 3, VOTERS)
    assert valid_snapshots(wal.directory) == [(0, 0), (100, 3)]
    wal.save(state(100, 3), entries(101, 103, 3))
    wal.save(state(102, 3))
    assert valid_snapshots(wal.directory) == [(0, 0), (100, 3)]
    assert read(wal, (100, 3)) == ([(101, 3), (102, 3), (103, 3)], 102)


@pytest.mark.parametrize("index", [6, 9, 10])
def test_an_end_that_was_never_committed_does_not_come_back(wal: Wal, index: int) -> None:
    """Entries 6 to 10 were another leader's; the cluster has others there."""
    wal.install_snapshot(state(index, 3), index, 3, VOTERS)
    assert read(wal, (index, 3)) == ([], index)


def test_the_commit_index_covers_the_snapshot(wal: Wal) -> None:
    wal.install_snapshot(None, 100, 3, VOTERS)
    assert wal.hard_state == state(100, 1)
    assert read(wal, (100, 3)) == ([], 100)


def test_a_later_snapshot_of_our_own_follows(wal: Wal) -> None:
    wal.install_snapshot(state(100, 3), 100, 3, VOTERS)
    wal.save(state(100, 3), entries(101, 120, 3))
    wal.save_commit(110)
    wal.save_snapshot(110, 3, VOTERS)
    assert valid_snapshots(wal.directory)[-2:] == [(100, 3), (110, 3)]
    assert read(wal, (110, 3)) == ([(index, 3) for index in range(111, 121)], 110)


def test_a_commit_index_does_not_go_back(wal: Wal) -> None:
    wal.save_commit(3)
    assert wal.hard_state == state(5, 1)


def test_files_before_it_can_be_released(wal: Wal) -> None:
    wal.install_snapshot(state(100, 3), 100, 3, VOTERS)
    wal.save(None, entries(101, 102, 3))
    wal.release_to(100, keep=1)
    assert len(segments_of(wal.directory)) == 1
    assert read(wal, (100, 3)) == ([(101, 3), (102, 3)], 100)


def test_a_crash_on_the_way_leaves_the_old_log(
    wal: Wal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file has its name last: whatever else was written, it is not there yet."""

    def fail(*_: object) -> None:
        raise OSError("no power")

    monkeypatch.setattr(wal_module.Segment, "rename", fail)
    with pytest.raises(WalFailed, match="no power"):
        wal.install_snapshot(state(100, 3), 100, 3, VOTERS)
    monkeypatch.undo()
    shutil.copytree(wal.directory, tmp_path / "copy")
    assert valid_snapshots(tmp_path / "copy") == [(0, 0)]
    again, contents = Wal.open(tmp_path / "copy", segment_bytes=SMALL)
    assert [each.Index for each in contents.entries] == list(range(1, 11))
    again.save(state(5, 4), entries(6, 7, 4))
    assert read(again, (0, 0))[0] == [(n, 1) for n in range(1, 6)] + [(6, 4), (7, 4)]


def test_a_new_log_may_have_entries_from_the_start(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", b"metadata", entries(1, 3, 1))
    assert wal.hard_state == raftpb.HardState(term=1, commit=3)
    assert read(wal, (0, 0)) == ([(1, 1), (2, 1), (3, 1)], 3)
