"""How an operation is written once and run in two worlds.

A :data:`Flow` is a generator that yields *steps* (what it needs done: send this, sleep so long,
wait for a change) and receives each step's outcome. It never blocks and knows no world; the two
drivers do the steps: :func:`blocking` with threads, :func:`awaiting` with asyncio. A step that
fails is thrown into the flow, so tracebacks name the operation.

Rule 1: a flow touches shared state only between its yields.
Rule 2: a step is plain data, so that tests can play the world.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from functools import update_wrapper, wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
)

from google.protobuf.message import Message

from ..protos.errors import Code
from ..protos.rpc import Rpc
from .errors import raise_as_misuse

if TYPE_CHECKING:
    from .call import Call
    from .connections import Link
    from .srv import SrvResolver

Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Send(NamedTuple):
    """Send a unary request and answer with the reply; a failure is thrown as CallFailed."""

    link: Link
    rpc: Rpc[Any, Any]
    request: Message
    timeout_seconds: float | None
    metadata: Metadata | None


class Sleep(NamedTuple):
    """Let time pass."""

    seconds: float


class AwaitChange(NamedTuple):
    """Wait until the connections' version differs from the one seen, or the time is up."""

    seen_version: int
    seconds: float | None


class LookUp(NamedTuple):
    """Ask for the SRV records of a name; what the resolver raises is thrown."""

    resolver: SrvResolver
    name: str


Step: TypeAlias = Send | Sleep | AwaitChange | LookUp

T = TypeVar("T")
P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)

Flow: TypeAlias = Generator[Step, Any, T]
"""An operation under way; returns a T."""

Series: TypeAlias = Generator[Flow[T], T, None]
"""Operations one after the other, each sent its own result: what an iterator is made of."""


REQUIRE_LEADER: Final[Metadata] = (("hasleader", "true"),)
"""Has a member refuse a call when it has no leader, and end a stream when it has lost it, instead
of falling silent."""

LINK_CLOSED: Final = "the connection was closed before the call was sent"
"""The text of a call that found its connection just closed."""

CLOSED_UNDER_STREAM: Final = "the connection was closed under an open stream"
"""The text of a stream that may have carried something before its connection was closed."""


class CallFailed(Exception):
    """A Send that failed: what the transport knows, before anyone has judged it."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class BlockingFace(Protocol):
    """What has blocking methods: something to call with, and a driver that blocks."""

    _call: Call

    def _run(self, flow: Flow[T]) -> T: ...


class AwaitingFace(Protocol):
    """What has awaitable methods."""

    _call: Call

    async def _run(self, flow: Flow[T]) -> T: ...


def blocking(
    operation: Callable[Concatenate[Call, P], Flow[T]],
) -> Callable[Concatenate[Any, P], T]:
    """Make a method that runs the operation and blocks until it is done."""

    def method(self: BlockingFace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            flow = operation(self._call, *args, **kwargs)
        except (TypeError, ValueError) as error:
            _refuse(error)
        return self._run(flow)

    return dress(method, operation)


def _refuse(error: Exception) -> NoReturn:
    """Raise what an operation raised before its first step: a misuse, most likely."""
    within = error.__traceback__ and error.__traceback__.tb_next
    if within is None:  # raised by the very act of calling: arguments that do not fit
        raise error
    raise_as_misuse(error)


def part(make: Callable[P, T]) -> Callable[P, T]:
    """Have what makes a part of a request, before there is a call, tell misuse as a call does."""

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return make(*args, **kwargs)
        except (TypeError, ValueError) as error:
            _refuse(error)

    return made


def awaiting(
    operation: Callable[Concatenate[Call, P], Flow[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make a coroutine method that runs the operation."""

    def method(self: AwaitingFace, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        try:
            flow = operation(self._call, *args, **kwargs)
        except (TypeError, ValueError) as error:
            _refuse(error)
        return self._run(flow)

    return dress(method, operation)


def iterating(
    series: Callable[Concatenate[Call, P], Series[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Make a method that iterates over a series' results, blocking for each."""

    def method(self: BlockingFace, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        steps = series(self._call, *args, **kwargs)
        flow = _begin(steps)
        while flow is not None:
            result = self._run(flow)
            yield result
            flow = _proceed(steps, result)

    return dress(method, series, "Iterator[{}]")


def async_iterating(
    series: Callable[Concatenate[Call, P], Series[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """Make a method that iterates asynchronously over a series' results."""

    async def method(self: AwaitingFace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        steps = series(self._call, *args, **kwargs)
        flow = _begin(steps)
        while flow is not None:
            result = await self._run(flow)
            yield result
            flow = _proceed(steps, result)

    return dress(method, series, "AsyncIterator[{}]")


def _begin(steps: Series[T]) -> Flow[T] | None:
    """Take a series' first operation. Raises InvalidArgument."""
    try:
        return next(steps, None)
    except (TypeError, ValueError) as error:
        raise_as_misuse(error)


def _proceed(steps: Series[T], result: T) -> Flow[T] | None:
    try:
        return steps.send(result)
    except StopIteration:
        return None


M = TypeVar("M", bound=Callable[..., Any])


def dress(method: M, operation: Callable[..., Any], returns: str = "{}") -> M:
    """Give a method the operation's name, docstring and signature, as a reader should see them."""
    update_wrapper(method, operation)
    method.__name__ = operation.__name__.rstrip("_")
    signature = inspect.signature(operation)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    rest = list(signature.parameters.values())[1:]
    result = str(signature.return_annotation).partition("[")[2].removesuffix("]")
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[own, *rest], return_annotation=returns.format(result)
    )
    return method
