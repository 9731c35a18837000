"""A torn tail is cut, damage anywhere else refuses: the log never starts on a wrong history."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.storage.record import LENGTH_BYTES
from etcd_pinwheel.server_stub.storage.segment import segments_of
from etcd_pinwheel.server_stub.storage.wal import Wal, WalContents, WalCorrupt

METADATA = b"\x08\x07\x10\x09"
VOTER = 0x8E9E05C52164694D
SEGMENT_BYTES = 16_384
FIELD = LENGTH_BYTES


def entry(index: int, size: int = 40, term: int = 1) -> raftpb.Entry:
    data = bytes((index * 7 + at) % 255 + 1 for at in range(size))
    return raftpb.Entry(Term=term, Index=index, Data=data)


def write_log(directory: Path, sizes: list[int]) -> list[raftpb.Entry]:
    """Save one entry of each size, each with the commit of those before it."""
    entries = [entry(index, size) for index, size in enumerate(sizes, start=1)]
    wal = Wal.create(directory, METADATA, segment_bytes=SEGMENT_BYTES)
    for each in entries:
        wal.save(raftpb.HardState(term=1, vote=VOTER, commit=each.Index - 1), [each])
    wal.close()
    return entries


def offsets(path: Path) -> list[int]:
    """Where the records of a sound file begin, and where they end."""
    content = path.read_bytes()
    found = [0]
    while (at := found[-1]) < len(content) and (length := content[at : at + FIELD]).strip(b"\0"):
        size = int.from_bytes(length[:7], "little")
        found.append(at + FIELD + size + -size % 8)
    return found


def open_log(directory: Path) -> WalContents:
    wal, contents = Wal.open(directory, segment_bytes=SEGMENT_BYTES)
    wal.close()
    return contents


def try_to_open(directory: Path) -> WalContents | WalCorrupt:
    """What the log says, or the refusal; anything else that is raised is a defect."""
    try:
        return open_log(directory)
    except WalCorrupt as error:
        return error


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


# One record of 1200 bytes spans at least one whole sector.


def last_entry_record(path: Path) -> tuple[int, int]:
    """Start and end of the last entry's record; the state that followed it is removed."""
    *_, start, end, after = offsets(path)
    overwrite(path, end, bytes(after - end))
    return start, end


def test_a_sector_never_written_at_the_end_is_a_torn_tail(tmp_path: Path) -> None:
    entries = write_log(tmp_path / "wal", [40, 40, 1200])
    ((_, path),) = segments_of(tmp_path / "wal")
    start, end = last_entry_record(path)
    overwrite(path, (start // 512 + 1) * 512, bytes(512))
    contents = open_log(tmp_path / "wal")
    assert contents.entries == entries[:2]
    assert contents.torn is not None
    assert (contents.torn.path, contents.torn.offset) == (path, start)
    assert path.read_bytes()[start:] == bytes(path.stat().st_size - start)
    assert path.stat().st_size == SEGMENT_BYTES
    assert open_log(tmp_path / "wal").torn is None
    assert end > start


def test_the_first_sector_of_the_last_record_never_written(tmp_path: Path) -> None:
    entries = write_log(tmp_path / "wal", [40, 40, 2000])
    ((_, path),) = segments_of(tmp_path / "wal")
    start, end = last_entry_record(path)
    overwrite(path, start, bytes(512))
    contents = open_log(tmp_path / "wal")
    assert contents.entries == entries[:2]
    assert contents.torn is not None
    assert not path.read_bytes()[start:end].strip(b"\0")


def test_writing_goes_on_behind_a_cut_tail(tmp_path: Path) -> None:
    entries = write_log(tmp_path / "wal", [40, 40, 40])
    ((_, path),) = segments_of(tmp_path / "wal")
    start, end = last_entry_record(path)
    with path.open("r+b") as file:
        file.truncate(end - 9)
    wal, contents = Wal.open(tmp_path / "wal", segment_bytes=SEGMENT_BYTES)
    assert contents.entries == entries[:2]
    assert contents.torn is not None
    assert contents.torn.offset == start
    wal.save(None, [entry(3, 77), entry(4)])
    wal.close()
    assert open_log(tmp_path / "wal").entries == [*entries[:2], entry(3, 77), entry(4)]


def test_an_unwritten_sector_of_what_was_committed_is_damage(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [40, 1200, 40, 40])
    ((_, path),) = segments_of(tmp_path / "wal")
    before = path.read_bytes()
    start = offsets(path)[5]
    overwrite(path, (start // 512 + 1) * 512, bytes(512))
    damaged = path.read_bytes()
    assert damaged != before
    with pytest.raises(WalCorrupt, match="good records follow") as caught:
        open_log(tmp_path / "wal")
    assert (caught.value.path, caught.value.offset) == (path, start)
    assert path.read_bytes() == damaged, "a refused log is left as it is"


def test_zeros_over_whole_records_of_what_was_committed_are_damage(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [40, 40, 40, 40, 40])
    ((_, path),) = segments_of(tmp_path / "wal")
    at = offsets(path)
    overwrite(path, at[5], bytes(at[7] - at[5]))
    with pytest.raises(WalCorrupt, match="good records follow"):
        open_log(tmp_path / "wal")


def test_a_length_that_leads_past_the_end_is_damage_when_records_follow(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [40, 40, 40])
    ((_, path),) = segments_of(tmp_path / "wal")
    overwrite(path, offsets(path)[3] + 4, b"\xff")
    with pytest.raises(WalCorrupt, match="runs past the end of the file, and good records follow"):
        open_log(tmp_path / "wal")


@pytest.mark.parametrize("sizes", [[40], [40, 40], [40] * 9], ids=len)
def test_a_garbled_last_record_is_damage_not_a_torn_write(tmp_path: Path, sizes: list[int]) -> None:
    write_log(tmp_path / "wal", sizes)
    ((_, path),) = segments_of(tmp_path / "wal")
    start, _ = last_entry_record(path)
    overwrite(path, start + 30, b"\xee")
    with pytest.raises(WalCorrupt, match="checksum") as caught:
        open_log(tmp_path / "wal")
    assert caught.value.offset == start
    assert str(path) in str(caught.value)
    assert str(start) in str(caught.value)


def test_a_torn_end_of_any_file_but_the_last_is_damage(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [1000] * 40)
    (_, first), *_ = segments_of(tmp_path / "wal")
    with first.open("r+b") as file:
        file.truncate(first.stat().st_size - 20)
    with pytest.raises(WalCorrupt, match="runs past the end"):
        open_log(tmp_path / "wal")


def test_a_file_without_its_opening_is_damage(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [1000] * 40)
    *_, (_, last) = segments_of(tmp_path / "wal")
    last.write_bytes(b"")
    with pytest.raises(WalCorrupt, match="lacks its opening records"):
        open_log(tmp_path / "wal")


def test_changed_types_are_seen_although_no_checksum_covers_them(tmp_path: Path) -> None:
    entries = write_log(tmp_path / "wal", [40] * 6)
    ((_, path),) = segments_of(tmp_path / "wal")
    sound = path.read_bytes()
    for start in offsets(path)[:-1]:
        for kind in range(1, 6):
            if kind == sound[start + 9]:
                continue
            path.write_bytes(sound[: start + 9] + bytes((kind,)) + sound[start + 10 :])
            try:
                contents = open_log(tmp_path / "wal")
            except WalCorrupt:
                continue
            assert contents.entries == entries[: len(contents.entries)], (start, kind)


# Fuzz: any truncation and any garbling gives the exact history so far, or WalCorrupt.

_damages = st.lists(
    st.tuples(
        st.sampled_from(["truncate", "zero", "garble", "flip", "swap"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 1500),
        st.integers(0, 2**32),
    ),
    min_size=1,
    max_size=3,
)


def damage(path: Path, kind: str, where: float, length: int, seed: int) -> None:
    """Do one thing to a file, near what was written in it."""
    content = bytearray(path.read_bytes())
    written = len(bytes(content).rstrip(b"\0"))
    at = int(where * (written + 16))
    rng = random.Random(seed)
    if kind == "truncate":
        del content[at:]
    elif kind == "zero":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif kind == "garble":
        content[at : at + length] = rng.randbytes(len(content[at : at + length]))
    elif kind == "flip" and at < len(content):
        content[at] ^= 1 << seed % 8
    elif kind == "swap":
        other = rng.randrange(written + 1)
        first, second = content[at : at + length], content[other : other + length]
        content[at : at + len(first)] = second[: len(first)]
    path.write_bytes(content)


@pytest.mark.slow
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.sampled_from([0, 1, 40, 700, 3000]), min_size=1, max_size=12),
    damages=_damages,
    which=st.integers(0, 10),
)
def test_any_damage_gives_the_exact_prefix_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    damages: list[tuple[str, float, int, int]],
    which: int,
) -> None:
    directory = tmp_path_factory.mktemp("log") / "wal"
    entries = write_log(directory, sizes)
    files = [path for _, path in segments_of(directory)]
    path = files[which % len(files)]
    for each in damages:
        damage(path, *each)
    note(f"{len(files)} files, damaged {path.name}")
    contents = try_to_open(directory)
    if isinstance(contents, WalCorrupt):
        assert contents.path in files
        assert 0 <= contents.offset <= SEGMENT_BYTES * 2
        return
    assert contents.entries == entries[: len(contents.entries)]
    assert contents.hard_state.commit <= len(contents.entries)
    again = open_log(directory)
    assert again.torn is None, "what was cut stays cut"
    assert (again.entries, again.hard_state) == (contents.entries, contents.hard_state)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=600), framed=st.booleans())
def test_any_bytes_at_all_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, framed: bool
) -> None:
    directory = tmp_path_factory.mktemp("log") / "wal"
    write_log(directory, [40])
    ((_, path),) = segments_of(directory)
    keep = offsets(path)[2] if framed else 0
    path.write_bytes(path.read_bytes()[:keep] + content)
    contents = try_to_open(directory)
    if isinstance(contents, WalCorrupt):
        assert contents.path == path
    else:
        assert contents.entries == []


@pytest.mark.parametrize("at_byte", range(9))
def test_every_truncation_of_the_last_save_keeps_all_before_it(
    tmp_path: Path, at_byte: int
) -> None:
    entries = write_log(tmp_path / "wal", [40] * 3)
    ((_, path),) = segments_of(tmp_path / "wal")
    *_, start, _, end = offsets(path)
    content = path.read_bytes()
    for cut in range(start + at_byte, end, 9):
        path.write_bytes(content[:cut])
        kept = open_log(tmp_path / "wal").entries
        assert kept[:2] == entries[:2]
        assert kept == entries[: len(kept)]
