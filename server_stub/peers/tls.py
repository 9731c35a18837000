"""TLS between members: both sides show a certificate."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_VERSIONS: Final = {
    "": ssl.TLSVersion.MAXIMUM_SUPPORTED,
    "TLS1.2": ssl.TLSVersion.TLSv1_2,
    "TLS1.3": ssl.TLSVersion.TLSv1_3,
}


class PeerTlsError(Exception):
    """TLS files that cannot be used; the text names the flag and the file."""


def listening_context(
    cert_file: Path,
    key_file: Path,
    trusted_ca_file: Path | None = None,
    *,
    client_cert_auth: bool = False,
    min_version: str = "TLS1.2",
    max_version: str = "",
) -> ssl.SSLContext:
    """Make the context of the peer port. Raises ``PeerTlsError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, min_version, max_version)
    _show(context, cert_file, key_file)
    if trusted_ca_file is not None:
        _trust(context, trusted_ca_file)
    if client_cert_auth:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def calling_context(
    cert_file: Path | None,
    key_file: Path | None,
    trusted_ca_file: Path | None = None,
    *,
    min_version: str = "TLS1.2",
    max_version: str = "",
) -> ssl.SSLContext:
    """Make the context for calling other members; without a CA, the system's are trusted.

    The name or address in a member's URL must stand in its certificate. Raises ``PeerTlsError``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, min_version, max_version)
    if cert_file is not None:
        _show(context, cert_file, key_file)
    if trusted_ca_file is not None:
        _trust(context, trusted_ca_file)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _restrict(context: ssl.SSLContext, min_version: str, max_version: str) -> None:
    context.minimum_version = _VERSIONS[min_version]
    context.maximum_version = _VERSIONS[max_version]


def _show(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    try:
        context.load_cert_chain(cert_file, key_file)
    except OSError as error:  # ssl.SSLError is one
        raise PeerTlsError(
            f"cannot use --peer-cert-file {cert_file} with --peer-key-file {key_file}: {error}"
        ) from error


def _trust(context: ssl.SSLContext, trusted_ca_file: Path) -> None:
    try:
        context.load_verify_locations(trusted_ca_file)
    except OSError as error:
        raise PeerTlsError(
            f"cannot use --peer-trusted-ca-file {trusted_ca_file}: {error}"
        ) from error
