"""Members and clusters on this machine, for tests, demos and benchmarks.

    with LocalMember() as member:
        Client([member.endpoint]).put("k", "v")
        member.kill()
        member.restart()

    with LocalCluster(size=3, partitions=True) as cluster:
        leader = cluster.wait_for_leader()
        cluster.isolate(leader)
        cluster.wait_for_leader()
        cluster.heal()

Each has free ports and temporary directories of its own, and leaves nothing behind. With
``binary=`` it is a real etcd that is started, in the same way and with the same flags.

Names are loaded when they are first asked for, because every run of pytest loads the plugin here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .any_member import AnyMember as AnyMember
    from .calls import CallFailed as CallFailed
    from .calls import MemberStatus as MemberStatus
    from .cluster import LocalCluster as LocalCluster
    from .errors import LocalMemberError as LocalMemberError
    from .fault_proxy import FaultProxy as FaultProxy
    from .in_process_member import InProcessMember as InProcessMember
    from .ports import ReservedPorts as ReservedPorts
    from .process_member import LocalMember as LocalMember

_HOMES = {
    "AnyMember": "any_member",
    "CallFailed": "calls",
    "FaultProxy": "fault_proxy",
    "InProcessMember": "in_process_member",
    "LocalCluster": "cluster",
    "LocalMember": "process_member",
    "LocalMemberError": "errors",
    "MemberStatus": "calls",
    "ReservedPorts": "ports",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
