"""A real etcd and our server, asked the same things in the same order and held to one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from etcd_pinwheel.protos import etcdserverpb as pb
from etcd_pinwheel.protos import rpcs
from etcd_pinwheel.protos.rpc import Rpc

from .comparison import Delta, deltas
from .differences import Excuses
from .remote import Outcome, Remote

EVERYTHING: dict[str, Any] = {"key": b"\0", "range_end": b"\0"}
TOKENS = {"token", "authorization"}
MARKER = b"~marker"
"""A key that no program uses: fences and fresh starts write it."""


SHOWN = 20
"""How many differences an error lists."""


class Disagreement(AssertionError):
    """The two servers answered differently, and no row of the table says so."""

    def __init__(self, what: str, found: Iterable[Delta]) -> None:
        lines = list(map(str, found))
        left_out = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        super().__init__("\n    ".join([what, *lines[:SHOWN], *left_out]))


class Pair:
    """Both servers in lock-step: every request goes to both, so revisions stay equal."""

    def __init__(self, etcd: Remote, ours: Remote, excuses: Excuses | None = None) -> None:
        self.etcd = etcd
        self.ours = ours
        self.excuses = excuses or Excuses()
        self.settle_seconds = 15.0
        """How long a stream may take to bring what is due."""
        self.base_revision = 0
        """The store's revision after the last :meth:`start_afresh`."""
        self.revision = 0
        """The newest revision that a reply told."""
        self.compacted_revision = 0

    @property
    def sides(self) -> tuple[Remote, Remote]:
        return self.etcd, self.ours

    def call(
        self,
        rpc: Rpc[Any, Any],
        request: Message | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
        **fields: Any,
    ) -> Outcome:
        """Ask both, raise :class:`Disagreement` if they differ; answer etcd's outcome."""
        asked = rpc.request(**fields) if request is None else request
        theirs = self.etcd.begin(rpc, asked, metadata)
        our = self.ours.call(rpc, asked, metadata)
        outcome = theirs()
        self.compare(rpc, asked, outcome, our, token=bool(TOKENS & dict(metadata).keys()))
        self._note_revisions(rpc, asked, outcome)
        return outcome

    def call_raw(self, where: str, path: str, payload: bytes, **options: Any) -> str:
        """Send bytes to a path of both, as they are; answer etcd's status."""
        etcd, ours = self.on_each(lambda side: side.call_raw(path, payload, **options).status)
        found = [Delta("status", etcd, ours)] if etcd != ours else []
        left = list(self.excuses.unexplained(where, found))
        if left:
            raise Disagreement(f"{path} {payload[:100]!r}", left)
        return str(etcd)

    def compare(
        self, rpc: Rpc[Any, Any], asked: Message, etcd: Outcome, ours: Outcome, *, token: bool
    ) -> None:
        """Hold two outcomes of one request (made with a ``token``) against each other."""
        left = list(self._unexplained(rpc, asked, etcd, ours, token))
        if left:
            text = " ".join(str(asked).split())[:2000]
            raise Disagreement(f"{rpc.path} {{{text}}}", left)

    def compare_replies(self, where: str, asked: Message | None, etcd: Any, ours: Any) -> None:
        """Hold two replies, of a stream say, against each other."""
        left = list(self.excuses.unexplained(where, deltas(etcd, ours), asked))
        if left:
            raise Disagreement(f"{where} {asked}", left)

    def _unexplained(
        self, rpc: Rpc[Any, Any], asked: Message, etcd: Outcome, ours: Outcome, token: bool
    ) -> Iterator[Delta]:
        found: list[Delta] = []
        if etcd.status != ours.status:
            found.append(Delta("status", etcd.status, ours.status))
        elif isinstance(asked, pb.TxnRequest) and etcd.status == "OK":
            yield from self._unexplained_in_txn(asked, etcd.reply, ours.reply)
            return
        if len(etcd.replies) != len(ours.replies) and not found:
            counts = map(str, (len(etcd.replies), len(ours.replies)))
            found.append(Delta("replies.length", *counts))
        for theirs, our in zip(etcd.replies, ours.replies, strict=False):
            found += deltas(theirs, our)
        # What a row of the table may ask for besides the fields of the request:
        at = getattr(asked, "revision", None)
        facts = {"token": token, "at_compacted_revision": at == self.compacted_revision}
        yield from self.excuses.unexplained(rpc.name, found, asked, **facts)

    def _unexplained_in_txn(self, asked: pb.TxnRequest, etcd: Any, ours: Any) -> Iterator[Delta]:
        """Compare the answers to the operations with what each one asked, then the rest."""
        branch = asked.success if etcd.succeeded else asked.failure
        if len(branch) == len(etcd.responses) == len(ours.responses):
            for op, theirs, our in zip(branch, etcd.responses, ours.responses, strict=True):
                yield from self._unexplained_in_op(op, theirs, our)
            etcd, ours = _without_responses(etcd), _without_responses(ours)
        yield from self.excuses.unexplained("Txn", deltas(etcd, ours), asked)

    def _unexplained_in_op(self, op: pb.RequestOp, etcd: Any, ours: Any) -> Iterator[Delta]:
        kind = op.WhichOneof("request") or ""
        answer = kind.replace("request_", "response_")
        if not (etcd.WhichOneof("response") == ours.WhichOneof("response") == answer):
            yield from deltas(etcd, ours)
            return
        asked, theirs, our = getattr(op, kind), getattr(etcd, answer), getattr(ours, answer)
        if kind == "request_txn":
            yield from self._unexplained_in_txn(asked, theirs, our)
            return
        where = {"request_range": "Range", "request_put": "Put"}.get(kind, "DeleteRange")
        yield from self.excuses.unexplained(where, deltas(theirs, our), asked)

    def _note_revisions(self, rpc: Rpc[Any, Any], asked: Any, outcome: Outcome) -> None:
        if outcome.status != "OK":
            return
        for reply in outcome.replies:
            header = getattr(reply, "header", None)
            self.revision = max(self.revision, header.revision if header else 0)
        if rpc is rpcs.KV_COMPACT:
            self.compacted_revision = asked.revision

    def start_afresh(self) -> None:
        """Leave one marker key, no lease and no alarm, compacted, at one revision on both.

        Each side is brought there by itself: after a disagreement they may have come apart.
        """
        meeting = max(_empty(side) for side in self.sides) + 1
        for side in self.sides:
            while _put_marker(side) < meeting:
                pass
            _delete_all(side)
            compact = pb.CompactionRequest(revision=_put_marker(side), physical=True)
            assert side.call(rpcs.KV_COMPACT, compact).status == "OK"
        self.base_revision = self.revision = self.compacted_revision = meeting + 2
        self.call(rpcs.KV_RANGE, **EVERYTHING)
        self.call(rpcs.LEASE_LEASE_LEASES)

    def close(self) -> None:
        self.etcd.close()
        self.ours.close()

    def on_each(self, do: Callable[[Remote], Any]) -> tuple[Any, Any]:
        """Do something with etcd, then with ours; answer both results."""
        return do(self.etcd), do(self.ours)


def _without_responses(reply: Any) -> Any:
    rest = type(reply)()
    rest.CopyFrom(reply)
    rest.ClearField("responses")
    return rest


def _empty(side: Remote) -> int:
    """Delete every lease, alarm and key of one server; answer the revision it is at."""
    for alarm in side.call(rpcs.MAINTENANCE_ALARM, pb.AlarmRequest()).reply.alarms:
        off = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
        )
        side.call(rpcs.MAINTENANCE_ALARM, off)
    for lease in side.call(rpcs.LEASE_LEASE_LEASES, pb.LeaseLeasesRequest()).reply.leases:
        side.call(rpcs.LEASE_LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease.ID))
    return _delete_all(side)


def _delete_all(side: Remote) -> int:
    outcome = side.call(rpcs.KV_DELETE_RANGE, pb.DeleteRangeRequest(**EVERYTHING))
    return int(outcome.reply.header.revision)


def _put_marker(side: Remote) -> int:
    outcome = side.call(rpcs.KV_PUT, pb.PutRequest(key=MARKER, value=b"start"))
    return int(outcome.reply.header.revision)
