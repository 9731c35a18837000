"""What the TLS flags mean together: for the client port, and between members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .flag import FlagError
from .settings import PeerTlsSettings, TlsSettings
from .values import Url


def tls(values: Mapping[str, Any], notices: list[str]) -> TlsSettings | None:
    """Gather the flags of the client port; None: no URL asks for TLS. Raises ``FlagError``."""
    _check(values, "")
    urls = (*values["listen-client-urls"], *values["listen-metrics-urls"])
    if not _secure(urls):
        if _any_set(values, ""):
            notices.append("the TLS flags have no effect: no URL to listen on is https")
        return None
    _need_certificate(values, "", urls)
    return TlsSettings(
        cert_file=Path(values["cert-file"]),
        key_file=Path(values["key-file"]),
        trusted_ca_file=_path(values["trusted-ca-file"]),
        client_cert_auth=values["client-cert-auth"],
        min_version=values["tls-min-version"],
        max_version=values["tls-max-version"],
    )


def peer_tls(values: Mapping[str, Any], notices: list[str]) -> PeerTlsSettings | None:
    """Gather the flags of the peer port; None: they were not given. Raises ``FlagError``."""
    _check(values, "peer-")
    _need_certificate(values, "peer-", values["listen-peer-urls"])
    if not _any_set(values, "peer-") and not values["peer-cert-allowed-cn"]:
        return None
    if values["peer-cert-allowed-cn"] and not values["peer-client-cert-auth"]:
        raise FlagError("--peer-cert-allowed-cn needs --peer-client-cert-auth")
    if not _secure(values["listen-peer-urls"]):
        notices.append(
            "other members are listened to in clear text: no --listen-peer-urls is https"
        )
    return PeerTlsSettings(
        cert_file=_path(values["peer-cert-file"]),
        key_file=_path(values["peer-key-file"]),
        trusted_ca_file=_path(values["peer-trusted-ca-file"]),
        client_cert_auth=values["peer-client-cert-auth"],
        allowed_cn=values["peer-cert-allowed-cn"],
        min_version=values["tls-min-version"],
        max_version=values["tls-max-version"],
    )


def _check(values: Mapping[str, Any], port: str) -> None:
    """Raise ``FlagError`` for flags that contradict each other, whether TLS is used or not."""
    if bool(values[f"{port}cert-file"]) != bool(values[f"{port}key-file"]):
        raise FlagError(f"--{port}cert-file and --{port}key-file go together")
    if values[f"{port}client-cert-auth"] and not values[f"{port}trusted-ca-file"]:
        raise FlagError(f"--{port}client-cert-auth needs --{port}trusted-ca-file")
    if values["tls-min-version"] > (values["tls-max-version"] or "TLS9"):
        raise FlagError("--tls-min-version is above --tls-max-version")


def _need_certificate(values: Mapping[str, Any], port: str, urls: Sequence[Url]) -> None:
    for url in _secure(urls):
        if not values[f"{port}cert-file"]:
            raise FlagError(
                f"cannot listen on TLS for {url}: give --{port}cert-file and --{port}key-file"
            )


def _any_set(values: Mapping[str, Any], port: str) -> bool:
    names = ("cert-file", "trusted-ca-file", "client-cert-auth")
    return any(values[port + name] for name in names)


def _secure(urls: Sequence[Url]) -> list[Url]:
    return [url for url in urls if url.scheme == "https"]


def _path(text: str) -> Path | None:
    return Path(text) if text else None
