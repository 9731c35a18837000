"""The servers that are asked, each a process of its own on loopback, with its data thrown away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from benchmarks.real_etcd import etcd_binary
from benchmarks.report import ROOT
from benchmarks.throughput.contenders import stop
from etcd_pinwheel.server_stub.local import LocalMember

ETCD, OURS, ECHO = "etcd", "etcd-pinwheel", "grpc.aio echo"


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers calls."""

    name: str
    target: str
    """``host:port``."""
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """User and system time so far, all threads."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def machine_cpu_seconds() -> float:
    """How long all cores together have been busy, with whatever, since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


@contextmanager
def etcd() -> Iterator[Server]:
    """Run the real etcd, one member."""
    with LocalMember(binary=etcd_binary()) as member:
        yield Server(ETCD, member.endpoint, psutil.Process(member.pid))


@contextmanager
def ours() -> Iterator[Server]:
    """Run our server, one member."""
    with LocalMember() as member:
        yield Server(OURS, member.endpoint, psutil.Process(member.pid))


@contextmanager
def echo() -> Iterator[Server]:
    """Run the bare grpc.aio server that answers empty calls."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.throughput.echo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Server(ECHO, f"127.0.0.1:{port}", psutil.Process(process.pid))
    finally:
        stop(process)


START: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    ETCD: etcd,
    OURS: ours,
    ECHO: echo,
}
