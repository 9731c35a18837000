"""The services of one member, as plain async methods; what carries them is not their business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..member import Member
    from .call import HttpHandler, Method

# The services are imported when they are made: the front needs :mod:`.call` alone.


def services(member: Member) -> Mapping[str, Method]:
    """Return every RPC that the member serves, by its path, each behind the guard."""
    from .absent import Absent
    from .cluster import Cluster
    from .guard import guarded
    from .health import Health
    from .kv import KV
    from .lease import Lease
    from .maintenance import Maintenance
    from .watch import Watch

    made = (KV, Watch, Lease, Maintenance, Cluster, Absent, Health)
    methods = [method for service in made for method in service(member).methods()]
    reads = member.settings.learner_reads
    return {method.rpc.path: guarded(method, member, reads) for method in methods}


def http_routes(member: Member) -> Mapping[str, HttpHandler]:
    """Return every HTTP path that the member answers."""
    from .http import Http

    return Http(member).routes()
