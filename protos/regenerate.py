"""Compile the .proto files: descriptors.binpb, the typed modules, and rpcs.py.

    python protos/regenerate.py            write them
    python protos/regenerate.py --check    exit 1 and name what is out of date

Needs grpcio-tools (the ``dev`` extra); users of the package never do.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
IMPORT_ROOT = "etcd_pinwheel/protos"

MODULE = '''"""Messages of package {package}; see {package}.proto and the stub beside this file."""

from ._pool import names_of

globals().update(names_of("{package}"))
'''

RPCS_HEAD = '''"""Every RPC of the API, with path and types; regenerate.py writes this file."""

from __future__ import annotations

from typing import Final

{imports}
'''


def main() -> int:
    generated = _generate()
    if sys.argv[1:] == ["--check"]:
        stale = [
            name
            for name, content in generated.items()
            if not (HERE / name).is_file() or (HERE / name).read_bytes() != content
        ]
        for name in stale:
            print(f"{name} is out of date: run python protos/regenerate.py")
        return 1 if stale else 0
    for name, content in generated.items():
        (HERE / name).write_bytes(content)
    return 0


def _generate() -> dict[str, bytes]:
    """File name in this folder -> what it should hold."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        package = root / "in" / IMPORT_ROOT
        package.mkdir(parents=True)
        sources = sorted(HERE.glob("*.proto"))
        for source in sources:
            (package / source.name).write_bytes(source.read_bytes())
        compiled = root / "descriptors.binpb"
        (root / "out").mkdir()
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={root / 'in'}",
                f"--descriptor_set_out={compiled}",
                f"--pyi_out={root / 'out'}",
                *(f"{IMPORT_ROOT}/{source.name}" for source in sources),
            ]
        )
        if status:
            raise SystemExit(status)
        descriptors = FileDescriptorSet.FromString(compiled.read_bytes())
        generated = {"descriptors.binpb": descriptors.SerializeToString(deterministic=True)}
        for source in sources:
            name = source.stem
            stub = (root / "out" / IMPORT_ROOT / f"{name}_pb2.pyi").read_text()
            generated[f"{name}.pyi"] = _as_our_module(stub).encode()
            generated[f"{name}.py"] = MODULE.format(package=name).encode()
        generated["rpcs.py"] = _rpcs(list(descriptors.file)).encode()
        return generated


def _as_our_module(stub: str) -> str:
    """A protoc stub, with the imports of our modules in place of ``*_pb2`` ones."""
    stub = re.sub(
        r"from etcd_pinwheel\.protos import (\w+)_pb2 as \w+", r"from . import \1 as _\1", stub
    )
    stub = re.sub(r"(_\w+)_pb2\b", r"\1", stub)
    return stub.replace("_Mapping]", "_Mapping[str, object]]").replace(
        "**kwargs)", "**kwargs: object)"
    )


def _rpcs(compiled: list[FileDescriptorProto]) -> str:
    rows: list[str] = []
    types: dict[str, set[str]] = {"rpc": {"Rpc"}}

    def local(full_name: str) -> str:
        package, name = full_name.lstrip(".").split(".", 1)
        types.setdefault(package, set()).add(name)
        return name

    for file in compiled:
        for service in file.service:
            rows.append(f"\n# {file.package}.{service.name}")
            for method in service.method:
                name = f"{_constant(service.name)}_{_constant(method.name)}"
                request, reply = local(method.input_type), local(method.output_type)
                rows.append(
                    f"{name}: Final = Rpc(\n"
                    f'    "/{file.package}.{service.name}/{method.name}",\n'
                    f"    {request},\n    {reply},\n"
                    f"    client_streaming={method.client_streaming},\n"
                    f"    server_streaming={method.server_streaming},\n)"
                )
    imports = "\n".join(
        f"from .{package} import (\n"
        + "".join(f"    {name},\n" for name in sorted(names, key=str.lower))
        + ")"
        for package, names in sorted(types.items())
    )
    names = [row.split(":")[0] for row in rows if not row.startswith("\n")]
    table = "ALL: Final = (\n" + "".join(f"    {name},\n" for name in names) + ")"
    return RPCS_HEAD.format(imports=imports) + "\n".join([*rows, "", table, ""])


def _constant(name: str) -> str:
    """``LeaseKeepAlive`` -> ``LEASE_KEEP_ALIVE``; ``KV`` and ``HashKV`` keep their KV whole."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


if __name__ == "__main__":
    sys.exit(main())
