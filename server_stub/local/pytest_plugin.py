"""Fixtures for tests that need an etcd. Pytest finds them by itself, as a plugin.

``etcd_member`` and ``etcd_cluster`` are a test's own, made as its marker ``etcd_options`` says:

    @pytest.mark.etcd_options("--max-txn-ops=10", size=5, processes=True)
    def test_something(etcd_cluster): ...

``etcd_session_member`` and ``etcd_session_cluster`` are shared by all tests of a session, and made
as the fixture ``etcd_session_options`` says, which a ``conftest.py`` may define anew.

Every run of pytest loads this module, so that it names nothing but pytest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .any_member import AnyMember
    from .cluster import LocalCluster

MARKER = "etcd_options"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(*flags, size=3, processes=False, binary=None, partitions=False): how etcd_member"
        " and etcd_cluster make their members; see LocalCluster",
    )


@pytest.fixture
def etcd_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A cluster of the test's own, in which every member serves; three members by default."""
    flags, options = _marked(request)
    yield from _cluster(*flags, **options)


@pytest.fixture
def etcd_member(request: pytest.FixtureRequest) -> Iterator[AnyMember]:
    """A member of the test's own, alone in its cluster."""
    flags, options = _marked(request)
    yield from _member(*flags, **options)


@pytest.fixture(scope="session")
def etcd_session_options() -> Mapping[str, Any]:
    """How the fixtures of the session make their members: arguments of ``LocalCluster``.

    ``flags`` are its flags. Define it anew to change it.
    """
    return {}


@pytest.fixture(scope="session")
def etcd_session_cluster(etcd_session_options: Mapping[str, Any]) -> Iterator[LocalCluster]:
    """A cluster for all tests of the session, for those that leave it as it was."""
    options = dict(etcd_session_options)
    yield from _cluster(*options.pop("flags", ()), **options)


@pytest.fixture(scope="session")
def etcd_session_member(etcd_session_options: Mapping[str, Any]) -> Iterator[AnyMember]:
    """A member for all tests of the session, for those that leave it as it was."""
    options = dict(etcd_session_options)
    yield from _member(*options.pop("flags", ()), **options)


def _marked(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Read the markers; of one option the closest to the test counts, flags add up."""
    flags: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers(MARKER):
        flags = (*marker.args, *flags)
        options = {**marker.kwargs, **options}
    return flags, options


def _cluster(*flags: str, **options: Any) -> Iterator[LocalCluster]:
    from .cluster import LocalCluster

    with LocalCluster(*flags, **options) as cluster:
        yield cluster


def _member(*flags: str, **options: Any) -> Iterator[AnyMember]:
    for cluster in _cluster(*flags, **{**options, "size": 1}):
        yield cluster[0]
