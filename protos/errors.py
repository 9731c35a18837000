"""Every refusal of an etcd server: one table of (code, text), used by both ends.

The server raises a :class:`Refused` and its front puts the row on the wire; the client finds the
row again by its text. Texts, not codes, are the key, as in etcd's own client: some rows travel
with a code that is not theirs (``wire_code``), and releases disagree on the code of others.

Source: etcd's api/v3rpc/rpctypes/error.go (3.6 codes), the mapping in
server/etcdserver/api/v3rpc/util.go, and probes of a real etcd 3.5.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """gRPC status codes, by their number on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table: what a refusal means (``code``) and how it reads (``text``)."""

    code: Code
    text: str
    sent_as: Code | None = None
    """The code on the wire where it differs: etcd maps these two to its client-side error."""

    @property
    def wire_code(self) -> Code:
        return self.code if self.sent_as is None else self.sent_as


class Refused(Exception):
    """A call that the server answers with a refusal instead of a reply."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def _row(code: Code, text: str, *, sent_as: Code | None = None) -> Refusal:
    return Refusal(code, "etcdserver: " + text, sent_as)


# fmt: off
# Invalid argument
KEY_NOT_PROVIDED: Final = _row(Code.INVALID_ARGUMENT, "key is not provided")
KEY_NOT_FOUND: Final = _row(Code.INVALID_ARGUMENT, "key not found")
VALUE_PROVIDED: Final = _row(Code.INVALID_ARGUMENT, "value is provided")
LEASE_PROVIDED: Final = _row(Code.INVALID_ARGUMENT, "lease is provided")
TOO_MANY_OPS: Final = _row(Code.INVALID_ARGUMENT, "too many operations in txn request")
DUPLICATE_KEY: Final = _row(Code.INVALID_ARGUMENT, "duplicate key given in txn request")
INVALID_CLIENT_API_VERSION: Final = _row(Code.INVALID_ARGUMENT, "invalid client api version")
INVALID_SORT_OPTION: Final = _row(Code.INVALID_ARGUMENT, "invalid sort option")
BAD_MEMBER_URLS: Final = _row(Code.INVALID_ARGUMENT, "given member URLs are invalid")
REQUEST_TOO_LARGE: Final = _row(Code.INVALID_ARGUMENT, "request is too large")
USER_EMPTY: Final = _row(Code.INVALID_ARGUMENT, "user name is empty")
ROLE_EMPTY: Final = _row(Code.INVALID_ARGUMENT, "role name is empty")
AUTH_FAILED: Final = _row(Code.INVALID_ARGUMENT, "authentication failed, invalid user ID or password")
PERMISSION_NOT_GIVEN: Final = _row(Code.INVALID_ARGUMENT, "permission not given")
INVALID_AUTH_MANAGEMENT: Final = _row(Code.INVALID_ARGUMENT, "invalid auth management")
AUTH_OLD_REVISION: Final = _row(Code.INVALID_ARGUMENT, "revision of auth store is old")
WRONG_DOWNGRADE_FORMAT: Final = _row(Code.INVALID_ARGUMENT, "wrong downgrade target version format")
INVALID_DOWNGRADE_TARGET: Final = _row(Code.INVALID_ARGUMENT, "invalid downgrade target version")

# Out of range
COMPACTED: Final = _row(Code.OUT_OF_RANGE, "mvcc: required revision has been compacted")
FUTURE_REVISION: Final = _row(Code.OUT_OF_RANGE, "mvcc: required revision is a future revision")
LEASE_TTL_TOO_LARGE: Final = _row(Code.OUT_OF_RANGE, "too large lease TTL")

# Resource exhausted
NO_SPACE: Final = _row(Code.RESOURCE_EXHAUSTED, "mvcc: database space exceeded")
TOO_MANY_REQUESTS: Final = _row(Code.RESOURCE_EXHAUSTED, "too many requests", sent_as=Code.UNKNOWN)

# Not found
LEASE_NOT_FOUND: Final = _row(Code.NOT_FOUND, "requested lease not found")
MEMBER_NOT_FOUND: Final = _row(Code.NOT_FOUND, "member not found")

# Failed precondition
LEASE_EXISTS: Final = _row(Code.FAILED_PRECONDITION, "lease already exists")
MEMBER_EXISTS: Final = _row(Code.FAILED_PRECONDITION, "member ID already exist")
PEER_URLS_EXIST: Final = _row(Code.FAILED_PRECONDITION, "Peer URLs already exists")
NOT_ENOUGH_STARTED: Final = _row(
    Code.FAILED_PRECONDITION, "re-configuration failed due to not enough started members",
    sent_as=Code.UNKNOWN,
)
NOT_A_LEARNER: Final = _row(Code.FAILED_PRECONDITION, "can only promote a learner member")
LEARNER_NOT_READY: Final = _row(Code.FAILED_PRECONDITION, "can only promote a learner member which is in sync with leader")
TOO_MANY_LEARNERS: Final = _row(Code.FAILED_PRECONDITION, "too many learner members in cluster")
CLUSTER_ID_MISMATCH: Final = _row(Code.FAILED_PRECONDITION, "cluster ID mismatch")
ROOT_USER_MISSING: Final = _row(Code.FAILED_PRECONDITION, "root user does not exist")
ROOT_ROLE_MISSING: Final = _row(Code.FAILED_PRECONDITION, "root user does not have root role")
USER_EXISTS: Final = _row(Code.FAILED_PRECONDITION, "user name already exists")
USER_NOT_FOUND: Final = _row(Code.FAILED_PRECONDITION, "user name not found")
ROLE_EXISTS: Final = _row(Code.FAILED_PRECONDITION, "role name already exists")
ROLE_NOT_FOUND: Final = _row(Code.FAILED_PRECONDITION, "role name not found")
ROLE_NOT_GRANTED: Final = _row(Code.FAILED_PRECONDITION, "role is not granted to the user")
PERMISSION_NOT_GRANTED: Final = _row(Code.FAILED_PRECONDITION, "permission is not granted to the role")
AUTH_NOT_ENABLED: Final = _row(Code.FAILED_PRECONDITION, "authentication is not enabled")
NOT_LEADER: Final = _row(Code.FAILED_PRECONDITION, "not leader")
NOT_CAPABLE: Final = _row(Code.FAILED_PRECONDITION, "not capable")
NOT_SUPPORTED_FOR_LEARNER: Final = _row(Code.FAILED_PRECONDITION, "rpc not supported for learner")
BAD_LEADER_TRANSFEREE: Final = _row(Code.FAILED_PRECONDITION, "bad leader transferee")
CLUSTER_VERSION_MISSING: Final = _row(Code.FAILED_PRECONDITION, "cluster version not found during downgrade")
DOWNGRADE_IN_PROGRESS: Final = _row(Code.FAILED_PRECONDITION, "cluster has a downgrade job in progress")
NO_DOWNGRADE: Final = _row(Code.FAILED_PRECONDITION, "no inflight downgrade job")

# Who is asking
PERMISSION_DENIED: Final = _row(Code.PERMISSION_DENIED, "permission denied")
INVALID_AUTH_TOKEN: Final = _row(Code.UNAUTHENTICATED, "invalid auth token")

# The same in the auth store's own words: so maintenance calls, and some writes, hand them out
STORE_INVALID_AUTH_TOKEN: Final = Refusal(Code.UNAUTHENTICATED, "auth: invalid auth token", Code.UNKNOWN)
STORE_AUTH_OLD_REVISION: Final = Refusal(Code.INVALID_ARGUMENT, "auth: revision in header is old", Code.UNKNOWN)
STORE_USER_EMPTY: Final = Refusal(Code.INVALID_ARGUMENT, "auth: user name is empty", Code.UNKNOWN)
STORE_PERMISSION_DENIED: Final = Refusal(Code.PERMISSION_DENIED, "auth: permission denied", Code.UNKNOWN)

# Ended by the other side
WATCH_CANCELED: Final = _row(Code.CANCELLED, "watch canceled")
REQUEST_CANCELED: Final = _row(Code.CANCELLED, "request canceled")

# The cluster
CORRUPT: Final = _row(Code.DATA_LOSS, "corrupt cluster")
NO_LEADER: Final = _row(Code.UNAVAILABLE, "no leader")
LEADER_CHANGED: Final = _row(Code.UNAVAILABLE, "leader changed")
STOPPED: Final = _row(Code.UNAVAILABLE, "server stopped")
TIMEOUT: Final = _row(Code.UNAVAILABLE, "request timed out")
TIMEOUT_LEADER_FAILURE: Final = _row(Code.UNAVAILABLE, "request timed out, possibly due to previous leader failure")
TIMEOUT_CONNECTION_LOST: Final = _row(Code.UNAVAILABLE, "request timed out, possibly due to connection lost")
TIMEOUT_APPLIED_INDEX: Final = _row(Code.UNAVAILABLE, "request timed out, waiting for the applied index took too long")
UNHEALTHY: Final = _row(Code.UNAVAILABLE, "unhealthy cluster")

# No code of their own: etcd sends these as Unknown
LEADER_TRANSFER_TIMEOUT: Final = _row(Code.UNKNOWN, "request timed out, leader transfer took too long")
UNKNOWN_METHOD: Final = _row(Code.UNKNOWN, "unknown method")
NOT_PRIMARY_LESSOR: Final = Refusal(Code.UNKNOWN, "not a primary lessor")
PROPOSAL_DROPPED: Final = Refusal(Code.UNKNOWN, "raft proposal dropped")
RAFT_STOPPED: Final = Refusal(Code.UNKNOWN, "raft: stopped")
NO_PASSWORD_USER: Final = Refusal(Code.UNKNOWN, "auth: authentication failed, password was given for no password user")
WATCHER_RANGE_EMPTY: Final = Refusal(Code.UNKNOWN, "mvcc: watcher range is empty")
WATCHER_DUPLICATE_ID: Final = Refusal(Code.UNKNOWN, "mvcc: duplicate watch ID provided on the WatchStream")
# fmt: on

BY_TEXT: Final[dict[str, Refusal]] = {
    row.text: row for row in tuple(globals().values()) if isinstance(row, Refusal)
}
