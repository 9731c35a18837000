"""A member whose cluster has lost its quorum: what it answers, of each make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import grpc
from google.protobuf.message import Message

from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.rpc import Rpc
from etcd_pinwheel.server_stub.local import LocalCluster

from .pages import fetch
from .remote import OPTIONS
from .servers import ETCD, SUBJECT

REQUIRES_LEADER = (("hasleader", "true"),)
PATIENCE_SECONDS = 30.0
SETTLED_SECONDS = 20.0
NOBODY_LISTENS = "http://127.0.0.1:9"

Metadata = tuple[tuple[str, str], ...]
CALLS: dict[str, tuple[Rpc[Any, Any], Metadata, dict[str, Any]]] = {
    "put": (rpcs.KV_PUT, (), {"key": b"k"}),
    "put, leader required": (rpcs.KV_PUT, REQUIRES_LEADER, {"key": b"k"}),
    "read": (rpcs.KV_RANGE, (), {"key": b"k"}),
    "local read": (rpcs.KV_RANGE, (), {"key": b"k", "serializable": True}),
    "local read, leader required": (
        rpcs.KV_RANGE,
        REQUIRES_LEADER,
        {"key": b"k", "serializable": True},
    ),
    "status, leader required": (rpcs.MAINTENANCE_STATUS, REQUIRES_LEADER, {}),
    "compaction": (rpcs.KV_COMPACT, (), {"revision": 1}),
    "alarms": (rpcs.MAINTENANCE_ALARM, (), {}),
    "hash of keys": (rpcs.MAINTENANCE_HASH_KV, (), {}),
    "grant": (rpcs.LEASE_LEASE_GRANT, (), {"ID": 8, "TTL": 60}),
    "leases": (rpcs.LEASE_LEASE_LEASES, (), {}),
    "time to live": (rpcs.LEASE_LEASE_TIME_TO_LIVE, (), {"ID": 7}),
    "keep-alive": (rpcs.LEASE_LEASE_KEEP_ALIVE, (), {"ID": 7}),
    "keep-alive, leader required": (rpcs.LEASE_LEASE_KEEP_ALIVE, REQUIRES_LEADER, {"ID": 7}),
    "watch, leader required": (
        rpcs.WATCH_WATCH,
        REQUIRES_LEADER,
        {"create_request": {"key": b"k"}},
    ),
    "members": (rpcs.CLUSTER_MEMBER_LIST, (), {}),
    "members for sure": (rpcs.CLUSTER_MEMBER_LIST, (), {"linearizable": True}),
    "member added": (
        rpcs.CLUSTER_MEMBER_ADD,
        (),
        {"peerURLs": [NOBODY_LISTENS], "isLearner": True},
    ),
    "learner promoted": (rpcs.CLUSTER_MEMBER_PROMOTE, (), {"ID": 404}),
    "lead moved": (rpcs.MAINTENANCE_MOVE_LEADER, (), {"targetID": 404}),
}
PAGES = ("/health", "/health?serializable=true")
STREAMS = {
    "watch cut off": (rpcs.WATCH_WATCH, {"create_request": {"key": b"k"}}),
    "keep-alive cut off": (rpcs.LEASE_LEASE_KEEP_ALIVE, {"ID": 7}),
}
"""Opened with a leader required, while there is one."""


@cache
def answers() -> dict[str, tuple[str, str]]:
    """What etcd's orphan and ours say, by what was asked; found out once in a run."""
    with ThreadPoolExecutor(2) as pool:
        etcd, ours = pool.map(_answers_of, (ETCD, SUBJECT))
    return {asked: (etcd[asked], ours[asked]) for asked in etcd}


def _answers_of(binary: Any) -> dict[str, str]:
    with LocalCluster(processes=True, binary=binary) as cluster:
        orphan = next(each for each in cluster if each is not cluster.wait_for_leader())
        with grpc.insecure_channel(orphan.endpoint, options=OPTIONS) as channel:
            _end_of(channel, rpcs.LEASE_LEASE_GRANT, (), {"ID": 7, "TTL": 600})
            with ThreadPoolExecutor(len(CALLS) + len(STREAMS)) as pool:
                opened = threading.Barrier(len(STREAMS) + 1)
                waits = {
                    name: pool.submit(_end_of, channel, rpc, REQUIRES_LEADER, fields, opened.wait)
                    for name, (rpc, fields) in STREAMS.items()
                }
                opened.wait(PATIENCE_SECONDS)
                for member in cluster:
                    if member is not orphan:
                        member.kill()
                _wait_until_alone(channel)
                for name, call in CALLS.items():
                    waits[name] = pool.submit(_end_of, channel, *call)
                said = {path: str(fetch(orphan.endpoint, "GET", path, "").status) for path in PAGES}
                return said | {name: wait.result() for name, wait in waits.items()}


def _wait_until_alone(channel: grpc.Channel) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    while "no leader" not in _end_of(
        channel, rpcs.KV_RANGE, REQUIRES_LEADER, {"key": b"k", "serializable": True}
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _end_of(
    channel: grpc.Channel,
    rpc: Rpc[Any, Any],
    metadata: Metadata,
    fields: dict[str, Any],
    on_reply: Callable[[], Any] = lambda: None,
) -> str:
    """Make a call; return how it ended."""
    kinds = (rpc.path, rpc.request.SerializeToString, rpc.reply.FromString)
    request, options = rpc.request(**fields), {"timeout": PATIENCE_SECONDS, "metadata": metadata}
    try:
        if rpc.client_streaming:
            ended = threading.Event()
            try:
                for _ in channel.stream_stream(*kinds)(_once(request, ended), **options):
                    on_reply()
            finally:
                ended.set()
        else:
            channel.unary_unary(*kinds)(request, **options)
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    return "OK"


def _once(request: Message, ended: threading.Event) -> Iterator[Message]:
    """Send one request and leave the stream open."""
    yield request
    ended.wait()
