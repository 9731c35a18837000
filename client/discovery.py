"""Finding out who the members are: from the members themselves, or from DNS.

One of the two, as the client is configured: where ``discovery_srv`` is set, DNS is asked, the first
time and every time; else the cluster is. What fails is told, and leaves the endpoints as they are.

A client that is served is not led away to where nobody is: members advertise addresses that are not
everybody's (a container's, or ``localhost``, where another cluster may live). Unless one of those
found is connected already, they are asked first, on connections of their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random
from typing import Final

from ..protos.errors import Code
from ..protos.etcdserverpb import StatusRequest, StatusResponse
from ..protos.rpcs import MAINTENANCE_STATUS
from . import events, members
from .call import Call
from .config import Config
from .connections import LinkState
from .endpoints import Endpoint
from .errors import ClientClosed, ConfigError, DiscoveryFailed, EtcdError
from .flow import AwaitChange, CallFailed, Flow, LookUp, Send
from .members import Member
from .roster import Roster
from .srv import SrvRecord, SrvResolver, dns_resolver, endpoints_of, records_of, srv_names

FIRST_PAUSE_SECONDS: Final = 0.25
"""How soon DNS is asked again, while no endpoint is known; each next time, after twice as long."""

_KEPT_OUT: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT})
"""What an etcd that knows users answers to who shows no token."""


def choose_endpoints(found: Iterable[Member], known: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Choose where each member is to be reached; not more than one address of each.

    Left out are learners, which serve next to nothing, members that have not started yet, which
    have no name, and those that are reached in no way that is in use: a client that speaks TLS is
    not led away from it. Of a member's addresses the first that is known already counts, with the
    TLS settings that it has; else the first that speaks TLS, or does not, as those that are known.
    """
    by_url = {endpoint.url: endpoint for endpoint in known}
    in_use = {endpoint.secure for endpoint in known} or {True, False}
    chosen: dict[str, Endpoint] = {}
    for member in found:
        if member.learner or not member.name:
            continue
        offered = [each for each in map(_endpoint, member.client_urls) if each is not None]
        places = [by_url[each.url] for each in offered if each.url in by_url]
        places += [each for each in offered if each.secure in in_use]
        if places:
            chosen.setdefault(places[0].url, places[0])
    return tuple(chosen.values())


def _endpoint(url: str) -> Endpoint | None:
    try:
        return Endpoint(url)
    except ConfigError:
        return None


class Discovery:
    """How one client finds its endpoints, and how often."""

    def __init__(
        self,
        config: Config,
        roster: Roster,
        call: Call,
        random: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError when DNS is to be asked and nothing is there to do it."""
        self._config = config
        self._roster = roster
        self._call = call
        self._random = random
        self._clock = clock
        self._resolver: SrvResolver | None = None
        if config.discovery_srv is not None:
            self._resolver = config.srv_resolver or dns_resolver(config.connect_timeout)

    @property
    def runs_by_itself(self) -> bool:
        """Whether there is anything to be done in the background."""
        return self._config.discovery_srv is not None or self._config.sync_interval is not None

    def once(self, timeout: float | None = None) -> Flow[tuple[Endpoint, ...]]:
        """Find out who there is, serve from them, and return them.

        Raises DiscoveryFailed, or what listing the members raises; then nothing has changed.
        """
        deadline = self._call.deadline(timeout)
        if self._config.discovery_srv is not None:
            found = yield from self._ask_dns(self._config.discovery_srv)
            if self._connected():
                yield from self._make_sure(found, None, deadline)
            self._roster.change(found, "srv")
        else:
            listed = yield from members.list_(self._call, timeout=timeout)
            found = choose_endpoints(listed, self._roster.endpoints)
            if not found:
                raise DiscoveryFailed("no voting member has an address that this client could use")
            yield from self._make_sure(found, {member.id for member in listed}, deadline)
            self._roster.change(found, "sync")
        return self._roster.endpoints

    def _connected(self) -> set[str]:
        """The URLs of the endpoints that there is a connection to."""
        views = self._call.connections.view().values()
        return {view.url for view in views if view.state is LinkState.READY}

    def _make_sure(
        self, found: Sequence[Endpoint], ids: Collection[int] | None, deadline: float
    ) -> Flow[None]:
        """See to it that somebody is there, and is one of these members; else DiscoveryFailed."""
        if not self._connected().isdisjoint(each.url for each in found):
            return
        failures = []
        for each in found:
            failure = yield from self._what_is_wrong_with(each, ids, deadline)
            if failure is None:
                return
            failures.append(f"{each.url}: {failure}")
        reasons = "; ".join(failures)
        raise DiscoveryFailed(f"the addresses of the members do not lead to them: {reasons}")

    def _what_is_wrong_with(
        self, endpoint: Endpoint, ids: Collection[int] | None, deadline: float
    ) -> Flow[str | None]:
        """Ask who is there; whoever cannot say so for want of a token is there, too."""
        seat = self._call.connections.visit(endpoint)
        seconds = min(self._config.connect_timeout, self._call.left(deadline))
        try:
            reply: StatusResponse = yield Send(
                seat.link,
                MAINTENANCE_STATUS,
                StatusRequest(),
                None if seconds == math.inf else seconds,
                None,
            )
        except CallFailed as failed:
            self._call.connections.check_open()
            return None if failed.code in _KEPT_OUT else failed.text or failed.code.name
        finally:
            seat.leave()
        if ids is not None and reply.header.member_id not in ids:
            return "a member of another cluster"
        return None

    def in_background(self) -> Flow[None]:
        """Find out who there is, again and again if so configured; ends when the client closes."""
        failures = 0
        while self._call.connections.closed is None:
            try:
                yield from self.once()
                failures = 0
            except ClientClosed:
                return
            except Exception as error:  # whatever it is, it may be over the next time
                failures += 1
                told = str(error) if isinstance(error, EtcdError) else repr(error)
                self._call.connections.missing = told
                events.endpoints_sync_failed(told, failures)
            pause_seconds = self._pause_seconds(failures)
            if pause_seconds is None:
                return
            yield from self._rest(pause_seconds)

    def _pause_seconds(self, failures: int) -> float | None:
        """Say how long to rest, give or take a tenth so that clients do not march in step."""
        interval, longest = self._config.sync_interval, self._config.reconnect_backoff_max
        if not self._roster.endpoints:
            interval = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30), longest)
        return None if interval is None else interval * self._random.uniform(0.9, 1.1)

    def _rest(self, seconds: float) -> Flow[None]:
        """Let time pass, until the client is closed."""
        connections = self._call.connections
        until = self._clock() + seconds
        while connections.closed is None and (left := until - self._clock()) > 0:
            yield AwaitChange(connections.version, left)

    def _ask_dns(self, domain: str) -> Flow[tuple[Endpoint, ...]]:
        """Look both lists up. One that cannot be had fails all, for it may be the one that counts.

        A client with TLS settings of its own asks for the secure list only: nobody who answers in
        the name of DNS shall talk it out of TLS.
        """
        names = srv_names(domain, self._config.discovery_srv_name)
        lists: list[list[SrvRecord]] = [[], []]
        for at, name in enumerate(names[:1] if self._config.has_tls else names):
            lists[at] = yield from self._look_up(name)
            self._call.connections.check_open()  # a resolver may take long
        found = endpoints_of(*lists)
        if not found:
            raise DiscoveryFailed(f"DNS knows no members of {domain}: {', '.join(names)}")
        return found

    def _look_up(self, name: str) -> Flow[list[SrvRecord]]:
        assert self._resolver is not None
        try:
            records = yield LookUp(self._resolver, name)
            return records_of(records)
        except EtcdError:
            raise
        except Exception as error:
            raise DiscoveryFailed(f"{name} could not be looked up: {error}") from error
