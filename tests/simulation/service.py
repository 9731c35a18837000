"""What clients ask of one member: proposals, linearizable reads, watches, leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, LeaseRevokeRequest
from etcd_pinwheel.protos.membershippb import Attributes, ClusterMemberAttrSetRequest
from etcd_pinwheel.server_stub.mvcc.watch_stream import WatchStream
from etcd_pinwheel.server_stub.raft.core import Role
from etcd_pinwheel.server_stub.reads import ReadQueue
from etcd_pinwheel.server_stub.replica import Applied

if TYPE_CHECKING:
    from .member import Member
    from .workload import Operation

TIMEOUT_SECONDS = 1.5


class Service:
    """The serving side of one life of a member."""

    def __init__(self, member: Member) -> None:
        world = member.world
        self.member = member
        self._waiting: dict[int, Operation] = {}
        self._reads: ReadQueue[Operation] = ReadQueue(
            world.random.getrandbits(64), timeout_seconds=TIMEOUT_SECONDS, retry_seconds=0.15
        )
        self._leader = 0
        self._told_term = 0
        self._ticks = 0
        self.streams: list[WatchStream] = []

    def stop(self) -> None:
        """Leave everybody without an answer."""
        for operation in [*self._waiting.values(), *self._reads.everybody()]:
            operation.fails("unknown")
        self._waiting.clear()

    # Writes

    def write(self, operation: Operation) -> None:
        """Propose a request; its operation hears what came of it."""
        parts = self.member.parts
        if parts.raft.is_learner:
            operation.fails("refused")
            return
        number = operation.request.header.ID
        self._waiting[number] = operation
        if not self.member.propose(operation.request.SerializeToString()):
            self._waiting.pop(number, None)
            operation.fails("refused")

    def applied(self, applied: Applied) -> None:
        """An entry was applied: answer whoever proposed it here."""
        request, raft = applied.request, self.member.raft
        if request is not None and self._waiting:
            operation = self._waiting.pop(request.header.ID, None)
            if operation is not None:
                operation.written(applied, self.member.parts.store.revision)
        if applied.entry.Term == raft.term and raft.term != self._told_term:
            self._told_term = raft.term  # the first entry of the term: readers need not wait
            self._ask(self._reads.ask_again(self.member.now))

    # Reads

    def read(self, operation: Operation) -> None:
        """Read linearizably."""
        raft, applier = self.member.raft, self.member.parts.applier
        if raft.is_learner:
            operation.fails("refused")
        elif self._decides_alone() and applier.index >= raft.commit_index:
            operation.reads(self.member.parts.store)
        else:
            self._reads.join(operation, self.member.now)
            self._ask(self._reads.ask(self.member.now))

    def _decides_alone(self) -> bool:
        raft = self.member.raft
        if raft.role is not Role.LEADER or not raft.committed_in_term:
            return False
        state = raft.config_state()
        return list(state.voters) == [self.member.id] and not state.voters_outgoing

    def leader_is(self, leader: int) -> None:
        """Hear who leads."""
        if leader == self._leader:
            return
        self._leader = leader
        for operation in self._reads.led_by(leader):
            operation.fails("refused")
        parts, now = self.member.parts, self.member.now
        if leader == self.member.id:
            parts.lessor.promote(now, 0.0)
        elif parts.lessor.is_primary:
            parts.lessor.demote()
        self._ask(self._reads.ask(now))

    def answered(self, context: bytes, index: int) -> None:
        """Hear the answer to a question for the read index."""
        self._reads.answered(context, index)
        self.caught_up()
        self._ask(self._reads.ask(self.member.now))

    def caught_up(self) -> None:
        """Let those read for whom enough is applied."""
        if self._reads:
            for operation in self._reads.applied(self.member.parts.applier.index):
                operation.reads(self.member.parts.store)

    def _ask(self, context: bytes | None) -> None:
        if context is not None:
            self.member.raft.read_index(context)
            self.member.after(0.0, self.member.pump)

    # Now and then

    def tick(self) -> None:
        """Look after what waits for time to pass."""
        now, parts = self.member.now, self.member.parts
        for operation, _ in self._reads.expired(now):
            operation.fails("refused")
        self._ask(self._reads.ask(now))
        self._ticks += 1
        if self._ticks % 5 == 0:
            self._publish()
        parts.store.sync_watchers()
        parts.store.retry_victims()
        if parts.compactions and not parts.compactions[0].step():
            parts.compactions.pop(0)
        if parts.lessor.is_primary:
            for lease_id in parts.lessor.expired(now):
                self._revoke(lease_id)

    def _publish(self) -> None:
        """Tell the cluster that this member has begun, until it knows."""
        member = self.member
        known = member.parts.membership.cluster.member(member.id)
        if known is None or known.client_urls or not self._leader:
            return
        attributes = Attributes(name=member.name, client_urls=[f"http://{member.name}:2379"])
        told = ClusterMemberAttrSetRequest(member_ID=member.id, member_attributes=attributes)
        request = InternalRaftRequest(cluster_member_attr_set=told)
        request.header.ID = member.world.new_request_id()
        member.propose(request.SerializeToString())

    def _revoke(self, lease_id: int) -> None:
        """Propose to revoke a lease that has run out."""
        world = self.member.world
        world.rules.revokes(self.member, lease_id)
        request = InternalRaftRequest(lease_revoke=LeaseRevokeRequest(ID=lease_id))
        request.header.ID = world.new_request_id()
        self.member.propose(request.SerializeToString())
