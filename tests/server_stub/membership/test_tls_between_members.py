"""A cluster whose members speak TLS with each other, by etcd's flags."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etcd_pinwheel import Client
from etcd_pinwheel.server_stub.local import LocalCluster, LocalMember, LocalMemberError

pytestmark = pytest.mark.process


def self_signed(directory: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def flags(certificate: Path, key: Path, authority: Path) -> tuple[str, ...]:
    return (
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={authority}",
        "--peer-client-cert-auth",
        "--peer-cert-allowed-cn=member",
        "--strict-reconfig-check=false",
    )


def test_members_show_each_other_certificates(tmp_path: Path) -> None:
    """A cluster is founded, grows, and keeps out who shows the wrong certificate."""
    own, key = self_signed(tmp_path, "member")
    with LocalCluster(
        *flags(own, key, own), size=3, processes=True, peer_scheme="https"
    ) as cluster:
        with Client(cluster[0].endpoint) as etcd:
            etcd.put("secret", "1")
        learner = cluster.add_learner()
        with Client(cluster[1].endpoint) as etcd:
            assert [each.learner for each in etcd.members.list()].count(True) == 1
        cluster.promote(learner)
        stranger = cluster.add_learner(start=False)
        assert isinstance(stranger, LocalMember)
        stranger.flags = flags(*self_signed(tmp_path, "stranger"), own)
        with pytest.raises(LocalMemberError, match="cannot fetch cluster info"):
            stranger.start()
