"""The pair of servers that the differential tests ask: started once, replaced if one dies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `lockstep`, which no package holds

from lockstep.pair import Pair
from lockstep.servers import Servers


@pytest.fixture(scope="session")
def start_servers() -> Iterator[Callable[..., Servers]]:
    """Start pairs of servers, with flags; all of them end with the session."""
    with ExitStack() as started:

        def start(*flags: str, **flags_of_one: Sequence[str]) -> Servers:
            servers = Servers(*flags, **flags_of_one)
            started.callback(servers.close)
            return servers

        yield start


@pytest.fixture(scope="session")
def living_servers(start_servers: Callable[..., Servers]) -> Callable[[], Servers]:
    """Hand out the long-lived servers, or new ones if a test killed one of them."""
    current: list[Servers] = []

    def living() -> Servers:
        if not current or not current[-1].alive:
            current.append(start_servers())
        return current[-1]

    return living


@pytest.fixture(scope="session")
def living_pair(living_servers: Callable[[], Servers]) -> Callable[[], Pair]:
    """The long-lived pair, for tests that ask for it many times (hypothesis)."""
    return lambda: living_servers().pair


@pytest.fixture
def servers(living_servers: Callable[[], Servers]) -> Servers:
    """The long-lived servers, empty, at one revision."""
    current = living_servers()
    current.pair.start_afresh()
    return current


@pytest.fixture
def pair(servers: Servers) -> Pair:
    """The long-lived pair, empty, at one revision."""
    return servers.pair


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.differential)
            item.add_marker(pytest.mark.process)
