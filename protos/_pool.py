"""The private descriptor pool that every message class of this package comes from.

Why private: protobuf's default pool is one per process, and two packages that both register
``etcdserverpb`` (python-etcd3, etcd3aio, ...) cannot share it. Why a compiled descriptor set
rather than generated modules: those check the runtime's version against protoc's at import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass


def _load() -> tuple[DescriptorPool, dict[str, str]]:
    compiled = FileDescriptorSet.FromString(
        Path(__file__).with_name("descriptors.binpb").read_bytes()
    )
    pool = DescriptorPool()
    for file in compiled.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool, {file.package: file.name for file in compiled.file}


POOL, _FILE_OF_PACKAGE = _load()


def names_of(package: str) -> dict[str, Any]:
    """The module contents of one protobuf package: message classes, enums and their values."""
    file = POOL.FindFileByName(_FILE_OF_PACKAGE[package])
    names: dict[str, Any] = {}
    for name, message in file.message_types_by_name.items():
        names[name] = GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        names[name] = EnumTypeWrapper(enum)
        names.update((value.name, value.number) for value in enum.values)
    names["DESCRIPTOR"] = file
    return names
