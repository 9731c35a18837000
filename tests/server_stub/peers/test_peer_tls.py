"""TLS between members: both show a certificate, and who shows a wrong one is refused."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from etcd_pinwheel.server_stub.peers import (
    PeerLimits,
    PeerTlsError,
    PeerUnreachable,
    calling_context,
    fetch_cluster,
    listening_context,
)
from tests.certificates import Signed, sign

from .conftest import A, B, C, append, heartbeat, snapshot


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(files: Path) -> Signed:
    return sign(files, "authority")


@pytest.fixture(scope="module")
def member(files: Path, authority: Signed) -> Signed:
    return sign(files, "member", authority)


@pytest.fixture(scope="module")
def stranger(files: Path) -> Signed:
    """Signed by somebody else."""
    return sign(files, "stranger", sign(files, "elsewhere"))


def contexts(shown: Signed, trusted: Signed) -> dict[str, Any]:
    """The two contexts of a member that shows ``shown``."""
    return {
        "tls_server": listening_context(
            shown.certificate_file,
            shown.key_file,
            trusted.certificate_file,
            client_cert_auth=True,
        ),
        "tls_client": calling_context(
            shown.certificate_file, shown.key_file, trusted.certificate_file
        ),
    }


@pytest.fixture
def secure(authority: Signed, member: Signed) -> dict[str, Any]:
    return contexts(member, authority)


async def test_everything_works_over_tls(make: Any, secure: Any, tmp_path: Path) -> None:
    a, b = await make(A, scheme="https", **secure), await make(B, scheme="https", **secure)
    a.know(b)
    b.know(a)
    await a.connected(B)
    await b.connected(A)
    a.peers.send([heartbeat(A, B), append(A, B)])
    await b.receiver.until(lambda: len(b.receiver.messages) == 2)
    assert await b.peers.ask(A, "kind", b"abc", 20) == b"cba"
    path = tmp_path / "copy"
    path.write_bytes(bytes(3 << 20))
    assert await a.peers.send_snapshot(snapshot(A, B), lambda: path.open("rb"))
    info = await fetch_cluster([a.url], secure["tls_client"], 20)
    assert [each.id for each in info.members] == [A, B]
    await b.peers.close()
    await a.disconnected(B)


async def test_a_caller_must_show_a_certificate(
    make: Any,
    secure: Any,
    authority: Signed,
    stranger: Signed,
    caplog: pytest.LogCaptureFixture,
) -> None:
    a = await make(A, scheme="https", **secure)
    nothing_shown = calling_context(None, None, authority.certificate_file)
    wrong_shown = calling_context(
        stranger.certificate_file, stranger.key_file, authority.certificate_file
    )
    for tls in (nothing_shown, wrong_shown):
        caplog.clear()
        with pytest.raises(PeerUnreachable):
            await fetch_cluster([a.url], tls, 20)
        assert "refused a connection from 127.0.0.1" in caplog.text
        a.peers._station.complaints._said.clear()
    assert not a.peers._station.connections


async def test_the_name_on_the_certificate(
    make: Any, secure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    a = await make(A, scheme="https", allowed_names=["somebody else"], **secure)
    b = await make(B, scheme="https", allowed_names=["member", "other"], **secure)
    a.know(b)
    await a.connected(B)
    b.know(a)
    await b.receiver.until(lambda: b.receiver.lost)
    assert b.peers.connected_since(A) is None
    assert "the certificate is for a name that is not allowed" in caplog.text


async def test_a_member_that_is_not_at_its_address(
    make: Any, files: Path, authority: Signed, secure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = sign(files, "far", authority, address="10.1.2.3")
    a = await make(A, scheme="https", **secure)
    b = await make(B, scheme="https", **contexts(elsewhere, authority))
    a.know(b)
    await a.receiver.until(lambda: a.receiver.lost)
    assert "IP address mismatch" in caplog.text
    assert a.peers.connected_since(B) is None


async def test_plain_on_tls_and_tls_on_plain(
    make: Any, secure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limits = PeerLimits(handshake_seconds=20, connect_seconds=20)
    a = await make(A, scheme="https", limits=limits, **secure)
    b = await make(B, limits=limits, **secure)
    b.peers.set_members({A: [a.url.replace("https", "http")]})
    await b.receiver.until(lambda: b.receiver.lost)
    assert "refused a connection from 127.0.0.1" in caplog.text
    caplog.clear()
    a.peers.set_members({B: [b.url.replace("http", "https")]})
    await a.receiver.until(lambda: a.receiver.lost)
    assert "TLS, where none is spoken" in caplog.text
    c = await make(C, limits=limits)
    c.peers.set_members({A: [a.url]})
    await c.receiver.until(lambda: c.receiver.lost)
    assert "TLS is asked for, and not configured" in caplog.text
    with pytest.raises(ValueError, match="TLS is not configured"):
        await c.peers.listen(["https://127.0.0.1:0"])


def test_files_that_cannot_be_used_are_named(files: Path, member: Signed, stranger: Signed) -> None:
    missing = files / "missing.pem"
    with pytest.raises(PeerTlsError, match=r"--peer-cert-file .*missing\.pem with"):
        listening_context(missing, member.key_file)
    with pytest.raises(PeerTlsError, match=r"--peer-key-file .*stranger\.key"):
        calling_context(member.certificate_file, stranger.key_file)
    for make_context in (listening_context, calling_context):
        with pytest.raises(PeerTlsError, match=r"--peer-trusted-ca-file .*missing\.pem"):
            make_context(member.certificate_file, member.key_file, missing)


def test_the_oldest_and_the_newest_version(member: Signed) -> None:
    context = listening_context(
        member.certificate_file, member.key_file, min_version="TLS1.3", max_version="TLS1.3"
    )
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_NONE
    assert calling_context(None, None).verify_mode == ssl.CERT_REQUIRED
