"""One call each: every kind of argument that a server has to refuse, and the odd ones it takes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from lockstep.pair import EVERYTHING, Pair
from lockstep.program import Call, Rev, Run
from lockstep.remote import Outcome, Remote

from etcd_pinwheel.protos import rpcs

MIB = 1024 * 1024
MAX_REQUEST_BYTES = 1572864

RANGES: list[dict[str, Any]] = [
    {},
    {"range_end": b"z"},
    {"key": b"none"},
    {"key": b"\0", "range_end": b"\0"},
    {"key": b"\0", "range_end": b"c"},
    {"key": b"b", "range_end": b"b"},
    {"key": b"b", "range_end": b"a"},
    {"key": b"b", "range_end": b"\0"},
    {"key": b"a", "range_end": b"z", "limit": -1},
    {"key": b"a", "range_end": b"z", "limit": 1},
    {"key": b"a", "range_end": b"z", "limit": 2**63 - 1},
    {"key": b"a", "revision": -1},
    {"key": b"a", "revision": -(2**63)},
    {"key": b"a", "revision": 1},
    {"key": b"a", "revision": Rev(0)},
    {"key": b"a", "revision": Rev(1)},
    {"key": b"a", "revision": Rev(99)},
    {"key": b"a", "revision": 2**63 - 1},
    {"key": b"a", "range_end": b"z", "limit": 1, "count_only": True},
    {"key": b"a", "range_end": b"z", "limit": 1, "keys_only": True},
    {"key": b"a", "range_end": b"z", "keys_only": True, "sort_target": 4, "sort_order": 2},
    {"key": b"a", "range_end": b"z", "keys_only": True, "sort_target": 3, "sort_order": 2},
    {"key": b"a", "range_end": b"z", "keys_only": True, "min_mod_revision": Rev(2)},
    {"key": b"a", "range_end": b"z", "keys_only": True, "count_only": True},
    {"key": b"a", "keys_only": True, "serializable": True},
    *({"key": b"a", "range_end": b"z", "sort_target": target} for target in range(5)),
    *({"key": b"a", "range_end": b"z", "sort_target": t, "limit": 1} for t in range(5)),
    *({"key": b"a", "range_end": b"z", "sort_target": t, "sort_order": 1} for t in range(5)),
    *({"key": b"a", "range_end": b"z", "sort_target": t, "sort_order": 2} for t in range(5)),
    {"key": b"a", "range_end": b"z", "sort_order": 2, "limit": 2},
    {"key": b"a", "range_end": b"z", "sort_order": 3},
    {"key": b"a", "range_end": b"z", "sort_order": -1, "sort_target": 2},
    {"key": b"a", "range_end": b"z", "min_mod_revision": Rev(2), "max_mod_revision": Rev(3)},
    {"key": b"a", "range_end": b"z", "min_create_revision": Rev(2)},
    {"key": b"a", "range_end": b"z", "max_create_revision": Rev(2), "limit": 1},
    {"key": b"a", "range_end": b"z", "min_mod_revision": Rev(99), "count_only": True},
]
PUTS: list[dict[str, Any]] = [
    {},
    {"value": b"1"},
    {"key": b"a"},
    {"key": b"\0", "value": b"\0"},
    {"key": b"k" * 5000, "value": b"long key"},
    {"key": b"a", "prev_kv": True},
    {"key": b"new", "prev_kv": True},
    {"key": b"a", "ignore_value": True},
    {"key": b"a", "ignore_value": True, "value": b"x"},
    {"key": b"new", "ignore_value": True},
    {"key": b"new", "ignore_value": True, "value": b"x"},
    {"key": b"a", "ignore_lease": True, "value": b"x"},
    {"key": b"a", "ignore_lease": True, "lease": 1},
    {"key": b"leased", "ignore_lease": True, "value": b"x"},
    {"key": b"leased", "ignore_value": True},
    {"key": b"new", "ignore_lease": True},
    {"key": b"a", "ignore_lease": True, "ignore_value": True, "prev_kv": True},
    {"key": b"a", "lease": 1},
    {"key": b"a", "lease": 404},
    {"key": b"a", "lease": -1},
    {"key": b"new", "lease": 404, "ignore_value": True},
    {"value": b"x", "ignore_value": True, "ignore_lease": True, "lease": 3},
    {"key": b"a", "value": b"x" * (MAX_REQUEST_BYTES - 1024)},
    {"key": b"a", "value": b"x" * MAX_REQUEST_BYTES},
    {"key": b"a", "value": b"x" * (MAX_REQUEST_BYTES + MIB // 2 - 7)},
    {"key": b"a", "value": b"x" * (MAX_REQUEST_BYTES + MIB // 2)},
    {"key": b"a", "value": b"x" * (8 * MIB)},
]
DELETES: list[dict[str, Any]] = [
    {},
    {"range_end": b"z"},
    {"key": b"a"},
    {"key": b"a", "prev_kv": True},
    {"key": b"none", "prev_kv": True},
    {"key": b"a", "range_end": b"\0", "prev_kv": True},
    {"key": b"b", "range_end": b"a"},
    {"key": b"\0", "range_end": b"\0"},
]

GET: dict[str, Any] = {"request_range": {"key": b"a"}}
PUT: dict[str, Any] = {"request_put": {"key": b"p", "value": b"1"}}
DELETE_ALL: dict[str, Any] = {"request_delete_range": {"key": b"a", "range_end": b"z"}}


def nested(*ops: dict[str, Any], otherwise: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"request_txn": {"success": list(ops), "failure": list(otherwise)}}


def many_puts(count: int) -> list[dict[str, Any]]:
    return [{"request_put": {"key": b"k%d" % number}} for number in range(count)]


TXNS: list[dict[str, Any]] = [
    {},
    {"success": [{}]},
    {"failure": [{}]},
    {"success": [nested({})]},
    {"success": [nested()]},
    {"compare": [{}]},
    {"compare": [{"key": b"a"}]},
    {"compare": [{"target": 3, "value": b""}]},
    {"success": [{"request_put": {}}]},
    {"success": [{"request_range": {}}]},
    {"success": [{"request_delete_range": {}}]},
    {"failure": [{"request_put": {"value": b"x"}}]},
    {"success": [{"request_put": {"key": b"a", "value": b"1", "ignore_value": True}}]},
    {"success": [{"request_put": {"key": b"a", "lease": 1, "ignore_lease": True}}]},
    {"success": [{"request_put": {"key": b"new", "ignore_lease": True}}]},
    {"success": [PUT, {"request_put": {"key": b"new", "ignore_value": True}}]},
    {"success": [PUT, {"request_put": {"key": b"a", "lease": 404}}]},
    {"failure": [{"request_put": {"key": b"a", "lease": 404}}]},
    {"success": [PUT, {"request_range": {"key": b"a", "revision": Rev(99)}}]},
    {"success": [PUT, {"request_range": {"key": b"a", "revision": Rev(-1)}}]},
    {"success": [{"request_range": {"key": b"a", "sort_order": 5}}]},
    {"success": [PUT, GET, PUT]},
    {"success": [PUT, nested(PUT)]},
    {"success": [nested(PUT), nested(PUT)]},
    {"success": [nested(PUT, otherwise=(PUT,))]},
    {"success": [PUT], "failure": [PUT]},
    {"success": [DELETE_ALL, PUT]},
    {"success": [PUT, DELETE_ALL]},
    {"success": [DELETE_ALL, nested(PUT)]},
    {"success": [nested(DELETE_ALL), PUT]},
    {"success": [DELETE_ALL, DELETE_ALL]},
    {"success": [DELETE_ALL, GET]},
    {"success": [PUT, {"request_range": {"key": b"p", "revision": Rev(5)}}, GET]},
    {"success": many_puts(128)},
    {"success": many_puts(129)},
    {"failure": many_puts(129)},
    {"compare": [{"key": b"a", "target": 0, "result": 1, "version": -1}] * 128},
    {"compare": [{"key": b"a", "target": 0, "version": 1}] * 129},
    {"success": [nested(*many_puts(127))]},
    {"success": [nested(*many_puts(128))]},
    {"success": [GET, nested(*many_puts(126))]},
    {"success": [GET, nested(*many_puts(127))]},
    {"success": [nested(nested(nested(PUT, GET), GET), GET), GET]},
    *(
        {"compare": [{"key": b"none", "target": target, "result": result}], "success": [GET]}
        for target in range(5)
        for result in range(4)
    ),
    *(
        {"compare": [{"key": b"x", "range_end": b"y", "target": target, "result": result}]}
        for target in range(5)
        for result in range(4)
    ),
    *(
        {"compare": [{"key": b"a", "range_end": b"z", "target": target, "result": result}]}
        for target in range(5)
        for result in range(4)
    ),
    {"compare": [{"key": b"b", "range_end": b"a", "target": 3, "result": 3}]},
    {"compare": [{"key": b"leased", "target": 4, "lease": 1}]},
    {"compare": [{"key": b"a", "target": 3, "version": 1}]},
    {"compare": [{"key": b"a", "target": 0, "value": b"1"}]},
    {"compare": [{"key": b"a", "target": 9, "result": 9}]},
]

CASES: dict[str, list[dict[str, Any]]] = {
    "Range": RANGES,
    "Put": PUTS,
    "DeleteRange": DELETES,
    "Txn": TXNS,
    "Compact": [
        *({"revision": revision} for revision in (0, 1, -1, Rev(0), Rev(99), 2**63 - 1, -(2**63))),
        *({"revision": Rev(offset), "physical": True} for offset in range(1, 6)),
    ],
    "LeaseGrant": [
        {},
        {"TTL": -1},
        {"TTL": 1},
        {"TTL": 2, "ID": 9},
        {"TTL": 100, "ID": 1},
        {"TTL": 100, "ID": -9},
        {"TTL": 9_000_000_000},
        {"TTL": 9_000_000_001},
        {"TTL": 2**63 - 1, "ID": 9},
        {"TTL": -(2**63), "ID": 9},
    ],
    "LeaseRevoke": [{}, {"ID": 1}, {"ID": 404}, {"ID": -1}],
    "LeaseTimeToLive": [{}, {"ID": 1}, {"ID": 1, "keys": True}, {"ID": 404, "keys": True}],
    "LeaseLeases": [{}],
    "HashKV": [
        *({"revision": revision} for revision in (0, 1, -1, Rev(0), Rev(99), 2**63 - 1)),
        *({"revision": Rev(offset)} for offset in range(1, 6)),
    ],
    "Status": [{}],
    "MemberList": [{}, {"linearizable": True}],
    "Alarm": [
        {},
        {"alarm": 1},
        {"memberID": 404},
        {"action": 1},
        {"action": 2, "alarm": 1},
        {"action": 2, "alarm": 2, "memberID": 404},
    ],
    "Defragment": [{}],
    "AuthStatus": [{}],
    "MoveLeader": [{}, {"targetID": 1}],
    "Downgrade": [
        {},
        {"version": "nonsense"},
        {"version": "3.3.0"},
        {"version": "3.9.0"},
        {"version": "3"},
        {"action": 1},
        {"action": 1, "version": "3.1"},
        {"action": 2},
        {"action": 9},
    ],
    "MemberAdd": [  # what succeeds is in test_membership_changes.py: it would cost the quorum
        {},
        {"isLearner": True},
        {"peerURLs": ["nonsense"]},
        {"peerURLs": ["http://127.0.0.1"], "isLearner": True},
        {"peerURLs": ["http://127.0.0.1:9", ""], "isLearner": True},
    ],
    "MemberRemove": [{}, {"ID": 404}, {"ID": 2**64 - 1}],
    "MemberUpdate": [
        {},
        {"ID": 404},
        {"ID": 404, "peerURLs": ["http://127.0.0.1:9"]},
        {"ID": 404, "peerURLs": ["nonsense"]},
    ],
    "MemberPromote": [{}, {"ID": 404}],
}


SETTING: list[Call] = [
    Call("LeaseGrant", {"ID": 1, "TTL": 1000}),
    Call("Put", {"key": b"a", "value": b"2"}),
    Call("Put", {"key": b"b", "value": b"1"}),
    Call("Put", {"key": b"c", "value": b"3"}),
    Call("Put", {"key": b"b", "value": b"1"}),
    Call("Put", {"key": b"leased", "value": b"0", "lease": 1}),
]


def _name(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)[:60]


@pytest.mark.parametrize(
    ("rpc", "request_fields"),
    [(rpc, fields) for rpc, cases in CASES.items() for fields in cases],
    ids=_name,
)
def test_one_call(pair: Pair, rpc: str, request_fields: dict[str, Any]) -> None:
    look = [Call("Range", EVERYTHING), Call("LeaseLeases", {})]
    Run(pair)([*SETTING, Call(rpc, request_fields), *look], hashes=rpc != "Compact")


@pytest.mark.parametrize("name", ["hasleader", "token", "authorization", "x-anything"])
def test_metadata(pair: Pair, name: str) -> None:
    pair.call(rpcs.KV_PUT, key=b"a", metadata=((name, "true"),))
    pair.call(rpcs.KV_RANGE, key=b"a", metadata=((name, "true"),))


PATHS = ["/etcdserverpb.KV/Nothing", "/etcdserverpb.Nothing/Range", "/nothing", "/a/b/c", "/a/"]
NO_MESSAGES = [b"\xff", b"\x0a\x05a", b"\x0b", b"\x08\xff" + b"\xff" * 20, b"\x00"]


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_method(pair: Pair, path: str) -> None:
    assert pair.call_raw("unknown method", path, b"") != "OK"


@pytest.mark.parametrize("payload", NO_MESSAGES)
def test_what_is_no_message(pair: Pair, payload: bytes) -> None:
    assert pair.call_raw("malformed message", rpcs.KV_RANGE.path, payload).startswith("INTERNAL ")


def test_a_field_nobody_knows_is_ignored(pair: Pair) -> None:
    payload = rpcs.KV_PUT.request(key=b"a").SerializeToString() + b"\xf8\x7f\x01"
    assert pair.call_raw("unknown field", rpcs.KV_PUT.path, payload) == "OK"


def test_a_compressed_request(pair: Pair) -> None:
    payload = rpcs.KV_PUT.request(key=b"a", value=b"x" * 10_000).SerializeToString()
    pair.call_raw("gzip", rpcs.KV_PUT.path, payload, compression=grpc.Compression.Gzip)


def health(side: Remote) -> Any:
    return HealthStub(side.channel)


@pytest.mark.parametrize("service", ["", "etcdserverpb.KV", "nonsense"])
def test_grpc_health(pair: Pair, service: str) -> None:
    asked = health_pb2.HealthCheckRequest(service=service)

    def check(side: Remote) -> str:
        try:
            return str(health(side).Check(asked, timeout=10))
        except grpc.RpcError as error:
            return Outcome.of_error(error).status

    etcd, ours = pair.on_each(check)
    assert etcd == ours


@pytest.mark.parametrize("service", ["", "nonsense"])
def test_grpc_health_watch(pair: Pair, service: str) -> None:
    asked = health_pb2.HealthCheckRequest(service=service)

    def first(side: Remote) -> str:
        stream = health(side).Watch(asked, timeout=10)
        told = str(next(stream))
        stream.cancel()
        return told

    etcd, ours = pair.on_each(first)
    assert etcd == ours
