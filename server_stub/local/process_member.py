"""A member in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, Unpack

from .any_member import STOP_SECONDS, AnyMember, Place
from .errors import LocalMemberError
from .output import Output

_START_ATTEMPTS: Final = 3
_PORT_TAKEN: Final = "address already in use"


class LocalMember(AnyMember):
    """One member in a process of its own: ours, or the etcd whose program is ``binary``.

    ``environment`` is added to the variables of this process, of which those that etcd would take
    for flags are left out. See :class:`AnyMember` for the rest.
    """

    def __init__(
        self,
        *flags: str,
        binary: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        **place: Unpack[Place],
    ) -> None:
        super().__init__(*flags, **place)
        self._command = [str(binary)] if binary is not None else _our_command()
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._output: Output | None = None
        self._is_paused = False

    @property
    def pid(self) -> int:
        """The process that runs now, or ran last."""
        return self._started().pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the process that ran last: negative for a signal, None while it runs."""
        return self._started().poll()

    @property
    def output(self) -> str:
        """The last lines that the process wrote, to either stream."""
        return self._output.text if self._output is not None else ""

    def start(self) -> Self:
        """Start it and wait until it serves; raises ``LocalMemberError``.

        When somebody took its free ports before it could, a new member gets others.
        """
        may_move = self._reserved is not None and self._advertised_peer_url is None
        may_move &= not (self.data_dir / "data").exists() and self._cluster is None
        for _ in range(_START_ATTEMPTS - 1):
            try:
                return super().start()
            except LocalMemberError:
                if not may_move or _PORT_TAKEN not in self.output.lower():
                    raise
            shutil.rmtree(self.data_dir / "data", ignore_errors=True)
            self._move()
        return super().start()

    def launch(self) -> None:
        """Start the process and do not wait; ``wait_until_ready`` does."""
        if self.is_alive:
            raise LocalMemberError(f"member {self.name} runs already")
        inherited = {key: value for key, value in os.environ.items() if not _is_flag(key)}
        self._process = subprocess.Popen(
            [*self._command, *self.command_line()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**inherited, **self._environment},
        )
        assert self._process.stdout is not None
        self._output = Output(self._process.stdout)
        self._end_if_forgotten = weakref.finalize(self, _end, self._process)
        self._is_paused = False

    def is_ready_in(self, timeout_seconds: float) -> bool:
        """Wait for the line that says it serves; False when it ended or takes longer."""
        assert self._output is not None
        return self._output.is_ready_in(timeout_seconds)

    def given_up(self, reason: str) -> LocalMemberError:
        """Kill it, and return what to raise: ``reason``, unless it had ended for its own."""
        assert self._output is not None
        if self._output.ended.is_set() or not self.is_alive:
            reason = f"ended with exit code {self._started().wait()}"
        self.kill()
        return LocalMemberError(f"member {self.name} {reason}; its output:\n{self.output}")

    def kill(self) -> None:
        """End it by SIGKILL; a member that has ended stays ended."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """End it by SIGTERM, in good order; returns the exit code.

        Raises ``LocalMemberError`` when it takes longer than ``timeout_seconds`` (and kills it).
        """
        process = self._started()
        self.resume()
        process.terminate()
        try:
            return self.wait(timeout_seconds)
        except LocalMemberError:
            self.kill()
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._started().send_signal(number)

    def pause(self) -> None:
        """Hold it still by SIGSTOP: it keeps its ports and connections, and does nothing.

        Returns when every thread of it stands still (on systems that tell: all but older macOS).
        """
        self.signal(signal.SIGSTOP)
        self._is_paused = True
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        if self._is_paused and self.is_alive:
            self.signal(signal.SIGCONT)
        self._is_paused = False

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for it to end by itself; returns the exit code.

        Raises ``LocalMemberError`` when it takes longer than ``timeout_seconds``.
        """
        try:
            code = self._started().wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise LocalMemberError(
                f"member {self.name} did not end in {timeout_seconds} s; its output:\n{self.output}"
            ) from None
        self._reap()
        return code

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise LocalMemberError(f"member {self.name} was never started")
        return self._process

    def _reap(self) -> None:
        self._started().wait()
        assert self._output is not None
        self._output.join()
        self._end_if_forgotten.detach()


def _end(process: subprocess.Popen[str]) -> None:
    """End the process of a member that nobody has closed, or that the interpreter leaves behind."""
    process.kill()
    process.wait()


def _our_command() -> list[str]:
    return [sys.executable, "-m", __name__.partition(".local.")[0]]


def _is_flag(variable: str) -> bool:
    return variable.startswith("ETCD_")
