"""How a client is put together from its settings, the same in both worlds."""

from __future__ import annotations

from random import Random
from typing import Protocol

from .backoff import Backoff
from .call import Call
from .config import Config
from .connections import Connections
from .credentials import Credentials
from .discovery import Discovery
from .generations import generation
from .retries import RetryTurns
from .roster import Roster
from .slots import Slots
from .world import World


class ClientWorld(World, Protocol):
    """A world that drives a client's flows, beside doing what its connections need."""

    connections: Connections
    roster: Roster
    discovery: Discovery


def assemble(config: Config, world: ClientWorld) -> Call:
    """Build what operations call with; nothing is connected yet."""
    chosen = generation(config.balancer)
    connections = Connections(chosen.build(Random(), config.balancer_options), world)
    world.connections = connections
    credentials = None
    if config.username is not None and config.password is not None:
        credentials = connections.credentials = Credentials(config.username, config.password)
    backoff = Backoff(
        Random(),
        first_seconds=config.retry_backoff_first,
        most_seconds=config.retry_backoff_max,
    )
    call = Call(
        connections,
        chosen.table,
        chosen.retry_rule(backoff),
        timeout_seconds=config.timeout,
        retry=config.retry,
        slots=Slots(config.exactly_once_prefix.encode(), timeout_seconds=config.timeout),
        retry_turns=RetryTurns(config.max_concurrent_retries, Random()),
        first_attempt_share=chosen.first_attempt_share,
        receive_limited=config.max_receive_bytes < Config.max_receive_bytes,
        credentials=credentials,
    )
    world.discovery = Discovery(config, world.roster, call, Random())
    return call
