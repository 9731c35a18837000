"""Reading the values of flags as Go's flag package and etcd read them.

Each reader takes the text of a value and returns it typed, or raises ``ValueError`` with a text
that says what is wrong with it; whoever calls knows which flag it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SECONDS_PER_UNIT: Final = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_DURATION_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MAX_DURATION_SECONDS: Final = 2**63 / 1e9


@dataclass(frozen=True, slots=True)
class Url:
    """An address to listen on or to advertise; prints as it was written."""

    scheme: str
    host: str
    port: int
    text: str

    def __str__(self) -> str:
        return self.text


def text(value: str) -> str:
    """Any text."""
    return value


def boolean(value: str) -> bool:
    """A truth value in one of Go's spellings."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError("not a boolean (true or false)")


def integer(value: str) -> int:
    """A signed 64-bit number, decimal or with Go's prefixes (0x, 0b, 0o)."""
    if not re.fullmatch(r"[+-]?[0-9][0-9a-zA-Z_]*", value):
        raise ValueError("not a whole number")
    try:
        old_octal = re.fullmatch(r"([+-]?)0([0-7]+)", value)
        number = int(old_octal[1] + old_octal[2], 8) if old_octal else int(value, 0)
    except ValueError:
        raise ValueError("not a whole number") from None
    if not -(2**63) <= number < 2**63:
        raise ValueError("out of range (64 bits)")
    return number


def unsigned(value: str) -> int:
    """A whole number that is not negative."""
    number = integer(value)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def between(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``low`` to ``high``."""

    def bounded(value: str) -> int:
        number = integer(value)
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}")
        return number

    return bounded


def duration(value: str) -> float:
    """A duration as Go writes it ("100ms", "1h2m3.5s", "-1s", "0"), in seconds."""
    unsigned_text = value[1:] if value[:1] in ("+", "-") else value
    if unsigned_text == "0":
        return 0.0
    total = Fraction(0)
    position = 0
    while position < len(unsigned_text):
        part = _DURATION_PART.match(unsigned_text, position)
        if part is None:
            break
        total += (
            Fraction(part[1].rstrip(".") if part[1][0] != "." else "0" + part[1])
            * (_SECONDS_PER_UNIT[part[2]])
        )
        position = part.end()
    if not unsigned_text or position != len(unsigned_text):
        raise ValueError('not a duration (like "100ms" or "1h30m")')
    if total >= _MAX_DURATION_SECONDS:
        raise ValueError("too long a duration")
    return float(-total if value[0] == "-" else total)


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a reader of exactly these words."""

    def chosen(value: str) -> str:
        if value not in choices:
            raise ValueError("must be one of " + ", ".join(repr(choice) for choice in choices))
        return value

    return chosen


def auth_token(value: str) -> str:
    """A kind of authentication token, with options behind commas."""
    kind = value.partition(",")[0]
    if kind == "jwt":
        raise ValueError('"jwt" tokens come later, use "simple"')
    if kind != "simple":
        raise ValueError('must be "simple"')
    return kind


def words(value: str) -> tuple[str, ...]:
    """A comma-separated list; empty: none."""
    return tuple(word.strip() for word in value.split(",")) if value else ()


def urls(value: str) -> tuple[Url, ...]:
    """A comma-separated list of URLs; empty: none."""
    return tuple(url(part) for part in words(value))


def url(value: str) -> Url:
    """One URL of the form scheme://host:port."""
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise ValueError(f"{error}: {value}") from None
    if parts.scheme not in ("http", "https", "unix", "unixs"):
        raise ValueError(f"URL scheme must be http, https, unix, or unixs: {value}")
    if parts.scheme in ("unix", "unixs"):
        raise ValueError(f"unix sockets are not served: {value}")
    port = _port(parts, value)
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"URL must not contain a path: {value}")
    return Url(parts.scheme, parts.hostname or "", port, value)


def _port(parts: SplitResult, value: str) -> int:
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None:
        raise ValueError(f'URL address does not have the form "host:port": {value}')
    return port


def bind_urls(value: str) -> tuple[Url, ...]:
    """URLs to listen on: the host is ``localhost`` or an address."""
    parsed = urls(value)
    for each in parsed:
        if each.host == "localhost":
            continue
        try:
            ip_address(each.host.partition("%")[0])
        except ValueError:
            raise ValueError(f"expected IP in URL for binding ({each})") from None
    return parsed


def required_bind_urls(value: str) -> tuple[Url, ...]:
    """At least one URL to listen on."""
    return bind_urls(value) or _none_given()


def required_urls(value: str) -> tuple[Url, ...]:
    """At least one URL."""
    return urls(value) or _none_given()


def _none_given() -> tuple[Url, ...]:
    raise ValueError("no valid URLs given")


def initial_cluster(value: str) -> Mapping[str, tuple[str, ...]]:
    """``name=url,name=url,...``: peer URLs by member name; a name may come more than once."""
    members: dict[str, tuple[str, ...]] = {}
    for part in words(value):
        name, equals, peer_url = part.partition("=")
        if not equals or not name:
            raise ValueError(f'expected "name=url": {part}')
        url(peer_url)
        members[name] = (*members.get(name, ()), peer_url)
    return members


FEATURE_GATES: Final = {
    "StopGRPCServiceOnDefrag": False,
    "InitialCorruptCheck": False,
    "CompactHashCheck": False,
    "LeaseCheckpoint": False,
    "LeaseCheckpointPersist": False,
    "SetMemberLocalAddr": False,
    "PriorityRequest": False,
    "TxnModeWriteWithSharedBuffer": True,
    "FastLeaseKeepAlive": True,
}
_MOVABLE_GATES: Final = {"LeaseCheckpoint", "LeaseCheckpointPersist"}


def feature_gates(value: str) -> frozenset[str]:
    """``Gate=true,Gate=false``: the gates that are set to other than their default.

    Raises ``ValueError`` for gates that do not exist, and for those that cannot be moved here.
    """
    changed = set()
    for part in words(value):
        name, _, setting = part.partition("=")
        if name not in FEATURE_GATES:
            raise ValueError(f"unrecognized feature gate: {name}")
        if boolean(setting) != FEATURE_GATES[name]:
            if name not in _MOVABLE_GATES:
                raise ValueError(f"feature gate {name} has its default only: it comes later")
            changed.add(name)
    return frozenset(changed)
