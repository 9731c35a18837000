"""What the flags grant the clients of the front, and the other members."""

from __future__ import annotations

from pathlib import Path

import pytest
from inprocess.served import Served

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.config import parse
from etcd_pinwheel.server_stub.peers import PeerLimits
from etcd_pinwheel.server_stub.peers.frames import Kind, framed
from etcd_pinwheel.server_stub.peers.wire import Encoder
from etcd_pinwheel.server_stub.raft.messages import Message
from etcd_pinwheel.server_stub.server import limits_of

MIB = 1 << 20


def pings_with(*flags: str) -> tuple[float, float]:
    limits = limits_of(parse(list(flags), {}))
    return limits.keepalive_interval_seconds, limits.keepalive_timeout_seconds


def test_pings_are_as_the_flags_say() -> None:
    assert pings_with("--grpc-keepalive-interval=10s", "--grpc-keepalive-timeout=2s") == (10, 2)


@pytest.mark.parametrize("flag", ["interval", "timeout"])
def test_without_one_of_them_grpcs_own_stay_in_force(flag: str) -> None:
    """As in etcd, which hands both to grpc or neither."""
    assert pings_with(f"--grpc-keepalive-{flag}=0s") == (7200, 20)


def test_a_message_may_be_larger_than_a_request_by_grpcs_overhead() -> None:
    assert limits_of(parse(["--max-request-bytes=1000"], {})).max_message_bytes == 1000 + 512 * 1024


@pytest.mark.parametrize("request_mib", [1, 63, 64, 65, 1000])
def test_whatever_may_be_asked_for_can_be_sent_to_others(request_mib: int) -> None:
    """What cannot be is never committed, nor is anything behind it."""
    limits = PeerLimits.for_requests(request_mib * MIB)
    largest = raftpb.Entry(Term=2**64 - 1, Index=2**64 - 1, Data=bytes(request_mib * MIB))
    message = Message(raftpb.MsgApp, 2**64 - 1, 2**64 - 1, 2**64 - 1, entries=[largest])
    size = sum(map(len, framed(Kind.MESSAGE, *Encoder().encode(message))))
    assert size <= limits.max_frame_bytes <= limits.max_queued_bytes


def test_who_asks_for_little_grants_as_much_as_others() -> None:
    assert PeerLimits.for_requests(1000) == PeerLimits()


async def test_a_member_goes_by_the_flag(tmp_path: Path) -> None:
    async with Served(tmp_path / "data", max_request_bytes=100 * MIB) as served:
        limits = served.member.peers._station.limits
    assert limits == PeerLimits.for_requests(100 * MIB)
