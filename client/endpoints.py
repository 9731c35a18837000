"""Where a member answers: endpoints as users write them, in one normal form, with their TLS.

Accepted: ``host:port``, ``host`` (port 2379), ``http://host:port``, ``https://host:port``,
``[::1]:2379``, ``unix:///path``, ``unix://path``, ``unix:path`` and ``unixs://path`` (TLS).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from .arguments import is_text
from .errors import ConfigError

DEFAULT_PORT: Final = 2379

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Tls:
    """What it takes to talk TLS to a member: PEM, as paths or as bytes."""

    ca: PathLike | bytes | None = None
    """Certificates of the authorities to trust; None: the list that grpc brings along."""
    cert: PathLike | bytes | None = None
    """The client's own certificate, for servers that ask for one."""
    key: PathLike | bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    """The name that the member's certificate must carry, where it is not the endpoint's host."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            lone, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise ConfigError(missing, f"needed, since {lone} is given")
        if self.server_name is not None and not is_text(self.server_name):
            raise ConfigError("server_name", f"text is needed, not {self.server_name!r}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One member's client address; ``url`` is normalised and names it everywhere."""

    url: str
    tls: Tls | None = None
    """None: the client's settings, where the scheme is https or unixs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", normalise(self.url))
        if self.tls is not None and not self.secure:
            raise ConfigError("tls", f"given for {self.url}, which is not https:// or unixs://")

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.url.startswith(("https:", "unixs:"))

    @property
    def target(self) -> str:
        """The address in grpc's own form."""
        scheme, _, rest = self.url.partition("://")
        return f"unix:{rest}" if scheme.startswith("unix") else rest


EndpointLike: TypeAlias = "str | Endpoint | Mapping[str, Any]"

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def parse_endpoints(given: EndpointLike | Iterable[EndpointLike]) -> tuple[Endpoint, ...]:
    """Read one endpoint, a comma-separated string of them, or many; the order is kept."""
    many: Iterable[Any]
    if isinstance(given, str):
        many = [part.strip() for part in given.split(",") if part.strip()]
    elif isinstance(given, Endpoint | Mapping):
        many = [given]
    elif isinstance(given, Iterable):
        many = given
    else:
        raise ConfigError("endpoints", f"strings are needed, not {given!r}")
    endpoints = [_parse(f"endpoints[{at}]", one) for at, one in enumerate(many)]
    if not endpoints:
        raise ConfigError("endpoints", "at least one is needed")
    urls = [endpoint.url for endpoint in endpoints]
    for at, url in enumerate(urls):
        if url in urls[:at]:
            raise ConfigError(f"endpoints[{at}]", f"{url} is there twice")
    return tuple(endpoints)


def _parse(field: str, given: EndpointLike) -> Endpoint:
    try:
        match given:
            case Endpoint():
                return given
            case str():
                return Endpoint(given)
            case Mapping():
                return _from_mapping(given)
    except ConfigError as error:
        own = "" if error.field == "url" else f".{error.field}"
        raise ConfigError(f"{field}{own}", error.problem) from error
    raise ConfigError(field, f"an endpoint is a string or an Endpoint, not {type(given).__name__}")


def _from_mapping(given: Mapping[str, Any]) -> Endpoint:
    """Read ``{url = ..., ca = ..., server_name = ...}``, as a file has it."""
    settings = dict(given)
    url = settings.pop("url", None)
    if not isinstance(url, str):
        raise ConfigError("url", "a string is needed, e.g. https://10.0.0.1:2379")
    known = {field.name for field in fields(Tls)}
    for name in settings:
        if name not in known:
            raise ConfigError(name, f"unknown; an endpoint has url, {', '.join(sorted(known))}")
    return Endpoint(url, Tls(**settings) if settings else None)


def normalise(url: str) -> str:
    """Bring an endpoint into the form that it is named by, e.g. ``http://10.0.0.1:2379``."""
    if not is_text(url):
        raise ConfigError("url", f"an endpoint is text, e.g. https://10.0.0.1:2379, not {url!r}")
    text = url.strip()
    if text.startswith(("unix:", "unixs:")):
        return _normalise_unix(text)
    if not _SCHEME.match(text):
        text = f"http://{text}"
    scheme = text.partition(":")[0].lower()
    if scheme not in {"http", "https"}:
        raise ConfigError("url", f"{url!r}: the scheme is http, https, unix or unixs")
    return f"{scheme}://{_host_and_port(url, text)}"


def _host_and_port(url: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("url", f"{url!r}: {error}") from error
    if not host or any(char.isspace() for char in host):
        raise ConfigError("url", f"{url!r}: no host; an endpoint is like 10.0.0.1:2379")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError("url", f"{url!r}: an endpoint has a host and a port and nothing else")
    if port == 0:
        raise ConfigError("url", f"{url!r}: port 0")
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{DEFAULT_PORT if port is None else port}"


def _normalise_unix(text: str) -> str:
    scheme, _, path = text.partition(":")
    path = path.removeprefix("//")
    if not path:
        raise ConfigError("url", f"{text!r}: no path")
    return f"{scheme}://{path}"


def read_pem(field: str, source: PathLike | bytes | None) -> bytes | None:
    """Fetch PEM data given as bytes or as a path."""
    if source is None or isinstance(source, bytes):
        return source
    if isinstance(source, str) and "-----BEGIN " in source:  # which no error may repeat
        raise ConfigError(field, "PEM is to be given as bytes; a str is a path")
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(field, f"cannot read {os.fspath(source)}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(field, f"a path or bytes is needed: {error}") from error
