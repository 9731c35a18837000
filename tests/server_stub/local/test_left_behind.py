"""A program that ends in whatever way leaves no process and no directory of a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.process

WITH = "with LocalCluster({options}) as cluster: tell(cluster); doze()"
FORGOTTEN = "cluster = LocalCluster({options}).start(); tell(cluster)"
PROGRAM = """
import time
from etcd_pinwheel.server_stub.local import LocalCluster

def tell(cluster):
    for member in cluster:
        print(getattr(member, "pid", 0), member.data_dir, flush=True)
    print("told", flush=True)

def doze():
    for _ in range(600):
        time.sleep(0.1)  # in pieces: Python misses a signal that comes just before a sleep

{body}
"""
PATIENCE_SECONDS = 20.0


@pytest.mark.parametrize("options", ["size=2", "size=2, processes=True, partitions=True"])
@pytest.mark.parametrize("body", [WITH, FORGOTTEN], ids=["interrupted", "forgotten"])
def test_nothing_is_left_behind(body: str, options: str) -> None:
    program = PROGRAM.format(body=body.format(options=options))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        told = [line.split() for line in iter(running.stdout.readline, "told\n")]
        assert len(told) == 2
        if body is WITH:
            running.send_signal(signal.SIGINT)
        _, complaints = running.communicate(timeout=PATIENCE_SECONDS)
    assert "KeyboardInterrupt" in complaints if body is WITH else complaints == ""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for pid, directory in told:
        assert not Path(directory).exists()
        while int(pid) and psutil.pid_exists(int(pid)):  # until init has reaped it
            assert time.monotonic() < deadline
            time.sleep(0.01)
