"""What a claim's writes end with when an attempt may have been carried out, and later ones fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcd_pinwheel import (
    ConnectionLost,
    KeyValue,
    LeaseNotFound,
    NoLeader,
    NoSpace,
    NotSent,
    OutcomeUnknown,
)
from etcd_pinwheel.client import claim, lease
from etcd_pinwheel.client.call import Call
from etcd_pinwheel.client.claim_handle import lease_of_its_own
from etcd_pinwheel.client.flow import CallFailed, Flow
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos.errors import Code, Refusal

from .scene import A, B, C, Scene

POLICIES = ["round_robin", "health_aware", "pinned_single", "pinned_multi"]
OWN = KeyValue(b"job/1", b"one", 5, 5, 1, 1)
RESET = (Code.UNAVAILABLE, "recvmsg:Connection reset by peer")
UNREACHABLE = (Code.UNAVAILABLE, "failed to connect to all addresses")


def revoking(call: Call) -> Flow[Any]:
    return claim.settled(lambda left, doubts: lease.revoked(call, 1, left, doubts), 5.0)


WRITES: list[Callable[[Call], Flow[Any]]] = [
    lambda call: claim.enter(call, b"job/", 1, b"one"),
    lambda call: claim.rename(call, OWN, 1, b"two"),
    lambda call: claim.leave(call, OWN.key, 1, OWN.create_revision),
    lambda call: lease_of_its_own(call, 10)(),
    revoking,
]
KINDS = ["enter", "rename", "leave", "grant", "revoke"]
each_write = pytest.mark.parametrize("write", WRITES, ids=KINDS)
each_policy = pytest.mark.parametrize("policy", POLICIES)


def refusal(row: Refusal) -> tuple[Code, str]:
    return row.wire_code, row.text


def end_of(
    policy: str, write: Callable[[Call], Flow[Any]], *failures: tuple[Code, str]
) -> tuple[Exception, Scene]:
    """Play a write whose attempts fail so, the last way for ever."""
    scene = Scene(policy, A, B, C)
    left = list(failures)

    def answer(_: Any) -> CallFailed:
        return CallFailed(*(left.pop(0) if len(left) > 1 else left[0]))

    with pytest.raises(Exception) as raised:
        scene.play(write(scene.call), answer)
    return raised.value, scene


@each_policy
@each_write
@pytest.mark.parametrize(
    "later",
    [UNREACHABLE, refusal(table.NO_LEADER), refusal(table.NO_SPACE)],
    ids=["unreachable", "no leader", "no space"],
)
def test_what_may_have_been_carried_out_does_not_end_with_a_no(
    write: Callable[[Call], Flow[Any]], policy: str, later: tuple[Code, str]
) -> None:
    error, scene = end_of(policy, write, RESET, later)
    assert isinstance(error, ConnectionLost)
    assert error.text.startswith(RESET[1]), "which is why it is not known"
    assert len(scene.sent) > 1


def test_the_error_tells_of_all_attempts() -> None:
    error, scene = end_of("round_robin", WRITES[1], RESET, refusal(table.NO_SPACE))
    assert isinstance(error, OutcomeUnknown)
    assert error.text == f"{RESET[1]}; later: {table.NO_SPACE.text}"
    assert error.attempts == len(scene.sent) == 2
    assert error.elapsed_seconds == pytest.approx(scene.now - 1000.0)
    assert isinstance(error.__cause__, NoSpace)


@each_policy
@each_write
@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (UNREACHABLE, NotSent),
        (refusal(table.NO_LEADER), NoLeader),
        (refusal(table.NO_SPACE), NoSpace),
    ],
)
def test_what_was_never_carried_out_says_so(
    write: Callable[[Call], Flow[Any]],
    policy: str,
    failure: tuple[Code, str],
    raised: type[Exception],
) -> None:
    error, _ = end_of(policy, write, failure)
    assert type(error) is raised


@each_policy
@pytest.mark.parametrize("write", [WRITES[0], revoking], ids=["enter", "revoke"])
def test_a_lease_that_is_gone_leaves_nothing_in_doubt(
    write: Callable[[Call], Flow[Any]], policy: str
) -> None:
    error, _ = end_of(policy, write, RESET, refusal(table.LEASE_NOT_FOUND))
    assert type(error) is LeaseNotFound
