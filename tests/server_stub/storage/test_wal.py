"""The log as its owner uses it: save, reopen, cut, snapshots, release."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.storage.segment import SegmentName, segments_of
from etcd_pinwheel.server_stub.storage.wal import Wal, WalCorrupt, WalFailed, valid_snapshots

METADATA = b"\x08\x07\x10\x09"
SMALL = 4096


def entry(index: int, term: int = 1, data: bytes = b"data") -> raftpb.Entry:
    return raftpb.Entry(Term=term, Index=index, Data=data)


def state(commit: int, term: int = 1, vote: int = 7) -> raftpb.HardState:
    return raftpb.HardState(term=term, vote=vote, commit=commit)


def filled(directory: Path, last: int, *, size: int = 100, segment_bytes: int = SMALL) -> None:
    """Write entries 1 to `last`, one a save, each committed by the next save."""
    wal = Wal.create(directory, METADATA, segment_bytes=segment_bytes)
    for index in range(1, last + 1):
        wal.save(state(index - 1), [entry(index, data=bytes((index % 251 + 1,)) * size)])
    wal.close()


def reopened(directory: Path, snapshot: tuple[int, int] = (0, 0)) -> list[raftpb.Entry]:
    wal, contents = Wal.open(directory, snapshot, segment_bytes=SMALL)
    wal.close()
    return contents.entries


def test_a_new_log_holds_its_metadata_and_nothing_else(tmp_path: Path) -> None:
    Wal.create(tmp_path / "wal", METADATA).close()
    wal, contents = Wal.open(tmp_path / "wal")
    wal.close()
    assert contents.metadata == METADATA
    assert contents.entries == []
    assert contents.hard_state == raftpb.HardState()
    assert [(each.index, each.term) for each in contents.snapshots] == [(0, 0)]
    assert contents.torn is None


def test_its_file_is_named_and_sized_as_etcds(tmp_path: Path) -> None:
    Wal.create(tmp_path / "wal", METADATA).close()
    (file,) = (tmp_path / "wal").iterdir()
    assert file.name == "0000000000000000-0000000000000000.wal"
    assert file.stat().st_size == 64_000_000
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    wal.save(state(0), [entry(1), entry(2)])
    wal.save(state(2), [])
    wal.save(None, [entry(3, data=b"")])
    wal.close()
    wal, contents = Wal.open(tmp_path / "wal")
    assert contents.entries == [entry(1), entry(2), entry(3, data=b"")]
    assert contents.hard_state == state(2)
    wal.save(state(3), [entry(4)])
    wal.close()
    assert reopened(tmp_path / "wal") == [entry(1), entry(2), entry(3, data=b""), entry(4)]


def test_saving_nothing_writes_nothing(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    wal.save(state(0, term=2), [])
    written = wal.written_bytes
    wal.save(state(0, term=2), [])
    wal.save(None, [])
    assert wal.written_bytes == written
    wal.close()


def test_a_commit_alone_waits_for_no_disk(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    syncs: list[float] = []
    wal.on_sync = syncs.append
    wal.save(state(0), [])
    wal.save(state(0), [entry(1)])
    assert len(syncs) == 2
    wal.save(state(1), [])
    assert len(syncs) == 2
    wal.save(state(1, vote=8), [])
    wal.save(state(1, vote=8, term=2), [])
    assert len(syncs) == 4
    wal.close()


def test_the_callers_state_may_change_afterwards(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    mine = state(0)
    wal.save(mine, [entry(1)])
    mine.commit = 1
    wal.save(mine, [])
    wal.close()
    assert Wal.open(tmp_path / "wal")[1].hard_state.commit == 1


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 100)
    names = [name for name, _ in segments_of(tmp_path / "wal")]
    assert len(names) > 3
    assert [name.sequence for name in names] == list(range(len(names)))
    assert [each.Index for each in reopened(tmp_path / "wal")] == list(range(1, 101))
    for name, path in segments_of(tmp_path / "wal")[:-1]:
        assert path.stat().st_size < SMALL + 300, f"{name} was not cut to its length"
    assert not list((tmp_path / "wal").glob("*.tmp"))


def test_a_file_is_named_after_the_first_entry_it_may_hold(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 100)
    (_, first), (second_name, second) = segments_of(tmp_path / "wal")[:2]
    alone = tmp_path / "first"
    alone.mkdir()
    first.rename(alone / first.name)
    assert second_name.first_index == reopened(alone)[-1].Index + 1
    assert second.name.endswith(f"-{second_name.first_index:016x}.wal")


def test_rewriting_the_uncommitted_end(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    wal.save(state(1), [entry(1), entry(2), entry(3)])
    wal.save(state(1, term=2), [entry(2, term=2)])
    wal.close()
    assert reopened(tmp_path / "wal") == [entry(1), entry(2, term=2)]


def test_reading_behind_a_snapshot(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 50)
    wal, _ = Wal.open(tmp_path / "wal", segment_bytes=SMALL)
    wal.save(state(50), [])
    wal.save_snapshot(40, 1, raftpb.ConfState(voters=[7]))
    wal.save(None, [entry(51)])
    wal.close()
    assert [each.Index for each in reopened(tmp_path / "wal", (40, 1))] == list(range(41, 52))
    assert valid_snapshots(tmp_path / "wal") == [(0, 0), (40, 1)]


def test_a_snapshot_the_log_never_heard_of_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 5)
    with pytest.raises(WalCorrupt, match="no record of the snapshot at entry 3"):
        Wal.open(tmp_path / "wal", (3, 1))


def test_a_snapshot_of_another_term_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 3)
    wal, _ = Wal.open(tmp_path / "wal")
    wal.save_snapshot(3, 1, raftpb.ConfState())
    wal.close()
    with pytest.raises(WalCorrupt, match="snapshot 3 has term 1, not 2"):
        Wal.open(tmp_path / "wal", (3, 2))


def test_a_snapshot_not_yet_committed_is_not_valid(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    wal.save(state(1), [entry(1), entry(2)])
    wal.save_snapshot(2, 1, raftpb.ConfState())
    wal.close()
    assert valid_snapshots(tmp_path / "wal") == [(0, 0)]


def test_releasing_keeps_what_is_needed(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 200)
    wal, _ = Wal.open(tmp_path / "wal", segment_bytes=SMALL)
    wal.save(state(200), [])
    wal.save_snapshot(150, 1, raftpb.ConfState())
    before = segments_of(tmp_path / "wal")
    deleted = wal.release_to(150, keep=1)
    wal.close()
    kept = segments_of(tmp_path / "wal")
    assert [path for _, path in before] == deleted + [path for _, path in kept]
    assert len(deleted) > 1
    assert kept[0][0].first_index <= 150 < kept[1][0].first_index
    assert [each.Index for each in reopened(tmp_path / "wal", (150, 1))] == list(range(151, 201))
    assert valid_snapshots(tmp_path / "wal") == [(150, 1)]


def test_releasing_keeps_the_newest_files(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 200)
    wal, _ = Wal.open(tmp_path / "wal", segment_bytes=SMALL)
    wal.release_to(200, keep=5)
    wal.close()
    assert len(segments_of(tmp_path / "wal")) == 5


def test_reading_from_before_what_was_released_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 100)
    segments_of(tmp_path / "wal")[0][1].unlink()
    with pytest.raises(WalCorrupt, match="begins behind entry 0"):
        Wal.open(tmp_path / "wal")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 100)
    segments_of(tmp_path / "wal")[1][1].unlink()
    with pytest.raises(WalCorrupt, match="file 0000000000000001 of the log is missing"):
        Wal.open(tmp_path / "wal")


def test_a_file_of_another_log_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 100)
    filled(tmp_path / "other", 100, size=101)
    name, path = segments_of(tmp_path / "wal")[2]
    os.replace(segments_of(tmp_path / "other")[2][1], path)
    with pytest.raises(WalCorrupt, match="checksum of the file before") as caught:
        Wal.open(tmp_path / "wal")
    assert (caught.value.path, caught.value.offset) == (path, 0)
    assert SegmentName.parse(path.name) == name


def test_no_log_is_not_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    with pytest.raises(FileNotFoundError):
        Wal.open(tmp_path / "wal")


def test_a_log_is_never_made_over_another(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 3)
    with pytest.raises(FileExistsError):
        Wal.create(tmp_path / "wal", METADATA)
    assert len(reopened(tmp_path / "wal")) == 3


def test_an_unfinished_creation_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "wal.tmp").mkdir()
    (tmp_path / "wal.tmp" / str(SegmentName(0, 0))).write_bytes(b"half")
    Wal.create(tmp_path / "wal", METADATA).close()
    assert reopened(tmp_path / "wal") == []


def test_an_unfinished_cut_is_forgotten(tmp_path: Path) -> None:
    filled(tmp_path / "wal", 3)
    (tmp_path / "wal" / "1.tmp").write_bytes(b"half")
    assert len(reopened(tmp_path / "wal")) == 3
    assert not (tmp_path / "wal" / "1.tmp").exists()


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    wal = Wal.create(tmp_path / "wal", METADATA)
    wal.close()
    wal.close()
    with pytest.raises(WalFailed, match="closed"):
        wal.save(None, [entry(1)])
