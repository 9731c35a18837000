"""A unary call's life, in ordered stages: deadline, token, pick, send, verdict, backoff.

The first attempt that succeeds pays for nothing but the pick and two readings of the clock; the
:class:`Story` of a call begins with its first failure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar, overload

from google.protobuf.message import Message

from ..balancers.api import Failure, Need
from ..protos.rpc import Rpc
from ..protos.rpcs import AUTH_AUTHENTICATE
from . import arguments, events
from .connections import Connections, Link
from .credentials import Credentials, Token
from .endpoints import normalise
from .error_handler import (
    REPEATABLE_WRITES,
    TOKEN_REFUSALS,
    ErrorTable,
    Kind,
    Trouble,
    Verdict,
    diagnose,
)
from .errors import CallError, EtcdError, InvalidArgument
from .flow import AwaitChange, CallFailed, Flow, Send, Sleep
from .generations import RetryRule
from .login import NEED_NO_TOKEN, NoToken, obtain
from .retries import MAX_CONCURRENT_RETRIES, CutShort, Retry, RetryTurns, check_retry
from .slots import Slots
from .story import Story

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
Result = TypeVar("Result")

_step = tuple.__new__
"""A named tuple's own constructor takes twice as long, and this one is on every call's way."""

_ENDS: Final = frozenset({Verdict.RETURN, Verdict.FAIL_OVER_AND_RETURN, Verdict.REFRESH_TOKEN})
"""Verdicts that the caller is told; the last one if there is no password to get a token with."""

LEAST_ATTEMPT_SECONDS: Final = 0.001
"""With less time left than this, an attempt is not worth sending."""
ENDLESS_SECONDS: Final = 1e9
"""As much is no timeout: grpc's clock ends in 2262, and what would end later, it ends at once."""


def _ended(seconds: float) -> float:
    return seconds if seconds < ENDLESS_SECONDS else math.inf


class Call:
    """What operations call with: it sends a request by the rules of one client."""

    def __init__(
        self,
        connections: Connections,
        table: ErrorTable,
        retry_rule: RetryRule,
        *,
        timeout_seconds: float,
        retry: Retry = "safe",
        retry_turns: RetryTurns | None = None,
        slots: Slots | None = None,
        first_attempt_share: float = 1.0,
        receive_limited: bool = False,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connections = connections
        self._table = table
        self._retry_rule = retry_rule
        self.timeout_seconds = _ended(timeout_seconds)
        self.retry: Retry = retry
        """What becomes of a write whose outcome is unknown, unless its operation is told."""
        self._turns = retry_turns or RetryTurns(MAX_CONCURRENT_RETRIES, Random(0))
        self.slots = slots or Slots(timeout_seconds=timeout_seconds)
        """The markers of writes that are carried out exactly once."""
        self._first_attempt_share = first_attempt_share
        self._cut_short = CutShort(first_attempt_share)
        self.receive_limited = receive_limited
        """Whether the size of what the client takes in was limited."""
        self.credentials = credentials
        """Whom the client speaks for; None: it does not say."""
        self._clock = clock

    @overload
    def __call__(
        self,
        rpc: Rpc[Request, Reply],
        request: Request,
        timeout: float | None = None,
        then: None = None,
        *,
        need: Need = Need.QUORUM,
        kind: Kind | None = None,
        repeat: bool = False,
        doubts: list[Trouble] | None = None,
    ) -> Flow[Reply]: ...
    @overload
    def __call__(
        self,
        rpc: Rpc[Request, Reply],
        request: Request,
        timeout: float | None,
        then: Callable[[Reply], Result],
        *,
        need: Need = Need.QUORUM,
        kind: Kind | None = None,
        repeat: bool = False,
        doubts: list[Trouble] | None = None,
    ) -> Flow[Result]: ...
    def __call__(
        self,
        rpc: Rpc[Request, Reply],
        request: Request,
        timeout: float | None = None,
        then: Callable[[Reply], Any] | None = None,
        *,
        need: Need = Need.QUORUM,
        kind: Kind | None = None,
        repeat: bool = False,
        doubts: list[Trouble] | None = None,
    ) -> Flow[Any]:
        """Send a request until it is answered, refused, or out of time.

        ``timeout`` in seconds is for everything, waits included; None: the client's own,
        ``math.inf``: none. ``then`` makes the result of the reply. ``kind``: where this request
        is not what its RPC commonly is. ``repeat``: judge it as a call that may be repeated,
        whatever the generation says of its kind, because its caller takes that upon himself;
        ``doubts`` then takes the troubles after which it may have been carried out.
        """
        started = self._clock()
        allowance = self.timeout_seconds if timeout is None else self.allowance(timeout)
        deadline = started + allowance
        story: Story | None = None
        now = started
        token: Token | None = None
        if self.credentials is not None:
            token = self.credentials.token
            if token is None:
                token = yield from self._token_for(rpc, None, started, deadline)
                now = self._clock()
        link = self.connections.pick(need, now, ())
        if link is None:
            story = self._story(rpc, kind, started, deadline, repeat, doubts)
            link = yield from self._await_anyone(story, need)
            now = self._clock()
        left = None if deadline == math.inf else deadline - now
        if (
            self._first_attempt_share < 1.0
            and self.connections.size > 1
            and story is None
            and left is not None
        ):
            left = self._first_attempt(rpc, kind, left, repeat)
        metadata = None if token is None else token.metadata
        try:
            reply: Reply = yield _step(Send, (link, rpc, request, left, metadata))
        except CallFailed as failed:
            story = story or self._story(rpc, kind, started, deadline, repeat, doubts)
            yield from self._judge(story, link, failed, now, token)
        except BaseException:
            ended = self._clock()
            self.connections.done(link, Failure.CANCELLED, ended - now, ended)
            raise
        else:
            ended = self._clock()
            cut_short = self._cut_short
            cut_short.latest = seconds = ended - now
            if cut_short.spent:
                cut_short.earn()
            self.connections.done(link, None, seconds, ended)
            return reply if then is None else then(reply)
        reply = yield from self._again(story, request, need)
        return reply if then is None else then(reply)

    def _again(self, story: Story, request: Message, need: Need) -> Flow[Any]:
        """Repeat a call that failed, each time when it is its turn, until it has an end."""
        while True:
            token = yield from self._token_for(story.rpc, story, story.started, story.deadline)
            yield from self._await_turn(story)
            try:
                now = self._clock()
                link = self.connections.pick(need, now, story.tried)
                if link is None:
                    link = yield from self._await_anyone(story, need)
                    now = self._clock()
                story.goes_to(link)
                seconds = self._later_attempt(story, now)
                metadata = None if token is None else token.metadata
                try:
                    reply = yield Send(link, story.rpc, request, seconds, metadata)
                except CallFailed as error:
                    failed = error
                except BaseException:
                    ended = self._clock()
                    self.connections.done(link, Failure.CANCELLED, ended - now, ended)
                    raise
                else:
                    ended = self._clock()
                    self.connections.done(link, None, ended - now, ended)
                    return reply
            finally:
                self._turns.give_back()
            yield from self._judge(story, link, failed, now, token)

    def _await_turn(self, story: Story) -> Flow[None]:
        """Wait until so few calls are repeated that this one may be; raise when time is up."""
        looks = 0
        while not self._turns.take():
            looks += 1
            now = self._clock()
            left = story.deadline - now - LEAST_ATTEMPT_SECONDS
            if left <= 0:
                raise self._error(story, now)
            yield Sleep(min(self._turns.seconds_before_look(looks), left))

    def retry_of(self, retry: Retry | None) -> Retry:
        """Say how a write is retried for which that was asked; None: as the client does."""
        if retry is None:
            return self.retry
        check_retry(retry)
        return retry

    def now(self) -> float:
        """Read the clock by which calls live."""
        return self._clock()

    def deadline(self, timeout: float | None) -> float:
        """Say when an operation of several calls has to end."""
        return self._clock() + self.allowance(timeout)

    def left(self, deadline: float) -> float:
        """Say how many seconds its next call has; at least so many that it can fail."""
        return max(deadline - self._clock(), LEAST_ATTEMPT_SECONDS)

    def at(
        self,
        endpoint: str,
        rpc: Rpc[Request, Reply],
        request: Request,
        timeout: float | None = None,
    ) -> Flow[Reply]:
        """Send a request once, to that endpoint and no other, whatever the balancer thinks.

        Once more, if it was refused for its token.
        """
        started = now = self._clock()
        deadline = started + self.allowance(timeout)
        link = self._reach(endpoint)
        seat = self.connections.take_seat(link, lambda: None)
        story = Story(rpc, Kind.NON_REPEATABLE, started, deadline)
        token: Token | None = None
        try:
            while True:
                if self.credentials is not None:
                    token = yield from self._token_for(rpc, story, started, deadline)
                    now = self._clock()
                left = None if deadline == math.inf else deadline - now
                metadata = None if token is None else token.metadata
                try:
                    reply: Reply = yield Send(link, rpc, request, left, metadata)
                    return reply
                except CallFailed as failed:
                    now = self._clock()
                    trouble = diagnose(failed, time_left=deadline - now > LEAST_ATTEMPT_SECONDS)
                    story.add(link, trouble)
                    verdict = self._table.judge(trouble, rpc, story.kind)
                    if not (yield from self._has_another_token(story, verdict, token, now)):
                        raise self._error(story, now) from failed.__cause__
                    now = self._clock()
        finally:
            seat.leave()

    def place(
        self,
        rpc: Rpc[Any, Any],
        timeout: float | None = None,
        *,
        need: Need = Need.QUORUM,
        tried: Sequence[str] = (),
    ) -> Flow[Link]:
        """Choose where a stream goes, waiting until somebody can take it.

        The pick is the caller's to pay back, when the stream is open or has failed to open:
        ``connections.done(link, failure, seconds, now)``.
        """
        started = self._clock()
        link = self.connections.pick(need, started, tried)
        if link is None:
            deadline = started + self.allowance(timeout)
            story = self._story(rpc, None, started, deadline)
            story.tried.extend(tried)
            link = yield from self._await_anyone(story, need)
        return link

    def token_of_stream(
        self, rpc: Rpc[Any, Any], timeout: float | None = None
    ) -> Flow[Token | None]:
        """Have the token that a stream is opened with; None: the client speaks for nobody."""
        if self.credentials is None:
            return None
        started = self._clock()
        deadline = started + self.allowance(timeout)
        return (yield from self._token(rpc, None, started, deadline))

    def judge_stream(
        self,
        rpc: Rpc[Any, Any],
        link: Link,
        failed: CallFailed,
        started: float,
        token: Token | None = None,
    ) -> tuple[Failure, EtcdError]:
        """Take in how a stream ended: tell the balancer the verdict, return what to pay and say.

        The ``token`` that it was opened with is not used again, if that was the trouble.
        """
        now = self._clock()
        story = Story(rpc, Kind.REPEATABLE, started, math.inf)
        trouble = diagnose(failed, time_left=False)
        story.add(link, trouble)
        if token is not None and trouble.text in TOKEN_REFUSALS:
            self.reject(token)
        if self._table.streams_fail_over:
            verdict = self._table.judge(trouble, rpc, story.kind)
            if verdict in (Verdict.FAIL_OVER, Verdict.FAIL_OVER_AND_RETURN):
                self.connections.failed_over(link, trouble.failure)
        return trouble.failure, self._error(story, now)

    def reject(self, token: Token) -> None:
        """Take in that a server refused a token: nobody uses it again."""
        if self.credentials is not None:
            self.credentials.reject(token)

    def _token_for(
        self, rpc: Rpc[Any, Any], story: Story | None, started: float, deadline: float
    ) -> Flow[Token | None]:
        """Have the token that a call carries, waiting for one if it needs it; None: none."""
        if self.credentials is None:
            return None
        token = self.credentials.token
        if token is not None or rpc in NEED_NO_TOKEN:
            return token
        return (yield from self._token(rpc, story, started, deadline))

    def _token(
        self, rpc: Rpc[Any, Any], story: Story | None, started: float, deadline: float
    ) -> Flow[Token]:
        """Wait for a token. Raises why there is none, but no more of the call than is true."""
        assert self.credentials is not None
        try:
            return (yield from obtain(self, self.credentials, deadline, self._clock))
        except (CallError, NoToken) as without:
            now = self._clock()
            if story is not None and story.doubts:
                raise self._error(story, now) from without
            if isinstance(without, CallError):
                raise
            raise without.not_sent(rpc, story.attempts if story else 0, now - started) from (
                without.trouble
            )

    def _has_another_token(
        self, story: Story, verdict: Verdict, token: Token | None, now: float
    ) -> Flow[bool]:
        """Wait for another token, if that is the verdict; tell whether there is one to try."""
        if verdict is not Verdict.REFRESH_TOKEN:
            story.rejections.clear()
            return False
        late = now > story.deadline - LEAST_ATTEMPT_SECONDS
        if self.credentials is None or story.rpc is AUTH_AUTHENTICATE or late:
            return False
        if not story.rejections.another(self.credentials, token):
            return False
        events.call_retried(
            story.rpc.path,
            story.tried[-1],
            "token",
            story.last.text if story.last else "",
            story.attempts,
        )
        yield from self._token(story.rpc, story, story.started, story.deadline)
        return True

    def allowance(self, timeout: float | None) -> float:
        """Say how many seconds there are, ``math.inf`` for any number; None: the client's timeout.

        Raises InvalidArgument.
        """
        asked_seconds = arguments.seconds("timeout", timeout)
        return self.timeout_seconds if asked_seconds is None else _ended(asked_seconds)

    def _story(
        self,
        rpc: Rpc[Any, Any],
        kind: Kind | None,
        started: float,
        deadline: float,
        repeat: bool = False,
        doubts: list[Trouble] | None = None,
    ) -> Story:
        is_write = (repeat and kind is not Kind.REPEATABLE) or rpc in REPEATABLE_WRITES
        kind = self._kind(rpc, kind, repeat)
        story = Story(rpc, kind, started, deadline, repeat=repeat, is_repeated_write=is_write)
        if doubts is not None:
            story.doubts = doubts
        return story

    def _kind(self, rpc: Rpc[Any, Any], kind: Kind | None, repeat: bool) -> Kind:
        return Kind.REPEATABLE if repeat else self._table.kind_of(rpc, kind)

    def _first_attempt(
        self, rpc: Rpc[Any, Any], kind: Kind | None, left: float, repeat: bool
    ) -> float:
        """Say how long a first attempt may take, so that there is time for another elsewhere."""
        if repeat:  # as its caller wants it, whatever that costs
            return left * self._first_attempt_share
        repeatable = self._table.kind_of(rpc, kind) is Kind.REPEATABLE
        return self._cut_short.seconds(left) if repeatable else left

    def _later_attempt(self, story: Story, now: float) -> float | None:
        """Say how long another attempt may take: all there is, unless repeats were asked for.

        What a follower has passed on to a leader that just died gets no answer, ever, and until
        the election it passes on the next attempt, too: there has to be time for one after that.
        """
        if story.deadline == math.inf:
            return None
        left = story.deadline - now
        is_last = left <= (story.deadline - story.started) / 3
        if not story.repeat or self._first_attempt_share == 1.0 or is_last:
            return left
        return left / 2

    def _reach(self, endpoint: str) -> Link:
        try:
            return self.connections.reach(normalise(endpoint))
        except KeyError:
            raise InvalidArgument(f"{endpoint} is not among the client's endpoints") from None

    def _await_anyone(self, story: Story, need: Need) -> Flow[Link]:
        """Wait until the balancer knows somebody who can serve; raise when time is up."""
        while True:
            seen = self.connections.version
            now = self._clock()
            link = self.connections.pick(need, now, story.tried)
            if link is not None:
                return link
            left = story.deadline - now
            if left < LEAST_ATTEMPT_SECONDS:
                raise self._error(story, now)
            yield AwaitChange(seen, None if left == math.inf else left)

    def _judge(
        self, story: Story, link: Link, failed: CallFailed, sent: float, token: Token | None
    ) -> Flow[None]:
        """Take a failed attempt in: raise, or return when it is time for the next attempt."""
        now = self._clock()
        trouble = diagnose(failed, time_left=story.deadline - now > LEAST_ATTEMPT_SECONDS)
        self.connections.done(link, trouble.failure, now - sent, now)
        if trouble.failure is Failure.TIMED_OUT:
            self._cut_short.spend()
        story.add(link, trouble)
        has_password = self.credentials is not None
        verdict = self._table.judge(trouble, story.rpc, story.kind, has_password=has_password)
        if (yield from self._has_another_token(story, verdict, token, now)):
            return
        if verdict in (Verdict.FAIL_OVER, Verdict.FAIL_OVER_AND_RETURN):
            self.connections.failed_over(link, trouble.failure)
        endpoints = self.connections.size
        pause = self._retry_rule.seconds_before_retry(story.attempts, endpoints)
        if (
            verdict in _ENDS
            or (verdict is Verdict.RETRY_ELSEWHERE and endpoints < 2)
            or now + pause > story.deadline - LEAST_ATTEMPT_SECONDS
        ):
            raise self._error(story, now) from failed.__cause__
        url, cause = link.url, trouble.cause.name.lower()
        events.call_retried(story.rpc.path, url, cause, trouble.text, story.attempts)
        if pause:
            yield Sleep(pause)

    def _error(self, story: Story, now: float) -> EtcdError:
        """Make the error to raise; a call that the client's closing ended says just that."""
        closed = self.connections.closed
        return closed or story.error(now, self.connections.reasons())
