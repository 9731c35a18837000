"""A client with a password before a real etcd that asks for it, through both faces.

Complaints about other clients are cited by number: etcd's own unless a repository is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from secured.etcds import ALICE, Secured, secured

from etcd_pinwheel import NotEtcd, PermissionDenied, Unauthenticated, put
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
POLICIES = ("pinned_multi", "pinned_single", "round_robin", "health_aware")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Secured]:
    with secured() as etcd:
        yield etcd


@pytest.fixture
def alice(guarded: Secured, connect: Connect) -> Any:
    return connect(guarded.endpoints, **ALICE)


def test_every_kind_of_call_before_and_after_the_token_is_forgotten(
    guarded: Secured, alice: Any
) -> None:
    """python-etcd3's 580, 1315 and 2301: "invalid auth token", and every later call fails."""
    for word in ("first", "second"):
        alice.put("a", word)
        assert alice.get("a").value == word.encode()
        assert alice.txn().then(put("a", word)).commit()
        assert alice.delete("a")
        granted = alice.leases.grant(60)
        assert alice.leases.time_to_live(granted.id).granted_ttl == 60
        alice.leases.revoke(granted.id)
        assert len(alice.members.list()) == 1
        assert alice.maintenance.status(guarded.endpoints[0]).leader
        guarded.outdate_tokens()
    revision = alice.put("a", "").revision
    for call in (
        lambda: alice.get("a"),
        lambda: alice.put("a", ""),
        lambda: alice.txn().then(put("a", "")).commit(),
        lambda: alice.delete("a"),
        lambda: alice.compact(revision),
        lambda: alice.leases.grant(60),
    ):
        guarded.outdate_tokens()
        call()


def test_a_token_serves_many_calls(guarded: Secured, alice: Any) -> None:
    before = guarded.authenticates()
    for _ in range(20):
        alice.get("a")
    assert guarded.authenticates() - before == 1


def test_of_many_threads_or_tasks_one_authenticates(guarded: Secured, alice: Any) -> None:
    alice.get("a")
    with ThreadPoolExecutor(50) as pool:
        for _ in range(2):
            guarded.outdate_tokens()
            before = guarded.authenticates()  # root's among them
            list(pool.map(lambda _: alice.put("a", "x"), range(200)))
            assert guarded.authenticates() - before == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_forgotten_token_under_each_policy(
    guarded: Secured, connect: Connect, policy: str
) -> None:
    alice = connect(guarded.endpoints, balancer=policy, **ALICE)
    for word in ("first", "second", "third"):
        alice.put("a", word)
        assert alice.get("a").value == word.encode()
        guarded.outdate_tokens()


@pytest.mark.parametrize(
    "who", [{**ALICE, "password": "bob's"}, {"username": "nobody", "password": "x"}]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_wrong_password(
    guarded: Secured, connect: Connect, policy: str, who: dict[str, str]
) -> None:
    stranger = connect(guarded.endpoints, balancer=policy, **who)
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="invalid user ID or password") as caught:
            stranger.get("a")
        assert who["password"] not in str(caught.value)
        assert caught.value.attempts == 1


def test_permission_denied_is_told_and_costs_no_new_token(guarded: Secured, alice: Any) -> None:
    alice.get("a")
    before = guarded.authenticates()
    for call in (lambda: alice.get("b"), lambda: alice.put("b", ""), lambda: alice.get_prefix("")):
        with pytest.raises(PermissionDenied):
            call()
    assert guarded.authenticates() == before
    endpoint = guarded.endpoints[0]
    with pytest.raises(PermissionDenied, match="auth: permission denied"):
        alice.maintenance.hash_kv(endpoint)


def test_roots_maintenance_calls_refresh_their_token(guarded: Secured, connect: Connect) -> None:
    """3.5 has words of its own for it, with code Unknown."""
    root = connect(guarded.endpoints, username="root", password="root's")
    endpoint = guarded.endpoints[0]
    first = root.maintenance.hash_kv(endpoint)
    guarded.ctl("user", "passwd", "root", "--interactive=false", stdin="root's")
    assert root.maintenance.hash_kv(endpoint).hash == first.hash


def test_without_a_password_the_server_says_what_it_misses(
    guarded: Secured, connect: Connect
) -> None:
    nobody = connect(guarded.endpoints)
    with pytest.raises(Unauthenticated, match="user name is empty"):
        nobody.get("a")


@pytest.mark.parametrize("policy", POLICIES)
def test_authentication_is_switched_off_and_on(
    guarded: Secured, connect: Connect, policy: str
) -> None:
    alice = connect(guarded.endpoints, balancer=policy, **ALICE)
    alice.put("a", "on")
    guarded.disable()
    try:
        alice.put("a", "off")
        assert alice.get("a").value == b"off"
        alice.put("b", "nobody minds")
    finally:
        guarded.enable()
    if policy.startswith("pinned"):  # these generations took "user name is empty" for final
        with pytest.raises(Unauthenticated):
            alice.put("a", "on")
    else:
        alice.put("a", "on")
        with pytest.raises(PermissionDenied):
            alice.put("b", "")


def test_a_server_that_has_no_authentication(connect: Connect) -> None:
    with LocalMember("--unsafe-no-fsync") as ours:
        alice = connect([ours.endpoint], **ALICE)
        with pytest.raises(NotEtcd, match="authentication is not supported by this server"):
            alice.get("a")
