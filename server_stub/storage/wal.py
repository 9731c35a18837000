"""The write-ahead log: what a member promised is here before anybody hears of it.

In etcd's own format, files and order of records, so that etcd's tools read this log and this
reader reads etcd's. See :mod:`.record` for the framing, :mod:`.segment` for the files,
:mod:`.wal_reader` for reading back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from ...protos import raftpb, walpb
from .record import RecordEncoder, RecordType
from .segment import (
    DIRECTORY_MODE,
    SEGMENT_BYTES,
    Segment,
    SegmentName,
    segments_of,
    sync_directory,
)
from .wal_reader import TornTail, WalContents, WalCorrupt, read_wal, valid_snapshots

__all__ = ["TornTail", "Wal", "WalContents", "WalCorrupt", "WalFailed", "valid_snapshots"]

KEPT_SEGMENTS: Final = 5
"""What ``--max-wals`` is when nobody says otherwise."""


class WalFailed(Exception):
    """The log could not be written, and is not written again by this process.

    After a failed write or fsync nobody knows what is on the disk: the kernel may have dropped the
    pages and report success next time. So the member stops; what it had acknowledged is durable,
    and the next start reads what is really there. ``path`` and ``reason`` tell where and why.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write the write-ahead log {path}: {reason}")
        self.path = path
        self.reason = reason


class Wal:
    """The log open for appending: one owner, one call at a time, from any thread.

    Invariant: everything up to the last ``save`` that returned is on the disk and is what
    ``open`` gives back, whatever happens to the process or to the power.
    """

    def __init__(
        self,
        directory: Path,
        metadata: bytes,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_type: type[Segment] = Segment,
        fsync: bool = True,
    ) -> None:
        self.directory = directory
        self.metadata = metadata
        self.written_bytes = 0
        """Since this object was made; for metrics."""
        self.on_sync: Callable[[float], None] = lambda _seconds: None
        """Called with the seconds each fsync of ``save`` took; for metrics."""
        self._segment_bytes = segment_bytes
        self._segment_type = segment_type
        self._fsync = fsync
        self._encoder = RecordEncoder()
        self._state = raftpb.HardState()
        self._last_index = 0
        self._sequence = 0
        self._segment: Segment | None = None
        self._failed: WalFailed | None = None

    @property
    def hard_state(self) -> raftpb.HardState:
        """What was saved last, as a copy."""
        state = raftpb.HardState()
        state.CopyFrom(self._state)
        return state

    # Opening and closing.

    @classmethod
    def create(
        cls,
        directory: Path,
        metadata: bytes,
        entries: Sequence[raftpb.Entry] = (),
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_type: type[Segment] = Segment,
        fsync: bool = True,
    ) -> Self:
        """Make a new log in ``directory``, which must not exist, or hold no log.

        Its file is whole before it has its name, so there is a whole log or none; and the directory
        stays the one that its owner has locked. Raises ``FileExistsError``, or ``WalFailed`` when
        it cannot be written. ``metadata`` is a serialized ``etcdserverpb.Metadata``; ``entries``
        are committed from the start, in the term of the last one; ``fsync=False`` risks everything
        and is for ``--unsafe-no-fsync``.
        """
        if directory.exists() and segments_of(directory):
            raise FileExistsError(f"{directory} holds a log")
        wal = cls(
            directory,
            metadata,
            segment_bytes=segment_bytes,
            segment_type=segment_type,
            fsync=fsync,
        )
        is_new = not directory.exists()
        unnamed = directory / "0.tmp"
        try:
            directory.mkdir(parents=True, mode=DIRECTORY_MODE, exist_ok=True)
            sync_directory(directory.parent)
            wal._segment = segment_type.create(unnamed, segment_bytes)
            wal._begin_with(wal._segment, entries)
        except BaseException as error:
            if wal._segment is not None:
                wal._segment.close()
            with suppress(OSError):  # what is left has no name, and the next try writes over it
                unnamed.unlink(missing_ok=True)
                if is_new:
                    directory.rmdir()
            if isinstance(error, OSError):
                raise WalFailed(directory, _reason(error)) from error
            raise
        return wal

    def _begin_with(self, segment: Segment, entries: Sequence[raftpb.Entry]) -> None:
        """Write what a log has from the start, then give the file its name."""
        segment.append(self._opening() + self._encoder.frame(RecordType.SNAPSHOT, b""))
        if entries:
            datas = [entry.SerializeToString() for entry in entries]
            self._last_index = entries[-1].Index
            self._state = raftpb.HardState(term=entries[-1].Term, commit=self._last_index)
            frames = self._encoder.frames(RecordType.ENTRY, datas)
            frames.append(self._encoder.frame(RecordType.STATE, self._state.SerializeToString()))
            segment.append(b"".join(frames))
        segment.sync()
        segment.rename(self.directory / str(SegmentName(0, 0)))

    @classmethod
    def open(
        cls,
        directory: Path,
        snapshot: tuple[int, int] = (0, 0),
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_type: type[Segment] = Segment,
        fsync: bool = True,
    ) -> tuple[Self, WalContents]:
        """Read the log behind ``snapshot`` (index, term) and open it for appending.

        A torn tail is cut off here, on disk; ``WalContents.torn`` tells, for the caller to log.
        Raises ``WalCorrupt`` (the log is left as it is), ``FileNotFoundError``, ``WalFailed``.
        """
        contents, end = read_wal(directory, snapshot)
        wal = cls(
            directory,
            contents.metadata,
            segment_bytes=segment_bytes,
            segment_type=segment_type,
            fsync=fsync,
        )
        wal._encoder.crc = end.crc
        wal._state = contents.hard_state
        wal._sequence = end.name.sequence
        wal._last_index = contents.entries[-1].Index if contents.entries else snapshot[0]
        try:
            for leftover in directory.glob("*.tmp"):
                leftover.unlink()
            wal._segment = segment_type.open(end.path, end.offset)
            if (
                fsync
            ):  # what a killed process had written may be in memory only, and is now relied on
                wal._segment.sync()
                sync_directory(directory)
            if contents.torn is not None:
                wal._segment.truncate()
                with suppress(OSError):  # a full disk is met when something is saved
                    wal._segment.reserve(segment_bytes)
        except OSError as error:
            raise WalFailed(end.path, _reason(error)) from error
        return wal, contents

    def close(self) -> None:
        """Make what was saved durable and close the file; again is harmless.

        Raises ``WalFailed`` when that fails; the file is closed all the same.
        """
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            if self._failed is None and self._fsync:
                segment.sync()
        except OSError as error:
            raise WalFailed(segment.path, _reason(error)) from error
        finally:
            segment.close()

    # Saving.

    def save(
        self, hard_state: raftpb.HardState | None, entries: Sequence[raftpb.Entry] = ()
    ) -> None:
        """Append entries and, when it is news, the hard state; durable on return where it matters.

        Entries, a new term and a new vote are fsynced; a commit index alone is not, it is only a
        hint. Save a commit index after the entries it covers, not with them: read back, it proves
        that they had once been durable. Raises ``WalFailed``, after which nothing can be saved.
        """
        state = self._state
        news = hard_state is not None and hard_state != state
        if not news and not entries:
            return
        datas = [entry.SerializeToString() for entry in entries]
        frames = self._encoder.frames(RecordType.ENTRY, datas)
        must_sync = bool(entries)
        if news and hard_state is not None:
            must_sync |= hard_state.term != state.term or hard_state.vote != state.vote
            frames.append(self._encoder.frame(RecordType.STATE, hard_state.SerializeToString()))
            self._state = raftpb.HardState()
            self._state.CopyFrom(hard_state)
        if entries:
            self._last_index = entries[-1].Index
        self._append(b"".join(frames), sync=must_sync)

    def save_snapshot(self, index: int, term: int, conf_state: raftpb.ConfState) -> None:
        """Note, durably, that a snapshot on disk stands for the entries up to ``index``.

        Call it after the snapshot itself is on disk, and before ``release_to``.
        """
        snapshot = walpb.Snapshot(index=index, term=term, conf_state=conf_state)
        self._last_index = max(self._last_index, index)
        frame = self._encoder.frame(RecordType.SNAPSHOT, snapshot.SerializeToString())
        self._append(frame, sync=True)

    def save_commit(self, index: int) -> None:
        """Note that the entries up to `index`, saved before, are committed; not fsynced."""
        if index > self._state.commit:
            state = self._state
            self.save(raftpb.HardState(term=state.term, vote=state.vote, commit=index))

    def install_snapshot(
        self,
        hard_state: raftpb.HardState | None,
        index: int,
        term: int,
        conf_state: raftpb.ConfState,
    ) -> None:
        """Note, durably, that the log goes on behind a snapshot of another member's state.

        It stands for every entry before, also for those behind `index` that were never committed.
        So it begins a new file, together with a hard state (None: the last one) whose commit index
        covers it: after a crash the log is what it was before, or begins here. The state itself
        must be on disk, if not in its place yet. Raises ``WalFailed``.
        """
        segment = self._usable()
        state = self._state if hard_state is None else hard_state
        commit = max(state.commit, index)
        self._state = raftpb.HardState(term=state.term, vote=state.vote, commit=commit)
        self._last_index = index
        snapshot = walpb.Snapshot(index=index, term=term, conf_state=conf_state)
        try:
            self._cut(segment, index, snapshot)
        except OSError as error:
            self._fail(segment, error)

    def release_to(self, index: int, keep: int = KEPT_SEGMENTS) -> list[Path]:
        """Delete the oldest files, down to ``keep``, that hold nothing behind entry ``index``.

        Returns the deleted ones. Raises ``OSError``; the log itself stays usable.
        """
        files = segments_of(self.directory)
        deleted = []
        while len(files) > max(keep, 1) and files[1][0].first_index <= index:
            _, path = files.pop(0)
            path.unlink()
            deleted.append(path)
        return deleted

    def _append(self, data: bytes, *, sync: bool) -> None:
        segment = self._usable()
        good_end = segment.end
        try:
            segment.append(data)
        except OSError as error:
            self._fail(segment, error, good_end)
        try:
            if sync and self._fsync:
                began = time.perf_counter()
                segment.sync()
                self.on_sync(time.perf_counter() - began)
            self.written_bytes += len(data)
            if segment.end >= self._segment_bytes:
                self._cut(segment, self._last_index + 1)
        except OSError as error:
            self._fail(segment, error)

    def _usable(self) -> Segment:
        if self._failed is not None:
            raise WalFailed(self._failed.path, f"failed before: {self._failed.reason}")
        if self._segment is None:
            raise WalFailed(self.directory, "the log is closed")
        return self._segment

    def _fail(self, segment: Segment, error: OSError, good_end: int | None = None) -> None:
        """Stop for good; take back what was half written, if the disk still allows it."""
        self._failed = WalFailed(segment.path, _reason(error))
        if good_end is not None:
            segment.end = good_end
            with suppress(OSError):  # else the reader finds it and cuts it
                segment.truncate()
        raise self._failed from error

    # Cutting: the next file is whole, header and all, before it has its name.

    def _opening(self) -> bytes:
        """Frame what every file begins with: the sum so far, the metadata, the hard state."""
        opening = self._encoder.frame_crc()
        opening += self._encoder.frame(RecordType.METADATA, self.metadata)
        if self._state != raftpb.HardState():
            opening += self._encoder.frame(RecordType.STATE, self._state.SerializeToString())
        return opening

    def _cut(self, full: Segment, first_index: int, snapshot: walpb.Snapshot | None = None) -> None:
        """Go on in a new file, which may begin with a snapshot."""
        full.finish()
        self._sequence += 1
        unnamed = self.directory / f"{self._sequence % 2}.tmp"
        segment = self._segment_type.create(unnamed, self._segment_bytes)
        self._segment = segment
        segment.append(self._opening())
        if snapshot is not None:
            record = self._encoder.frame(RecordType.SNAPSHOT, snapshot.SerializeToString())
            segment.append(record)
        segment.sync()
        segment.rename(self.directory / str(SegmentName(self._sequence, first_index)))


def _reason(error: OSError) -> str:
    return error.strerror or os.strerror(error.errno) if error.errno else str(error)
