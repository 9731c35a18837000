"""What a user installs: every room, the typed stubs, the descriptors, and no test."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=100,
    )
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "py.typed",
        "client/__init__.py",
        "balancers/round_robin.py",
        "protos/descriptors.binpb",
        "protos/etcdserverpb.proto",
        "protos/etcdserverpb.pyi",
        "server_stub/__main__.py",
        "server_stub/mvcc/store.py",
    ],
)
def test_the_wheel_holds_every_room(wheel_names: set[str], name: str) -> None:
    assert f"etcd_pinwheel/{name}" in wheel_names


@pytest.mark.slow
def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel_names: set[str]) -> None:
    rooms = ("client", "balancers", "protos", "server_stub")
    sources = {
        f"etcd_pinwheel/{path.relative_to(ROOT)}"
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
    }
    assert sources <= wheel_names
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"etcd_pinwheel"}
    assert not [name for name in wheel_names if Path(name).name.startswith(("test_", "conftest"))]
