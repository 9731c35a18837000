"""How a grpc channel to one endpoint is set up, the same in both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from ..protos.errors import Code
from .config import ChannelArgument, Config
from .endpoints import Endpoint, Tls, read_pem
from .flow import CallFailed

Options: TypeAlias = Sequence[tuple[str, ChannelArgument]]


@dataclass(frozen=True, slots=True)
class ChannelSetup:
    """All that grpc needs to know to make the channel."""

    target: str
    options: Options
    credentials: grpc.ChannelCredentials | None
    """None: no TLS."""


def channel_setup(config: Config, endpoint: Endpoint) -> ChannelSetup:
    """Work the setup out; raises ConfigError when a certificate cannot be read."""
    tls = config.tls_of(endpoint)
    options = dict(_options(config))
    if tls is not None and (name := tls.server_name or _name_of_unix(endpoint)):
        options["grpc.ssl_target_name_override"] = name
        options["grpc.default_authority"] = name
    options |= config.grpc_options
    credentials = None if tls is None else _credentials(tls)
    return ChannelSetup(endpoint.target, tuple(options.items()), credentials)


def _options(config: Config) -> Options:
    options: list[tuple[str, ChannelArgument]] = [
        # Channels with equal arguments would share one connection, and its backoff
        ("grpc.use_local_subchannel_pool", 1),
        # grpc's own policy over the channel's one address: of all it alone reconnects by itself
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.client_idle_timeout_ms", 2**31 - 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", config.max_receive_bytes),
        ("grpc.min_reconnect_backoff_ms", _ms(config.connect_timeout)),
        ("grpc.initial_reconnect_backoff_ms", min(250, _ms(config.reconnect_backoff_max))),
        ("grpc.max_reconnect_backoff_ms", _ms(config.reconnect_backoff_max)),
    ]
    if config.keepalive_time is not None:
        options += [
            ("grpc.keepalive_time_ms", _ms(config.keepalive_time)),
            ("grpc.keepalive_timeout_ms", _ms(config.keepalive_timeout)),
            # Without this a peer that is stopped, not gone, takes a minute to be noticed
            ("grpc.http2.ping_timeout_ms", _ms(config.keepalive_timeout)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 0),
        ]
    return options


def _ms(seconds: float) -> int:
    return round(min(max(1.0, seconds * 1000), 2**31 - 1))


def _name_of_unix(endpoint: Endpoint) -> str | None:
    return "localhost" if endpoint.url.startswith("unixs:") else None


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=read_pem("ca", tls.ca),
        private_key=read_pem("key", tls.key),
        certificate_chain=read_pem("cert", tls.cert),
    )


_CODES = {status: Code(status.value[0]) for status in grpc.StatusCode}


def call_failed(error: grpc.RpcError) -> CallFailed:
    """Take from grpc's error what the transport knows.

    Its traceback is dropped: it would keep grpc's call alive for as long as somebody keeps the
    error, and with the call the connection, even of a client that was closed.
    """
    error.__traceback__ = None
    text = error.details() or error.debug_error_string() or ""  # type: ignore[attr-defined]
    code = _CODES.get(error.code(), Code.UNKNOWN)
    return CallFailed(code, text)


def connect_failure(text: str) -> str:
    """Cut grpc's preamble off the reason why a connection could not be made."""
    return text.partition("last error: ")[2] or text
