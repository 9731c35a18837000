"""TLS on the client port, with and without certificates of clients."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from etcd_pinwheel.protos.etcdserverpb import PutRequest
from etcd_pinwheel.protos.rpcs import KV_PUT
from etcd_pinwheel.server_stub.config import TlsSettings
from etcd_pinwheel.server_stub.local import LocalMember
from etcd_pinwheel.server_stub.tls import TlsError, client_port_context
from tests.certificates import Signed, sign

pytestmark = pytest.mark.process


@pytest.fixture
def authority(tmp_path: Path) -> Signed:
    return sign(tmp_path, "authority")


@pytest.fixture
def server(tmp_path: Path, authority: Signed) -> Signed:
    return sign(tmp_path, "server", authority)


def member_with(server: Signed, *flags: str) -> LocalMember:
    return LocalMember(
        f"--cert-file={server.certificate_file}",
        f"--key-file={server.key_file}",
        *flags,
        client_scheme="https",
    )


def put(member: LocalMember, credentials: grpc.ChannelCredentials) -> int:
    with grpc.secure_channel(member.endpoint, credentials) as channel:
        stub = channel.unary_unary(
            KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString
        )
        return int(stub(PutRequest(key=b"k", value=b"v"), timeout=10).header.revision)


def test_both_protocols_over_tls(authority: Signed, server: Signed) -> None:
    with member_with(server) as member:
        trust = authority.certificate_file.read_bytes()
        assert put(member, grpc.ssl_channel_credentials(trust)) == 2
        context = ssl.create_default_context(cafile=str(authority.certificate_file))
        with urllib.request.urlopen(
            f"{member.client_url}/version", context=context, timeout=10
        ) as answer:
            assert answer.status == 200
        with pytest.raises(grpc.RpcError), grpc.insecure_channel(member.endpoint) as channel:
            channel.unary_unary(KV_PUT.path, PutRequest.SerializeToString, KV_PUT.reply.FromString)(
                PutRequest(key=b"k"), timeout=5
            )
        assert member.is_alive


def test_clients_must_show_a_certificate(tmp_path: Path, authority: Signed, server: Signed) -> None:
    flags = (f"--trusted-ca-file={authority.certificate_file}", "--client-cert-auth")
    trust = authority.certificate_file.read_bytes()
    known = sign(tmp_path, "client", authority)
    stranger = sign(tmp_path, "stranger", sign(tmp_path, "nobody"))
    with member_with(server, *flags) as member:
        for pems in ((), stranger.pems):
            with pytest.raises(grpc.RpcError) as caught:
                put(member, grpc.ssl_channel_credentials(trust, *pems))
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert put(member, grpc.ssl_channel_credentials(trust, *known.pems)) == 2


def test_files_that_cannot_be_used_are_named(tmp_path: Path, server: Signed) -> None:
    other = sign(tmp_path, "other")
    cases = [
        TlsSettings(cert_file=tmp_path / "none.pem", key_file=server.key_file),
        TlsSettings(cert_file=server.certificate_file, key_file=other.key_file),
        TlsSettings(
            cert_file=server.certificate_file,
            key_file=server.key_file,
            trusted_ca_file=tmp_path / "none.pem",
        ),
    ]
    for tls in cases:
        with pytest.raises(TlsError, match=r"cannot use --(cert|trusted-ca)-file .*\.pem"):
            client_port_context(tls)


def test_an_encrypted_key_is_refused_without_asking_for_a_password(
    tmp_path: Path, server: Signed
) -> None:
    key_file = tmp_path / "encrypted.key"
    encryption = serialization.BestAvailableEncryption(b"secret")
    key_file.write_bytes(
        server.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )
    tls = TlsSettings(cert_file=server.certificate_file, key_file=key_file)
    with pytest.raises(TlsError, match=r"--key-file .*encrypted\.key: the key is encrypted"):
        client_port_context(tls)


def test_the_oldest_and_the_newest_version(server: Signed) -> None:
    context = client_port_context(
        TlsSettings(
            cert_file=server.certificate_file,
            key_file=server.key_file,
            min_version="TLS1.2",
            max_version="TLS1.2",
        )
    )
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_2
