"""DNS SRV: the names under which a domain lists its etcds, and what comes of the answers.

The names are etcd's own: ``_etcd-client-ssl._tcp.<domain>`` for members that speak TLS, and
``_etcd-client._tcp.<domain>`` for those that do not. The look-up itself is the library dnspython's,
or whatever the configuration gives in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from .endpoints import Endpoint
from .errors import ConfigError


class SrvRecord(NamedTuple):
    """One answer to a question for SRV records (RFC 2782)."""

    host: str
    port: int
    priority: int = 0
    """Lower ones come first."""
    weight: int = 0
    """Of the same priority, heavier ones come first."""


SrvResolver: TypeAlias = Callable[[str], Iterable[SrvRecord]]
"""Looks a name's SRV records up, in any order; none, if there are none.

It may block: it is called on a thread where that does no harm. What it raises, if DNS gives no
answer, is told and leaves the endpoints as they are.
"""


def srv_names(domain: str, service: str | None) -> tuple[str, str]:
    """Name what lists a domain's members: those with TLS, and those without."""
    suffix = f"-{service}" if service else ""
    return f"_etcd-client-ssl{suffix}._tcp.{domain}", f"_etcd-client{suffix}._tcp.{domain}"


def records_of(answer: Iterable[Iterable[Any]]) -> list[SrvRecord]:
    """Read what a resolver returned. Raises ValueError that shows what is no record."""
    return [_record(each) for each in answer]


def _record(given: Iterable[Any]) -> SrvRecord:
    try:
        host, *numbers = given
        record = SrvRecord(host, *map(int, numbers))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{given!r} is no SrvRecord: {error}") from error
    if not isinstance(host, str):
        raise ValueError(f"{given!r} is no SrvRecord: its host is no str")
    return record


def endpoints_of(secure: Iterable[SrvRecord], plain: Iterable[SrvRecord]) -> tuple[Endpoint, ...]:
    """Make endpoints of the two lists, the secure ones first, each list in its own order.

    An address that is on both is reached with TLS. What cannot be an address is left out, as is
    ``.``, which says that there is no such service.
    """
    chosen: dict[str, Endpoint] = {}
    for scheme, records in (("https", secure), ("http", plain)):
        for record in sorted(records, key=_rank):
            host = record.host.rstrip(".")
            try:
                endpoint = Endpoint(
                    f"{scheme}://{f'[{host}]' if ':' in host else host}:{record.port}"
                )
            except ConfigError:
                continue
            chosen.setdefault(endpoint.target, endpoint)
    return tuple(chosen.values())


def _rank(record: SrvRecord) -> tuple[int, int, str, int]:
    return record.priority, -record.weight, record.host, record.port


def dns_resolver(timeout_seconds: float, nameserver: tuple[str, int] | None = None) -> SrvResolver:
    """Make the resolver that asks DNS, at this address and port or as the system is configured to.

    Raises ConfigError when dnspython is not installed.
    """
    try:
        from dns import resolver as dns
    except ImportError as error:
        raise ConfigError(
            "discovery_srv",
            "dnspython is needed to ask DNS: pip install 'etcd-pinwheel[srv]'; or set srv_resolver",
        ) from error

    def resolve(name: str) -> list[SrvRecord]:
        asked = dns.Resolver(configure=nameserver is None)
        if nameserver is not None:
            asked.nameservers, asked.port = [nameserver[0]], nameserver[1]
        try:
            answer = asked.resolve(name, "SRV", lifetime=timeout_seconds, search=False)
        except (dns.NXDOMAIN, dns.NoAnswer):
            return []
        return [
            SrvRecord(record.target.to_text(), record.port, record.priority, record.weight)
            for record in answer
        ]

    return resolve
