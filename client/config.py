"""A client's settings: one frozen object, filled from arguments, a mapping, a file or variables.

Where a setting is given more than once, the first of these counts: the argument, the ``config``
mapping, the environment variable ``ETCD_PINWHEEL_<FIELD>``, the TOML file. A :class:`Config`
object is complete: beside it only arguments count. An error names the field as it was written.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, SupportsInt, TypeAlias, TypedDict

from .arguments import is_text
from .endpoints import Endpoint, PathLike, Tls, parse_endpoints
from .errors import ConfigError
from .retries import MAX_CONCURRENT_RETRIES, Retry, check_retry_setting
from .slots import DEFAULT_PREFIX
from .srv import SrvResolver

if TYPE_CHECKING:
    from .generations import Generation

ChannelArgument: TypeAlias = int | str | SupportsInt
"""A number, a text, or an object of grpc's that stands for a pointer."""

ENVIRONMENT_PREFIX: Final = "ETCD_PINWHEEL_"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that can be set about a client; times are in seconds."""

    endpoints: tuple[Endpoint, ...] = (Endpoint("127.0.0.1:2379"),)
    """The members' client addresses; in a file, strings or tables of ``url`` and TLS settings."""
    discovery_srv: str | None = None
    """The domain whose DNS SRV records list the members, instead of ``endpoints``."""
    discovery_srv_name: str | None = None
    """What follows, after a dash, the name of etcd's service in these records."""
    srv_resolver: SrvResolver | None = None
    """What looks them up; None: the library dnspython."""
    sync_interval: float | None = None
    """How often the endpoints are found out anew, from the cluster, or from DNS with
    ``discovery_srv``; None: never."""
    balancer: str | Generation = "round_robin"
    """The policy that chooses the endpoint of each call; in a file, its name."""
    balancer_options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 5.0
    """For a whole call, waits and repetitions included, unless the call has its own."""
    retry: Retry = "safe"
    """What becomes of a write whose outcome is unknown, unless the call says so itself."""
    exactly_once_prefix: str = DEFAULT_PREFIX
    """What the keys begin with by which writes are carried out exactly once."""
    username: str | None = None
    """Whom the client speaks for, with ``password``; None: for nobody."""
    password: str | None = field(default=None, repr=False)
    ca: PathLike | bytes | None = None
    """TLS settings of the https and unixs endpoints that have none of their own; see Tls."""
    cert: PathLike | bytes | None = None
    key: PathLike | bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    keepalive_time: float | None = 10.0
    """How often a connection in use is pinged to find out whether the peer is still there; None:
    never. etcd's servers disconnect clients that ping more often than every 5 seconds."""
    keepalive_timeout: float = 5.0
    """How long a ping may stay unanswered."""
    connect_timeout: float = 3.0
    """How long an attempt to connect may take."""
    reconnect_backoff_max: float = 5.0
    """The longest pause between attempts to connect to a member that is down."""
    retry_backoff_first: float = 0.025
    """The first pause before a call is tried again; the next ones double."""
    retry_backoff_max: float = 1.0
    max_concurrent_retries: int = MAX_CONCURRENT_RETRIES
    """How many calls may be under way again at once; the others wait for their turn."""
    max_receive_bytes: int = 2**31 - 1
    """The largest reply that is taken."""
    grpc_options: Mapping[str, ChannelArgument] = field(default_factory=dict)
    """Channel arguments of grpc's own, for what has no setting here. Some are objects of grpc's,
    e.g. a cache of TLS sessions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoints", self._own_endpoints())
        for name in _SECONDS:
            object.__setattr__(self, name, _seconds(name, getattr(self, name)))
        _check_policy(self.balancer)
        if not isinstance(self.exactly_once_prefix, str) or not self.exactly_once_prefix:
            raise ConfigError("exactly_once_prefix", "a string of at least one character is needed")
        check_retry_setting(self.retry)
        _check_credentials(self.username, self.password)
        for name in ("discovery_srv", "discovery_srv_name"):
            if getattr(self, name) is not None and not _is_text(getattr(self, name)):
                raise ConfigError(name, "a string that is not empty is needed")
        if self.srv_resolver is not None and not callable(self.srv_resolver):
            raise ConfigError("srv_resolver", "a callable is needed")
        for name in ("balancer_options", "grpc_options"):
            _check_mapping(name, getattr(self, name))
        _check_channel_arguments(self.grpc_options)
        if type(self.max_receive_bytes) is not int or not 0 < self.max_receive_bytes < 2**31:
            raise ConfigError("max_receive_bytes", "a number of bytes below 2**31 is needed")
        if type(self.max_concurrent_retries) is not int or self.max_concurrent_retries < 1:
            raise ConfigError("max_concurrent_retries", "a number from 1 on is needed")
        Tls(self.ca, self.cert, self.key, self.server_name)  # checks them
        if self.keepalive_time is not None and self.keepalive_time < 5:
            raise ConfigError("keepalive_time", "etcd disconnects who pings more often than 5 s")

    def _own_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints given; none, if they are yet to be found out."""
        if self.discovery_srv is None:
            return parse_endpoints(self.endpoints)
        if self.endpoints not in ((), Config.endpoints):
            raise ConfigError("discovery_srv", "endpoints are given, too; one of the two is needed")
        return ()

    @classmethod
    def from_toml(cls, path: PathLike, **arguments: Any) -> Config:
        """Read a file, with or without a table ``[etcd_pinwheel]`` around the settings."""
        return settle(file=path, arguments=arguments)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Take the settings from ``ETCD_PINWHEEL_*`` variables alone."""
        return settle(environ=environ)

    @property
    def has_tls(self) -> bool:
        """Whether it has TLS settings for all endpoints."""
        return any(each is not None for each in (self.ca, self.cert, self.server_name))

    def tls_of(self, endpoint: Endpoint) -> Tls | None:
        """The TLS settings that apply to an endpoint; None where it speaks none."""
        if not endpoint.secure:
            return None
        return endpoint.tls or Tls(self.ca, self.cert, self.key, self.server_name)


class Settings(TypedDict, total=False):
    """The arguments that a client takes beside its endpoints: the fields of Config."""

    discovery_srv: str | None
    discovery_srv_name: str | None
    srv_resolver: SrvResolver | None
    sync_interval: float | None
    balancer: str | Generation
    balancer_options: Mapping[str, Any]
    timeout: float
    retry: Retry
    exactly_once_prefix: str
    username: str | None
    password: str | None
    ca: PathLike | bytes | None
    cert: PathLike | bytes | None
    key: PathLike | bytes | None
    server_name: str | None
    keepalive_time: float | None
    keepalive_timeout: float
    connect_timeout: float
    reconnect_backoff_max: float
    retry_backoff_first: float
    retry_backoff_max: float
    max_concurrent_retries: int
    max_receive_bytes: int
    grpc_options: Mapping[str, ChannelArgument]


_SECONDS: Final = (
    "sync_interval",
    "timeout",
    "keepalive_time",
    "keepalive_timeout",
    "connect_timeout",
    "reconnect_backoff_max",
    "retry_backoff_first",
    "retry_backoff_max",
)
_INTEGERS: Final = frozenset({"max_concurrent_retries", "max_receive_bytes"})
_NAMES: Final = tuple(setting.name for setting in fields(Config))
_NOT_IN_ENVIRONMENT: Final = frozenset({"balancer_options", "grpc_options", "srv_resolver"})
_MAY_BE_OFF: Final = frozenset({"keepalive_time", "sync_interval"})


def settle(
    config: Config | Mapping[str, Any] | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    file: PathLike | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Make one Config of everything that was given, in the order of precedence above."""
    given = dict(arguments or {})
    _check_names("argument", given)
    if isinstance(config, Config):
        return replace(config, **_one_source(given))
    if config is not None:
        _check_mapping("config", config)
        _check_names("config", config)
    settings = _read_file(file) if file is not None else {}
    for above in (_read_environment(os.environ if environ is None else environ), config, given):
        settings |= _one_source(above or {})
    return Config(**settings)


def _one_source(given: Mapping[str, Any]) -> dict[str, Any]:
    """Where endpoints are given, those do not count that lesser settings would have looked up."""
    if "endpoints" in given:
        return {"discovery_srv": None, **given}
    if given.get("discovery_srv") is not None:
        return {"endpoints": (), **given}
    return dict(given)


def _read_file(path: PathLike) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        parsed = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(os.fspath(path), f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(os.fspath(path), f"is not TOML: {error}") from error
    settings = parsed.get("etcd_pinwheel", parsed)
    _check_mapping("etcd_pinwheel", settings)
    _check_names(os.fspath(path), settings)
    return {  # TOML has no None
        name: None if name in _MAY_BE_OFF and _is_off(value) else value
        for name, value in settings.items()
    }


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for variable, text in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            if name not in _NAMES or name in _NOT_IN_ENVIRONMENT:
                raise ConfigError(variable, "no such setting")
            settings[name] = _from_text(variable, name, text)
    return settings


def _from_text(variable: str, name: str, text: str) -> Any:
    try:
        if name in _INTEGERS:
            return int(text)
        if name in _MAY_BE_OFF and (not text or _is_off(text)):
            return None
        return float(text) if name in _SECONDS else text
    except ValueError:
        raise ConfigError(variable, f"a number is needed, not {text!r}") from None


def _is_off(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in {"none", "off"}


def _seconds(name: str, value: Any) -> float | None:
    if value is None and name in _MAY_BE_OFF:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(name, f"a positive number of seconds is needed, not {value!r}")
    return float(value)


def _check_policy(value: Any) -> None:
    if isinstance(value, str):
        return
    from .generations import Generation  # which a name does not need before there is a client

    if not isinstance(value, Generation):
        problem = f"the name of a policy or a Generation is needed, not {value!r}"
        raise ConfigError("balancer", problem)


def _check_credentials(username: Any, password: Any) -> None:
    """Check both, and that there are both; no error tells anything of the password."""
    if (username is None) != (password is None):
        missing, there = ("password", "username") if password is None else ("username", "password")
        raise ConfigError(missing, f"is needed, for there is a {there}")
    for name, value in (("username", username), ("password", password)):
        if value is not None and not _is_text(value):
            raise ConfigError(name, "a string that is not empty is needed")


def _is_text(value: Any) -> bool:
    return is_text(value) and value != ""


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(name, f"a table is needed, not {value!r}")


def _check_channel_arguments(options: Mapping[Any, Any]) -> None:
    """Refuse what grpc would, which is when a connection is made."""
    for name, value in options.items():
        if not isinstance(name, str | bytes):
            raise ConfigError("grpc_options", f"a name is needed, not {name!r}")
        number = isinstance(value, Number) and not isinstance(value, int)  # else a pointer to grpc
        if number or not isinstance(value, str | bytes | SupportsInt):
            raise ConfigError("grpc_options", f"{name!r}: an int or a str is needed, not {value!r}")
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise ConfigError("grpc_options", f"{name!r}: {value} is too large")


def _check_names(where: str, settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in _NAMES:
            raise ConfigError(name, f"no such setting ({where}); there are: {', '.join(_NAMES)}")
