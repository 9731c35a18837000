"""What the two pinned generations do about errors, as data.

Rows are by :class:`.Cause`. Where a generation goes by codes and texts that tell more apart than
causes do, or less, that is an exception to its rows. The defaults for what it never heard of: a
text that no etcd is known to send counts by its code; a code other than Unavailable, Internal,
DeadlineExceeded and Canceled is told to the caller; and refusals that came with later servers
(a learner's) count as what they are on the wire of etcd 3.4 and 3.5, Unavailable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..protos import errors as table
from ..protos import rpcs
from ..protos.errors import Code
from ..protos.rpc import Rpc
from .error_handler import Cause, ErrorTable, Row, Verdict

_RETURN: Final = Verdict.RETURN
_RETRY: Final = Verdict.RETRY
_SWITCH_RETRY: Final = Verdict.FAIL_OVER
_SWITCH_RETURN: Final = Verdict.FAIL_OVER_AND_RETURN
_REFRESH: Final = Verdict.REFRESH_TOKEN

_KV_AND_LEASE: Final[frozenset[Rpc[Any, Any]]] = frozenset(
    {
        rpcs.KV_RANGE,
        rpcs.KV_PUT,
        rpcs.KV_DELETE_RANGE,
        rpcs.KV_TXN,
        rpcs.KV_COMPACT,
        rpcs.LEASE_LEASE_GRANT,
        rpcs.LEASE_LEASE_REVOKE,
        rpcs.LEASE_LEASE_KEEP_ALIVE,
        rpcs.LEASE_LEASE_TIME_TO_LIVE,
        rpcs.LEASE_LEASE_LEASES,
    }
)

_SENT_AS_UNKNOWN: Final[Mapping[str | Code, Row]] = {
    refusal.text: (_RETURN, _RETURN)
    for refusal in (table.PROPOSAL_DROPPED, table.RAFT_STOPPED, table.LEADER_TRANSFER_TIMEOUT)
}
"""Raft's own words, on the wire as Unknown, which clientv3 takes for final."""

PINNED_MULTI_TABLE: Final = ErrorTable(
    {
        #                (repeatable, the others)
        Cause.NOT_SENT: (_RETRY, _RETRY),
        Cause.BROKEN: (_RETRY, _RETURN),  # Internal in grpc-go 1.0, where Unavailable is unsent
        Cause.NO_ANSWER: (_RETURN, _RETURN),
        Cause.CUT_SHORT: (_RETURN, _RETURN),
        Cause.GAVE_UP: (_RETRY, _RETURN),
        Cause.NO_LEADER: (_RETRY, _RETURN),
        Cause.LEARNER: (_RETRY, _RETURN),
        Cause.TOO_BUSY: (_RETURN, _RETURN),
        Cause.REFUSED: (_RETURN, _RETURN),
        Cause.FOREIGN: (_RETURN, _RETURN),
    },
    exceptions={
        **_SENT_AS_UNKNOWN,
        Code.INTERNAL: (_RETRY, _RETURN),
        table.UNHEALTHY.text: (_RETRY, _RETURN),
        table.INVALID_AUTH_TOKEN.text: (_REFRESH, _REFRESH),
    },
    repeatable=frozenset({rpcs.KV_RANGE, rpcs.AUTH_AUTHENTICATE}),
    refreshed=_KV_AND_LEASE,
    streams_fail_over=False,
)
"""clientv3 3.1: an error never moves the pin. Reads, and transactions that only read, are sent
again on Unavailable and Internal, to the same member; all else only if it was not sent."""

PINNED_SINGLE_TABLE: Final = ErrorTable(
    {
        #                (repeatable, the others)
        Cause.NOT_SENT: (_SWITCH_RETRY, _RETRY),
        Cause.BROKEN: (_SWITCH_RETRY, _SWITCH_RETURN),
        Cause.NO_ANSWER: (_SWITCH_RETURN, _SWITCH_RETURN),  # false positive: a short deadline
        Cause.CUT_SHORT: (_SWITCH_RETURN, _SWITCH_RETURN),
        Cause.GAVE_UP: (_SWITCH_RETRY, _SWITCH_RETURN),
        Cause.NO_LEADER: (_SWITCH_RETRY, _SWITCH_RETURN),
        Cause.LEARNER: (_SWITCH_RETRY, _SWITCH_RETURN),
        Cause.TOO_BUSY: (_RETURN, _RETURN),
        Cause.REFUSED: (_RETURN, _RETURN),
        Cause.FOREIGN: (_RETURN, _RETURN),
    },
    exceptions={
        **_SENT_AS_UNKNOWN,
        Code.CANCELLED: (_RETURN, _RETURN),
        Code.INTERNAL: (_SWITCH_RETURN, _SWITCH_RETURN),
        table.UNHEALTHY.text: (_SWITCH_RETRY, _SWITCH_RETURN),
        table.INVALID_AUTH_TOKEN.text: (_REFRESH, _REFRESH),
    },
    repeats_reading_txns=False,
    refreshed=_KV_AND_LEASE,
    streams_fail_over=False,
)
"""clientv3 3.2.10 to 3.3.13: Unavailable, DeadlineExceeded and Internal switch the endpoint,
whatever the call; of those only Unavailable is tried again, and of writes only what was not sent.
Streams have loops of their own, which never switch."""
