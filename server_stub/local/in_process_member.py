"""A member that shares this process, and an event loop of it, with others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from .any_member import STOP_SECONDS, AnyMember, Place
from .errors import LocalMemberError
from .loop_thread import LoopThread

if TYPE_CHECKING:
    from ..config import Settings
    from ..server import Server

GRACE_SECONDS: Final = 3.0
"""For calls in flight at ``stop``, as a process gives them."""


_SERVER: Final = __name__.partition(".local.")[0]
logging.getLogger(_SERVER).addHandler(logging.NullHandler())
# What a server complains of while its neighbours start is for those who have asked for logs.


class InProcessMember(AnyMember):
    """One of our members, running in the event loop ``loop``; starts fast and is easy to debug.

    It is a whole member: real ports, real files. But it shares a thread with its neighbours, so
    that it cannot be paused, and it is killed by being forgotten: see :meth:`kill`.
    """

    def __init__(
        self,
        loop: LoopThread,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        **place: Unpack[Place],
    ) -> None:
        super().__init__(*flags, **place)
        self._loop = loop
        self._environment = environment or {}
        self._life: _Life | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is about to."""
        return self._life is not None and not self._life.ended.done()

    @property
    def output(self) -> str:
        """What it failed of. Its logs go where those of this process go."""
        return str(self._life.failure or "") if self._life is not None else ""

    def launch(self) -> None:
        """Start it and do not wait; ``wait_until_ready`` does."""
        from ..config import FlagError, parse

        if self.is_alive:
            raise LocalMemberError(f"member {self.name} runs already")
        try:
            settings = parse(self.command_line(), self._environment)
        except FlagError as error:
            raise LocalMemberError(f"member {self.name} was not started: {error}") from error
        self._life = _Life(self._loop, settings)

    def is_ready_in(self, timeout_seconds: float) -> bool:
        """Wait until it serves; False when it ended or takes longer, and nothing is done then."""
        return self._started().is_ready_in(timeout_seconds)

    def given_up(self, reason: str) -> LocalMemberError:
        """Kill it, and return what to raise: ``reason``, unless it had ended for its own."""
        life = self._started()
        if life.ended.done():
            reason = f"did not start: {life.failure!r}"
        self.kill()
        error = LocalMemberError(f"member {self.name} {reason}")
        error.__cause__ = life.failure
        return error

    def kill(self) -> None:
        """End it at once; a member that has ended stays ended.

        Nothing more is written or sent, and connections are dropped. What the operating system had
        is kept, as after SIGKILL; what the member still held in memory is lost.
        """
        if self._life is not None:
            self._life.abandon()

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """End it in good order; returns 0, or 1 if it failed.

        Raises ``LocalMemberError`` when it takes longer than ``timeout_seconds`` (and kills it).
        """
        self._started().stop()
        try:
            return self.wait(timeout_seconds)
        except LocalMemberError:
            self.kill()
            raise

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for it to end by itself; returns 0, or 1 if it failed.

        Raises ``LocalMemberError`` when it takes longer than ``timeout_seconds``.
        """
        life = self._started()
        concurrent.futures.wait({life.ended}, timeout_seconds)
        if not life.ended.done():
            raise LocalMemberError(f"member {self.name} did not end in {timeout_seconds} s")
        return 0 if life.failure is None else 1

    def pause(self) -> None:
        """Refuse: who shares a thread cannot stand still alone. Raises ``LocalMemberError``."""
        raise LocalMemberError(
            f"member {self.name} shares its thread with others and cannot be paused:"
            " say processes=True, or cut it off by isolate()"
        )

    def resume(self) -> None:
        """Do nothing: it was never paused."""

    def _started(self) -> _Life:
        if self._life is None:
            raise LocalMemberError(f"member {self.name} was never started")
        return self._life


class _Life:
    """One run of a member, from its start to its end."""

    def __init__(self, loop: LoopThread, settings: Settings) -> None:
        self._loop = loop
        self._stop = asyncio.Event()
        self._is_abandoned = False
        self._server: Server | None = None
        self._news = threading.Event()
        self._is_ready = False
        self.ended = loop.spawn(self._run(settings))
        self.ended.add_done_callback(lambda _: self._news.set())

    @property
    def failure(self) -> BaseException | None:
        """Why it ended, if not because it was told to."""
        if not self.ended.done() or self.ended.cancelled():
            return None
        return self.ended.exception()

    def is_ready_in(self, timeout_seconds: float) -> bool:
        self._news.wait(timeout_seconds)
        return self._is_ready

    def stop(self) -> None:
        """Ask it to end in good order."""
        self._loop.call(self._stop.set)

    def abandon(self) -> None:
        """End it as a killed process ends, and wait until it is over."""
        if not self.ended.done():
            self._loop.call(self._abandon)
            concurrent.futures.wait({self.ended})

    def _abandon(self) -> None:
        self._is_abandoned = True
        self._stop.set()

    async def _run(self, settings: Settings) -> None:
        from ..server import Server

        server = Server(settings)
        if not await self._unless_stopped(server.start()):
            return
        self._is_ready = True
        self._news.set()
        try:
            await self._unless_stopped(server.failed())
        finally:
            if self._is_abandoned:
                await server.abandon()
            else:
                await server.stop(GRACE_SECONDS)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Carry out ``work``, and call it off when told to stop; whether it came to its end."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.wait({working, stopping})
        if working.cancelled():
            return False
        working.result()
        return True
