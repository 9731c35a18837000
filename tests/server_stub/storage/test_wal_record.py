"""Framing: byte for byte what etcd writes, and nothing else is believed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel.protos import walpb
from etcd_pinwheel.server_stub.storage.record import (
    BadRecord,
    RecordDecoder,
    RecordEncoder,
    RecordType,
    has_unwritten_sector,
)

METADATA = bytes.fromhex("08b3ff8af0eee7e7818201 10b1d7eddaa4ea95fb20".replace(" ", ""))
"""As etcd 3.5.1 wrote it for member 82039f3eee02bfb3."""

OPENING_OF_ETCD = bytes.fromhex(
    "0400000000000084 0804100000000000"
    "1f00000000000081 0801109fa7c7ca0a1a15 08b3ff8af0eee7e781820110b1d7eddaa4ea95fb20 00"
    "0d00000000000083 080510f5e287511a0408001000 000000".replace(" ", "")
)
"""The first three records that etcd 3.5.1 wrote: crc, metadata, snapshot (0, 0)."""


def decoder(framed: bytes, crc: int = 0) -> RecordDecoder:
    return RecordDecoder(io.BytesIO(framed), len(framed), crc)


def test_frames_are_the_bytes_that_etcd_writes() -> None:
    encoder = RecordEncoder()
    framed = encoder.frame_crc()
    framed += encoder.frame(RecordType.METADATA, METADATA)
    framed += encoder.frame(RecordType.SNAPSHOT, bytes.fromhex("08001000"))
    assert framed == OPENING_OF_ETCD


def test_frames_of_etcd_are_read() -> None:
    records = decoder(OPENING_OF_ETCD)
    first, second, third = records.next(), records.next(), records.next()
    assert first is not None
    assert first.type == RecordType.CRC
    assert second is not None
    assert second.data == METADATA
    assert third is not None
    assert third.type == RecordType.SNAPSHOT
    assert records.next() is None
    assert records.offset == len(OPENING_OF_ETCD)


@given(
    crc=st.integers(0, 2**32 - 1),
    datas=st.lists(st.binary(max_size=700), max_size=8),
    kind=st.sampled_from([RecordType.METADATA, RecordType.ENTRY, RecordType.STATE]),
)
def test_what_is_framed_is_read_back(crc: int, datas: list[bytes], kind: RecordType) -> None:
    encoder = RecordEncoder(crc)
    frames = encoder.frames(kind, datas)
    assert all(len(frame) % 8 == 0 for frame in frames)
    records = decoder(b"".join(frames), crc)
    for data in datas:
        record = records.next()
        assert record is not None
        assert (record.type, record.data) == (kind, data)
    assert records.next() is None
    assert records.crc == encoder.crc


@given(data=st.binary(max_size=20_000), crc=st.sampled_from([0, 1, 2**28 - 1, 2**28, 2**32 - 1]))
def test_the_assembled_record_is_the_one_protobuf_makes(data: bytes, crc: int) -> None:
    encoder = RecordEncoder(crc)
    frame = encoder.frame(RecordType.ENTRY, data)
    size = int.from_bytes(frame[:7], "little")
    record = walpb.Record.FromString(frame[8 : 8 + size])
    assert (record.type, record.crc, record.data) == (RecordType.ENTRY, encoder.crc, data)
    if data:  # protobuf leaves empty data out, etcd writes it
        assert frame[8 : 8 + size] == record.SerializeToString()
    assert frame[8 + size :] == bytes(-size % 8)


def test_every_flipped_bit_of_data_or_checksum_is_seen() -> None:
    frame = RecordEncoder().frame(RecordType.ENTRY, b"some entry")
    for bit in range(11 * 8, len(frame) * 8):
        garbled = bytearray(frame)
        garbled[bit // 8] ^= 1 << bit % 8
        try:
            record = decoder(bytes(garbled)).next()
        except BadRecord:
            continue
        assert record is not None
        assert record.data == b"some entry"


@pytest.mark.parametrize("cut", range(1, 32))
def test_a_record_cut_short_is_torn(cut: int) -> None:
    frame = RecordEncoder().frame(RecordType.ENTRY, b"0123456789")
    assert len(frame) == 32
    with pytest.raises(BadRecord) as caught:
        decoder(frame[:-cut]).next()
    assert caught.value.torn
    assert caught.value.past_end


@pytest.mark.parametrize(
    ("top", "size"), [(0x7F, 8), (0x08, 8), (0xF8, 8)], ids=["no flag", "odd", "both"]
)
def test_an_impossible_length_is_not_a_torn_write(top: int, size: int) -> None:
    field = size.to_bytes(7, "little") + bytes((top,))
    with pytest.raises(BadRecord) as caught:
        decoder(field + bytes(64)).next()
    assert not caught.value.torn


def test_an_unknown_type_is_refused() -> None:
    frame = RecordEncoder().frame(RecordType.ENTRY, b"x").replace(b"\x08\x02", b"\x08\x09", 1)
    with pytest.raises(BadRecord, match="unknown record type 9"):
        decoder(frame).next()


@pytest.mark.parametrize(
    ("start", "frame", "unwritten"),
    [
        (0, b"a" * 512 + bytes(512) + b"a", True),
        (0, b"a" * 513 + bytes(1000), True),
        (0, b"a" * 513 + bytes(511), False),
        (256, b"a" * 256 + bytes(512), True),
        (256, b"a" * 255 + bytes(2) + b"a" * 10, False),
        (504, bytes(8) + b"a" * 100, True),
        (0, b"a", False),
    ],
)
def test_unwritten_sectors(start: int, frame: bytes, unwritten: bool) -> None:
    assert has_unwritten_sector(start, frame) is unwritten
