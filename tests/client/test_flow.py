"""The drivers, and what the methods that they make look like."""

from __future__ import annotations

import asyncio
import inspect
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcd_pinwheel import AsyncClient, Client, InvalidArgument
from etcd_pinwheel.client.aio import AsyncioWorld
from etcd_pinwheel.client.backoff import Backoff, QuorumBackoff
from etcd_pinwheel.client.blocking import BlockingWorld
from etcd_pinwheel.client.config import Config
from etcd_pinwheel.client.flow import Flow, Sleep


def naps(count: int) -> Flow[int]:
    """Sleep a little, so many times."""
    for _ in range(count):
        yield Sleep(0.0001)
    return count


def breaks(error: Exception) -> Flow[None]:
    """Fail before, or after, the first step."""
    if isinstance(error, ValueError):
        raise error
    yield Sleep(0.0001)
    raise error


def worlds() -> tuple[BlockingWorld, AsyncioWorld]:
    """Drivers without connections."""
    clients = Client(), AsyncClient()
    blocking, asynchronous = clients[0]._world, clients[1]._world
    for world in (blocking, asynchronous):
        world.roster.endpoints = ()
    return blocking, asynchronous


def drive(flow: Any) -> Any:
    """Run one flow in both worlds."""
    blocking, asynchronous = worlds()
    first = blocking.run(flow())
    second = asyncio.run(asynchronous.run(flow()))
    assert first == second
    return first


def test_both_drivers_run_a_flow_to_its_end() -> None:
    assert drive(lambda: naps(3)) == 3
    assert drive(lambda: naps(0)) == 0


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ValueError("bad number"), InvalidArgument), (RuntimeError("bug"), RuntimeError)],
)
def test_both_drivers_raise_what_a_flow_raises(error: Exception, raised: type[Exception]) -> None:
    blocking, asynchronous = worlds()
    with pytest.raises(raised, match=str(error)):
        blocking.run(breaks(error))
    with pytest.raises(raised, match=str(error)):
        asyncio.run(asynchronous.run(breaks(error)))


def test_a_traceback_names_the_operation() -> None:
    blocking, _ = worlds()
    with pytest.raises(RuntimeError) as caught:
        blocking.run(breaks(RuntimeError("bug")))
    assert "breaks" in [entry.name for entry in caught.traceback]


def public_methods(face: type) -> dict[str, Any]:
    return {
        name: method
        for name, method in vars(face).items()
        if callable(method) and not name.startswith("_")
    }


def test_both_faces_have_the_same_methods() -> None:
    assert set(public_methods(Client)) == set(public_methods(AsyncClient))


def test_methods_show_the_operations_name_docstring_and_signature() -> None:
    for name in ("get", "put", "range", "delete", "compact", "count", "pages"):
        ours, theirs = getattr(Client, name), getattr(AsyncClient, name)
        assert ours.__name__ == name
        assert ours.__doc__
        assert ours.__doc__ == theirs.__doc__
        parameters = list(inspect.signature(ours).parameters)
        assert parameters[0] == "self"
        assert "timeout" in parameters
        assert parameters == list(inspect.signature(theirs).parameters)
    assert inspect.signature(Client.get).return_annotation == "KeyValue | None"


def test_a_wrong_argument_is_a_type_error_of_pythons_own() -> None:
    with pytest.raises(TypeError, match="colour"):
        Client().get("k", colour="red")  # type: ignore[call-arg]


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_backoff_grows_to_its_limit_and_is_jittered(round_: int, seed: int) -> None:
    backoff = Backoff(Random(seed), first_seconds=0.025, most_seconds=1.0, jitter=0.1)
    pure = min(1.0, 0.025 * 2 ** min(round_ - 1, 20))
    assert pure * 0.9 <= backoff.seconds(round_) <= pure * 1.1


@pytest.mark.parametrize(("endpoints", "pauses_after"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_attempts_are_made_by_the_quorum(endpoints: int, pauses_after: int) -> None:
    rule = QuorumBackoff(Backoff(Random(0)))
    waits = [rule.seconds_before_retry(failures, endpoints) > 0 for failures in range(1, 13)]
    assert waits == [failures % pauses_after == 0 for failures in range(1, 13)]


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().timeout = 3  # type: ignore[misc]
