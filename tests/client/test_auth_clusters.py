"""A client with a password on real clusters: restarts, elections, learners, and signed tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from secured.etcds import ALICE, Secured, secured, wait_until

from etcd_pinwheel import EtcdError, PermissionDenied, Unauthenticated

pytestmark = [pytest.mark.process, pytest.mark.slow]

Connect = Callable[..., Any]
POLICIES = ("pinned_multi", "pinned_single", "round_robin", "health_aware")
SOON = 20.0
TTL = 10


@pytest.fixture(scope="module")
def three() -> Iterator[Secured]:
    with secured(size=3) as etcds:
        etcds.cluster.wait_for_leader()
        yield etcds


def keys_of(watch: Any, count: int) -> list[str]:
    return [watch.next_event(timeout=SOON).key.decode() for _ in range(count)]


@pytest.mark.parametrize("policy", POLICIES)
def test_all_members_forget_the_token(three: Secured, connect: Connect, policy: str) -> None:
    alice = connect(three.endpoints, balancer=policy, **ALICE)
    with alice.watch("a", prefix=True) as watch, alice.lease(ttl=TTL) as lease:
        for round_ in range(3):
            three.outdate_tokens()
            before = three.authenticates()
            for call in range(6):  # to each member twice, where they go to all
                alice.put(f"a/{round_}/{call}", "", lease=lease)
            assert three.authenticates() - before == 1
        expected = [f"a/{round_}/{call}" for round_ in range(3) for call in range(6)]
        assert keys_of(watch, len(expected)) == expected
        lease.lost.check()


@pytest.mark.parametrize("policy", POLICIES)
def test_each_member_restarts_and_forgets_the_token(
    three: Secured, connect: Connect, policy: str
) -> None:
    """Simple tokens are in each member's memory only; the others still know this one."""
    alice = connect(three.endpoints, balancer=policy, timeout=SOON, **ALICE)
    with alice.watch("a", prefix=True) as watch, alice.lease(ttl=3 * TTL) as lease:
        expected = []
        for round_, member in enumerate(three.cluster):
            alice.put(f"a/{round_}/before", "", lease=lease)
            member.stop()
            member.restart()
            wait_until(lambda: three.cluster.leader() is not None, "a leader")
            for call in range(4):
                written(alice, f"a/{round_}/{call}")
            expected += [f"a/{round_}/before", *(f"a/{round_}/{call}" for call in range(4))]
        seen: list[str] = []
        while expected[-1] not in seen:
            seen += keys_of(watch, 1)
        assert list(dict.fromkeys(seen)) == expected
        lease.lost.check()


def written(client: Any, key: str) -> None:
    """Write until it is said to be done: a write under which a member stops is not repeated."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            client.put(key, "")
        except Unauthenticated:
            raise
        except EtcdError:
            assert time.monotonic() < deadline
        else:
            return


@pytest.mark.parametrize("policy", POLICIES)
def test_the_leader_dies_with_a_watch_open(connect: Connect, policy: str) -> None:
    with secured(size=3) as etcds:
        leader = etcds.cluster.wait_for_leader()
        alice = connect(etcds.endpoints, balancer=policy, timeout=SOON, **ALICE)
        with alice.watch("a", prefix=True) as watch:
            alice.put("a/0", "")
            leader.kill()
            written(alice, "a/1")
            wait_until(lambda: etcds.cluster.leader() is not None, "another leader")
            etcds.outdate_tokens()
            written(alice, "a/2")
            with alice.watch("a/3", timeout=SOON) as another:
                written(alice, "a/3")
                assert keys_of(another, 1) == ["a/3"]
            seen: list[str] = []
            while "a/3" not in seen:
                seen += keys_of(watch, 1)
            assert list(dict.fromkeys(seen)) == ["a/0", "a/1", "a/2", "a/3"]


@pytest.mark.parametrize("policy", ["round_robin", "health_aware"])
def test_a_learner_refuses_to_authenticate_and_another_is_asked(
    connect: Connect, policy: str
) -> None:
    with secured(size=1) as etcds:
        etcds.disable()
        learner = etcds.cluster.add_learner()
        etcds.enable()
        endpoints = [learner.endpoint, etcds.cluster[0].endpoint]
        for _ in range(4):  # wherever it begins
            alice = connect(endpoints, balancer=policy, timeout=SOON, **ALICE)
            alice.put("a", "")
            assert alice.get("a").value == b""
            assert alice.endpoints[f"http://{endpoints[1]}"].calls


def signing_keys(directory: Path) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = directory / "private.pem", directory / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m"


@pytest.mark.parametrize("policy", POLICIES)
def test_signed_tokens_are_old_after_any_change_of_users(
    connect: Connect, tmp_path: Path, policy: str
) -> None:
    """clientv3 learnt the words for it with 3.4, but not those that 3.5 has for writes."""
    with secured("--auth-token", signing_keys(tmp_path)) as etcd:
        alice = connect(etcd.endpoints, balancer=policy, **ALICE)
        with alice.watch("a", prefix=True) as watch:
            alice.put("a/0", "")
            for round_ in range(1, 3):
                etcd.ctl("role", "add", f"another-{round_}")
                if policy.startswith("pinned"):
                    with pytest.raises(Unauthenticated, match="revision in header is old"):
                        alice.put(f"a/{round_}", "")
                    with pytest.raises(Unauthenticated, match="revision in header is old"):
                        alice.get("a/0")
                    return
                alice.put(f"a/{round_}", "")
                assert alice.get(f"a/{round_}")
                with alice.watch(f"a/{round_}/", prefix=True, timeout=SOON) as another:
                    alice.put(f"a/{round_}/x", "")
                    assert keys_of(another, 1) == [f"a/{round_}/x"]
            assert keys_of(watch, 5) == ["a/0", "a/1", "a/1/x", "a/2", "a/2/x"]
            with pytest.raises(PermissionDenied), alice.watch("b", timeout=SOON):
                raise AssertionError("let in")
