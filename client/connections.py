"""The balancer's driver: connections kept as it wishes, picks made under its lock.

One :class:`.Link` per endpoint holds the channel and the callables made on it. What blocks or runs
in the background (opening, closing and watching channels, timers) is the :class:`.World`'s; this
file decides only what the treaty (balancers/api.py) asks of a driver:

- the balancer is called under one plain lock, never across a wait;
- every pick is paid back once, with :meth:`Connections.done`;
- actions are carried out in the order in which they were given, one at a time. One that raises
  (Ctrl-C; no thread to be had) is not lost: whoever comes next takes it up again, so carrying an
  action out twice does no harm.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..balancers.api import (
    Action,
    Balancer,
    Connect,
    Connected,
    Disconnect,
    Disconnected,
    Drain,
    EndpointsChanged,
    Event,
    FailedOver,
    Failure,
    Health,
    Need,
    Probe,
    Probed,
    WakeAt,
    Woken,
)
from . import events
from .credentials import Credentials
from .endpoints import Endpoint
from .errors import ClientClosed, ClientForked
from .links import EndpointView as EndpointView
from .links import Link as Link
from .links import LinkState as LinkState
from .links import Seat as Seat
from .news import Newsroom, cause_of, is_news, said
from .probe import examine
from .world import World


class Connections:
    """The links to all endpoints, kept and picked from as the balancer says."""

    def __init__(
        self,
        balancer: Balancer,
        world: World,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._balancer = balancer
        self._world = world
        self._clock = clock
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._retired: set[Link] = set()
        """Links that took their leave and are yet to be closed. Invariant: all are retired."""
        self._wishes: deque[Action] = deque()
        self._granting = False
        """Invariant: at most one thread carries out wishes."""
        self._waiting: list[Callable[[], None]] = []
        self._news = Newsroom(clock)
        self._closed: ClientClosed | None = None
        self._left: list[Link] = []
        """What closing, if it was interrupted, is yet to return."""
        self.credentials: Credentials | None = None
        """Whom probes speak for; None: for nobody."""
        self.missing = ""
        """Why there are no endpoints yet, where they have to be found out first."""
        self.size = 0
        """How many endpoints there are."""
        self.version = 0
        """Counts changes that may let a call proceed that found nobody."""
        _born.add(self)

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Serve from these endpoints from now on. Raises ClientClosed.

        Of those that are gone, or have other TLS settings now, the connections take their leave:
        calls on them end as they would have, streams move, and nobody else gets there.
        """
        wanted = {endpoint.url: endpoint for endpoint in endpoints}
        with self._lock:
            self.check_open()
            known = self._links
            self._links = {
                url: link if (link := known.get(url)) and link.endpoint == each else Link(each)
                for url, each in wanted.items()
            }
            self.size = len(wanted)
            kept = set(self._links.values())
            gone = [link for link in known.values() if link not in kept]
            self._decide(EndpointsChanged(tuple(wanted)))
            for link in gone:
                self._retired.add(link)
                link.retired = True
                self._replace(link)
            urls = {link.url for link in gone}
            leaving = [link for link in self._retired if link.url in urls]
            for link in leaving:
                link.gone = True
            seats = [seat for link in leaving for seat in link.seats]
        self.announce()
        self._carry_out()
        for seat in seats:
            seat.on_drain()
        for link in gone:
            self._close_if_idle(link)

    def _replace(self, link: Link) -> None:
        """Tell the balancer of a connection that is no more, if it is one that it had wished for.

        A connection with other TLS settings is made first: then the balancer may undo that.
        """
        url = link.url
        if link.channel is None:
            return
        if url in self._links:
            self._wishes.append(Connect(url))
        self._decide(Disconnected(url, "the endpoints have changed"))

    # For calls

    def pick(self, need: Need, now: float, tried: Sequence[str] = ()) -> Link | None:
        """Choose who serves a call; None when nobody can now. Paid back with :meth:`done`."""
        with self._lock:
            if self._closed is not None:
                self.check_open()
            url = self._balancer.pick(need, now, tried)
            if url is not None:
                link = self._links[url]
                link.under_way += 1
                return link
        self._carry_out()  # what somebody left undone: there may be nobody else to come
        return None

    def done(self, link: Link, failure: Failure | None, seconds: float, now: float) -> None:
        """Take a pick back."""
        with self._lock:
            link.calls += 1
            link.under_way -= 1
            actions = self._balancer.done(link.url, failure, seconds, now)
            if failure is None and not actions and not link.retired:
                return  # as nearly all calls end
            if failure is not None:
                link.failures += 1
            self._wishes.extend(actions)
            self._look(f"a call on {link.url} ended: {said(failure)}")
        self._news.publish()
        if actions:
            self._carry_out()
        if link.retired:
            self._close_if_idle(link)

    def failed_over(self, link: Link, failure: Failure) -> None:
        """Tell the balancer the error handler's verdict on a call."""
        if link.url in self._links:
            self._tell(FailedOver(link.url, failure))

    def when_changed(self, seen_version: int, wake: Callable[[], None]) -> None:
        """Call ``wake`` once at the next change; now, if there was one since that version."""
        with self._lock:
            if self.version == seen_version and self._closed is None:
                self._waiting.append(wake)
                return
        wake()

    def forget(self, wake: Callable[[], None]) -> None:
        """Take a :meth:`when_changed` back."""
        with self._lock:
            if wake in self._waiting:
                self._waiting.remove(wake)

    # For streams

    def take_seat(self, link: Link, on_drain: Callable[[], None]) -> Seat:
        """Register a stream on a link, to be told when it has to move off it."""
        seat = Seat(self, link, on_drain)
        with self._lock:
            self.check_open()
            link.seats.add(seat)
            too_late = link.gone
        if too_late:
            on_drain()
        return seat

    def leave_seat(self, seat: Seat) -> None:
        with self._lock:
            seat.link.seats.discard(seat)
        if seat.link.retired:
            self._close_if_idle(seat.link)

    def reach(self, url: str) -> Link:
        """Find an endpoint's link, or open one where the balancer keeps none; KeyError as above.

        For what goes there and nowhere else. A link that was opened closes when the last seat on
        it is given back.
        """
        with self._lock:
            self.check_open()
            link = self._links[url]
            if link.channel is not None:
                return link
        return self._open_beside(link.endpoint)

    def visit(self, endpoint: Endpoint) -> Seat:
        """Open a connection to where nobody is sent yet; it closes when the seat is given back."""
        return self.take_seat(self._open_beside(endpoint), lambda: None)

    def _open_beside(self, endpoint: Endpoint) -> Link:
        """Open a connection of which the balancer knows nothing."""
        beside = Link(endpoint)
        beside.retired = True
        with self._lock:
            self.check_open()
            self._retired.add(beside)
        try:
            self._open(beside)
        except BaseException:
            self._close_if_idle(beside)
            raise
        return beside

    def _close_if_idle(self, link: Link) -> None:
        with self._lock:
            if link.busy or link not in self._retired:
                return
            self._retired.discard(link)
        if link.channel is not None:
            self._world.close(link)

    # For worlds

    def link_changed(self, link: Link, state: LinkState, reason: str) -> None:
        """Take in a connection's new state, or the reason for a state it is in already."""
        with self._lock:
            known = self._links.get(link.url) is link and link.channel is not None
            if not known or (link.state, link.reason) == (state, reason):
                return
            was, link.state = link.state, state
            link.reason = reason
        self._news.changes.link(link.url, was.value, state.value, reason)
        if state is LinkState.READY:
            self._tell(Connected(link.url))
        elif was is LinkState.READY or state is LinkState.FAILING:
            self._tell(Disconnected(link.url, reason))

    # For people

    def view(self) -> Mapping[str, EndpointView]:
        """Report how every endpoint stands."""
        with self._lock:
            standings = self._balancer.standings(self._clock())
            leaving = [seat.endpoint for link in self._retired for seat in link.seats]
            return {
                url: EndpointView(
                    url=url,
                    state=link.state,
                    reason=link.reason,
                    calls=link.calls,
                    failures=link.failures,
                    streams=len(link.seats) + leaving.count(url),
                    standing=standings[url],
                    health=link.health,
                )
                for url, link in self._links.items()
                if url in standings
            }

    def reasons(self) -> dict[str, str]:
        """Say of each endpoint that serves no calls why it does not."""
        if not self._links and self.missing:
            return {"discovery_srv": self.missing}
        return {url: view.trouble for url, view in self.view().items() if view.trouble}

    def link(self, url: str) -> Link:
        """Find one endpoint's link; KeyError when it is not among the endpoints."""
        with self._lock:
            self.check_open()
            return self._links[url]

    def close(self, reason: ClientClosed | None = None) -> list[Link]:
        """Refuse calls from now on, end the streams, and return the links for closing, once."""
        with self._lock:
            if self._closed is None:
                self._closed = reason or ClientClosed("the client is closed")
                self._left = [*self._links.values(), *self._retired]
                self._links, self.size = {}, 0
                self._retired.clear()
                self._wishes.clear()
            links = self._left
            seats = [seat for link in links for seat in link.seats]
        for seat in seats:
            seat.on_drain()
        self.announce()
        self._left = []
        return links

    @property
    def in_use(self) -> bool:
        """Whether there are connections that somebody has to close."""
        return bool(self._links or self.missing) and self._closed is None

    @property
    def closed(self) -> ClientClosed | None:
        """Why there are no more calls, as a new error to raise; None while there are."""
        closed = self._closed
        return None if closed is None else type(closed)(*closed.args)

    def check_open(self) -> None:
        """Raise ClientClosed when the client is."""
        if closed := self.closed:
            raise closed

    # Driving the balancer

    def _tell(self, event: Event) -> None:
        with self._lock:
            if self._closed is not None:
                return
            self._decide(event)
        self.announce()
        self._carry_out()

    def _decide(self, event: Event) -> None:
        """Have the balancer take an event in, and note what it wishes. The lock is held."""
        self._wishes.extend(self._balancer.update(event, self._clock()))
        self._look(cause_of(event))

    def _look(self, cause: str) -> None:
        """Gather what is new for whoever wants to know. The lock is held."""
        if events.wanted():
            self._news.compare(self._balancer.standings(self._clock()), cause)

    def announce(self) -> None:
        """Let all who wait for a change look again."""
        with self._lock:
            self.version += 1
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()
        self._news.publish()

    def _carry_out(self) -> None:
        mine = False
        try:
            with self._lock:
                if self._granting:
                    return
                mine = self._granting = True
            while True:
                with self._lock:
                    if not self._wishes:
                        self._granting = mine = False
                        return
                    wish = self._wishes[0]
                self._grant(wish)
                with self._lock:
                    if self._wishes and self._wishes[0] is wish:  # else the client was closed
                        self._wishes.popleft()
        finally:
            if mine:
                self._granting = False

    def _grant(self, wish: Action) -> None:
        match wish:
            case Connect(url):
                self._connect(url)
            case Disconnect(url, graceful):
                self._disconnect(url, graceful=graceful)
            case Drain(url):
                self._drain(url)
            case Probe():
                self._probe(wish)
            case WakeAt(moment):
                self._world.wake_at(moment, _waking(weakref.ref(self)))

    def _connect(self, url: str) -> None:
        if (link := self._links.get(url)) is not None and link.channel is None:
            link.state = LinkState.CONNECTING
            self._open(link)

    def _open(self, link: Link) -> None:
        self._world.open(link, weakref.WeakMethod(self.link_changed))
        with self._lock:  # meanwhile, by somebody who found nothing to close here
            too_late = link.gone and link not in self._retired
        if too_late or self._closed is not None:
            self._world.close(link)

    def _drain(self, url: str) -> None:
        with self._lock:
            seats = list(self._links[url].seats) if url in self._links else []
        for seat in seats:
            seat.on_drain()

    def _probe(self, wish: Probe) -> None:
        try:
            link = self.link(wish.endpoint)
            if wish.fresh_connection:
                link = self._open_beside(link.endpoint)
            seat = self.take_seat(link, lambda: None)
        except (ClientClosed, KeyError):  # meanwhile
            return

        def answered(health: Health) -> None:
            seat.leave()
            self._note(wish.endpoint, health)
            self._tell(Probed(wish.endpoint, health))

        questions = examine(
            link,
            wish.timeout_seconds,
            linearizable=wish.linearizable,
            brief=wish.brief,
            token=self.credentials.metadata if self.credentials else (),
        )
        try:
            self._world.spawn(questions, answered)
        except BaseException:
            seat.leave()
            raise

    def _note(self, url: str, health: Health) -> None:
        """Keep a probe's answer, and report what is new about it."""
        with self._lock:
            if (link := self._links.get(url)) is None:
                return
            before, link.health = link.health, health
        if is_news(before, health):
            self._news.changes.health(url, health)

    def _disconnect(self, url: str, *, graceful: bool) -> None:
        """Close a link for good; a fresh one takes its place in case of another wish."""
        with self._lock:
            if (link := self._links.get(url)) is None or link.channel is None:
                return
            self._links[url] = fresh = Link(link.endpoint)
            fresh.calls, fresh.failures, fresh.health = link.calls, link.failures, link.health
            lives_on = graceful and link.busy
            if lives_on:
                link.retired = True
                self._retired.add(link)
            seats = () if lives_on else tuple(link.seats)
        try:
            for seat in seats:
                seat.on_drain()
        finally:  # it cannot be taken up again
            self._tell(Disconnected(url, "closed as wished"))
            if not lives_on:
                self._world.close(link)

    def forked(self) -> None:
        """Become useless, if ever used: this is a forked child, where no connection works.

        Touches no lock (its holder may not exist here) and closes nothing (the parent's sockets).
        """
        if self.in_use:
            self._lock = threading.Lock()
            self._closed = ClientForked(
                "this client was in use when the process forked; create one in the child"
            )


def _waking(connections: weakref.ref[Connections]) -> Callable[[], None]:
    """Make what a timer calls: it must not keep a client alive that was dropped."""

    def wake() -> None:
        if (living := connections()) is not None:
            living._tell(Woken())

    return wake


_born: weakref.WeakSet[Connections] = weakref.WeakSet()


def _in_forked_child() -> None:
    for connections in list(_born):
        connections.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
