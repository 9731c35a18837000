"""An etcd v3 client whose load balancing is a plug, with a bundled reference server.

The public names are loaded when they are first asked for (PEP 562), so that importing a part,
such as ``etcd_pinwheel.server_stub``, costs no more than that part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.aio_claim import AsyncLeadership as AsyncLeadership
    from .client.aio_claim import AsyncLock as AsyncLock
    from .client.aio_election import AsyncElection as AsyncElection
    from .client.aio_election import AsyncLeaderWatch as AsyncLeaderWatch
    from .client.aio_lease import AsyncLease as AsyncLease
    from .client.aio_watch import AsyncWatch as AsyncWatch
    from .client.async_client import AsyncClient as AsyncClient
    from .client.blocking_claim import Leadership as Leadership
    from .client.blocking_claim import Lock as Lock
    from .client.blocking_election import Election as Election
    from .client.blocking_election import LeaderWatch as LeaderWatch
    from .client.blocking_lease import Lease as Lease
    from .client.blocking_watch import Watch as Watch
    from .client.client import Client as Client
    from .client.compare import Compare as Compare
    from .client.compare import create_revision as create_revision
    from .client.compare import lease as lease
    from .client.compare import mod_revision as mod_revision
    from .client.compare import value as value
    from .client.compare import version as version
    from .client.config import Config as Config
    from .client.endpoints import Endpoint as Endpoint
    from .client.endpoints import Tls as Tls
    from .client.errors import AnswerLost as AnswerLost
    from .client.errors import CallError as CallError
    from .client.errors import ClaimLost as ClaimLost
    from .client.errors import ClientClosed as ClientClosed
    from .client.errors import ClientForked as ClientForked
    from .client.errors import Compacted as Compacted
    from .client.errors import ConfigError as ConfigError
    from .client.errors import ConnectionLost as ConnectionLost
    from .client.errors import Corrupt as Corrupt
    from .client.errors import DiscoveryFailed as DiscoveryFailed
    from .client.errors import EtcdError as EtcdError
    from .client.errors import FutureRevision as FutureRevision
    from .client.errors import HistoryLost as HistoryLost
    from .client.errors import InvalidArgument as InvalidArgument
    from .client.errors import KeyNotFound as KeyNotFound
    from .client.errors import LearnerCannotServe as LearnerCannotServe
    from .client.errors import LeaseExists as LeaseExists
    from .client.errors import LeaseLost as LeaseLost
    from .client.errors import LeaseNotFound as LeaseNotFound
    from .client.errors import MemberNotFound as MemberNotFound
    from .client.errors import NoLeader as NoLeader
    from .client.errors import NoSpace as NoSpace
    from .client.errors import NotEtcd as NotEtcd
    from .client.errors import NotSent as NotSent
    from .client.errors import OutcomeUnknown as OutcomeUnknown
    from .client.errors import PermissionDenied as PermissionDenied
    from .client.errors import Refused as Refused
    from .client.errors import ReplyTooLarge as ReplyTooLarge
    from .client.errors import RequestTooLarge as RequestTooLarge
    from .client.errors import SnapshotCorrupt as SnapshotCorrupt
    from .client.errors import StreamError as StreamError
    from .client.errors import TimedOut as TimedOut
    from .client.errors import TooManyRequests as TooManyRequests
    from .client.errors import Unauthenticated as Unauthenticated
    from .client.errors import Unavailable as Unavailable
    from .client.errors import WaitTimedOut as WaitTimedOut
    from .client.errors import WatchCanceled as WatchCanceled
    from .client.errors import WatchInterrupted as WatchInterrupted
    from .client.errors import WrongEventLoop as WrongEventLoop
    from .client.generations import Generation as Generation
    from .client.keep_alive import LossReason as LossReason
    from .client.keys import prefix_end as prefix_end
    from .client.lease import LeaseGrant as LeaseGrant
    from .client.lease import LeaseRevocation as LeaseRevocation
    from .client.lease import LeaseTimeToLive as LeaseTimeToLive
    from .client.links import EndpointView as EndpointView
    from .client.links import LinkState as LinkState
    from .client.maintenance import Alarm as Alarm
    from .client.maintenance import AlarmType as AlarmType
    from .client.maintenance import Hash as Hash
    from .client.maintenance import HashKV as HashKV
    from .client.maintenance import Status as Status
    from .client.members import Member as Member
    from .client.results import CompactResult as CompactResult
    from .client.results import DeleteResult as DeleteResult
    from .client.results import Header as Header
    from .client.results import KeyValue as KeyValue
    from .client.results import PutResult as PutResult
    from .client.results import RangeResult as RangeResult
    from .client.results import TxnResult as TxnResult
    from .client.retries import Retry as Retry
    from .client.snapshot import Snapshot as Snapshot
    from .client.srv import SrvRecord as SrvRecord
    from .client.txn import Op as Op
    from .client.txn import Txn as Txn
    from .client.txn import delete as delete
    from .client.txn import get as get
    from .client.txn import put as put
    from .client.watch import EventType as EventType
    from .client.watch import WatchBatch as WatchBatch
    from .client.watch import WatchEvent as WatchEvent
    from .client.watch import WatchFilter as WatchFilter

_NAMES = {
    "client.aio_claim": "AsyncLeadership AsyncLock",
    "client.aio_election": "AsyncElection AsyncLeaderWatch",
    "client.aio_lease": "AsyncLease",
    "client.aio_watch": "AsyncWatch",
    "client.async_client": "AsyncClient",
    "client.blocking_claim": "Leadership Lock",
    "client.blocking_election": "Election LeaderWatch",
    "client.blocking_lease": "Lease",
    "client.blocking_watch": "Watch",
    "client.client": "Client",
    "client.compare": "Compare create_revision lease mod_revision value version",
    "client.config": "Config",
    "client.endpoints": "Endpoint Tls",
    "client.errors": (
        "AnswerLost CallError ClaimLost ClientClosed ClientForked Compacted ConfigError "
        "ConnectionLost Corrupt DiscoveryFailed EtcdError FutureRevision HistoryLost "
        "InvalidArgument KeyNotFound "
        "LearnerCannotServe LeaseExists LeaseLost LeaseNotFound MemberNotFound NoLeader "
        "NoSpace NotEtcd NotSent OutcomeUnknown PermissionDenied Refused ReplyTooLarge "
        "RequestTooLarge SnapshotCorrupt StreamError TimedOut TooManyRequests "
        "Unauthenticated Unavailable WaitTimedOut WatchCanceled WatchInterrupted "
        "WrongEventLoop"
    ),
    "client.generations": "Generation",
    "client.keep_alive": "LossReason",
    "client.keys": "prefix_end",
    "client.lease": "LeaseGrant LeaseRevocation LeaseTimeToLive",
    "client.links": "EndpointView LinkState",
    "client.maintenance": "Alarm AlarmType Hash HashKV Status",
    "client.members": "Member",
    "client.results": "CompactResult DeleteResult Header KeyValue PutResult RangeResult TxnResult",
    "client.retries": "Retry",
    "client.snapshot": "Snapshot",
    "client.srv": "SrvRecord",
    "client.txn": "Op Txn delete get put",
    "client.watch": "EventType WatchBatch WatchEvent WatchFilter",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
