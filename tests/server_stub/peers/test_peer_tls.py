"""TLS between members: both show a certificate, and who shows a wrong one is refused."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from etcd_pinwheel.server_stub.config import PeerTlsSettings
from etcd_pinwheel.server_stub.peers import PeerLimits, PeerUnreachable, fetch_cluster
from etcd_pinwheel.server_stub.tls import PeerTls, TlsError, peer_tls
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


def tls_of(shown: Signed | None, trusted: Signed | None, **settings: Any) -> PeerTls:
    """The TLS of a member that shows ``shown``."""
    return peer_tls(
        PeerTlsSettings(
            cert_file=shown and shown.certificate_file,
            key_file=shown and shown.key_file,
            trusted_ca_file=trusted and trusted.certificate_file,
            **settings,
        )
    )


def contexts(shown: Signed, trusted: Signed) -> dict[str, Any]:
    """The two contexts of a member that shows ``shown``."""
    tls = tls_of(shown, trusted, client_cert_auth=True)
    return {"tls_server": tls.server, "tls_client": tls.client}


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
    for tls in (tls_of(None, authority).client, tls_of(stranger, authority).client):
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
    with pytest.raises(TlsError, match=r"--peer-cert-file .*missing\.pem with"):
        tls_of(replace(member, certificate_file=missing), None)
    with pytest.raises(TlsError, match=r"--peer-key-file .*stranger\.key"):
        tls_of(replace(member, key_file=stranger.key_file), None)
    for shown in (member, None):
        with pytest.raises(TlsError, match=r"--peer-trusted-ca-file .*missing\.pem"):
            tls_of(shown, replace(stranger, certificate_file=missing))


def test_the_oldest_and_the_newest_version(member: Signed) -> None:
    tls = tls_of(member, None, min_version="TLS1.3", max_version="TLS1.3")
    assert tls.server is not None
    assert tls.client is not None
    for context in (tls.server, tls.client):
        assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
    assert tls.server.verify_mode == ssl.CERT_NONE
    assert tls.client.verify_mode == ssl.CERT_REQUIRED
    assert tls.client.check_hostname


def test_an_authority_that_is_named_is_the_only_one(
    files: Path, member: Signed, authority: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has a certificate that the system trusts is no member for that."""
    public = sign(files, "public")
    monkeypatch.setenv("SSL_CERT_FILE", str(public.certificate_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(files / "none"))
    assert trusted_by(tls_of(member, authority)) == trusted_by(tls_of(None, authority))
    assert trusted_by(tls_of(member, authority)) == {authority.certificate.serial_number}
    assert trusted_by(tls_of(member, None)) == {public.certificate.serial_number}


def trusted_by(tls: PeerTls) -> set[int]:
    """The serial numbers of whom a member trusts when it calls another."""
    assert tls.client is not None
    der = tls.client.get_ca_certs(binary_form=True)
    return {x509.load_der_x509_certificate(each).serial_number for each in der}
