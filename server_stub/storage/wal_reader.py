"""Reading a write-ahead log back: what it holds, where it ends, whether it can be believed.

A log that ends in the middle of a write is normal, a kill or a power cut does that: what was cut
short was never acknowledged, so it is dropped. A log that is damaged anywhere else has lost what
somebody was promised, and starting on it would be worse than not starting: ``WalCorrupt``.

The type of a record is not under its checksum (that is etcd's format), so a record is also held
against what a Raft log can say at all: terms and commits never go back, indexes have no gaps,
nothing that was committed is overwritten.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from ...protos import raftpb, walpb
from .record import BadRecord, RecordDecoder, RecordType
from .segment import SegmentName, segments_of

_IMPLAUSIBLE_TERMS: Final = 1 << 32
"""No two entries in a row are this many elections apart: it is a member id, misread."""
_RECORD_START: Final = re.compile(rb"\x08[\x01-\x05]\x10")
_READ_BUFFER_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(_READ_BUFFER_BYTES)


class WalCorrupt(Exception):
    """The log cannot be believed.

    ``path`` and ``offset`` (bytes) tell where, ``reason`` what is wrong there. Nothing was changed
    on disk: the way out is to restore the member from a snapshot or from the other members.
    """

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"corrupt write-ahead log: {path} at offset {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TornTail:
    """An unfinished write that was dropped from the end of the log."""

    path: Path
    offset: int
    reason: str


@dataclass(slots=True)
class WalContents:
    """What a log says, from a snapshot on."""

    metadata: bytes = b""
    hard_state: raftpb.HardState = field(default_factory=raftpb.HardState)
    """All zeros when none was ever saved."""
    entries: list[raftpb.Entry] = field(default_factory=list)
    """Those behind the snapshot, without gaps."""
    snapshots: list[walpb.Snapshot] = field(default_factory=list)
    """Every snapshot the files read vouch for, oldest first; also later ones."""
    torn: TornTail | None = None


@dataclass(frozen=True, slots=True)
class WalEnd:
    """Where the next record goes."""

    path: Path
    name: SegmentName
    offset: int
    crc: int


def read_wal(directory: Path, snapshot: tuple[int, int] = (0, 0)) -> tuple[WalContents, WalEnd]:
    """Read the log behind ``snapshot`` (index, term), changing nothing on disk.

    Raises ``WalCorrupt``, ``FileNotFoundError`` when there is no log in ``directory``, and any
    other ``OSError`` of reading.
    """
    files = _files_from(directory, snapshot[0])
    replay = _Replay(snapshot)
    offset = crc = 0
    for position, (_, path) in enumerate(files):
        last = position == len(files) - 1
        with path.open("rb", buffering=_READ_BUFFER_BYTES) as file:
            offset, crc = _read_segment(path, file, crc, replay, last=last)
    name, path = files[-1]
    replay.finish(path, offset)
    return replay.contents, WalEnd(path, name, offset, crc)


def valid_snapshots(directory: Path) -> list[tuple[int, int]]:
    """The snapshots (index, term), oldest first, that the log vouches for and has committed."""
    first_index = segments_of(directory)[0][0].first_index
    contents, _ = read_wal(directory, (first_index, -1))
    committed = contents.hard_state.commit
    return [(s.index, s.term) for s in contents.snapshots if s.index <= committed]


def _files_from(directory: Path, index: int) -> list[tuple[SegmentName, Path]]:
    """The files that hold the entries behind ``index``."""
    files = segments_of(directory)
    if not files:
        raise FileNotFoundError(f"no write-ahead log in {directory}")
    before = [position for position, (name, _) in enumerate(files) if name.first_index <= index]
    if not before:
        raise WalCorrupt(files[0][1], 0, f"the log begins behind entry {index}")
    files = files[before[-1] :]
    for (earlier, _), (later, path) in pairwise(files):
        if later.sequence != earlier.sequence + 1:
            raise WalCorrupt(path, 0, f"file {earlier.sequence + 1:016x} of the log is missing")
    return files


def _read_segment(
    path: Path, file: BinaryIO, crc: int, replay: _Replay, *, last: bool
) -> tuple[int, int]:
    """Take in one file; returns where its good records end, and the running sum there."""
    size = path.stat().st_size
    decoder = RecordDecoder(file, size, crc)
    replay.begin_file()
    bad = None
    while True:
        start = decoder.offset
        try:
            record = decoder.next()
        except BadRecord as error:
            bad = error
            break
        if record is None:
            bad = _remains(file, start)
            break
        try:
            replay.take(record)
        except (ValueError, DecodeError) as error:
            raise WalCorrupt(path, start, str(error)) from None
    if bad is not None:
        _judge(path, file, size, bad, replay, last=last)
    if not replay.file_begun:
        raise WalCorrupt(path, decoder.offset, "the file lacks its opening records")
    return decoder.offset, decoder.crc


def _remains(file: BinaryIO, offset: int) -> BadRecord | None:
    """What is wrong when the records seem to end at ``offset`` and more than zeros follows."""
    descriptor = file.fileno()
    at = _next_written(descriptor, offset)
    while block := os.pread(descriptor, _READ_BUFFER_BYTES, at):
        if block != _ZEROS[: len(block)]:
            return BadRecord(offset, "zeros where a record should be", torn=True)
        at = _next_written(descriptor, at + len(block))
    return None


def _next_written(descriptor: int, offset: int) -> int:
    """Where the next bytes are that the file system does not know to be zeros.

    Nearly all of the last file is space that was never written; reading it would be most of a
    start.
    """
    if not hasattr(os, "SEEK_DATA"):
        return offset
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        return os.fstat(descriptor).st_size if error.errno == errno.ENXIO else offset
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def _judge(
    path: Path, file: BinaryIO, size: int, bad: BadRecord, replay: _Replay, *, last: bool
) -> None:
    """Tell a torn tail (noted) from damage (``WalCorrupt``).

    Torn means: in the last file, the bytes look like an unfinished write, and nothing behind them
    proves that the write had been finished once. The proof is a later record that is whole and
    says that what stood here was committed; or any whole record at all, behind one that claims to
    reach the end of the file.
    """
    if not last or not bad.torn:
        raise WalCorrupt(path, bad.offset, bad.reason)
    for record in _survivors(file, size, bad.offset + 8):
        if bad.past_end or replay.is_vouched_for_by(record):
            raise WalCorrupt(path, bad.offset, f"{bad.reason}, and good records follow")
    replay.contents.torn = TornTail(path, bad.offset, bad.reason)


def _survivors(file: BinaryIO, size: int, start: int) -> Iterator[walpb.Record]:
    """Find whole records behind a bad one.

    A record carries the sum up to itself, so each can be checked from the one before it, whatever
    came earlier.
    """
    file.seek(start)
    rest = file.read()
    checked_to = 0
    for match in _RECORD_START.finditer(rest):
        at = start + match.start() - 8
        if at % 8 or at < max(start, checked_to):
            continue
        body_size = int.from_bytes(rest[at - start : at - start + 7], "little")
        try:
            first = walpb.Record.FromString(rest[match.start() : match.start() + body_size])
        except DecodeError:
            continue
        decoder = RecordDecoder(file, size, first.crc, at + 8 + body_size + -body_size % 8)
        try:
            while record := decoder.next():
                yield record
        except BadRecord:
            pass
        checked_to = decoder.offset


class _Replay:
    """The log so far, and the rules each further record must keep; ValueError names the broken."""

    def __init__(self, snapshot: tuple[int, int]) -> None:
        self.contents = WalContents()
        self._index, self._term = snapshot
        self._records_in_file = 0
        self._has_metadata = False
        self._take: dict[int, Callable[[bytes], None]] = {
            RecordType.ENTRY: self._take_entry,
            RecordType.STATE: self._take_state,
            RecordType.SNAPSHOT: self._take_snapshot,
        }

    @property
    def file_begun(self) -> bool:
        """Whether this file's two opening records were read."""
        return self._records_in_file >= 2

    def begin_file(self) -> None:
        self._records_in_file = 0

    def take(self, record: walpb.Record) -> None:
        """Take in the next record of the file."""
        self._records_in_file += 1
        place = self._records_in_file
        if (place == 1) != (record.type == RecordType.CRC):
            raise ValueError("a checksum record stands first in a file, and only there")
        if (place == 2) != (record.type == RecordType.METADATA):
            raise ValueError("the metadata stands second in a file, and only there")
        if place > 2:
            self._take[record.type](record.data)
        elif place == 2:
            self._take_metadata(record.data)

    def _take_metadata(self, data: bytes) -> None:
        if self._has_metadata and data != self.contents.metadata:
            raise ValueError("the metadata is not that of the file before")
        self.contents.metadata = data
        self._has_metadata = True

    def _take_entry(self, data: bytes) -> None:
        entry = raftpb.Entry.FromString(data)
        index, term = entry.Index, entry.Term
        if not index or not term or entry.Type not in (0, 1, 2):
            raise ValueError(f"not an entry: index {index}, term {term}, type {entry.Type}")
        position = index - self._index - 1
        entries = self.contents.entries
        if position < 0:  # it took the place of all that was written before behind it
            entries.clear()
            return
        if position > len(entries) and self._is_behind_installed(index):
            entries.clear()
            self._index, position = index - 1, 0
        if position > len(entries):
            raise ValueError(f"entry {self._index + len(entries) + 1} is missing before {index}")
        if position < len(entries):
            if index <= self.contents.hard_state.commit:
                raise ValueError(f"entry {index} was committed and is written again")
            del entries[position:]
        # What was written before the snapshot's own entry may be older, and is gone by the end.
        previous = entries[-1].Term if entries else 0
        if not previous <= term < previous + _IMPLAUSIBLE_TERMS:
            raise ValueError(f"entry {index} has term {term} after term {previous}")
        entries.append(entry)

    def _is_behind_installed(self, index: int) -> bool:
        """Whether `index` is the first behind a snapshot that came in place of what is missing."""
        return any(snapshot.index == index - 1 for snapshot in self.contents.snapshots)

    def _take_state(self, data: bytes) -> None:
        state = raftpb.HardState.FromString(data)
        known = self.contents.hard_state
        if state.term < known.term or state.commit < known.commit or _has_unknown(state):
            raise ValueError(
                f"the state goes back: term {state.term} commit {state.commit}"
                f" after term {known.term} commit {known.commit}"
            )
        self.contents.hard_state = state

    def _take_snapshot(self, data: bytes) -> None:
        snapshot = walpb.Snapshot.FromString(data)
        if _has_unknown(snapshot):
            raise ValueError("not a snapshot record")
        if snapshot.index == self._index and self._term >= 0 and snapshot.term != self._term:
            raise ValueError(
                f"snapshot {snapshot.index} has term {snapshot.term}, not {self._term}"
            )
        self.contents.snapshots.append(snapshot)

    def is_vouched_for_by(self, record: walpb.Record) -> bool:
        """Whether a later record says that the entry after the last good one was committed."""
        last = self._index + len(self.contents.entries)
        try:
            if record.type == RecordType.STATE:
                return bool(raftpb.HardState.FromString(record.data).commit > last)
            if record.type == RecordType.SNAPSHOT:
                return bool(walpb.Snapshot.FromString(record.data).index > last)
        except DecodeError:
            return False
        return False

    def finish(self, path: Path, offset: int) -> None:
        """Check what only the whole log can tell; raises ``WalCorrupt``."""
        contents = self.contents
        known = max([self._index, *(snapshot.index for snapshot in contents.snapshots)])
        last = max(known, self._index + len(contents.entries))
        if contents.hard_state.commit > last:
            committed = contents.hard_state.commit
            raise WalCorrupt(
                path, offset, f"entry {committed} is committed, the log ends at {last}"
            )
        first = contents.entries[0] if contents.entries else None
        if first is not None and first.Term < self._term:
            raise WalCorrupt(
                path, offset, f"entry {first.Index} has term {first.Term} after term {self._term}"
            )
        wanted = (self._index, self._term)
        if self._term > 0 and wanted not in {(s.index, s.term) for s in contents.snapshots}:
            raise WalCorrupt(path, offset, f"no record of the snapshot at entry {self._index}")


def _has_unknown(message: raftpb.HardState | walpb.Snapshot) -> bool:
    return len(UnknownFieldSet(message)) > 0
