"""Our messages live beside those of any other package, and need no protoc at run time."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from etcd_pinwheel.protos import etcdserverpb, rpcs

ROOT = Path(__file__).parents[2]


def test_nothing_of_ours_is_in_the_default_pool() -> None:
    assert rpcs.ALL  # imported
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("etcd_pinwheel/protos/etcdserverpb.proto")


def test_another_etcdserverpb_can_register_after_ours() -> None:
    """In a child process, for the default pool is one per process."""
    code = """
from etcd_pinwheel.protos import etcdserverpb
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
file = descriptor_pb2.FileDescriptorProto(name="rpc.proto", package="etcdserverpb", syntax="proto3")
message = file.message_type.add(name="RangeRequest")
message.field.add(name="key", number=1, type=12, label=1)
pool = descriptor_pool.Default()
pool.AddSerializedFile(file.SerializeToString())
theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName("etcdserverpb.RangeRequest"))
ours = etcdserverpb.RangeRequest(key=b"k", limit=3)
assert theirs is not type(ours)
assert theirs.FromString(ours.SerializeToString()).key == b"k"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_etcd3aio_in_the_same_process() -> None:
    """The very package, really installed; it registers rpc.proto as etcdserverpb."""
    pytest.importorskip("etcd3aio", reason="comes with the dev extra")
    code = """
import sys
order = sys.argv[1]
if order == "ours first":
    from etcd_pinwheel.protos import etcdserverpb
    import etcd3aio
else:
    import etcd3aio
    from etcd_pinwheel.protos import etcdserverpb
from google.protobuf import descriptor_pool
theirs = descriptor_pool.Default().FindMessageTypeByName("etcdserverpb.PutRequest")
assert etcdserverpb.PutRequest.DESCRIPTOR is not theirs
assert etcdserverpb.PutRequest.FromString(b"\\n\\x01k").key == b"k"
"""
    for order in ("ours first", "theirs first"):
        subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", code, order], check=True, timeout=60
        )


def test_generated_files_are_up_to_date() -> None:
    pytest.importorskip("grpc_tools", reason="regeneration needs grpcio-tools")
    check = subprocess.run(
        [sys.executable, ROOT / "protos" / "regenerate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_messages_carry_what_a_user_expects_of_a_message_class() -> None:
    request = etcdserverpb.RangeRequest(key=b"k", sort_order=etcdserverpb.RangeRequest.DESCEND)
    assert request == etcdserverpb.RangeRequest.FromString(request.SerializeToString())
    assert request.DESCRIPTOR.full_name == "etcdserverpb.RangeRequest"
