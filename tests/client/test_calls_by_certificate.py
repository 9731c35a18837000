"""Calls of a client that is known by its certificate, while users and roles change."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_pinwheel import Unauthenticated
from etcd_pinwheel.client import kv
from etcd_pinwheel.client.flow import CallFailed
from etcd_pinwheel.protos import errors as table
from etcd_pinwheel.protos.errors import Refusal
from etcd_pinwheel.protos.etcdserverpb import PutResponse

from .scene import A, B, Scene

OUTDATED = [table.AUTH_OLD_REVISION, table.STORE_AUTH_OLD_REVISION]
ABOUT_TOKENS = [table.USER_EMPTY, table.INVALID_AUTH_TOKEN, table.STORE_INVALID_AUTH_TOKEN]


def put(scene: Scene, row: Refusal, times: int) -> Any:
    """Put a key; the call is refused so many times."""

    def answer(_step: object) -> Any:
        refused = len(scene.sent) <= times
        return CallFailed(row.wire_code, row.text) if refused else PutResponse()

    return scene.play(kv.put(scene.call, "k", "v"), answer)


@pytest.mark.parametrize("policy", ["round_robin", "health_aware"])
@pytest.mark.parametrize("urls", [(A,), (A, B)])
@pytest.mark.parametrize("row", OUTDATED)
def test_a_write_that_was_overtaken_by_a_change_of_users_is_sent_again(
    policy: str, urls: tuple[str, ...], row: Refusal
) -> None:
    scene = Scene(policy, *urls)
    put(scene, row, times=3)
    assert len(scene.sent) == 4
    assert scene.now > 1000.0 + 4 * scene.attempt_seconds  # the policy's pauses


@pytest.mark.parametrize("policy", ["round_robin", "health_aware"])
def test_it_is_told_when_time_is_up(policy: str) -> None:
    scene = Scene(policy, A, timeout_seconds=2.0)
    with pytest.raises(Unauthenticated) as caught:
        put(scene, table.AUTH_OLD_REVISION, times=10**6)
    assert caught.value.text == table.AUTH_OLD_REVISION.text
    assert caught.value.attempts == len(scene.sent) > 1
    assert scene.now <= 1002.0


@pytest.mark.parametrize("policy", ["pinned_multi", "pinned_single"])
@pytest.mark.parametrize("row", OUTDATED)
def test_the_older_generations_do_not_know_it(policy: str, row: Refusal) -> None:
    scene = Scene(policy, A, B)
    with pytest.raises(Unauthenticated):
        put(scene, row, times=1)
    assert len(scene.sent) == 1


@pytest.mark.parametrize("policy", ["round_robin", "health_aware"])
@pytest.mark.parametrize("row", ABOUT_TOKENS)
def test_that_a_token_is_missing_or_wrong_no_other_attempt_would_change(
    policy: str, row: Refusal
) -> None:
    scene = Scene(policy, A, B)
    with pytest.raises(Unauthenticated):
        put(scene, row, times=1)
    assert len(scene.sent) == 1
