"""What a start does not wait for: a second of three processes is a third of one's imports."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("server_stub.process", {"grpc", "structlog", "rich", "tenacity"}),
        ("server_stub.api.http", {"grpc", "structlog", "prometheus_client"}),
        ("server_stub.local.cluster", {"grpc", "structlog", "lmdb", "BTrees", "hpack"}),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(module: str, heavy: set[str]) -> None:
    program = (
        f"import sys, etcd_pinwheel.{module};"
        f"assert not (loaded := {heavy!r} & set(sys.modules)), loaded"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_its_own_packages_it_says_how_to_install_them() -> None:
    program = (
        "import sys; sys.modules['hpack'] = None;"
        "from etcd_pinwheel.server_stub.__main__ import main; sys.exit(main(['--name=a']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("pip install 'etcd-pinwheel[server]'\n")
    assert "hpack" in done.stderr
    assert "Traceback" not in done.stderr
