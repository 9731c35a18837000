"""Other Python clients of etcd, each in a virtual environment of its own.

They cannot share ours: python-etcd3's generated code needs a protobuf that is years older. An
environment is made when it is first asked for, under ``.venvs/``, with the grpcio that we measure
ourselves with, so that a ratio tells of the clients and not of two releases of grpcio.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import grpc

ENVIRONMENTS = Path(__file__).resolve().parents[1] / ".venvs"


@dataclass(frozen=True, slots=True)
class Peer:
    """A client to compare with: its distribution and what must be installed beside it."""

    name: str
    """As people say it, and as tables show it."""
    distribution: str
    requirements: tuple[str, ...]


PYTHON_ETCD3 = Peer("python-etcd3", "etcd3", ("etcd3==0.12.0", "protobuf==3.20.3"))
"""3.20 is the newest protobuf that loads its generated code; no wheel of it has C code for
Python 3.11, so that it runs on the pure-Python implementation, as it does for its users."""
AETCD = Peer("aetcd", "aetcd", ("aetcd==1.0.0",))
ETCD3AIO = Peer("etcd3aio", "etcd3aio", ("etcd3aio==0.3.0",))

PYTHON_ETCD3_MASTER = Peer(
    "python-etcd3 (master)", "etcd-sdk-python", ("etcd-sdk-python==0.0.7", "protobuf")
)
"""python-etcd3's master was never released; this is it, under another name."""
ETCD_CLIENT_PY = Peer("etcd-client-py", "etcd-client-py", ("etcd-client-py==0.5.1",))


class PeerUnavailable(Exception):
    """A peer's environment could not be made; the text says why."""


def interpreter(peer: Peer) -> Path:
    """Return the Python that can import the peer, after making its environment if need be.

    Raises :class:`PeerUnavailable` when the package index does not give it to us.
    """
    home = ENVIRONMENTS / peer.distribution
    python = home / "bin" / "python"
    requirements = [*peer.requirements, f"grpcio=={grpc.__version__}"]
    recipe = "\n".join([sys.version, *requirements])
    made_from = home / "made-from.txt"
    if python.exists() and made_from.exists() and made_from.read_text() == recipe:
        return python
    try:
        venv.create(home, clear=True, with_pip=True)
        install(python, requirements)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(home, ignore_errors=True)
        raise PeerUnavailable(f"{peer.name}: {reason(error)}") from error
    made_from.write_text(recipe)
    return python


def install(python: Path, requirements: list[str]) -> None:
    """Install from the package index into the environment of ``python``."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True, timeout=300)


def reason(error: Exception) -> str:
    """Say in one line why an environment could not be made."""
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.stderr or error.stdout or "").strip().splitlines()
        return said[-1] if said else str(error)
    return str(error)
