"""Clients and watchers: what they ask, and whether they were told the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcd_pinwheel.protos.etcdserverpb import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    InternalRaftRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.replica import Applied

from .violation import demand

if TYPE_CHECKING:
    from .world import World

_TIMEOUT_SECONDS = 2.0
_LATENCY_SECONDS = 0.001


class Operation:
    """One call of one client, from asking to its outcome."""

    def __init__(self, client: Client, request: InternalRaftRequest | None, key: bytes) -> None:
        """``request`` of None reads ``key``."""
        ledger = client.world.ledger
        self.client = client
        self.key = key
        self.outcome = ""
        self._request = request
        self._floor_index = ledger.acknowledged_index
        self._floor_revision = ledger.acknowledged_revision

    @property
    def request(self) -> InternalRaftRequest:
        """What is to be written."""
        assert self._request is not None
        return self._request

    @property
    def is_read(self) -> bool:
        return self._request is None

    def written(self, applied: Applied, revision: int) -> None:
        """The write was applied, at the member that was asked."""
        if self.outcome:
            return
        index = applied.entry.Index
        ledger = self.client.world.ledger
        demand(
            index > self._floor_index and revision >= self._floor_revision,
            "linearizable writes",
            f"{self.client.name} is told of entry {index}, revision {revision}; it began when"
            f" entry {self._floor_index} and revision {self._floor_revision} were acknowledged",
        )
        ledger.acknowledge(index, revision)
        self._ends("done", f"entry {index} revision {revision}")

    def reads(self, store: WatchableStore) -> None:
        """The member lets the read go on."""
        if self.outcome:
            return
        ledger, revision = self.client.world.ledger, store.revision
        demand(
            revision >= self._floor_revision,
            "linearizable reads",
            f"{self.client.name} reads at revision {revision}; it began when"
            f" {self._floor_revision} was acknowledged",
        )
        kvs = store.range(self.key, b"").kvs
        value = kvs[0].value if kvs else None
        expected = ledger.model.value_at(self.key, revision)
        demand(
            value == expected,
            "reads what was written",
            f"{self.client.name} reads {value!r} at revision {revision}, written was {expected!r}",
        )
        ledger.acknowledge(0, revision)
        self._ends("done", f"reads revision {revision}")

    def fails(self, how: str) -> None:
        """Nothing came of it: "refused" before it could take effect, or "unknown"."""
        if self.outcome:
            return
        if how == "refused" and self._request is not None:
            self.client.world.ledger.never.add(self._request.header.ID)
        self._ends(how, "")

    def _ends(self, outcome: str, detail: str) -> None:
        self.outcome = outcome
        self.client.ended(self, detail)


class Client:
    """A caller that does one thing after the other."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"c{number}"
        self.counts = dict.fromkeys(("done", "refused", "unknown"), 0)
        self._leases: list[int] = []
        self._serial = 0

    def begin(self) -> None:
        """Do the next thing, for as long as the workload lasts."""
        world = self.world
        if not world.is_working:
            return
        operation = self._draw()
        self.ask(operation, world.random.choice(world.serving()))

    def ask(self, operation: Operation, member_id: int) -> None:
        """Have a member carry out an operation."""
        world = self.world
        world.trace.note(self.name, f"asks m{member_id}: {_told(operation)}")
        world.clock.after(
            _LATENCY_SECONDS * world.random.random(), self._arrive, operation, member_id
        )
        world.clock.after(_TIMEOUT_SECONDS, operation.fails, "unknown")

    def ended(self, operation: Operation, detail: str) -> None:
        """Hear the outcome, and think."""
        world = self.world
        self.counts[operation.outcome] += 1
        world.trace.note(self.name, f"{operation.outcome} {detail}")
        world.clock.after(world.profile.think_seconds * 2 * world.random.random(), self.begin)

    def _arrive(self, operation: Operation, member_id: int) -> None:
        member = self.world.members[member_id]
        if not member.is_up:
            operation.fails("refused")
            return
        service = member.service
        action = service.read if operation.is_read else service.write
        member.enter(member.incarnation, action, (operation,))

    # What to do

    def _draw(self) -> Operation:
        world = self.world
        random, profile = world.random, world.profile
        key = b"k%d" % random.randrange(profile.keys)
        kind = random.random()
        if kind < 0.35:
            return Operation(self, None, key)
        request = InternalRaftRequest()
        request.header.ID = world.new_request_id()
        if kind < 0.65:
            request.put.CopyFrom(PutRequest(key=key, value=self._value()))
        elif kind < 0.75:
            request.delete_range.CopyFrom(DeleteRangeRequest(key=key))
        elif kind < 0.9 or not (profile.leases or profile.compacts):
            request.txn.CopyFrom(self._txn(key))
        elif profile.leases and (kind < 0.97 or not profile.compacts):
            self._draw_lease(request, key)
        else:
            revision = max(1, world.ledger.model.revision - random.randrange(6))
            request.compaction.CopyFrom(CompactionRequest(revision=revision))
        return Operation(self, request, key)

    def _draw_lease(self, request: InternalRaftRequest, key: bytes) -> None:
        random = self.world.random
        if not self._leases or random.random() < 0.3:
            lease_id = self.world.new_request_id()
            self._leases.append(lease_id)
            request.lease_grant.CopyFrom(LeaseGrantRequest(ID=lease_id, TTL=random.randint(1, 3)))
        elif random.random() < 0.6:
            lease_id = random.choice(self._leases)
            request.put.CopyFrom(PutRequest(key=key, value=self._value(), lease=lease_id))
        else:
            request.lease_revoke.CopyFrom(LeaseRevokeRequest(ID=random.choice(self._leases)))

    def _txn(self, key: bytes) -> TxnRequest:
        """Compare and set, on what the key was a moment ago."""
        known = self.world.ledger.model.modified_at(key)
        compare = Compare(target=Compare.MOD, result=Compare.EQUAL, key=key, mod_revision=known)
        then = [RequestOp(request_put=PutRequest(key=key, value=self._value()))]
        if self.world.random.random() < 0.5:
            other = b"k%d" % self.world.random.randrange(self.world.profile.keys)
            if other != key:
                then.append(RequestOp(request_delete_range=DeleteRangeRequest(key=other)))
        return TxnRequest(compare=[compare], success=then)

    def _value(self) -> bytes:
        self._serial += 1
        filling = "." * self.world.random.randrange(self.world.profile.value_bytes)
        return f"{self.name}-{self._serial}{filling}".encode()


def _told(operation: Operation) -> str:
    if operation.is_read:
        return f"read {operation.key.decode()}"
    request = operation.request
    kind = next(field.name for field, _ in request.ListFields() if field.name != "header")
    return f"{kind} {operation.key.decode()} #{request.header.ID:x}"
