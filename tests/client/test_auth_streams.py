"""Watches, leases and snapshots of a client with a password, on a real etcd that asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from secured.etcds import ALICE, Secured, secured

from etcd_pinwheel import PermissionDenied, Unauthenticated

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
POLICIES = ("pinned_multi", "pinned_single", "round_robin", "health_aware")
SOON = 20.0
TTL = 2
TOKEN_TTL = 4
WRONG = {**ALICE, "password": "bob's"}
ROOT = {"username": "root", "password": "root's"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Secured]:
    with secured() as etcd:
        yield etcd


@pytest.fixture
def alice(guarded: Secured, connect: Connect) -> Any:
    return connect(guarded.endpoints, **ALICE)


def keys_of(watch: Any, count: int) -> list[str]:
    return [watch.next_event(timeout=SOON).key.decode() for _ in range(count)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_new_watch_on_a_stream_whose_token_is_forgotten(
    guarded: Secured, connect: Connect, policy: str
) -> None:
    """etcd#12385, python-etcd3#1227 and milvus#51926; this etcd calls it "permission denied"."""
    alice = connect(guarded.endpoints, balancer=policy, **ALICE)
    with alice.watch("a", prefix=True) as old:
        for round_ in range(2):
            alice.put(f"a/{round_}/0", "")
            guarded.outdate_tokens()
            with alice.watch("a/", prefix=True, timeout=SOON) as new:
                alice.put(f"a/{round_}/1", "")
                assert keys_of(new, 1) == [f"a/{round_}/1"]
        assert keys_of(old, 4) == ["a/0/0", "a/0/1", "a/1/0", "a/1/1"]


def test_a_watch_without_permission_is_told_so_and_nobody_else_notices(
    guarded: Secured, alice: Any
) -> None:
    with alice.watch("a/x") as first, alice.watch("a/y") as second:
        alice.put("a/x", "1")
        before = guarded.authenticates()
        for _ in range(3):
            with pytest.raises(PermissionDenied), alice.watch("b", timeout=SOON):
                raise AssertionError("let in")
        alice.put("a/x", "2")
        alice.put("a/y", "")
        assert keys_of(first, 2) == ["a/x", "a/x"]
        assert keys_of(second, 1) == ["a/y"]
        assert guarded.authenticates() == before
        endpoint = next(iter(alice.endpoints.values()))
        assert endpoint.streams == 1


def test_a_watch_begins_before_authentication_does(guarded: Secured, alice: Any) -> None:
    guarded.disable()
    try:
        with alice.watch("a", prefix=True) as old:
            alice.put("a/0", "")
            guarded.enable()
            with alice.watch("a/1", timeout=SOON) as new:
                alice.put("a/1", "")
                assert keys_of(new, 1) == ["a/1"]
            assert keys_of(old, 2) == ["a/0", "a/1"]
    finally:
        if "true" not in guarded.ctl("auth", "status"):
            guarded.enable()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_wrong_password_is_told_at_once(guarded: Secured, connect: Connect, policy: str) -> None:
    stranger = connect(guarded.endpoints, balancer=policy, timeout=60.0, **WRONG)
    with pytest.raises(Unauthenticated, match="invalid user ID"), stranger.watch("a"):
        raise AssertionError("let in")
    with pytest.raises(Unauthenticated, match="invalid user ID"), stranger.lease(ttl=TTL):
        raise AssertionError("let in")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_snapshot_with_a_token_that_is_forgotten(
    guarded: Secured, connect: Connect, tmp_path: Path, policy: str
) -> None:
    root = connect(guarded.endpoints, balancer=policy, **ROOT)
    for name in ("first", "second"):
        snapshot = root.maintenance.snapshot(tmp_path / name)
        assert (tmp_path / name).stat().st_size == snapshot.size_bytes
        guarded.ctl("user", "passwd", "root", "--interactive=false", stdin="root's")
    assert b"".join(root.maintenance.snapshot_chunks(endpoint=guarded.endpoints[0]))


def test_a_snapshot_is_roots(guarded: Secured, alice: Any, tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied, match="auth: permission denied"):
        alice.maintenance.snapshot(tmp_path / "stolen")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_tokens_that_expire(connect: Connect, tmp_path: Path) -> None:
    """python-etcd3's 580 and 1315: after five minutes (here: seconds) every call fails."""
    with secured("--auth-token-ttl", str(TOKEN_TTL)) as etcd:
        alice = connect(etcd.endpoints, **ALICE)
        root = connect(etcd.endpoints, **ROOT)
        root.maintenance.snapshot(tmp_path / "before")
        with alice.lease(ttl=TTL) as lease, alice.watch("a", prefix=True) as watch:
            alice.put("a/0", "", lease=lease)
            for round_ in range(1, 3):
                before = etcd.authenticates()
                time.sleep(TOKEN_TTL + 2)  # the members look once a second
                alice.put(f"a/{round_}", "", lease=lease)
                assert alice.get(f"a/{round_}").lease == lease.id
                assert etcd.authenticates() - before == 1
            assert keys_of(watch, 3) == ["a/0", "a/1", "a/2"]
            lease.lost.check()
            time.sleep(TOKEN_TTL + 2)
            with alice.watch("a/9", timeout=SOON) as another:
                alice.put("a/9", "", lease=lease)
                assert keys_of(another, 1) == ["a/9"]
            assert keys_of(watch, 1) == ["a/9"]
        assert len(alice.get_prefix("a/")) == 0  # the lease was revoked
        root.maintenance.snapshot(tmp_path / "after")
