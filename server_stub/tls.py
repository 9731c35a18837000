"""How the ports speak TLS: contexts made of the files that the flags name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .config import PeerTlsSettings, TlsSettings

_VERSIONS: Final = {
    "TLS1.2": ssl.TLSVersion.TLSv1_2,
    "TLS1.3": ssl.TLSVersion.TLSv1_3,
    "": ssl.TLSVersion.MAXIMUM_SUPPORTED,
}


class TlsError(Exception):
    """Files that no TLS can be made of; the text names the flag and the file at fault."""


@dataclass(frozen=True, slots=True)
class PeerTls:
    """What one member needs to talk to the others; without TLS, nothing."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None
    allowed_names: tuple[str, ...] = ()
    """Common names, one of which a caller's certificate must have; none: any."""


def client_port_context(tls: TlsSettings) -> ssl.SSLContext:
    """Make the context of the client port. Raises ``TlsError``."""
    context = _listening_context(tls, tls.cert_file, tls.key_file, "")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def peer_tls(tls: PeerTlsSettings | None) -> PeerTls:
    """Make the contexts of the peer ports, our own and those we call. Raises ``TlsError``."""
    if tls is None:
        return PeerTls()
    server = None
    if tls.cert_file is not None and tls.key_file is not None:
        server = _listening_context(tls, tls.cert_file, tls.key_file, "peer-")
    names = (tls.allowed_cn,) if tls.allowed_cn else ()
    return PeerTls(server, _calling_context(tls), names)


def _listening_context(
    tls: TlsSettings | PeerTlsSettings, certificate: Path, key: Path, prefix: str
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _limit_versions(context, tls)
    _show(context, certificate, key, prefix)
    if tls.trusted_ca_file is not None:
        _trust(context, tls.trusted_ca_file, prefix)
    if tls.client_cert_auth:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _calling_context(tls: PeerTlsSettings) -> ssl.SSLContext:
    """Make the context for calling members: their URL's name must stand in their certificate.

    Whom the system trusts may be a member only where no authority is named.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _limit_versions(context, tls)
    if tls.cert_file is not None and tls.key_file is not None:
        _show(context, tls.cert_file, tls.key_file, "peer-")
    if tls.trusted_ca_file is not None:
        _trust(context, tls.trusted_ca_file, "peer-")
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _limit_versions(context: ssl.SSLContext, tls: TlsSettings | PeerTlsSettings) -> None:
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]


def _show(context: ssl.SSLContext, certificate: Path, key: Path, prefix: str) -> None:
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except OSError as error:  # ssl.SSLError is one
        raise TlsError(
            f"cannot use --{prefix}cert-file {certificate} with --{prefix}key-file {key}: {error}"
        ) from error


def _no_password() -> str:
    """Answer for whoever would be asked at the terminal, with everything else waiting."""
    raise OSError("the key is encrypted, and no flag has a password for it")


def _trust(context: ssl.SSLContext, authorities: Path, prefix: str) -> None:
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        raise TlsError(f"cannot use --{prefix}trusted-ca-file {authorities}: {error}") from error
