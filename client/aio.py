"""The world of asyncio: steps are awaited, on the one event loop that the client is bound to."""

from __future__ import annotations

import asyncio
import time
import weakref
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from ..protos.errors import Code
from ..protos.etcdserverpb import StatusRequest
from ..protos.rpcs import MAINTENANCE_STATUS
from .blocking import ASK_SECONDS, STATES
from .channels import call_failed, connect_failure
from .config import Config
from .connections import Connections, Link, LinkState
from .discovery import Discovery
from .endpoints import EndpointLike
from .errors import WrongEventLoop, raise_as_misuse
from .flow import LINK_CLOSED, AwaitChange, CallFailed, Flow, LookUp, Send, Sleep, Step
from .roster import Roster
from .world import LinkChanged

T = TypeVar("T")

UNWATCHED_SECONDS = 0.5
"""How long closing waits for grpc to tell a channel's watcher of the end."""

ANOTHER_LOOP = "this AsyncClient was first used on another event loop; each loop needs its own"

UNREADABLE = "the answer is not a message of the expected type"


class AsyncioWorld:
    """Channels of ``grpc.aio``, and a driver for the tasks of one event loop."""

    def __init__(self, config: Config) -> None:
        self.roster = Roster(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: Connections
        """Set by the client: the two are made for each other."""
        self.discovery: Discovery
        self._discovering: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Bind to the running loop and start connecting, unless that was done before.

        Raises WrongEventLoop when it was done on another loop.
        """
        self.connections.check_open()
        loop = get_running_loop()
        if self._loop is None:
            self.roster.begin(self.connections)
            self._loop = loop  # after that, for what raises is to be done again
            if self.discovery.runs_by_itself:
                self._discovering = self._background(self.run(self.discovery.in_background()))
        elif self._loop is not loop:
            raise WrongEventLoop(ANOTHER_LOOP)

    def set_endpoints(self, given: EndpointLike | Iterable[EndpointLike]) -> None:
        """Serve from these from now on. Raises ConfigError, ClientClosed, WrongEventLoop."""
        self.connections.check_open()
        if self._loop is not None and self._loop is not _loop_here():
            raise WrongEventLoop(ANOTHER_LOOP)
        self.roster.change(given, "set")

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end."""
        try:
            if self._loop is not get_running_loop():
                self.begin()
            try:
                step = next(flow)
            except (TypeError, ValueError) as error:
                raise_as_misuse(error)
            while True:
                try:
                    if type(step) is Send:
                        link, rpc, request, timeout_seconds, metadata = step
                        outcome = await link.callables[rpc](
                            request, timeout=timeout_seconds, metadata=metadata
                        )
                        if outcome is None:  # how grpc.aio says that it is no such message
                            raise CallFailed(Code.INTERNAL, UNREADABLE)
                    else:
                        outcome = await self._wait(step)
                except BaseException as error:
                    step = flow.throw(self._translate(error))
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _translate(self, error: BaseException) -> BaseException:
        """Turn what grpc.aio raises into what a flow is thrown."""
        if isinstance(error, grpc.RpcError):
            failed = call_failed(error)
        elif isinstance(error, grpc.aio.UsageError):  # the channel was closed meanwhile
            failed = CallFailed(Code.UNAVAILABLE, LINK_CLOSED)
        elif isinstance(error, asyncio.CancelledError) and self._closed_under_call():
            failed = CallFailed(Code.CANCELLED, "the connection was closed")
        elif isinstance(error, KeyError):  # how older grpc.aio takes a code that it does not know
            failed = CallFailed(Code.UNKNOWN, f"an unknown status code: {error}")
        else:
            return error
        failed.__cause__ = error
        return failed

    @staticmethod
    def _closed_under_call() -> bool:
        """Tell a call that ended with its channel from a task that is being cancelled."""
        task = asyncio.current_task()
        return task is not None and not task.cancelling()

    async def _wait(self, step: Step) -> Any:
        match step:
            case LookUp(resolver, name):
                return await asyncio.to_thread(resolver, name)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case AwaitChange(seen_version, seconds):
                changed = get_running_loop().create_future()

                def wake() -> None:
                    if not changed.done():
                        changed.set_result(None)

                self.connections.when_changed(seen_version, wake)
                try:
                    await asyncio.wait((changed,), timeout=seconds)
                finally:
                    self.connections.forget(wake)
        return None

    def open(self, link: Link, changed: weakref.WeakMethod[LinkChanged]) -> None:
        setup = self.roster.setup(link.endpoint)
        if setup.credentials is None:
            link.channel = grpc.aio.insecure_channel(setup.target, setup.options)
        else:
            link.channel = grpc.aio.secure_channel(setup.target, setup.credentials, setup.options)
        link.watcher = self._background(_watch(link, changed))

    def close(self, link: Link) -> None:
        channel, link.channel = link.channel, None
        link.callables.clear()
        if channel is not None:  # its watcher ends by itself, when grpc tells it of the end
            self._background(channel.close(None))

    async def close_all(self, links: list[Link]) -> None:
        """Close the links' channels, and wait until all that ran in the background has ended.

        Whoever is cancelled has it end by itself; called again, it waits for that.
        """
        watchers = [link.watcher for link in links if link.channel is not None]
        for link in links:
            self.close(link)
        try:
            if watchers:
                await asyncio.wait(watchers, timeout=UNWATCHED_SECONDS)
        finally:
            for watcher in watchers:
                watcher.cancel()
        while others := self._tasks - {asyncio.current_task()}:
            ended, _ = await asyncio.wait(others)
            for task in ended:
                if not task.cancelled():
                    task.exception()  # for which nobody else is going to ask

    def stop(self) -> None:
        """End what runs in the background beside the channels."""
        self._cancel_timer()
        if self._discovering is not None:
            self._discovering.cancel()

    def abandon(self) -> None:
        """Have that end which would outlive a client that nobody has closed."""
        if self._discovering is not None and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._discovering.cancel)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None:
        self._cancel_timer()
        delay = max(0.0, moment - time.monotonic())
        self._timer = get_running_loop().call_later(delay, wake)

    def spawn(self, flow: Flow[T], then: Callable[[T], None]) -> None:
        async def run() -> None:
            then(await self.run(flow))

        self._background(run())

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _loop_here() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if any."""
    try:
        return get_running_loop()
    except RuntimeError:
        return None


async def _watch(link: Link, changed: weakref.WeakMethod[LinkChanged]) -> None:
    """Tell a channel's states for as long as the client lives."""
    channel: grpc.aio.Channel = link.channel
    try:
        while (report := changed()) is not None and link.channel is not None:
            connectivity = channel.get_state(try_to_connect=True)
            state = STATES[connectivity]
            report(link, state, "")
            if state is LinkState.FAILING and (reason := await _ask_why(link)):
                report(link, state, reason)
            del report
            await channel.wait_for_state_change(connectivity)
    except grpc.aio.UsageError:  # closed meanwhile
        return


async def _ask_why(link: Link) -> str | None:
    """Learn why a channel fails: it answers calls with the reason, without sending them."""
    try:
        await link.callable(MAINTENANCE_STATUS)(StatusRequest(), timeout=ASK_SECONDS)
    except grpc.RpcError as error:
        return connect_failure(error.details() or "")
    except (CallFailed, grpc.aio.UsageError):  # closed meanwhile
        return None
    return None
