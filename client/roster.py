"""Which endpoints a client serves from, and what it takes to connect to each."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from . import events
from .channels import ChannelSetup, channel_setup
from .config import Config
from .connections import Connections
from .endpoints import Endpoint, EndpointLike, parse_endpoints


class Roster:
    """The endpoints of one client, which may change while it is in use.

    What is new is checked, certificates included, before anything changes.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        """Held while endpoints change, so that one change follows the other."""
        self._connections: Connections | None = None
        """Who serves from them; None before the client is first used."""
        self.endpoints = config.endpoints
        self._setups = {each: channel_setup(config, each) for each in config.endpoints}

    def begin(self, connections: Connections) -> bool:
        """Start connecting; say whether that was not done before. Raises ClientClosed."""
        with self._lock:
            if self._connections is not None:
                return False
            if self.endpoints:
                connections.set_endpoints(self.endpoints)
            else:
                connections.missing = "no endpoints were found yet"
            self._connections = connections
            return True

    def change(self, given: EndpointLike | Iterable[EndpointLike], why: str) -> None:
        """Serve from these from now on. Raises ConfigError, ClientClosed."""
        endpoints = parse_endpoints(given)
        with self._lock:
            if set(endpoints) == set(self.endpoints):
                return
            setups = {each: self.setup(each) for each in endpoints}
            self._setups = {**self._setups, **setups}
            if self._connections is not None:
                self._connections.set_endpoints(endpoints)
            before, self.endpoints = self.endpoints, endpoints
            self._setups = setups
        events.endpoints_changed(_urls(before), _urls(endpoints), why)

    def setup(self, endpoint: Endpoint) -> ChannelSetup:
        """What grpc needs to connect to one. Raises ConfigError."""
        return self._setups.get(endpoint) or channel_setup(self._config, endpoint)

    def __str__(self) -> str:
        return ", ".join(_urls(self.endpoints)) or "endpoints yet to be found"


def _urls(endpoints: Iterable[Endpoint]) -> list[str]:
    return [endpoint.url for endpoint in endpoints]
