"""What to do about a call that failed: decided from data, without waiting.

Two questions, kept apart. *What happened?* has one answer for every generation:
:func:`diagnose` finds the :class:`Cause` in the code, the text and who said it. *What to do?* is
each generation's own: an :class:`ErrorTable` gives the verdict for a cause, one column for RPCs
that may be repeated and one for those that may not.

Rule 1: a write whose outcome is unknown is never sent again, unless its caller asks for that
(retries.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, TypeAlias

from ..balancers.api import Failure
from ..protos import errors as table
from ..protos import rpcs
from ..protos.errors import Code
from ..protos.rpc import Rpc
from . import errors
from .flow import LINK_CLOSED, CallFailed


class Kind(Enum):
    """Whether an RPC may be carried out twice without anybody being the wiser."""

    REPEATABLE = auto()
    NON_REPEATABLE = auto()


REPEATABLE: Final[frozenset[Rpc[Any, Any]]] = frozenset(
    {
        rpcs.KV_RANGE,
        rpcs.LEASE_LEASE_GRANT,  # a grant carried out twice leaves one to expire by itself
        rpcs.LEASE_LEASE_REVOKE,  # the second answer may be "requested lease not found"
        rpcs.LEASE_LEASE_TIME_TO_LIVE,
        rpcs.LEASE_LEASE_LEASES,
        rpcs.CLUSTER_MEMBER_LIST,
        rpcs.MAINTENANCE_ALARM,
        rpcs.MAINTENANCE_STATUS,
        rpcs.MAINTENANCE_HASH,
        rpcs.MAINTENANCE_HASH_KV,
        rpcs.MAINTENANCE_MOVE_LEADER,
        rpcs.AUTH_USER_LIST,
        rpcs.AUTH_USER_GET,
        rpcs.AUTH_ROLE_LIST,
        rpcs.AUTH_ROLE_GET,
        rpcs.AUTH_AUTHENTICATE,  # a token that nobody has heard of expires by itself
    }
)
"""As clientv3 has it since 3.2.10, but for Authenticate; no other unary RPC is repeatable."""

REPEATABLE_WRITES: Final[frozenset[Rpc[Any, Any]]] = frozenset(
    {
        rpcs.LEASE_LEASE_GRANT,
        rpcs.LEASE_LEASE_REVOKE,
        rpcs.MAINTENANCE_ALARM,
        rpcs.MAINTENANCE_MOVE_LEADER,
    }
)
"""Those of them that change something."""


def kind_of(rpc: Rpc[Any, Any]) -> Kind:
    """Classify an RPC; an operation that knows its request better may say otherwise."""
    return Kind.REPEATABLE if rpc in REPEATABLE else Kind.NON_REPEATABLE


class Cause(Enum):
    """What happened to a call, as far as the next step depends on it."""

    NOT_SENT = auto()
    """There was no connection: it never left. Or the server turned it away unread."""
    BROKEN = auto()
    """The connection was lost under it."""
    NO_ANSWER = auto()
    """Its own deadline passed."""
    CUT_SHORT = auto()
    """The other side, or something between, cancelled it or ran out of time."""
    GAVE_UP = auto()
    """The member took it and could not finish: request timed out, leader changed, stopped."""
    NO_LEADER = auto()
    """The member knows of no leader; refused before it was proposed."""
    LEARNER = auto()
    """The member is a learner; refused at once."""
    TOO_BUSY = auto()
    """Too many requests; refused before it was proposed."""
    REFUSED = auto()
    """A refusal that another attempt would only repeat."""
    FOREIGN = auto()
    """Nothing that an etcd says; whether it was carried out is not known."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failed attempt, diagnosed."""

    cause: Cause
    failure: Failure
    """The same in the balancers' words."""
    code: Code
    """What the failure means; etcd sends some refusals with another code."""
    text: str

    @property
    def may_have_been_applied(self) -> bool:
        return self.cause in _OUTCOME_UNKNOWN or _is_reply_too_large(self.text)


_OUTCOME_UNKNOWN: Final = frozenset(
    {Cause.BROKEN, Cause.NO_ANSWER, Cause.CUT_SHORT, Cause.GAVE_UP, Cause.FOREIGN}
)

# What follows are texts of grpc's core, with code Unavailable. Texts are no API, and grpc has no
# other sign: tests/client/test_grpc_texts.py provokes each with the grpcio that is installed. A
# proxy that is made with grpc's core uses them about its own upstream, to the same effect: the
# call went no further.
_NEVER_LEFT: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "errors resolving ",
    "DNS resolution failed",
    "empty address list",
    LINK_CLOSED,
)
_GONE_AWAY: Final = "GOAWAY received; "
"""The call's stream came after the last one that the server has looked at, as it says. Where it
came before, the text begins with what ended the connection, and tells of the GOAWAY behind."""
_RESET: Final = "Received RST_STREAM with error code "
_REFUSED_STREAM: Final = f"{_RESET}7"
"""The server says that it closed the stream before it did anything about it (RFC 9113, 8.7)."""

_NO_SUCH_PAGE: Final = tuple(
    f"received http2 header with status: {status}" for status in (401, 403, 404, 405, 415)
)
"""What servers of web pages say to a request that they do not know."""

_CAUSE_OF_TEXT: Final[Mapping[str, Cause]] = {
    table.NO_LEADER.text: Cause.NO_LEADER,
    table.NOT_SUPPORTED_FOR_LEARNER.text: Cause.LEARNER,
    table.TOO_MANY_REQUESTS.text: Cause.TOO_BUSY,
    table.REQUEST_CANCELED.text: Cause.CUT_SHORT,
    # Raft's own words, which etcd hands out unmapped
    table.PROPOSAL_DROPPED.text: Cause.GAVE_UP,
    table.RAFT_STOPPED.text: Cause.GAVE_UP,
    table.LEADER_TRANSFER_TIMEOUT.text: Cause.GAVE_UP,
    table.UNHEALTHY.text: Cause.REFUSED,
}

_CAUSE_OF_CODE: Final[Mapping[Code, Cause]] = {
    Code.DEADLINE_EXCEEDED: Cause.CUT_SHORT,
    Code.CANCELLED: Cause.CUT_SHORT,
    Code.UNKNOWN: Cause.FOREIGN,
    Code.INTERNAL: Cause.FOREIGN,
    Code.ABORTED: Cause.FOREIGN,
    Code.DATA_LOSS: Cause.FOREIGN,
}
"""For texts that are not etcd's; any other code is a refusal."""

_FAILURE_OF_CAUSE: Final[Mapping[Cause, Failure]] = {
    Cause.NOT_SENT: Failure.NOT_SENT,
    Cause.BROKEN: Failure.BROKEN,
    Cause.NO_ANSWER: Failure.TIMED_OUT,
    Cause.CUT_SHORT: Failure.TIMED_OUT,
    Cause.GAVE_UP: Failure.UNAVAILABLE,
    Cause.NO_LEADER: Failure.UNAVAILABLE,
    Cause.LEARNER: Failure.UNAVAILABLE,
    Cause.TOO_BUSY: Failure.REFUSED,
    Cause.REFUSED: Failure.REFUSED,
    Cause.FOREIGN: Failure.REFUSED,
}

_TIMEOUT_TEXTS: Final = frozenset(
    {
        table.TIMEOUT.text,
        table.TIMEOUT_LEADER_FAILURE.text,
        table.TIMEOUT_CONNECTION_LOST.text,
        table.TIMEOUT_APPLIED_INDEX.text,
    }
)


GOS_DEADLINE: Final = "context deadline exceeded"
"""How etcd, with code Unknown, may answer a call just when the caller's own deadline passes."""


TOKEN_REFUSALS: Final = frozenset(
    {
        table.INVALID_AUTH_TOKEN.text,
        table.AUTH_OLD_REVISION.text,
        table.USER_EMPTY.text,
        table.STORE_INVALID_AUTH_TOKEN.text,
        table.STORE_AUTH_OLD_REVISION.text,
        table.STORE_USER_EMPTY.text,
    }
)
"""What is said of a token that expired, is older than the last change of users and roles, or was
not sent; each time before anything was carried out."""

_OUTDATED: Final = frozenset({table.AUTH_OLD_REVISION.text, table.STORE_AUTH_OLD_REVISION.text})
"""What of that is said also of who is known by a certificate, when users or roles change between a
call's arrival and its turn. Each call is looked up anew, so the next one is right."""


def diagnose(failed: CallFailed, *, time_left: bool) -> Trouble:
    """Find out what happened. ``time_left``: whether the call's own deadline is yet to come."""
    row = table.BY_TEXT.get(failed.text)
    code = failed.code if row is None else row.code
    if code is Code.UNKNOWN and failed.text == GOS_DEADLINE and not time_left:
        code = Code.DEADLINE_EXCEEDED
    if row is not None:
        cause = _cause_of_refusal(row)
    elif code is Code.UNAVAILABLE:
        cause = Cause.NOT_SENT if _was_not_read(failed.text) else Cause.BROKEN
    elif code is Code.DEADLINE_EXCEEDED and not time_left:
        cause = Cause.NO_ANSWER
    elif failed.text.lower().startswith(_NO_SUCH_PAGE):
        cause = Cause.REFUSED
    elif _unwrapped(failed.text).startswith(_RESET):  # the code is grpc's guess at the server's
        cause = _CAUSE_OF_CODE.get(code, Cause.FOREIGN)
    else:
        cause = _CAUSE_OF_CODE.get(code, Cause.REFUSED)
    failure = Failure.TIMED_OUT if failed.text in _TIMEOUT_TEXTS else _FAILURE_OF_CAUSE[cause]
    return Trouble(cause, failure, code, failed.text)


def _was_not_read(text: str) -> bool:
    if text.startswith(_NEVER_LEFT):
        return True
    told = _unwrapped(text)
    return told == _REFUSED_STREAM or told.startswith(_GONE_AWAY)


def _unwrapped(text: str) -> str:
    """Take off what newer releases of grpc's core put around its own texts."""
    return text.removeprefix("Stream removed (").removeprefix("RST_STREAM (").rstrip(")")


def _is_reply_too_large(text: str) -> bool:
    """Tell the client's own complaint from the server's, which is about the request."""
    about_size = "received message larger than max" in text.lower()
    return about_size and not text.startswith("grpc: ")  # the Go server's own words


def _cause_of_refusal(row: table.Refusal) -> Cause:
    cause = _CAUSE_OF_TEXT.get(row.text)
    if cause is None:
        cause = Cause.GAVE_UP if row.code is Code.UNAVAILABLE else Cause.REFUSED
    return cause


class Verdict(Enum):
    """What to do about a failed attempt."""

    RETURN = auto()
    """Tell the caller."""
    RETRY = auto()
    """Try again, wherever the balancer says."""
    RETRY_ELSEWHERE = auto()
    """Try again if there is another endpoint, else tell the caller."""
    FAIL_OVER = auto()
    """Tell the balancer that the endpoint failed, and try again."""
    FAIL_OVER_AND_RETURN = auto()
    """Tell the balancer that the endpoint failed, and the caller too."""
    REFRESH_TOKEN = auto()
    """Get a new token and send the same again: nothing was carried out without a valid one."""


Row: TypeAlias = tuple[Verdict, Verdict]
"""Verdicts for RPCs that may be repeated, and for the others."""


@dataclass(frozen=True)
class ErrorTable:
    """A generation's verdicts."""

    rows: Mapping[Cause, Row]
    """One for each cause. A text or code that nobody knows has a cause like any other: see
    :func:`diagnose`."""
    exceptions: Mapping[str | Code, Row] = field(default_factory=dict)
    """What goes before the rows: by etcd's text, or else by the code that it means."""
    repeatable: frozenset[Rpc[Any, Any]] = REPEATABLE
    repeats_reading_txns: bool = True
    """Whether a transaction that only reads may be repeated."""
    refreshed: frozenset[Rpc[Any, Any]] | None = None
    """Which RPCs are sent again with a new token; None: all."""
    streams_fail_over: bool = True
    """Whether a stream that breaks has the verdict on it told to the balancer."""

    def kind_of(self, rpc: Rpc[Any, Any], of_request: Kind | None = None) -> Kind:
        """Classify a call; ``of_request`` is what its operation knows about the request."""
        if of_request is Kind.NON_REPEATABLE:
            return of_request
        if of_request is Kind.REPEATABLE and self.repeats_reading_txns:
            return of_request
        return Kind.REPEATABLE if rpc in self.repeatable else Kind.NON_REPEATABLE

    def judge(
        self, trouble: Trouble, rpc: Rpc[Any, Any], kind: Kind, *, has_password: bool = True
    ) -> Verdict:
        """Find what to do about a failed attempt.

        ``has_password``: whether the client gets tokens, rather than be known by its certificate
        or by nothing.
        """
        row = self.exceptions.get(trouble.text) or self.exceptions.get(trouble.code)
        verdict = _of_kind(row or self.rows[trouble.cause], kind)
        if verdict is Verdict.REFRESH_TOKEN and not has_password and trouble.text in _OUTDATED:
            return Verdict.RETRY
        if verdict is Verdict.REFRESH_TOKEN and self.refreshed and rpc not in self.refreshed:
            return Verdict.RETURN
        return verdict

    def verdict(self, cause: Cause, kind: Kind) -> Verdict:
        """Find what to do about a cause, exceptions apart."""
        return _of_kind(self.rows[cause], kind)


def _of_kind(row: Row, kind: Kind) -> Verdict:
    repeatable, other = row
    return repeatable if kind is Kind.REPEATABLE else other


_RETURN, _RETRY, _REFRESH = Verdict.RETURN, Verdict.RETRY, Verdict.REFRESH_TOKEN

ROUND_ROBIN_TABLE: Final = ErrorTable(
    {
        #                (repeatable, the others)
        Cause.NOT_SENT: (_RETRY, _RETRY),
        Cause.BROKEN: (_RETRY, _RETURN),
        Cause.NO_ANSWER: (_RETURN, _RETURN),
        Cause.CUT_SHORT: (_RETRY, _RETURN),
        Cause.GAVE_UP: (_RETRY, _RETURN),
        Cause.NO_LEADER: (_RETRY, _RETURN),
        Cause.LEARNER: (Verdict.RETRY_ELSEWHERE, Verdict.RETRY_ELSEWHERE),
        Cause.TOO_BUSY: (_RETURN, _RETURN),
        Cause.REFUSED: (_RETURN, _RETURN),
        Cause.FOREIGN: (_RETURN, _RETURN),
    },
    exceptions={
        # Raft's own words, on the wire as Unknown, which clientv3 takes for final
        table.PROPOSAL_DROPPED.text: (_RETURN, _RETURN),
        table.RAFT_STOPPED.text: (_RETURN, _RETURN),
        table.LEADER_TRANSFER_TIMEOUT.text: (_RETURN, _RETURN),
        **dict.fromkeys(TOKEN_REFUSALS, (_REFRESH, _REFRESH)),
    },
    repeats_reading_txns=False,
)
"""clientv3's retry interceptor (3.4 on), but for rule 1, which it breaks in two places: it sends
any RPC again, writes included, when the other side cancels it or runs out of time (CUT_SHORT), and
a grant of a lease with an id of the caller's own. It knows a refused token for what it is also in
the auth store's own words, which clientv3 does not."""


def is_about_token(error: object) -> bool:
    """Tell whether an error says that another token is needed, and not another password."""
    return isinstance(error, errors.CallError) and error.text in TOKEN_REFUSALS


_NOT_WRITTEN: Final = "Internal error from Core"
"""What grpc.aio says of a stream that had ended when a message was to be written to it, in place of
why it had."""


def nothing_came_of(error: object, requests: int) -> bool:
    """Tell whether a stream that ended so did nothing of what it has left unanswered.

    ``requests``: how many were put on it. Where one could not be written, those before it were, and
    may have been carried out. Other refusals end streams at any time, e.g. that of a member that
    has lost its leader.
    """
    if isinstance(error, errors.NotSent | errors.NotEtcd | errors.Unauthenticated):
        return True
    return isinstance(error, errors.CallError) and error.text == _NOT_WRITTEN and requests == 1


# Which error to raise

_ERROR_OF_TEXT: Final[Mapping[str, type[errors.CallError]]] = {
    table.COMPACTED.text: errors.Compacted,
    table.FUTURE_REVISION.text: errors.FutureRevision,
    table.LEASE_NOT_FOUND.text: errors.LeaseNotFound,
    table.LEASE_EXISTS.text: errors.LeaseExists,
    table.KEY_NOT_FOUND.text: errors.KeyNotFound,
    table.REQUEST_TOO_LARGE.text: errors.RequestTooLarge,
    table.NO_SPACE.text: errors.NoSpace,
    table.TOO_MANY_REQUESTS.text: errors.TooManyRequests,
    table.NO_LEADER.text: errors.NoLeader,
    table.NOT_SUPPORTED_FOR_LEARNER.text: errors.LearnerCannotServe,
    table.MEMBER_NOT_FOUND.text: errors.MemberNotFound,
    table.AUTH_FAILED.text: errors.Unauthenticated,
    table.NO_PASSWORD_USER.text: errors.Unauthenticated,
    **dict.fromkeys(TOKEN_REFUSALS, errors.Unauthenticated),
    table.CORRUPT.text: errors.Corrupt,
}

_ERROR_OF_CODE: Final[Mapping[Code, type[errors.CallError]]] = {
    Code.UNAUTHENTICATED: errors.Unauthenticated,
    Code.PERMISSION_DENIED: errors.PermissionDenied,
    Code.UNIMPLEMENTED: errors.NotEtcd,
}

_ERROR_OF_CAUSE: Final[Mapping[Cause, type[errors.CallError]]] = {
    Cause.NOT_SENT: errors.NotSent,
    Cause.BROKEN: errors.ConnectionLost,
    Cause.NO_ANSWER: errors.TimedOut,
    Cause.CUT_SHORT: errors.OutcomeUnknown,
    Cause.GAVE_UP: errors.Unavailable,
    Cause.FOREIGN: errors.OutcomeUnknown,
}


def error_class(trouble: Trouble) -> type[errors.CallError]:
    """Choose the class that says what the caller may assume."""
    if by_text := _ERROR_OF_TEXT.get(trouble.text):
        return by_text
    if trouble.code is Code.DEADLINE_EXCEEDED:
        return errors.TimedOut
    if _is_reply_too_large(trouble.text):
        return errors.ReplyTooLarge
    if "received message larger than max" in trouble.text.lower():
        return errors.RequestTooLarge
    if "http2 header with status" in trouble.text:
        return errors.OutcomeUnknown if trouble.may_have_been_applied else errors.NotEtcd
    if by_cause := _ERROR_OF_CAUSE.get(trouble.cause):
        return by_cause
    return _ERROR_OF_CODE.get(trouble.code, errors.Refused)
