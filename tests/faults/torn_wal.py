"""A write-ahead log as a power cut leaves it: with the beginning of a record that never ended."""

from __future__ import annotations

from pathlib import Path

from etcd_pinwheel.server_stub.local import AnyMember
from etcd_pinwheel.server_stub.storage.record import RecordEncoder, RecordType
from etcd_pinwheel.server_stub.storage.wal_reader import read_wal

_PAGE_BYTES = 4096


def wal_of(member: AnyMember) -> Path:
    """Where a member of ours keeps its log."""
    return member.data_dir / "data" / "member" / "wal"


def tear(member: AnyMember) -> None:
    """Put half a record behind the last whole one; the member must not run."""
    _, end = read_wal(wal_of(member))
    frame = RecordEncoder(end.crc).frame(RecordType.ENTRY, b"x" * 5000)
    to_the_next_page = _PAGE_BYTES - end.offset % _PAGE_BYTES
    with end.path.open("r+b") as file:
        file.seek(end.offset)
        file.write(frame[:to_the_next_page])
