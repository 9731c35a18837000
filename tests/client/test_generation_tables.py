"""Each policy's error table and retry rule, row by row: three against what clientv3 did.

``FAILURES`` is the reference: for what a call may meet, what each policy makes of it, for a call
that may be repeated and for one that may not.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from etcd_pinwheel import ConfigError
from etcd_pinwheel.client.backoff import Backoff, NoBackoff, QuorumBackoff
from etcd_pinwheel.client.error_handler import Cause, Kind, Verdict, diagnose
from etcd_pinwheel.client.flow import LINK_CLOSED, CallFailed
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.errors import Code
from etcd_pinwheel.protos.rpc import Rpc

RETURN, RETRY = Verdict.RETURN, Verdict.RETRY
ELSEWHERE, REFRESH = Verdict.RETRY_ELSEWHERE, Verdict.REFRESH_TOKEN
SWITCH_RETRY, SWITCH_RETURN = Verdict.FAIL_OVER, Verdict.FAIL_OVER_AND_RETURN

MODELS = ("pinned_multi", "pinned_single", "round_robin")
POLICIES = (*MODELS, "health_aware")
UNCONNECTED = "failed to connect to all addresses; last error: UNKNOWN: Connection refused"

Row = tuple[Verdict, Verdict]
Rows = tuple[Row, Row, Row, Row]

FINAL: Rows = ((RETURN, RETURN),) * 4
BROKEN: Rows = (
    (RETRY, RETURN),
    (SWITCH_RETRY, SWITCH_RETURN),
    (RETRY, RETURN),
    (SWITCH_RETRY, SWITCH_RETURN),
)
"""The connection failed with the call under way."""
GAVE_UP: Rows = (*BROKEN[:3], (RETRY, RETURN))
"""The member could not finish it."""
NO_LEADER: Rows = (*BROKEN[:3], (SWITCH_RETRY, SWITCH_RETRY))
CUT_SHORT: Rows = ((RETURN, RETURN), (RETURN, RETURN), (RETRY, RETURN), (RETRY, RETURN))
UNSENT: Rows = (
    (RETRY, RETRY),
    (SWITCH_RETRY, RETRY),
    (RETRY, RETRY),
    (SWITCH_RETRY, SWITCH_RETRY),
)
FOREIGN: Rows = (*FINAL[:3], (ELSEWHERE, RETURN))
RAFTS_OWN: Rows = (*FINAL[:3], (RETRY, RETURN))
TOKEN: Rows = ((REFRESH, REFRESH),) * 4
NEWER_REFRESH: Rows = (*FINAL[:2], *TOKEN[2:])

# code on the wire, text -> (may be repeated, may not) of each of POLICIES
FAILURES: dict[tuple[Code, str], Rows] = {
    # grpc's own: nothing was sent
    (Code.UNAVAILABLE, UNCONNECTED): UNSENT,
    (Code.UNAVAILABLE, "connections to all backends failing; last error: x"): UNSENT,
    (Code.UNAVAILABLE, LINK_CLOSED): UNSENT,
    # grpc's own: the connection was lost (Internal in grpc-go 1.0)
    (Code.UNAVAILABLE, "Stream removed (Socket closed)"): BROKEN,
    (Code.UNAVAILABLE, "Stream removed (ping timeout)"): BROKEN,
    (Code.UNAVAILABLE, "max connection age"): BROKEN,
    (Code.UNAVAILABLE, "transport is closing"): BROKEN,
    # etcd's, Unavailable
    (Code.UNAVAILABLE, table.NO_LEADER.text): NO_LEADER,
    (Code.UNAVAILABLE, table.LEADER_CHANGED.text): GAVE_UP,
    (Code.UNAVAILABLE, table.STOPPED.text): GAVE_UP,
    (Code.UNAVAILABLE, table.TIMEOUT.text): GAVE_UP,
    (Code.UNAVAILABLE, table.TIMEOUT_LEADER_FAILURE.text): GAVE_UP,
    (Code.UNAVAILABLE, table.TIMEOUT_CONNECTION_LOST.text): GAVE_UP,
    (Code.UNAVAILABLE, table.TIMEOUT_APPLIED_INDEX.text): GAVE_UP,
    (Code.UNAVAILABLE, table.UNHEALTHY.text): (*GAVE_UP[:2], *FINAL[2:]),
    # the pinned two do not know what a learner is
    (Code.UNAVAILABLE, table.NOT_SUPPORTED_FOR_LEARNER.text): (
        *GAVE_UP[:2],
        (ELSEWHERE, ELSEWHERE),
        (ELSEWHERE, ELSEWHERE),
    ),
    # somebody's deadline or cancellation, while the caller still waits
    (Code.DEADLINE_EXCEEDED, "context deadline exceeded"): (
        (RETURN, RETURN),
        (SWITCH_RETURN, SWITCH_RETURN),
        (RETRY, RETURN),  # clientv3 repeats the write too; rule 1 forbids it here
        (RETRY, RETURN),
    ),
    (Code.CANCELLED, "context canceled"): CUT_SHORT,
    (Code.CANCELLED, table.REQUEST_CANCELED.text): CUT_SHORT,
    # what nobody knows, by its code
    (Code.INTERNAL, "stream terminated by RST_STREAM"): (
        (RETRY, RETURN),
        (SWITCH_RETURN, SWITCH_RETURN),
        *FOREIGN[2:],
    ),
    (Code.UNAVAILABLE, "a text of tomorrow's grpc"): BROKEN,
    (Code.UNKNOWN, "a panic"): FOREIGN,
    (Code.ABORTED, "?"): FOREIGN,
    (Code.DATA_LOSS, "?"): FOREIGN,
    (Code.UNIMPLEMENTED, "unknown service"): FINAL,
    (Code.RESOURCE_EXHAUSTED, "?"): FINAL,
    (Code.FAILED_PRECONDITION, "etcdserver: a text of a later release"): FINAL,
    (Code.PERMISSION_DENIED, "RBAC: access denied"): FINAL,
    # etcd's, with other codes
    (Code.OUT_OF_RANGE, table.COMPACTED.text): FINAL,
    (Code.OUT_OF_RANGE, table.FUTURE_REVISION.text): FINAL,
    (Code.NOT_FOUND, table.LEASE_NOT_FOUND.text): FINAL,
    (Code.PERMISSION_DENIED, table.PERMISSION_DENIED.text): FINAL,
    (Code.RESOURCE_EXHAUSTED, table.NO_SPACE.text): FINAL,
    (Code.UNKNOWN, table.TOO_MANY_REQUESTS.text): (*FINAL[:3], (RETRY, RETRY)),
    (Code.DATA_LOSS, table.CORRUPT.text): FINAL,
    (Code.UNKNOWN, table.NOT_PRIMARY_LESSOR.text): FINAL,
    (Code.UNKNOWN, table.PROPOSAL_DROPPED.text): RAFTS_OWN,
    (Code.UNKNOWN, table.RAFT_STOPPED.text): RAFTS_OWN,
    (Code.UNKNOWN, table.LEADER_TRANSFER_TIMEOUT.text): RAFTS_OWN,
    # tokens
    (Code.UNAUTHENTICATED, table.INVALID_AUTH_TOKEN.text): TOKEN,
    (Code.INVALID_ARGUMENT, table.AUTH_OLD_REVISION.text): NEWER_REFRESH,
    (Code.INVALID_ARGUMENT, table.USER_EMPTY.text): NEWER_REFRESH,
    # of watches only
    (Code.CANCELLED, table.WATCH_CANCELED.text): FINAL,
    (Code.INVALID_ARGUMENT, table.AUTH_FAILED.text): FINAL,
    # the same in the auth store's own words, which clientv3 takes for final
    (Code.UNKNOWN, table.STORE_INVALID_AUTH_TOKEN.text): NEWER_REFRESH,
    (Code.UNKNOWN, table.STORE_AUTH_OLD_REVISION.text): NEWER_REFRESH,
    (Code.UNKNOWN, table.STORE_USER_EMPTY.text): NEWER_REFRESH,
    (Code.UNKNOWN, table.STORE_PERMISSION_DENIED.text): FINAL,
}


def judged(policy: str, failed: CallFailed, rpc: Rpc[Any, Any], *, time_left: bool = True) -> Row:
    """The verdicts on an RPC's failure, were it repeatable and were it not."""
    errors = BUILT_IN[policy].table
    trouble = diagnose(failed, time_left=time_left)
    repeatable, other = (errors.judge(trouble, rpc, kind) for kind in Kind)
    return repeatable, other


@pytest.mark.parametrize("position", range(4), ids=POLICIES)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure[0].name}-{failure[1]}")
def test_every_row(failure: tuple[Code, str], position: int) -> None:
    expected = FAILURES[failure][position]
    assert judged(POLICIES[position], CallFailed(*failure), rpcs.KV_PUT) == expected


# The rules behind the rows, clientv3's as its code has them, for whatever else there may be


def ruled(policy: str, code: Code, *, known: bool) -> Row:
    """What a policy makes of an answer by its code; ``known``: the text is one of etcd's."""
    unavailable, cut_short = (
        code is Code.UNAVAILABLE,
        code in {Code.DEADLINE_EXCEEDED, Code.CANCELLED},
    )
    match policy:
        case "pinned_multi":  # halts unless Unavailable or Internal; writes only if unsent
            return (RETRY if unavailable or code is Code.INTERNAL else RETURN, RETURN)
        case "pinned_single":  # three codes switch; of those only Unavailable is tried again
            if known and not unavailable:
                return RETURN, RETURN
            if code in {Code.DEADLINE_EXCEEDED, Code.INTERNAL}:
                return SWITCH_RETURN, SWITCH_RETURN
            return (SWITCH_RETRY, SWITCH_RETURN) if unavailable else (RETURN, RETURN)
        case "health_aware":  # whose connection failed is left, and what is not etcd's word
            if not known and unavailable:
                return SWITCH_RETRY, SWITCH_RETURN
            if not known and code in {Code.UNKNOWN, Code.INTERNAL, Code.ABORTED, Code.DATA_LOSS}:
                return ELSEWHERE, RETURN
            return (RETRY if unavailable or cut_short else RETURN, RETURN)
        case _:  # cancelled or out of time is tried again while the caller waits; then Unavailable
            return (RETRY if unavailable or cut_short else RETURN, RETURN)


DEVIATIONS = {
    # what only later servers and clients know
    table.NOT_SUPPORTED_FOR_LEARNER.text,
    # only health_aware knows that these changed nothing
    table.NO_LEADER.text,
    table.TOO_MANY_REQUESTS.text,
    # never the answer to what may be repeated
    table.UNHEALTHY.text,
    # with a token of its own kind
    table.INVALID_AUTH_TOKEN.text,
    table.AUTH_OLD_REVISION.text,
    table.USER_EMPTY.text,
    table.STORE_INVALID_AUTH_TOKEN.text,
    table.STORE_AUTH_OLD_REVISION.text,
    table.STORE_USER_EMPTY.text,
    # of watches only
    table.WATCH_CANCELED.text,
    # sent as Unknown, and final
    table.PROPOSAL_DROPPED.text,
    table.RAFT_STOPPED.text,
    table.LEADER_TRANSFER_TIMEOUT.text,
}
"""Texts whose rows above say otherwise than their codes."""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", table.BY_TEXT.values(), ids=lambda row: row.text)
def test_every_refusal_of_etcds_goes_by_the_rules(row: table.Refusal, policy: str) -> None:
    if row.text in DEVIATIONS:
        assert row.text in {text for _, text in FAILURES}
        return
    for code in {row.code, row.wire_code}:
        found = judged(policy, CallFailed(code, row.text), rpcs.KV_PUT)
        assert found == ruled(policy, row.code, known=True), code


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("code", [code for code in Code if code.name != "OK"], ids=lambda c: c.name)
def test_a_text_that_nobody_knows_goes_by_its_code(code: Code, policy: str) -> None:
    found = judged(policy, CallFailed(code, "nobody has ever said this"), rpcs.KV_PUT)
    assert found == ruled(policy, code, known=False)


@pytest.mark.parametrize("policy", BUILT_IN)
def test_every_verdict_on_whatever_may_come_is_one(policy: str) -> None:
    """The stated default of all: there is a verdict, and it is to tell the caller about a write."""
    for code in Code:
        for text in ("", "nobody has ever said this", "etcdserver: nor this"):
            trouble = diagnose(CallFailed(code, text), time_left=True)
            for rpc in UNARY:
                assert BUILT_IN[policy].table.judge(trouble, rpc, Kind.NON_REPEATABLE) in {
                    RETURN,
                    SWITCH_RETURN,
                }


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("pinned_multi", (RETURN, RETURN)),
        ("pinned_single", (SWITCH_RETURN, SWITCH_RETURN)),  # even if it was only a short one
        ("round_robin", (RETURN, RETURN)),
        ("health_aware", (RETURN, RETURN)),
    ],
)
def test_the_callers_own_deadline(policy: str, expected: Row) -> None:
    failed = CallFailed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert judged(policy, failed, rpcs.KV_RANGE, time_left=False) == expected


def test_every_refusal_of_etcds_with_code_unavailable_is_among_the_rows() -> None:
    known = {text for _, text in FAILURES}
    assert {row.text for row in table.BY_TEXT.values() if row.code is Code.UNAVAILABLE} <= known


@pytest.mark.parametrize("policy", BUILT_IN)
def test_every_generation_has_a_row_for_every_cause(policy: str) -> None:
    assert set(BUILT_IN[policy].table.rows) == set(Cause)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure[0].name}-{failure[1]}")
def test_rule_1_no_generation_repeats_a_write_that_may_have_been_applied(
    failure: tuple[Code, str], policy: str
) -> None:
    for time_left in (True, False):
        trouble = diagnose(CallFailed(*failure), time_left=time_left)
        verdict = BUILT_IN[policy].table.judge(trouble, rpcs.KV_PUT, Kind.NON_REPEATABLE)
        if trouble.may_have_been_applied:
            assert verdict in {RETURN, SWITCH_RETURN}


# Which RPCs may be repeated

UNARY = [rpc for rpc in rpcs.ALL if not rpc.client_streaming and not rpc.server_streaming]

SINCE_3_2_10 = {
    rpcs.KV_RANGE,
    rpcs.LEASE_LEASE_GRANT,
    rpcs.LEASE_LEASE_REVOKE,
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
}


@pytest.mark.parametrize(
    ("policy", "repeatable"),
    [
        ("pinned_multi", {rpcs.KV_RANGE}),
        ("pinned_single", SINCE_3_2_10),
        ("round_robin", SINCE_3_2_10),
        ("health_aware", SINCE_3_2_10),
    ],
)
def test_classes(policy: str, repeatable: set[Rpc[Any, Any]]) -> None:
    """But for Authenticate, which none of them repeats: a token too many harms nobody."""
    kind_of = BUILT_IN[policy].table.kind_of
    classified = {rpc for rpc in UNARY if kind_of(rpc) is Kind.REPEATABLE}
    assert classified == repeatable | {rpcs.AUTH_AUTHENTICATE}


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ("pinned_multi", Kind.REPEATABLE),
        ("pinned_single", Kind.NON_REPEATABLE),
        ("round_robin", Kind.NON_REPEATABLE),
        ("health_aware", Kind.REPEATABLE),
    ],
)
def test_a_transaction_that_only_reads(policy: str, kind: Kind) -> None:
    assert BUILT_IN[policy].table.kind_of(rpcs.KV_TXN, Kind.REPEATABLE) is kind
    assert BUILT_IN[policy].table.kind_of(rpcs.KV_TXN, Kind.NON_REPEATABLE) is Kind.NON_REPEATABLE


@pytest.mark.parametrize("policy", POLICIES)
def test_a_grant_of_an_id_of_the_callers_own_is_a_write_to_all(policy: str) -> None:
    """Which is not as clientv3 has it: see rule 1."""
    kind_of = BUILT_IN[policy].table.kind_of
    assert kind_of(rpcs.LEASE_LEASE_GRANT, Kind.NON_REPEATABLE) is Kind.NON_REPEATABLE


@pytest.mark.parametrize(
    ("policy", "others"),
    [
        ("pinned_multi", RETURN),
        ("pinned_single", RETURN),
        ("round_robin", REFRESH),
        ("health_aware", REFRESH),
    ],
)
def test_whose_token_is_refreshed(policy: str, others: Verdict) -> None:
    """The first two generations do so for KV and Lease only."""
    failed = CallFailed(Code.UNAUTHENTICATED, table.INVALID_AUTH_TOKEN.text)
    for rpc in UNARY:
        kv_or_lease = rpc.path.startswith(("/etcdserverpb.KV/", "/etcdserverpb.Lease/"))
        expected = REFRESH if kv_or_lease else others
        assert judged(policy, failed, rpc) == (expected, expected)


@pytest.mark.parametrize("policy", MODELS)
def test_streams_never_move_a_pin(policy: str) -> None:
    """Watches have loops of their own in all three; no verdict of theirs switches an endpoint."""
    errors = BUILT_IN[policy].table
    verdicts = {verdict for row in errors.rows.values() for verdict in row}
    assert not errors.streams_fail_over or not verdicts & {SWITCH_RETRY, SWITCH_RETURN}


# The pace


@pytest.mark.parametrize("policy", ["pinned_multi", "pinned_single"])
def test_before_3_4_there_was_no_pause_and_no_end(policy: str) -> None:
    rule = BUILT_IN[policy].retry_rule(Backoff(Random(0)))
    assert isinstance(rule, NoBackoff)
    assert {rule.seconds_before_retry(n, 3) for n in (1, 2, 100, 10**6)} == {0.0}


@pytest.mark.parametrize(("endpoints", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_since_3_4_the_pause_comes_with_every_quorum_of_attempts(
    endpoints: int, quorum: int
) -> None:
    rule = BUILT_IN["round_robin"].retry_rule(Backoff(Random(0)))
    assert isinstance(rule, QuorumBackoff)
    paused = [n for n in range(1, 31) if rule.seconds_before_retry(n, endpoints)]
    assert paused == list(range(quorum, 31, quorum))


def test_since_3_4_the_first_pause_is_25_ms_give_or_take_a_tenth() -> None:
    firsts = [
        QuorumBackoff(Backoff(Random(seed))).seconds_before_retry(2, 3) for seed in range(200)
    ]
    assert 0.0225 <= min(firsts) < 0.0235
    assert 0.0265 < max(firsts) <= 0.0275


# Options


@pytest.mark.parametrize(
    ("policy", "options", "problem"),
    [
        ("pinned_multi", {"on_eror": "switch"}, "no option 'on_eror'; there are: on_error"),
        ("pinned_multi", {"on_error": 5}, "on_error is one of stay, switch, not 5"),
        ("pinned_single", {"hold": 5}, "no option 'hold'; there are: dial_timeout_seconds"),
        ("pinned_single", {"dial_timeout_seconds": "5"}, "a number of seconds is needed, not '5'"),
        ("pinned_single", {"dial_timeout_seconds": -1}, "0 or more seconds are needed, not -1"),
        ("round_robin", {"seed": 1}, "round_robin has no option 'seed'"),
    ],
)
def test_options_are_validated(policy: str, options: dict[str, Any], problem: str) -> None:
    from etcd_pinwheel import AsyncClient, Client

    for face in (Client, AsyncClient):
        with pytest.raises(ConfigError, match=problem) as caught:
            face("127.0.0.1:1", balancer=policy, balancer_options=options)
        assert caught.value.field == "balancer_options"
