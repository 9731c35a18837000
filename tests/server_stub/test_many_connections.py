"""A client that opens connections without end: it does not get a member to run out of files."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import grpc
import psutil
import pytest

from etcd_pinwheel.protos.etcdserverpb import PutRequest
from etcd_pinwheel.protos.rpcs import KV_PUT
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

DESCRIPTORS = 80
REQUEST = b"GET /version HTTP/1.1\r\nHost: member\r\n\r\n"
PATIENCE_SECONDS = 30


def is_answered(connection: socket.socket) -> bool:
    """Ask for something; the connection stays open, or the member has closed it."""
    try:
        connection.sendall(REQUEST)
        return bool(connection.recv(1 << 16))
    except ConnectionError:
        return False


def test_idle_connections_leave_a_member_its_files() -> None:
    with LocalMember("--snapshot-count=20") as member, ExitStack() as kept:
        psutil.Process(member.pid).rlimit(psutil.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        channel = kept.enter_context(grpc.insecure_channel(member.endpoint))
        put = channel.unary_unary(
            KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
        )
        put(PutRequest(key=b"k"), timeout=PATIENCE_SECONDS, wait_for_ready=True)
        address = ("127.0.0.1", member.client_port)
        flood = [
            kept.enter_context(socket.create_connection(address, timeout=PATIENCE_SECONDS))
            for _ in range(DESCRIPTORS)
        ]
        answered = [is_answered(each) for each in flood]
        assert any(answered)
        assert not all(answered)
        for _ in range(40):
            put(PutRequest(key=b"k"), timeout=PATIENCE_SECONDS)
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while "saved a snapshot" not in member.output:
            assert member.is_alive
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
