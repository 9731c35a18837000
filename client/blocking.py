"""The world of threads: steps are done by blocking the thread that called."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc

from ..protos.errors import Code
from ..protos.etcdserverpb import StatusRequest
from ..protos.rpcs import MAINTENANCE_STATUS
from .channels import call_failed, connect_failure
from .config import Config
from .connections import Connections, Link, LinkState
from .discovery import Discovery
from .endpoints import EndpointLike
from .errors import raise_as_misuse
from .flow import LINK_CLOSED, AwaitChange, CallFailed, Flow, LookUp, Send, Sleep, Step
from .interrupts import interruptible
from .roster import Roster
from .srv import SrvResolver
from .world import LinkChanged

T = TypeVar("T")

STATES = {
    grpc.ChannelConnectivity.IDLE: LinkState.CONNECTING,
    grpc.ChannelConnectivity.CONNECTING: LinkState.CONNECTING,
    grpc.ChannelConnectivity.READY: LinkState.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE: LinkState.FAILING,
    grpc.ChannelConnectivity.SHUTDOWN: LinkState.CLOSED,
}

ASK_SECONDS = 0.2
"""How long a failing channel is given to say why."""

RESOLVER_SECONDS = 0.05
"""How often closing looks whether a thread has begun to wait for a resolver."""

UNWATCHED_SECONDS = 5.0
"""How long closing waits for grpc's watching thread, which takes 0.2 s unless it starves."""


class BlockingWorld:
    """Channels of ``grpc``, and a driver that any number of threads may use at once."""

    def __init__(self, config: Config) -> None:
        self.roster = Roster(config)
        self._begun = False
        self._timer: threading.Timer | None = None
        self._timing = threading.Lock()
        """Held to change the timer: a policy's first wish may come from within begin."""
        self._threads: set[threading.Thread] = set()
        self._looking_up: set[threading.Thread] = set()
        """Those that a resolver keeps for as long as it likes."""
        self._watching = threading.RLock()
        """Held to begin or end to watch channels, and throughout a fork."""
        self._watched: list[Link] = []
        self._unwatched: list[Watched] = []
        """Those that grpc may still be watching. Invariant: somebody waits for the end of that."""
        self._closing: list[Link] = []
        """Links to be closed."""
        self._is_closing = False
        """Invariant: at most one thread closes them."""
        _born.add(self)
        self.connections: Connections
        """Set by the client: the two are made for each other."""
        self.discovery: Discovery

    def begin(self) -> None:
        """Start connecting, unless that was done before. Raises ClientClosed."""
        self.connections.check_open()
        first = self.roster.begin(self.connections)
        self._begun = True
        if first and self.discovery.runs_by_itself:
            self.spawn(self.discovery.in_background(), lambda _: None)

    def set_endpoints(self, given: EndpointLike | Iterable[EndpointLike]) -> None:
        """Serve from these from now on. Raises ConfigError, ClientClosed."""
        self.connections.check_open()
        self.roster.change(given, "set")

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end."""
        try:
            if not self._begun:
                self.begin()
            try:
                step = next(flow)
            except (TypeError, ValueError) as error:
                raise_as_misuse(error)
            while True:
                try:
                    outcome = self._send(step) if type(step) is Send else self._wait(step)
                except BaseException as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _send(self, step: Send) -> Any:
        link, rpc, request, timeout_seconds, metadata = step
        try:
            return interruptible(link.callables[rpc], request, timeout_seconds, metadata)
        except grpc.RpcError as error:
            raise call_failed(error) from error
        except ValueError as error:  # grpc's word for a channel that was closed meanwhile
            raise CallFailed(Code.UNAVAILABLE, LINK_CLOSED) from error

    def _wait(self, step: Step) -> Any:
        match step:
            case LookUp(resolver, name):
                return self._look_up(resolver, name)
            case Sleep(seconds):
                time.sleep(seconds)
            case AwaitChange(seen_version, seconds):
                changed = threading.Event()
                self.connections.when_changed(seen_version, changed.set)
                try:
                    changed.wait(None if seconds is None else wait_seconds(seconds))
                finally:
                    self.connections.forget(changed.set)
        return None

    def _look_up(self, resolver: SrvResolver, name: str) -> Any:
        """Ask a resolver, whom nobody can make answer: closing does not wait for that."""
        thread = threading.current_thread()
        self._looking_up.add(thread)
        try:
            return resolver(name)
        finally:
            self._looking_up.discard(thread)

    def open(self, link: Link, changed: weakref.WeakMethod[LinkChanged]) -> None:
        setup = self.roster.setup(link.endpoint)
        if setup.credentials is None:
            channel = grpc.insecure_channel(setup.target, setup.options)
        else:
            channel = grpc.secure_channel(setup.target, setup.credentials, setup.options)
        watcher = _watcher(link, changed)
        try:
            with self._watching:
                link.channel, link.watcher = channel, watcher
                interruptible(channel.subscribe, watcher, try_to_connect=True)
                self._watched.append(link)
        except BaseException:
            if link not in self._watched:
                self._undo(link, (channel, watcher))
            raise

    def _undo(self, link: Link, watched: Watched) -> None:
        """Take back a channel of which nobody might watch the state: it can be opened again."""
        with self._watching:
            link.channel = None
            link.callables.clear()
            self._unwatched.append(watched)
            _unsubscribe([watched])
        self._close_unwatched([watched])

    def close(self, link: Link) -> None:
        """Close a link's channel in the background, for it takes as long as close_all.

        One thread does it for all links, many at a time if need be. Where there is none to be
        had, the next who closes does it.
        """
        with self._watching:
            self._closing.append(link)
        with suppress(RuntimeError):
            self._close_in_background()

    def _close_in_background(self) -> None:
        """Have what is to be closed be closed. Raises RuntimeError: there is no thread to do it.

        Whoever finds that another thread closes can wait for it, so it is begun under the lock.
        """
        with self._watching:
            if self._is_closing or not self._closing:
                return
            self._is_closing = True
            try:
                self._in_background(self._close_those)
            except BaseException:
                self._is_closing = False
                raise

    def _close_those(self) -> None:
        try:
            while links := self._next_to_close():
                self._close_channels(links)
        except BaseException:
            with self._watching:
                self._is_closing = False
            raise

    def _next_to_close(self) -> list[Link]:
        """Take what is to be closed; where that is nothing, whoever closes has done so."""
        with self._watching:
            links, self._closing = self._closing, []
            if not links:
                self._is_closing = False
            return links

    def close_all(self, links: list[Link]) -> None:
        """Close the links' channels, and wait until all that ran in the background has ended.

        Takes up to 0.2 s, grpc's rhythm of watching a channel. Whoever is interrupted has it end
        by itself; called again, it waits for that.
        """
        with self._watching:
            self._closing += links
        try:
            self._close_in_background()
        except RuntimeError:
            self._close_those()
        for thread in self._threads - {threading.current_thread()}:
            while thread.is_alive() and thread not in self._looking_up:
                thread.join(RESOLVER_SECONDS)

    def _close_channels(self, links: list[Link]) -> None:
        with self._watching:
            open_ = [link for link in dict.fromkeys(links) if link.channel is not None]
            watched = [(link.channel, link.watcher) for link in open_]
            for link in links:
                link.channel = None
                link.callables.clear()
            self._watched = [link for link in self._watched if link not in links]
            self._unwatched += watched
            _unsubscribe(watched)
        self._close_unwatched(watched)

    def _close_unwatched(self, watched: list[Watched]) -> None:
        _await_unwatched(watched)
        with self._watching:
            self._unwatched = [each for each in self._unwatched if each not in watched]
        for channel, _ in watched:
            interruptible(channel.close)

    def before_fork(self) -> None:
        """Stop watching, for a thread inside grpc keeps grpc from getting ready for a fork."""
        self._watching.acquire()
        watched: list[Watched] = [(link.channel, link.watcher) for link in self._watched]
        _unsubscribe(watched)
        _await_unwatched(watched + self._unwatched)

    def after_fork(self, *, in_child: bool) -> None:
        """Go on watching; in the child there is nothing left to watch."""
        if in_child:
            self._watched.clear()
            self._unwatched.clear()
            self._closing.clear()
            self._is_closing = False
        for link in self._watched:
            link.channel.subscribe(link.watcher, try_to_connect=True)
        self._watching.release()

    def stop(self) -> None:
        """End what runs in the background beside the channels."""
        with self._timing:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def wake_at(self, moment: float, wake: Callable[[], None]) -> None:
        timer = threading.Timer(max(0.0, moment - time.monotonic()), wake)
        timer.daemon = True
        with self._timing:
            earlier, self._timer = self._timer, timer
        if earlier is not None:
            earlier.cancel()
        timer.start()

    def spawn(self, flow: Flow[T], then: Callable[[T], None]) -> None:
        self._in_background(lambda: then(self.run(flow)))

    def _in_background(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, name="etcd-pinwheel", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            if thread.ident is None:  # it does not run, and nobody can wait for its end
                self._threads.discard(thread)
            raise


def wait_seconds(seconds: float) -> float:
    """Make of a time what threads can wait: to them ``math.inf`` is an OverflowError."""
    return min(seconds, threading.TIMEOUT_MAX)


Watcher: TypeAlias = Callable[[grpc.ChannelConnectivity], None]
Watched: TypeAlias = tuple[grpc.Channel, Watcher]


def _watcher(link: Link, changed: weakref.WeakMethod[LinkChanged]) -> Watcher:
    """Make the callback that tells a channel's states; grpc runs it on a thread of its own."""

    def tell(connectivity: grpc.ChannelConnectivity) -> None:
        report = changed()
        if report is None or link.channel is None:
            return
        state = STATES[connectivity]
        report(link, state, "")
        if state is LinkState.FAILING and (reason := _ask_why(link)):
            report(link, state, reason)

    return tell


def _unsubscribe(watched: list[Watched]) -> None:
    for channel, watcher in watched:
        interruptible(channel.unsubscribe, watcher)


def _await_unwatched(watched: list[Watched]) -> None:
    """Wait until grpc's own threads have stopped watching channels.

    Such a thread looks every 0.2 s, and dies loudly when its channel is closed under it. That it
    has stopped is nowhere told but in a private attribute; where a release lacks it, do not wait.
    """
    latest = time.monotonic() + UNWATCHED_SECONDS
    for channel, _ in watched:
        state = getattr(channel, "_connectivity_state", None)
        while getattr(state, "polling", False) and time.monotonic() < latest:
            time.sleep(0.002)


def _ask_why(link: Link) -> str | None:
    """Learn why a channel fails: it answers calls with the reason, without sending them."""
    try:
        link.callable(MAINTENANCE_STATUS)(StatusRequest(), ASK_SECONDS)
    except grpc.RpcError as error:
        return connect_failure(error.details() or "")
    except (CallFailed, ValueError):  # closed meanwhile
        return None
    return None


_born: weakref.WeakSet[BlockingWorld] = weakref.WeakSet()
_forking: list[BlockingWorld] = []


def _before_fork() -> None:
    _forking.extend(_born)
    for world in _forking:
        world.before_fork()


def _after_fork(*, in_child: bool) -> None:
    for world in _forking:
        world.after_fork(in_child=in_child)
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=partial(_after_fork, in_child=False),
        after_in_child=partial(_after_fork, in_child=True),
    )
