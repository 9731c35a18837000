"""The error handler's decisions, as data."""

from __future__ import annotations

import pytest

from etcd_pinwheel import (
    Compacted,
    ConnectionLost,
    Corrupt,
    NoLeader,
    NotEtcd,
    NotSent,
    OutcomeUnknown,
    PermissionDenied,
    Refused,
    ReplyTooLarge,
    RequestTooLarge,
    TimedOut,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from etcd_pinwheel.balancers.api import Failure
from etcd_pinwheel.client.error_handler import (
    ROUND_ROBIN_TABLE,
    Cause,
    Kind,
    Verdict,
    diagnose,
    error_class,
    kind_of,
)
from etcd_pinwheel.client.errors import CallError
from etcd_pinwheel.client.flow import CLOSED_UNDER_STREAM, LINK_CLOSED, CallFailed
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code

REFUSED_CONNECTION = "failed to connect to all addresses; last error: Connection refused"
GOAWAY = "GOAWAY received; Error code: 0; Debug Text: "
RESET = "Received RST_STREAM with error code "

# code, text, cause, error; as grpc reports them, with time left
DIAGNOSES = [
    (Code.UNAVAILABLE, REFUSED_CONNECTION, Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, "connections to all backends failing; ...", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, "errors resolving nowhere:1: [...]", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, "DNS resolution failed for nowhere", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, LINK_CLOSED, Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, CLOSED_UNDER_STREAM, Cause.BROKEN, ConnectionLost),
    (Code.UNAVAILABLE, "Stream removed (Socket closed)", Cause.BROKEN, ConnectionLost),
    (Code.UNAVAILABLE, "Socket closed", Cause.BROKEN, ConnectionLost),
    (Code.UNAVAILABLE, "max connection age", Cause.BROKEN, ConnectionLost),
    (Code.UNAVAILABLE, f"{GOAWAY}too_many_pings", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, f"Stream removed ({GOAWAY})", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, f"Stream removed (Socket closed ({GOAWAY}))", Cause.BROKEN, ConnectionLost),
    (Code.UNAVAILABLE, f"{RESET}7", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, f"Stream removed (RST_STREAM ({RESET}7))", Cause.NOT_SENT, NotSent),
    (Code.UNAVAILABLE, f"{RESET}77", Cause.BROKEN, ConnectionLost),
    (Code.INTERNAL, f"{RESET}2", Cause.FOREIGN, OutcomeUnknown),
    (Code.CANCELLED, f"{RESET}8", Cause.CUT_SHORT, OutcomeUnknown),
    (Code.RESOURCE_EXHAUSTED, f"{RESET}11", Cause.FOREIGN, OutcomeUnknown),
    (Code.PERMISSION_DENIED, f"{RESET}12", Cause.FOREIGN, OutcomeUnknown),
    (Code.UNAVAILABLE, "anything else", Cause.BROKEN, ConnectionLost),
    (Code.DEADLINE_EXCEEDED, "context deadline exceeded", Cause.CUT_SHORT, TimedOut),
    (Code.UNKNOWN, "context deadline exceeded", Cause.FOREIGN, OutcomeUnknown),
    (Code.CANCELLED, "context canceled", Cause.CUT_SHORT, OutcomeUnknown),
    (Code.UNAVAILABLE, table.TIMEOUT.text, Cause.GAVE_UP, Unavailable),
    (Code.UNAVAILABLE, table.LEADER_CHANGED.text, Cause.GAVE_UP, Unavailable),
    (Code.UNAVAILABLE, table.STOPPED.text, Cause.GAVE_UP, Unavailable),
    (Code.UNKNOWN, table.PROPOSAL_DROPPED.text, Cause.GAVE_UP, Unavailable),
    (Code.UNAVAILABLE, table.NO_LEADER.text, Cause.NO_LEADER, NoLeader),
    (Code.UNAVAILABLE, table.UNHEALTHY.text, Cause.REFUSED, Refused),
    (Code.UNKNOWN, table.TOO_MANY_REQUESTS.text, Cause.TOO_BUSY, TooManyRequests),
    (Code.OUT_OF_RANGE, table.COMPACTED.text, Cause.REFUSED, Compacted),
    (Code.DATA_LOSS, table.CORRUPT.text, Cause.REFUSED, Corrupt),
    (Code.UNAUTHENTICATED, table.INVALID_AUTH_TOKEN.text, Cause.REFUSED, Unauthenticated),
    (Code.INVALID_ARGUMENT, table.AUTH_FAILED.text, Cause.REFUSED, Unauthenticated),
    (Code.UNKNOWN, table.STORE_INVALID_AUTH_TOKEN.text, Cause.REFUSED, Unauthenticated),
    (Code.UNKNOWN, table.STORE_PERMISSION_DENIED.text, Cause.REFUSED, PermissionDenied),
    (Code.PERMISSION_DENIED, table.PERMISSION_DENIED.text, Cause.REFUSED, PermissionDenied),
    (Code.PERMISSION_DENIED, "RBAC: access denied", Cause.REFUSED, PermissionDenied),
    (Code.INVALID_ARGUMENT, "etcdserver: a text of a later release", Cause.REFUSED, Refused),
    (Code.UNIMPLEMENTED, "unknown service etcdserverpb.KV", Cause.REFUSED, NotEtcd),
    (Code.UNKNOWN, "received http2 header with status: 404", Cause.REFUSED, NotEtcd),
    (Code.UNIMPLEMENTED, "Received http2 header with status: 404", Cause.REFUSED, NotEtcd),
    (Code.UNAVAILABLE, "Received http2 header with status: 503", Cause.BROKEN, OutcomeUnknown),
    (Code.INTERNAL, "Received http2 header with status: 400", Cause.FOREIGN, OutcomeUnknown),
    (Code.INTERNAL, "a foreign server's panic", Cause.FOREIGN, OutcomeUnknown),
    (
        Code.RESOURCE_EXHAUSTED,
        "CLIENT: Received message larger than max (9 vs. 4)",
        Cause.REFUSED,
        ReplyTooLarge,
    ),
    (
        Code.RESOURCE_EXHAUSTED,
        "grpc: received message larger than max (9 vs. 4)",
        Cause.REFUSED,
        RequestTooLarge,
    ),
]


@pytest.mark.parametrize(("code", "text", "cause", "error"), DIAGNOSES)
def test_diagnosis(code: Code, text: str, cause: Cause, error: type[CallError]) -> None:
    trouble = diagnose(CallFailed(code, text), time_left=True)
    assert trouble.cause is cause
    assert error_class(trouble) is error


# What a text that nobody knows means, by its code; a code that nobody knows comes as UNKNOWN
DEFAULTS = {
    Code.CANCELLED: Cause.CUT_SHORT,
    Code.UNKNOWN: Cause.FOREIGN,
    Code.INVALID_ARGUMENT: Cause.REFUSED,
    Code.DEADLINE_EXCEEDED: Cause.CUT_SHORT,
    Code.NOT_FOUND: Cause.REFUSED,
    Code.ALREADY_EXISTS: Cause.REFUSED,
    Code.PERMISSION_DENIED: Cause.REFUSED,
    Code.RESOURCE_EXHAUSTED: Cause.REFUSED,
    Code.FAILED_PRECONDITION: Cause.REFUSED,
    Code.ABORTED: Cause.FOREIGN,
    Code.OUT_OF_RANGE: Cause.REFUSED,
    Code.UNIMPLEMENTED: Cause.REFUSED,
    Code.INTERNAL: Cause.FOREIGN,
    Code.UNAVAILABLE: Cause.BROKEN,
    Code.DATA_LOSS: Cause.FOREIGN,
    Code.UNAUTHENTICATED: Cause.REFUSED,
}


@pytest.mark.parametrize("text", ["a text that nobody knows", ""])
@pytest.mark.parametrize("code", [code for code in Code if code.name != "OK"])
def test_the_default_of_a_text_that_nobody_knows(code: Code, text: str) -> None:
    trouble = diagnose(CallFailed(code, text), time_left=True)
    assert trouble.cause is DEFAULTS[code]
    assert issubclass(error_class(trouble), OutcomeUnknown) == trouble.may_have_been_applied


@pytest.mark.parametrize(("code", "text", "cause", "error"), DIAGNOSES)
def test_the_error_says_what_the_diagnosis_does(
    code: Code, text: str, cause: Cause, error: type[CallError]
) -> None:
    trouble = diagnose(CallFailed(code, text), time_left=True)
    assert issubclass(error, OutcomeUnknown) == trouble.may_have_been_applied


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (Code.UNKNOWN, "context deadline exceeded"),  # etcd 3.5 now and then
    ],
)
def test_a_passed_deadline_is_no_answer(code: Code, text: str) -> None:
    trouble = diagnose(CallFailed(code, text), time_left=False)
    assert trouble.cause is Cause.NO_ANSWER
    assert error_class(trouble) is TimedOut


def test_the_code_is_the_tables_where_the_wire_has_another() -> None:
    failed = CallFailed(Code.UNKNOWN, table.TOO_MANY_REQUESTS.text)
    assert diagnose(failed, time_left=True).code is Code.RESOURCE_EXHAUSTED


def test_a_member_that_ran_out_of_time_counts_as_timed_out_for_balancers() -> None:
    failed = CallFailed(Code.UNAVAILABLE, table.TIMEOUT_CONNECTION_LOST.text)
    assert diagnose(failed, time_left=True).failure is Failure.TIMED_OUT


@pytest.mark.parametrize("row", table.BY_TEXT.values(), ids=lambda row: row.text)
def test_every_row_of_the_table_of_refusals_is_diagnosed(row: table.Refusal) -> None:
    failed = CallFailed(row.wire_code, row.text)
    trouble = diagnose(failed, time_left=True)
    assert trouble.code is row.code
    assert trouble.cause not in {Cause.NOT_SENT, Cause.BROKEN, Cause.FOREIGN}
    error = error_class(trouble)
    assert issubclass(error, OutcomeUnknown) == trouble.may_have_been_applied


def test_the_table_has_a_row_for_every_cause() -> None:
    assert set(ROUND_ROBIN_TABLE.rows) == set(Cause)


def test_rule_1_a_write_that_may_have_been_applied_is_never_sent_again() -> None:
    again = {Verdict.RETRY, Verdict.RETRY_ELSEWHERE, Verdict.FAIL_OVER}
    for cause in (
        Cause.BROKEN,
        Cause.NO_ANSWER,
        Cause.CUT_SHORT,
        Cause.GAVE_UP,
        Cause.FOREIGN,
    ):
        assert ROUND_ROBIN_TABLE.verdict(cause, Kind.NON_REPEATABLE) not in again


def test_what_never_left_is_sent_again_whatever_it_is() -> None:
    for kind in Kind:
        assert ROUND_ROBIN_TABLE.verdict(Cause.NOT_SENT, kind) is Verdict.RETRY


def test_reads_are_repeated_where_clientv3_repeats_them() -> None:
    repeated = {
        cause
        for cause in Cause
        if ROUND_ROBIN_TABLE.verdict(cause, Kind.REPEATABLE) is Verdict.RETRY
    }
    assert repeated == {
        Cause.NOT_SENT,
        Cause.BROKEN,
        Cause.CUT_SHORT,
        Cause.GAVE_UP,
        Cause.NO_LEADER,
    }


def test_writes_are_not_repeatable() -> None:
    writes = (rpcs.KV_PUT, rpcs.KV_DELETE_RANGE, rpcs.KV_TXN, rpcs.KV_COMPACT)
    assert {kind_of(rpc) for rpc in writes} == {Kind.NON_REPEATABLE}
    assert kind_of(rpcs.KV_RANGE) is Kind.REPEATABLE
    assert kind_of(rpcs.MAINTENANCE_DEFRAGMENT) is Kind.NON_REPEATABLE
