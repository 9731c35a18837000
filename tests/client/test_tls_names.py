"""Each endpoint has a TLS name of its own, also after a failover (etcd#11180)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etcd_pinwheel import Endpoint, NotSent, Tls
from etcd_pinwheel.client.generations import BUILT_IN
from etcd_pinwheel.server_stub.local import LocalMember
from tests.certificates import Signed, sign

from .conftest import BINARIES, QUICK
from .waiting import wait_until

pytestmark = pytest.mark.process

Connect = Callable[..., Any]
NAMES = ("one.example", "two.example")
SOON = 20.0


@pytest.fixture
def authority(tmp_path: Path) -> Signed:
    return sign(tmp_path, "authority")


@pytest.fixture
def pair(make: str, authority: Signed, tmp_path: Path) -> Iterator[list[LocalMember]]:
    """Two members, each with a certificate for another name, and none for its address."""
    members = []
    try:
        for name in NAMES:
            own = sign(tmp_path, name, authority, dns=name)
            files = (f"--cert-file={own.certificate_file}", f"--key-file={own.key_file}")
            member = LocalMember(QUICK, *files, binary=BINARIES[make], client_scheme="https")
            members.append(member)
            member.start()
        yield members
    finally:
        for member in members:
            member.close()


def endpoints(pair: list[LocalMember], authority: Signed, *names: str) -> list[Endpoint]:
    ca = authority.certificate_file
    return [
        Endpoint(f"https://{member.endpoint}", Tls(ca=ca, server_name=name))
        for member, name in zip(pair, names, strict=True)
    ]


@pytest.mark.parametrize("policy", BUILT_IN)
def test_a_failover_uses_the_other_members_name(
    policy: str, pair: list[LocalMember], authority: Signed, connect: Connect
) -> None:
    client = connect(endpoints(pair, authority, *NAMES), balancer=policy, timeout=SOON)
    for gone, stays in (pair, reversed(pair)):
        gone.kill()
        client.count("k")  # a read, which is repeated if it was on its way when the member died
        assert wait_until(lambda url=stays.endpoint: ready(client) == [f"https://{url}"])
        gone.start()


def ready(client: Any) -> list[str]:
    return [url for url, view in client.endpoints.items() if view.state.value == "ready"]


def test_a_name_is_changed_at_run_time(
    pair: list[LocalMember], authority: Signed, connect: Connect
) -> None:
    """One name for all, as clientv3 had it, is refused by whoever has another."""
    client = connect(endpoints(pair, authority, NAMES[1], NAMES[0]), timeout=1.0)
    with pytest.raises(NotSent):
        client.put("k", "v")
    client.set_endpoints(endpoints(pair, authority, *NAMES))
    client.put("k", "v", timeout=SOON)
