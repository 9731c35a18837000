"""What tests of clusters ask of their members, and of what they leave."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from etcd_pinwheel.protos.etcdserverpb import PutRequest, RangeRequest
from etcd_pinwheel.protos.rpcs import KV_PUT, KV_RANGE
from etcd_pinwheel.server_stub.local import AnyMember, CallFailed, LocalCluster
from etcd_pinwheel.server_stub.local.calls import call

PATIENCE_SECONDS = 60.0
CUT_OFF_SECONDS = 1.0
"""For a call that must not succeed."""

Start = Callable[..., LocalCluster]


def assert_nothing_is_left(cluster: LocalCluster) -> None:
    for member in cluster:
        assert not member.is_alive
        assert not member.data_dir.exists()
        for port in (member.client_port, member.peer_port):
            with socket.socket() as heir:
                heir.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                heir.bind(("127.0.0.1", port))
                heir.listen()


def put(member: AnyMember, key: bytes, timeout_seconds: float = 10.0) -> int:
    request = PutRequest(key=key, value=b"v")
    return int(call(member.endpoint, KV_PUT, request, timeout_seconds).header.revision)


def has(member: AnyMember, key: bytes, timeout_seconds: float = 10.0) -> bool:
    return bool(call(member.endpoint, KV_RANGE, RangeRequest(key=key), timeout_seconds).count)


def has_itself(member: AnyMember, key: bytes) -> bool:
    """Whether it is in the member's own store, whatever the others have."""
    request = RangeRequest(key=key, serializable=True)
    return bool(call(member.endpoint, KV_RANGE, request, 10.0).count)


def in_the_end(work: Callable[[], Any]) -> Any:
    """Try again while a leader is elected; what comes of it at last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if result := work():
                return result
        except CallFailed:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.02)


def follower(cluster: LocalCluster) -> AnyMember:
    """One of the founders that does not lead."""
    leader = cluster.wait_for_leader()
    return next(member for member in cluster.members[:3] if member is not leader)
