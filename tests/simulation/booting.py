"""From a disk to the parts of a member, as the server's own boot does it on its own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.apply.applier import CONSISTENT_INDEX_KEY, Applier
from etcd_pinwheel.server_stub.apply.leases import recover_leases
from etcd_pinwheel.server_stub.apply.membership import Membership
from etcd_pinwheel.server_stub.apply.quota import Quota
from etcd_pinwheel.server_stub.cluster import Cluster, ClusterMember
from etcd_pinwheel.server_stub.joining import JoinRefused, refuse_founding_twice, take_identity
from etcd_pinwheel.server_stub.lease.lessor import Lessor
from etcd_pinwheel.server_stub.mvcc.backend import Bucket
from etcd_pinwheel.server_stub.mvcc.compaction import Compaction
from etcd_pinwheel.server_stub.mvcc.watchable import WatchableStore
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.replica import Replica
from etcd_pinwheel.server_stub.storage.wal import Wal, WalContents, valid_snapshots

from .disk import Disk

if TYPE_CHECKING:
    from .world import World

CLUSTER_ID = 0xC1
LEASE_TTL_SECONDS = 1
MAX_LEARNERS = 2


class Refusing(Exception):
    """A member that must not start, and says why."""


@dataclass(slots=True)
class Parts:
    """What a running member is made of."""

    wal: Wal
    contents: WalContents
    raft: Raft
    replica: Replica
    applier: Applier
    store: WatchableStore
    lessor: Lessor
    membership: Membership
    compactions: list[Compaction]


def member_of(member_id: int, *, is_learner: bool = False) -> ClusterMember:
    """A member as the cluster lists it."""
    return ClusterMember(member_id, (f"http://m{member_id}:2380",), is_learner=is_learner)


def boot(world: World, member_id: int, disk: Disk) -> Parts:
    """Open a disk, or format it for a member that starts for the first time.

    Raises :class:`Refusing`, and whatever the real log raises on damage that no crash can do.
    """
    directory = disk.path / "wal"
    founding = founding_cluster(world.founders)
    if not directory.exists():
        _check_first_start(world, member_id, founding)
        disk.path.mkdir(exist_ok=True)
        metadata = founding.metadata(member_id)
        options = {"segment_bytes": world.profile.segment_bytes, "segment_type": disk.segment_type}
        Wal.create(directory, metadata, **options).close()  # type: ignore[arg-type]
    wal, contents, start = _open_log(world, disk)
    if not contents.entries and start == (0, 0) and member_id in world.founders:
        contents.entries = founding.bootstrap_entries()
        contents.hard_state = raftpb.HardState(term=1, commit=len(contents.entries))
        world.rules.durable[member_id].tries(contents.entries)
        wal.save(contents.hard_state, contents.entries)
    return _assemble(world, member_id, disk, wal, contents, start)


def _check_first_start(world: World, member_id: int, founding: Cluster) -> None:
    """Ask the others, as a member with an empty disk does; raises :class:`Refusing`."""
    infos = world.cluster_infos(member_id)
    try:
        if member_id in world.founders:
            for info in infos:
                refuse_founding_twice(founding, member_of(member_id), info)
        else:
            if not infos:
                raise Refusing("nobody tells of the cluster")
            newest = max(infos, key=lambda info: max(each.id for each in info.members))
            urls = {url: url for info in infos for each in info.members for url in each.peer_urls}
            there = Cluster(CLUSTER_ID, newest.members)
            take_identity(there, member_of(member_id), infos, urls)
    except JoinRefused as refused:
        raise Refusing(str(refused)) from refused


def founding_cluster(founders: tuple[int, ...]) -> Cluster:
    """The cluster that the founders start with."""
    return Cluster(CLUSTER_ID, tuple(member_of(each) for each in founders))


def _open_log(world: World, disk: Disk) -> tuple[Wal, WalContents, tuple[int, int]]:
    directory = disk.path / "wal"
    _finish_install(disk, valid_snapshots(directory))
    stored = disk.backend.get(Bucket.META, CONSISTENT_INDEX_KEY) or b""
    in_store = int.from_bytes(stored, "big")
    covered = [each for each in valid_snapshots(directory) if each[0] <= in_store]
    start = max(covered, default=(0, 0))
    wal, contents = Wal.open(
        directory,
        start,
        segment_bytes=world.profile.segment_bytes,
        segment_type=disk.segment_type,
    )
    return wal, contents, start


def _finish_install(disk: Disk, snapshots: list[tuple[int, int]]) -> None:
    """Put a state in its place that the log goes on from, if a crash came between the two."""
    stored = disk.backend.get(Bucket.META, CONSISTENT_INDEX_KEY) or b""
    for index, term in reversed(snapshots):
        state = disk.arrived.get((index, term))
        if index > int.from_bytes(stored, "big") and state is not None:
            disk.backend.become(state)
            break
    disk.arrived.clear()


def _assemble(
    world: World,
    member_id: int,
    disk: Disk,
    wal: Wal,
    contents: WalContents,
    start: tuple[int, int],
) -> Parts:
    backend, profile = disk.backend, world.profile
    lessor = Lessor(LEASE_TTL_SECONDS, retry_seconds=1.0)
    recover_leases(backend, lessor)
    store = WatchableStore(backend, lessor)
    compactions: list[Compaction] = []
    if store.unfinished_compaction is not None:
        compactions.append(store.unfinished_compaction)
    membership = Membership(backend, CLUSTER_ID, MAX_LEARNERS)
    quota = Quota(backend, 1 << 40)
    applier = Applier(backend, store, lessor, membership, quota, compactions.append)
    log = Log(contents.entries, compacted=start)
    log.committed = log.handed = log.applied = max(applier.index, start[0])
    config = Config(
        id=member_id,
        election_ticks=profile.election_ticks,
        pre_vote=profile.pre_vote,
        max_message_bytes=profile.max_message_bytes,
        max_inflight_messages=profile.max_inflight_messages,
    )
    replicas: list[Replica] = []
    raft = Raft(
        config,
        log,
        contents.hard_state,
        applier.conf_state or raftpb.ConfState(),
        world.random.randrange,
        lambda: replicas[0].snapshot(),
    )
    replica = Replica(
        raft,
        applier,
        snapshot_every=profile.snapshot_every,
        catch_up_entries=profile.catch_up_entries,
    )
    replicas.append(replica)
    return Parts(wal, contents, raft, replica, applier, store, lessor, membership, compactions)
