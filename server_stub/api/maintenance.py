"""The Maintenance service."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, cast

from ...protos import rpcs
from ...protos.errors import (
    INVALID_DOWNGRADE_TARGET,
    NO_DOWNGRADE,
    NO_LEADER,
    NOT_LEADER,
    UNKNOWN_METHOD,
    WRONG_DOWNGRADE_FORMAT,
    Code,
    Refusal,
    Refused,
)
from ...protos.etcdserverpb import (
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DefragmentRequest,
    DefragmentResponse,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    InternalRaftRequest,
    MoveLeaderRequest,
    MoveLeaderResponse,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
    StatusResponse,
)
from ..apply.alarms import name_of
from ..member import Member
from ..version import SERVER_VERSION
from .call import Call, Method

BLOB_BYTES: Final = 32 * 1024
SNAPSHOTS_AT_A_TIME: Final = 3
"""Each takes as much of the disk as the store, beside the log; a full disk stops the member."""
STALLED_SECONDS: Final = 60.0
"""How long a client may leave a piece of its snapshot untaken."""
LEAST_BYTES_PER_SECOND: Final = 100 * 1024
"""How fast it must take the whole, its stalls included that are more than that one."""
WAIT_SECONDS: Final = 120.0
"""How long a call waits for one of the others to end: more than a client that is gone takes."""
NOT_TAKEN: Final = Refusal(
    Code.RESOURCE_EXHAUSTED, "etcdserver: the snapshot was dropped, as it was not taken for long"
)
TOO_MANY_SNAPSHOTS: Final = Refusal(
    Code.RESOURCE_EXHAUSTED, "etcdserver: too many snapshots are being sent, try again later"
)
NO_DOWNGRADES: Final = Refusal(Code.UNIMPLEMENTED, "etcdserver: downgrade is not supported")
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


class Allowance:
    """How long a client may leave the next piece of its snapshot untaken.

    A stall uses it up, and what is taken fills it again, at the least rate. So a client that is as
    fast as that may stall now and then; one that takes a piece just before each stall is too long
    may not.
    """

    def __init__(self, stalled_seconds: float) -> None:
        self.seconds = stalled_seconds
        self._most_seconds = stalled_seconds

    def taken(self, size_bytes: int, waited_seconds: float) -> None:
        """Note that a piece was taken, and how long it had waited for that."""
        earned_seconds = size_bytes / LEAST_BYTES_PER_SECOND
        self.seconds = min(self.seconds - waited_seconds + earned_seconds, self._most_seconds)


class Maintenance:
    """Looking after a member."""

    def __init__(
        self,
        member: Member,
        *,
        stalled_seconds: float = STALLED_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._member = member
        self._stalled_seconds = stalled_seconds
        self._wait_seconds = wait_seconds
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_A_TIME)

    def methods(self) -> tuple[Method, ...]:
        """The RPCs of the service."""
        return (
            Method(rpcs.MAINTENANCE_ALARM, self.Alarm),
            Method(rpcs.MAINTENANCE_STATUS, self.Status),
            Method(rpcs.MAINTENANCE_DEFRAGMENT, self.Defragment),
            Method(rpcs.MAINTENANCE_HASH, self.Hash),
            Method(rpcs.MAINTENANCE_HASH_KV, self.HashKV),
            Method(rpcs.MAINTENANCE_SNAPSHOT, self.Snapshot),
            Method(rpcs.MAINTENANCE_MOVE_LEADER, self.MoveLeader),
            Method(rpcs.MAINTENANCE_DOWNGRADE, self.Downgrade),
        )

    async def Alarm(self, request: AlarmRequest, call: Call) -> AlarmResponse:
        """Get, raise or clear alarms."""
        known = request.action in AlarmRequest.AlarmAction.values()
        if not known or request.alarm not in AlarmType.values():  # etcd would die of either
            raise Refused(UNKNOWN_METHOD)
        entry = InternalRaftRequest(alarm=request)
        reply = cast("AlarmResponse", await self._member.propose(entry))
        self._member.fill_header(reply.header)
        return reply

    async def Status(self, request: StatusRequest, call: Call) -> StatusResponse:
        """Tell how this member is doing."""
        member, applier = self._member, self._member.applier
        reply = StatusResponse(
            version=SERVER_VERSION,
            dbSize=member.backend.size_bytes,
            dbSizeInUse=member.backend.size_in_use_bytes,
            dbSizeQuota=applier.quota.limit_bytes,
            leader=member.leader_id,
            isLearner=member.is_learner,
            raftIndex=member.core.commit_index,
            raftTerm=member.core.term,
            raftAppliedIndex=applier.index,
            storageVersion=applier.membership.version,
        )
        if not member.has_leader:
            reply.errors.append(NO_LEADER.text)
        for alarm in applier.alarms.raised():
            reply.errors.append(f"memberID:{alarm.memberID} alarm:{name_of(alarm.alarm)} ")
        reply.downgradeInfo.SetInParent()
        member.fill_header(reply.header)
        return reply

    async def Defragment(self, request: DefragmentRequest, call: Call) -> DefragmentResponse:
        """Give free pages of the backend back; everything else waits meanwhile, as in etcd."""
        async with self._member.backend_file:
            self._member.backend.defragment()
        return DefragmentResponse()

    async def Hash(self, request: HashRequest, call: Call) -> HashResponse:
        """Digest the whole backend."""
        reply = HashResponse(hash=self._member.store.hash())
        self._member.fill_header(reply.header)
        return reply

    async def HashKV(self, request: HashKVRequest, call: Call) -> HashKVResponse:
        """Digest what is to be seen at a revision, a piece at a time."""
        hashing = self._member.store.hashing(request.revision)
        while hashing.step():  # noqa: ASYNC110 (not polling: the steps are the work)
            await asyncio.sleep(0)
        found = hashing.result()
        reply = HashKVResponse(
            hash=found.hash,
            compact_revision=found.compact_revision,
            hash_revision=found.hash_revision,
        )
        reply.header.revision = found.current_revision
        self._member.fill_header(reply.header)
        return reply

    async def Snapshot(
        self, request: SnapshotRequest, call: Call
    ) -> AsyncIterator[SnapshotResponse]:
        """Send a consistent copy of the backend, and its SHA-256 as the last 32 bytes.

        The copy is a file, and stays for as long as the client takes. So there are only so many:
        further calls wait for their turn, but not for ever, and who takes nothing for long, or all
        too slowly, loses the copy.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._snapshots.acquire()
        except TimeoutError:
            raise Refused(TOO_MANY_SNAPSHOTS) from None
        allowance = Allowance(self._stalled_seconds)
        with ExitStack() as copy:
            copy.callback(self._snapshots.release)
            path = await self._copy_of_backend()
            file = copy.enter_context(path.open("rb"))
            path.unlink()
            left_bytes = file.seek(0, 2)
            file.seek(0)
            async for reply in _blobs(file, left_bytes):
                self._member.fill_header(reply.header)
                offered_at = loop.time()
                stalled = loop.call_later(allowance.seconds, copy.close)
                try:
                    yield reply
                finally:
                    stalled.cancel()
                allowance.taken(len(reply.blob), loop.time() - offered_at)

    async def _copy_of_backend(self) -> Path:
        """Make a file with all that is applied by now; the caller deletes it."""
        async with self._member.backend_file:
            await self._member.backend.commit_async()
            copying = asyncio.ensure_future(
                asyncio.to_thread(self._member.backend.snapshot, self._member.settings.snap_path)
            )
            try:
                return await asyncio.shield(copying)
            except asyncio.CancelledError:
                (await copying).unlink()
                raise

    async def MoveLeader(self, request: MoveLeaderRequest, call: Call) -> MoveLeaderResponse:
        """Hand leadership to another voter; answered by the leader, once the other one leads."""
        if not self._member.is_leader:
            raise Refused(NOT_LEADER)
        await self._member.transfer_leadership(request.targetID)
        return MoveLeaderResponse()

    async def Downgrade(self, request: DowngradeRequest, call: Call) -> DowngradeResponse:
        """Validate a downgrade; carrying one out is not supported."""
        if request.action == DowngradeRequest.CANCEL:
            raise Refused(NO_DOWNGRADE)
        if request.action not in (DowngradeRequest.VALIDATE, DowngradeRequest.ENABLE):
            raise Refused(UNKNOWN_METHOD)
        cluster_version = self._member.applier.membership.version
        _check_downgrade_target(request.version, cluster_version)
        if request.action == DowngradeRequest.ENABLE:
            raise Refused(NO_DOWNGRADES)
        reply = DowngradeResponse(version=cluster_version)
        self._member.fill_header(reply.header)
        return reply


def _check_downgrade_target(target: str, current: str) -> None:
    """Raise ``Refused`` unless `target` is exactly one minor release below `current`."""
    wanted, has = _VERSION.fullmatch(target), _VERSION.fullmatch(current)
    if wanted is None or has is None:
        raise Refused(WRONG_DOWNGRADE_FORMAT)
    if (int(wanted[1]), int(wanted[2])) != (int(has[1]), int(has[2]) - 1):
        raise Refused(INVALID_DOWNGRADE_TARGET)


async def _blobs(file: BinaryIO, left_bytes: int) -> AsyncIterator[SnapshotResponse]:
    """Yield a file in pieces, then the digest of all. Raises Refused if it was closed meanwhile."""
    digest = hashlib.sha256()
    while left_bytes > 0:
        if file.closed:
            raise Refused(NOT_TAKEN)
        blob = await asyncio.to_thread(file.read, min(BLOB_BYTES, left_bytes))
        digest.update(blob)
        left_bytes -= len(blob)
        yield SnapshotResponse(remaining_bytes=left_bytes, blob=blob, version=SERVER_VERSION)
    yield SnapshotResponse(remaining_bytes=0, blob=digest.digest(), version=SERVER_VERSION)
