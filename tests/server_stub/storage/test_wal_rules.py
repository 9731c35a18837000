"""What a Raft log cannot say is refused, though every checksum is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcd_pinwheel.protos import raftpb, walpb
from etcd_pinwheel.server_stub.storage.record import RecordEncoder, RecordType
from etcd_pinwheel.server_stub.storage.segment import SegmentName
from etcd_pinwheel.server_stub.storage.wal_reader import WalContents, WalCorrupt, read_wal

Record = tuple[RecordType, bytes]
METADATA: Record = (RecordType.METADATA, b"\x08\x07\x10\x09")


def entry(index: int, term: int = 1) -> Record:
    return RecordType.ENTRY, raftpb.Entry(Term=term, Index=index, Data=b"d").SerializeToString()


def state(commit: int, term: int = 1) -> Record:
    return RecordType.STATE, raftpb.HardState(term=term, commit=commit).SerializeToString()


def read(directory: Path, *records: Record) -> WalContents:
    """Write one file with these records behind its opening, and read it."""
    encoder = RecordEncoder()
    content = encoder.frame_crc() + encoder.frame(*METADATA)
    content += b"".join(encoder.frame(*record) for record in records)
    (directory / str(SegmentName(0, 0))).write_bytes(content)
    return read_wal(directory)[0]


def test_a_log_that_keeps_the_rules(tmp_path: Path) -> None:
    contents = read(tmp_path, entry(1), state(0), entry(2), state(1), entry(2, 2), state(2, 2))
    assert [(each.Index, each.Term) for each in contents.entries] == [(1, 1), (2, 2)]
    assert contents.hard_state.commit == 2


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([entry(2)], "entry 1 is missing before 2"),
        ([entry(1), entry(3)], "entry 2 is missing before 3"),
        ([entry(0)], "not an entry: index 0"),
        ([entry(1, term=0)], "not an entry: index 1, term 0"),
        ([entry(1, term=2), entry(2, term=1)], "entry 2 has term 1 after term 2"),
        ([entry(1), entry(2, term=1 << 40)], "has term 1099511627776 after term 1"),
        ([entry(1), entry(2), state(2), entry(2, 2)], "entry 2 was committed and is written again"),
        ([entry(1), state(1, 3), state(1, 2)], "the state goes back"),
        ([entry(1), entry(2), state(2), state(1)], "the state goes back"),
        ([entry(1), state(2)], "entry 2 is committed, the log ends at 1"),
        ([(RecordType.STATE, b"\x08\x01\x22\x01x")], "the state goes back"),
        ([(RecordType.SNAPSHOT, b"\x08\x01\x22\x01x")], "not a snapshot record"),
        ([(RecordType.ENTRY, b"\xff")], "at offset"),
        ([(RecordType.ENTRY, b"\x08\x03\x10\x01\x18\x01")], "type 3"),
        ([METADATA], "the metadata stands second"),
        ([(RecordType.CRC, b"")], "checksum"),
    ],
)
def test_a_log_that_breaks_one(tmp_path: Path, records: list[Record], reason: str) -> None:
    with pytest.raises(WalCorrupt) as caught:
        read(tmp_path, *records)
    assert reason in str(caught.value)


def test_the_metadata_is_the_same_in_every_file(tmp_path: Path) -> None:
    encoder = RecordEncoder()
    first = encoder.frame_crc() + encoder.frame(*METADATA) + encoder.frame(*entry(1))
    second = encoder.frame_crc() + encoder.frame(RecordType.METADATA, b"\x08\x08\x10\x09")
    (tmp_path / str(SegmentName(0, 0))).write_bytes(first)
    (tmp_path / str(SegmentName(1, 2))).write_bytes(second)
    with pytest.raises(WalCorrupt, match="not that of the file before"):
        read_wal(tmp_path)


def test_a_snapshot_stands_for_what_is_committed(tmp_path: Path) -> None:
    snapshot = walpb.Snapshot(index=9, term=1).SerializeToString()
    contents = read(tmp_path, (RecordType.SNAPSHOT, snapshot), state(9))
    assert contents.hard_state.commit == 9


def test_whole_records_behind_a_wrong_length_are_proof_enough(tmp_path: Path) -> None:
    """Not one of them says what was committed, but a write that was cut short is the last."""
    read(tmp_path, *(entry(index) for index in range(1, 9)))
    path = tmp_path / str(SegmentName(0, 0))
    content = bytearray(path.read_bytes())
    frame = (content.index(entry(3)[1]) - 17) // 8 * 8
    content[frame + 6] = 0xFF  # the highest byte of its length
    path.write_bytes(content)
    with pytest.raises(WalCorrupt, match="runs past the end of the file, and good records follow"):
        read_wal(tmp_path)


def test_a_snapshot_record_too_proves_what_was_committed(tmp_path: Path) -> None:
    snapshot = (RecordType.SNAPSHOT, walpb.Snapshot(index=3, term=1).SerializeToString())
    read(tmp_path, entry(1), entry(2), entry(3), entry(4), snapshot)
    path = tmp_path / str(SegmentName(0, 0))
    content = bytearray(path.read_bytes())
    at = (content.index(entry(2)[1]) - 17) // 8 * 8
    content[at : at + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(WalCorrupt, match="good records follow"):
        read_wal(tmp_path)
    without_proof = content[: -len(RecordEncoder().frame(*snapshot))]
    path.write_bytes(without_proof)
    contents, _ = read_wal(tmp_path)
    assert [each.Index for each in contents.entries] == [1]
    assert contents.torn is not None


@pytest.mark.parametrize("later", [[], [entry(4, 2)]])
def test_what_an_entry_before_the_snapshot_has_replaced_is_not_read(
    tmp_path: Path, later: list[Record]
) -> None:
    """A follower's tail that another leader replaced, and then a snapshot in the middle of it."""
    snapshot = RecordType.SNAPSHOT, walpb.Snapshot(index=3, term=2).SerializeToString()
    tail = [entry(1), entry(2), entry(3), entry(4), entry(5)]
    read(tmp_path, *tail, entry(3, 2), state(3, 2), snapshot, *later)
    contents, _ = read_wal(tmp_path, (3, 2))
    assert [(each.Index, each.Term) for each in contents.entries] == [(4, 2)][: len(later)]


def test_an_entry_older_than_the_snapshot_before_it_is_refused(tmp_path: Path) -> None:
    snapshot = RecordType.SNAPSHOT, walpb.Snapshot(index=1, term=3).SerializeToString()
    read(tmp_path, entry(1), snapshot, state(1, 3), entry(2, 2))
    with pytest.raises(WalCorrupt, match="entry 2 has term 2 after term 3"):
        read_wal(tmp_path, (1, 3))
