"""Everything the client raises, as one tree, split by what the caller may assume next::

    EtcdError
     +- InvalidArgument           misuse, found before anything was sent   (ValueError)
     |   +- ConfigError           a setting is wrong; names the field
     +- ClientClosed              the client was closed, by close() or while the call was under way
     |   +- ClientForked          the client belongs to the parent of this forked process
     |   +- WrongEventLoop        the AsyncClient belongs to another event loop
     +- DiscoveryFailed           who the members are could not be found out; nothing has changed
     +- CallError                 a call failed: code, text, endpoint, attempts, elapsed_seconds
         +- NotSent               nothing was sent: no member could be reached   (ConnectionError)
         +- OutcomeUnknown        it was sent; whether it was carried out is not known
         |   +- TimedOut          no answer in time   (TimeoutError)
         |   +- ConnectionLost    the connection broke under the call   (ConnectionError)
         |   +- Unavailable       the member gave up on it: request timed out, leader changed, ...
         |   +- ReplyTooLarge     the answer is larger than max_receive_bytes
         +- AnswerLost            it was carried out, once; what it answered is not known
         +- Refused               the server answered: no; nothing was changed
             +- Compacted         the revision asked for has been compacted away
             +- FutureRevision    the revision asked for does not exist yet
             +- LeaseNotFound     expired, revoked, or never granted
             +- LeaseExists       the id asked for is taken
             +- KeyNotFound       ignore_value or ignore_lease on a key that does not exist
             +- RequestTooLarge   larger than the server takes
             +- NoSpace           the store's quota is used up; an alarm is raised
             +- TooManyRequests   the server is overloaded
             +- NoLeader          the member has no leader; refused before it was proposed
             +- LearnerCannotServe  a learner was asked for what only voters serve
             +- MemberNotFound    no member with that id
             +- PermissionDenied  the user may not do that
             +- Unauthenticated   no, a wrong, or an expired token or password
             +- Corrupt           the member has found its store corrupt
             +- NotEtcd           the server does not know this RPC: no etcd, or an older one
             +- WatchCanceled     the server ended a watch, for a reason of its own
     +- WaitTimedOut              nothing came of a watch or a lease in time   (TimeoutError)
     +- StreamError               something long-lived came to its end
         +- HistoryLost           the cluster lost the history that a watch has seen already
         +- WatchInterrupted      no member served a watch for too long   (ConnectionError)
         +- LeaseLost             the lease is gone, or must be taken for gone; names the reason
         +- ClaimLost             so is the leadership, the candidacy or the lock
         +- SnapshotCorrupt       a snapshot that is cut short or was tampered with

After NotSent and Refused a write has certainly not happened; after OutcomeUnknown it may have, and
may even still happen; after AnswerLost it has. Reads change nothing, so they may be repeated after
any of these.

grpc's own errors never get out; they are kept as ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from ..protos.errors import Code


class EtcdError(Exception):
    """The root of everything this client raises."""


class InvalidArgument(EtcdError, ValueError):
    """A call that cannot be right; nothing was sent."""


def raise_as_misuse(error: Exception) -> NoReturn:
    """Raise what building a request raised as InvalidArgument, e.g. that a number is too large."""
    if isinstance(error, EtcdError):
        raise error
    raise InvalidArgument(str(error)) from error


class ConfigError(InvalidArgument):
    """A setting that cannot be right."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        """The setting, as written in a configuration file, e.g. ``endpoints[1].ca``."""
        self.problem = problem


class DiscoveryFailed(EtcdError):
    """Who the members are could not be found out, from them or from DNS; nothing has changed."""


class ClientClosed(EtcdError):
    """The client is closed. A call that was under way has an unknown outcome."""


class ClientForked(ClientClosed):
    """The client was in use when this process was forked from the one it belongs to.

    Connections do not survive a fork: create the client in the child, or do not use it before.
    """


class WrongEventLoop(ClientClosed):
    """The AsyncClient is bound to another event loop: the one it was first used on."""


class CallError(EtcdError):
    """A call that failed, with everything known about why."""

    def __init__(
        self,
        text: str,
        *,
        code: Code,
        rpc: str = "",
        endpoint: str | None = None,
        attempts: int = 0,
        elapsed_seconds: float = 0.0,
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        """The server's own words, or grpc's when no server spoke."""
        self.code = code
        self.rpc = rpc
        """The RPC's path, e.g. ``/etcdserverpb.KV/Put``."""
        self.endpoint = endpoint
        """The member that the last attempt went to; None if there was no attempt."""
        self.attempts = attempts
        """How many times the call was handed to a connection."""
        self.elapsed_seconds = elapsed_seconds
        """From the start of the call to this error, waits included."""
        self.reasons = dict(reasons or {})
        """Why each endpoint that is not connected is not, where that mattered."""

    def __str__(self) -> str:
        where = f" at {self.endpoint}" if self.endpoint else ""
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        told = f"{self.text} [{self.rpc}{where}, {tries}, {self.elapsed_seconds:.3f} s]"
        return told + "".join(f"\n  {who}: {why}" for who, why in self.reasons.items())


class NotSent(CallError, ConnectionError):
    """Nothing was sent: no member could be reached before the deadline."""


class OutcomeUnknown(CallError):
    """The call was sent, and whether it was carried out is not known."""


class TimedOut(OutcomeUnknown, TimeoutError):
    """No answer before the deadline."""


class ConnectionLost(OutcomeUnknown, ConnectionError):
    """The connection broke while the call was under way."""


class Unavailable(OutcomeUnknown):
    """The member took the call and gave up on it: request timed out, leader changed, stopping."""


class ReplyTooLarge(OutcomeUnknown):
    """The answer is larger than ``max_receive_bytes``; read large ranges with ``pages``."""


class AnswerLost(CallError):
    """The write was carried out, once, but what it answered cannot be found out any more."""

    def __init__(self, revision: int, why: str, *, rpc: str) -> None:
        text = f"carried out at revision {revision}, but the answer is lost: {why}"
        super().__init__(text, code=Code.UNKNOWN, rpc=rpc)
        self.revision = revision
        """At which it was carried out."""


class Refused(CallError):
    """The server answered with a refusal; nothing was changed."""


class Compacted(Refused):
    """The revision asked for has been compacted away."""

    compact_revision: int | None = None
    """The oldest revision there is, where the server tells it (it does to watches)."""


class FutureRevision(Refused):
    """The revision asked for does not exist yet (on that member)."""


class LeaseNotFound(Refused):
    """The lease has expired, was revoked, or was never granted."""


class LeaseExists(Refused):
    """A lease with the id asked for exists already."""


class KeyNotFound(Refused):
    """``ignore_value`` or ``ignore_lease`` on a key that does not exist."""


class RequestTooLarge(Refused):
    """The request is larger than the server takes (1.5 MiB unless it was set otherwise)."""


class NoSpace(Refused):
    """The store's quota is used up: compact, defragment, then disarm the alarm."""


class TooManyRequests(Refused):
    """The server has too much in hand; nothing was proposed."""


class NoLeader(Refused):
    """The member knows of no leader; refused before it was proposed."""


class LearnerCannotServe(Refused):
    """The member is a learner, which answers serializable reads and Status only."""


class MemberNotFound(Refused):
    """The cluster has no member with that id."""


class PermissionDenied(Refused):
    """The user lacks the permission for that key or operation."""


class Unauthenticated(Refused):
    """No token or password, or a wrong or expired one."""


class Corrupt(Refused):
    """The member has found its store to differ from the others' and stopped serving."""


class NotEtcd(Refused):
    """The server does not know this RPC: it is no etcd, or an older one."""


class WatchCanceled(Refused):
    """The server ended a watch, for a reason of its own."""


class WaitTimedOut(EtcdError, TimeoutError):
    """Nothing came of a watch, or of a lease, for as long as the caller wanted to wait."""


class StreamError(EtcdError):
    """Something long-lived came to its end: a watch, a lease, a snapshot."""


class HistoryLost(StreamError):
    """The cluster has less history than this watch has seen: wiped, restored, or another cluster.

    What the watch would deliver next does not continue what it delivered before. Read the state
    anew and begin a new watch.
    """

    def __init__(self, *, known_revision: int, revision: int, same_cluster: bool) -> None:
        who = "the cluster" if same_cluster else "another cluster"
        super().__init__(f"revision {known_revision} was seen, but {who} is at {revision}")
        self.known_revision = known_revision
        """What the watch knows the cluster to have reached."""
        self.revision = revision
        """What the cluster that answers now has reached."""
        self.same_cluster = same_cluster
        """False: it has another cluster id."""


class WatchInterrupted(StreamError, ConnectionError):
    """No member served this watch for longer than its ``max_outage_seconds``."""

    def __init__(self, text: str, *, next_revision: int) -> None:
        super().__init__(text)
        self.next_revision = next_revision
        """The ``start_revision`` with which a new watch goes on; 0 if it was never created."""


class LeaseLost(StreamError):
    """The lease is gone, or must be taken for gone because no keep-alive was answered in time."""

    def __init__(self, lease_id: int, reason: str) -> None:
        super().__init__(f"lease {lease_id:x} is lost: {reason}")
        self.lease_id = lease_id
        self.reason = reason
        """``expired``, ``unanswered``, ``revoked`` or ``closed``; see LossReason."""


class ClaimLost(StreamError):
    """A leadership, a candidacy or a lock is gone, or must be taken for gone."""

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(f"the claim {key.decode(errors='replace')!r} is lost: {reason}")
        self.key = key
        """The claim's own key, ``<name>/<lease id in hex>``."""
        self.reason = reason
        """As LeaseLost's, or ``deleted`` or ``resigned``; see LossReason."""


class SnapshotCorrupt(StreamError):
    """A snapshot that is cut short, or whose digest does not match; no file was left."""
