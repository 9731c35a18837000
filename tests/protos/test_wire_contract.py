"""The .proto files say what etcd's say: every message, field number, enum, RPC."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from etcd_pinwheel.protos import _pool, etcdserverpb, mvccpb, rpcs

CONTRACT = json.loads((Path(__file__).parents[1] / "data" / "etcd-wire-contract.json").read_text())
TYPE_NAMES = [
    f"TYPE_{kind}"
    for kind in ["BOOL", "BYTES", "ENUM", "INT64", "MESSAGE", "STRING", "UINT32", "UINT64"]
]
PACKAGES = sorted({name.split(".")[0] for name in CONTRACT["messages"]})


def our_messages() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}

    def visit(message: Descriptor) -> None:
        found[message.full_name] = message
        for nested in message.nested_types:
            visit(nested)

    for package in PACKAGES:
        for message in _pool.names_of(package)["DESCRIPTOR"].message_types_by_name.values():
            visit(message)
    return found


def our_enums() -> dict[str, EnumDescriptor]:
    found = {
        enum.full_name: enum
        for package in PACKAGES
        for enum in _pool.names_of(package)["DESCRIPTOR"].enum_types_by_name.values()
    }
    for message in our_messages().values():
        found.update({enum.full_name: enum for enum in message.enum_types})
    return found


def as_contract(field: FieldDescriptor) -> dict[str, Any]:
    kinds = {getattr(FieldDescriptor, name): name for name in TYPE_NAMES}
    row: dict[str, Any] = {
        "name": field.name,
        "number": field.number,
        "type": kinds[field.type].removeprefix("TYPE_").lower(),
    }
    if field.message_type:
        row["type_name"] = field.message_type.full_name
    if field.enum_type:
        row["type_name"] = field.enum_type.full_name
    if field.is_repeated if hasattr(field, "is_repeated") else field.label == 3:
        row["repeated"] = True
    if field.containing_oneof:
        row["oneof"] = field.containing_oneof.name
    return row


def test_the_contract_is_whole() -> None:
    assert len(CONTRACT["messages"]) == 143
    assert len(CONTRACT["services"]) == 8
    assert sum(map(len, CONTRACT["services"].values())) == 49


def test_messages_are_exactly_those_of_the_contract() -> None:
    assert set(our_messages()) == set(CONTRACT["messages"])


@pytest.mark.parametrize("name", sorted(CONTRACT["messages"]))
def test_fields(name: str) -> None:
    def by_number(row: dict[str, Any]) -> int:
        return int(row["number"])

    ours = sorted(map(as_contract, our_messages()[name].fields), key=by_number)
    assert ours == sorted(CONTRACT["messages"][name], key=by_number)


def test_enums() -> None:
    ours = {name: {v.name: v.number for v in enum.values} for name, enum in our_enums().items()}
    assert ours == CONTRACT["enums"]


def test_rpcs() -> None:
    ours = {
        rpc.path: (
            rpc.request.DESCRIPTOR.full_name,
            rpc.reply.DESCRIPTOR.full_name,
            rpc.client_streaming,
            rpc.server_streaming,
        )
        for rpc in rpcs.ALL
    }
    theirs = {
        f"/{service}/{name}": (
            row["request"],
            row["response"],
            row["client_streaming"],
            row["server_streaming"],
        )
        for service, methods in CONTRACT["services"].items()
        for name, row in methods.items()
    }
    assert ours == theirs


def test_an_rpc_knows_its_own_name() -> None:
    assert rpcs.KV_RANGE_STREAM.name == "RangeStream"


MESSAGES = [
    etcdserverpb.TxnRequest,
    etcdserverpb.RangeResponse,
    etcdserverpb.WatchRequest,
    etcdserverpb.InternalRaftRequest,
    mvccpb.KeyValue,
]


@settings(max_examples=300)
@given(st.sampled_from(MESSAGES), st.binary(max_size=200))
def test_decoders_meet_garbage_with_a_message_or_a_decode_error(message: Any, data: bytes) -> None:
    try:
        decoded = message.FromString(data)
    except DecodeError:
        return
    assert message.FromString(decoded.SerializeToString()) == decoded
