"""What can be done with a member, whatever it runs in."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack

from .calls import MemberStatus, status_of
from .errors import LocalMemberError
from .ports import HOST, ReservedPorts

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
STATUS_SECONDS: Final = 2.0


class Place(TypedDict, total=False):
    """Where a member is, and which cluster it is of; all of it can be left to us."""

    name: str
    data_dir: Path | None
    """Kept at the end when it is given."""
    ports: ReservedPorts | tuple[int, int] | None
    """For clients and for other members; those that are reserved are released at the end."""
    cluster: str | None
    """``--initial-cluster``; None: this member alone."""
    cluster_state: str
    """``--initial-cluster-state``: ``new`` or ``existing``."""
    client_scheme: str
    peer_scheme: str
    advertised_peer_url: str | None
    """Where other members are told to reach it, if that is not where it listens."""


class AnyMember(ABC):
    """One member with its ports and its directory; a context manager. Not thread-safe.

    ``flags`` are etcd's, and come after (so win over) those that are made here.
    """

    def __init__(self, *flags: str, **place: Unpack[Place]) -> None:
        self.name = place.get("name", "default")
        self.flags = flags
        ports = place.get("ports") or ReservedPorts(2)
        self._reserved = ports if isinstance(ports, ReservedPorts) else None
        self.client_port, self.peer_port = ports if isinstance(ports, tuple) else ports.numbers
        self._cluster = place.get("cluster")
        self._cluster_state = place.get("cluster_state", "new")
        self._client_scheme = place.get("client_scheme", "http")
        self._peer_scheme = place.get("peer_scheme", "http")
        self._advertised_peer_url = place.get("advertised_peer_url")
        self._remove_directory: Callable[[], object] | None = None
        self.data_dir = place.get("data_dir") or self._new_directory()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self.endpoint}>"

    # What it is.

    @property
    def endpoint(self) -> str:
        """Where clients reach it, as host:port."""
        return f"{HOST}:{self.client_port}"

    @property
    def client_url(self) -> str:
        """Where clients reach it, as a URL."""
        return f"{self._client_scheme}://{self.endpoint}"

    @property
    def listen_peer_url(self) -> str:
        """Where it listens for other members."""
        return f"{self._peer_scheme}://{HOST}:{self.peer_port}"

    @property
    def peer_url(self) -> str:
        """Where other members reach it."""
        return self._advertised_peer_url or self.listen_peer_url

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether it runs (a paused one does)."""

    @property
    @abstractmethod
    def output(self) -> str:
        """The last that it said of itself: its logs, as far as they were kept."""

    def status(self, timeout_seconds: float = STATUS_SECONDS) -> MemberStatus:
        """Ask it for its view of the cluster; raises ``CallFailed``."""
        return status_of(self.endpoint, timeout_seconds)

    # What one does with it.

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Self:
        """Start it and wait until it serves; raises ``LocalMemberError``."""
        self.launch()
        self.wait_until_ready()
        return self

    @abstractmethod
    def launch(self) -> None:
        """Start it and do not wait; ``wait_until_ready`` does."""

    def wait_until_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until it serves; kills it and raises ``LocalMemberError`` if that does not come."""
        if not self.is_ready_in(timeout_seconds):
            raise self.given_up(f"was not ready in {timeout_seconds} s")

    @abstractmethod
    def is_ready_in(self, timeout_seconds: float) -> bool:
        """Wait until it serves; False when it ended or takes longer, and nothing is done then."""

    @abstractmethod
    def given_up(self, reason: str) -> LocalMemberError:
        """Kill it, and return what to raise: ``reason``, unless it had ended for its own."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once and without warning; a member that has ended stays ended."""

    @abstractmethod
    def stop(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """End it in good order; returns the exit code.

        Raises ``LocalMemberError`` when it takes longer than ``timeout_seconds`` (and kills it).
        """

    @abstractmethod
    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for it to end by itself; returns the exit code.

        Raises ``LocalMemberError`` when it takes longer than ``timeout_seconds``.
        """

    @abstractmethod
    def pause(self) -> None:
        """Hold it still: it keeps its ports and connections, and does nothing."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on after ``pause``."""

    def restart(self) -> Self:
        """Start it again on its ports and directory, after stopping it if it runs."""
        if self.is_alive:
            self.stop()
        return self.start()

    def close(self) -> None:
        """Kill it, give up its ports and remove its directory, if that was made here."""
        try:
            self.kill()
        finally:
            if self._reserved is not None:
                self._reserved.release()
            if self._remove_directory is not None:
                self._remove_directory()

    # For those that are one.

    def command_line(self) -> Sequence[str]:
        """The flags that it is started with."""
        return (
            f"--name={self.name}",
            f"--data-dir={self.data_dir / 'data'}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.listen_peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self._cluster or f'{self.name}={self.peer_url}'}",
            f"--initial-cluster-state={self._cluster_state}",
            *self.flags,
        )

    def _new_directory(self) -> Path:
        """Make a directory that is removed at the end, also of a member that nobody closes."""
        directory = Path(tempfile.mkdtemp(prefix="etcd-pinwheel-"))
        self._remove_directory = weakref.finalize(
            self, shutil.rmtree, directory, ignore_errors=True
        )
        return directory

    def _move(self) -> None:
        """Take other ports, before anybody was told of those that there are."""
        assert self._reserved is not None
        self._reserved.release()
        self._reserved = ReservedPorts(2)
        self.client_port, self.peer_port = self._reserved.numbers
