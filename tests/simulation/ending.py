"""The end of a run: once all is mended, a cluster has to recover, and to have kept its word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcd_pinwheel.protos.etcdserverpb import InternalRaftRequest, PutRequest
from etcd_pinwheel.server_stub.cluster import removing
from etcd_pinwheel.server_stub.raft.progress import State

from .violation import Violation, demand
from .workload import Client, Operation

if TYPE_CHECKING:
    from .member import Member
    from .world import World

_TIMEOUTS_TO_LEAD = 20
"""Election timeouts within which somebody must lead and all logs be equal again."""


def finish(world: World) -> None:
    """Mend everything, and hold the cluster against every promise that is left."""
    world.mend()
    for watcher in world.watchers:
        watcher.moves()
    clock, profile = world.clock, world.profile
    clock.run_until(clock.now + 0.5)
    world.is_working = False
    _settle(world, 5 + 2 * _TIMEOUTS_TO_LEAD * profile.election_ticks * profile.tick_seconds)
    _ask_everybody(world)
    _settle(world, 10 * profile.tick_seconds)
    _compare_everything(world)
    _compare_watches(world)


def _settle(world: World, seconds: float) -> None:
    """Wait until every member has everything, which must not take longer than this."""
    limit = world.clock.now + seconds
    while why := _unsettled(world):
        if world.clock.now > limit:
            raise Violation("recovers once all is mended", why)
        world.nemesis.start_joined()
        _remove_the_wiped(world)
        world.clock.run_until(world.clock.now + world.profile.tick_seconds / 2)


def _standing(world: World) -> list[Member]:
    """The members that have to be well now."""
    configuration = world.configuration()
    ids = configuration.voters | configuration.learners
    return [world.members[each] for each in sorted(ids - world.wiped)]


def _unsettled(world: World) -> str:
    """Why the cluster has not recovered yet; empty when it has."""
    members = _standing(world)
    for member in members:
        if not member.is_up:
            return f"{member.name} is down"
    leaders = [member for member in members if member.is_leader]
    if len(leaders) != 1:
        return f"{len(leaders)} members lead"
    leader = leaders[0].raft
    if world.wiped & set(leader.progress):
        return "a member that is lost was not removed"
    last = leader.log.last_index
    for member in members:
        raft = member.raft
        if (raft.term, raft.leader) != (leader.term, leader.id):
            return f"{member.name} is in term {raft.term} with leader {raft.leader}"
        if (raft.log.last_index, raft.applied_index) != (last, last):
            return f"{member.name} has applied {raft.applied_index} of {last}"
    for peer, progress in leader.progress.items():
        if peer != leader.id and progress.state is not State.REPLICATE:
            return f"the leader is in {progress.state.value} with m{peer}"
    return ""


def _remove_the_wiped(world: World) -> None:
    leader = world.leader()
    if leader is not None:
        for each in sorted(world.wiped & set(leader.raft.progress)):
            world.nemesis.propose_change(removing(each))


def _ask_everybody(world: World) -> None:
    """A write and a read at every voter, which have to succeed.

    At the second attempt at the latest: a member that is sent the state, because the log was
    compacted early, does not learn what became of what was proposed there meanwhile.
    """
    voters = [each for each in _standing(world) if not each.raft.is_learner]
    asked: list[tuple[Member, Operation]] = []
    for _ in range(2):
        asked = [
            (member, operation) for member in voters for operation in _write_and_read(world, member)
        ]
        for _ in range(15):
            world.clock.run_until(world.clock.now + 0.1)
            if all(operation.outcome == "done" for _, operation in asked):
                return
    for member, operation in asked:
        demand(
            operation.outcome == "done",
            "serves once all is mended",
            f"{member.name}: a {'read' if operation.is_read else 'write'} is"
            f" {operation.outcome or 'left hanging'}",
        )


def _write_and_read(world: World, member: Member) -> list[Operation]:
    caller = Client(world, 90 + member.id)
    request = InternalRaftRequest(put=PutRequest(key=b"k0", value=caller.name.encode()))
    request.header.ID = world.new_request_id()
    operations = [Operation(caller, request, b"k0"), Operation(caller, None, b"k0")]
    for operation in operations:
        caller.ask(operation, member.id)
    return operations


def _compare_everything(world: World) -> None:
    """Equal stores, equal to the model; watches complete."""
    ledger, model = world.ledger, world.ledger.model
    for member in _standing(world):
        world.rules.check_inside(member)
        store = member.parts.store
        demand(
            store.revision == model.revision,
            "equal stores",
            f"{member.name} is at revision {store.revision}, not {model.revision}",
        )
        found = {kv.key: kv.value for kv in store.range(b"\0", b"\0").kvs}
        expected = {key: model.value_at(key, model.revision) for key in model.changes}
        demand(
            found == {key: value for key, value in expected.items() if value is not None},
            "equal stores",
            f"{member.name} has {found}",
        )
        digest = store.hash_by_revision(store.revision)
        ledger.note_hash(store.compacted_revision, store.revision, digest.hash, member.name)
        store._check()
        member.parts.lessor._check()
        leases = {lease.id for lease in member.parts.lessor.leases()}
        demand(leases == set(model.leases), "equal leases", f"{member.name} has {leases}")
    demand(
        ledger.last_applied >= ledger.acknowledged_index,
        "what was acknowledged stays",
        f"entry {ledger.acknowledged_index} was, {ledger.last_applied} is the last",
    )


def _compare_watches(world: World) -> None:
    """Every watch, of whatever member, has heard everything by now."""
    standing = _standing(world)
    for watcher in world.watchers:
        if watcher.member not in standing:
            watcher.moves()
        missed: int | None = None
        for _ in range(5):  # to begin, to hear that the past is compacted, to begin again
            watcher.look()
            for member in standing:
                while member.parts.store.sync_watchers():
                    pass
            missed = world.ledger.model.next_change(watcher.key, watcher.seen)
        demand(
            missed is None,
            "watches miss nothing",
            f"{watcher.name} has heard nothing of revision {missed}",
        )
