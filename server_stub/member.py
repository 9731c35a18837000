"""One member of a cluster: what the services ask of it, and its life from start to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final, NoReturn, Self, cast

from google.protobuf.message import Message

from ..protos.errors import NO_SPACE, Refused
from ..protos.etcdserverpb import (
    CompactionRequest,
    CompactionResponse,
    InternalRaftRequest,
    ResponseHeader,
)
from .aftermath import Aftermath
from .answers import Answers
from .boot import Booted, boot
from .chores import Chores
from .cluster import ClusterMember
from .compactor import Compactor
from .config import Settings
from .consensus import Consensus
from .entering import campaign_early, publish, set_cluster_version
from .handover import hand_over, hand_over_before_stop
from .joining import Fetch, FirstStart, confirm_founding, find_cluster, first_start
from .leadership import Leadership, Tenure
from .learner_duties import LearnerDuties
from .lease_duties import LeaseDuties
from .peers import ClusterInfo, PeerLimits, Peers, fetch_cluster
from .proposals import Proposals, Timings
from .raft.core import Raft, Role
from .raft.messages import NOBODY
from .raft.messages import Message as RaftMessage
from .reads import Reads
from .reception import Reception
from .reconfiguration import Reconfiguration
from .request_ids import RequestIds
from .state_transfer import StateTransfer
from .storage.backend import BackendError
from .storage.data_dir import DataDir
from .storage.wal import WalFailed
from .tls import PeerTls, peer_tls

log = logging.getLogger(__name__)

LEAVING_SECONDS: Final = 1.0
"""How long a member that was removed stays, so that it can still tell others, as in etcd."""
_FAREWELL_SECONDS: Final = 1.0
"""For proposals of others to come to an end when the member is stopped."""


class MemberRemoved(Exception):
    """This member was removed from its cluster, and cannot start any more."""

    def __init__(self) -> None:
        super().__init__("the member has been permanently removed from the cluster")


class CannotListen(Exception):
    """A peer URL cannot be listened on; the text says which and why."""


class Member:
    """A running member. Everything of it belongs to the event loop that started it."""

    def __init__(
        self,
        settings: Settings,
        data_dir: DataDir,
        parts: Booted,
        compactor: Compactor,
        tls: PeerTls,
    ) -> None:
        """Use :meth:`start`."""
        self.settings = settings
        self.clock = time.monotonic
        self.backend = parts.backend
        self.store = parts.store
        self.lessor = parts.lessor
        self.applier = parts.replica.applier
        self.core: Raft = parts.replica.raft
        self.wal = parts.wal
        self.compactor = compactor
        self.id: int = self.core.id
        self.cluster_id = parts.cluster_id
        self.ids = RequestIds(self.id, time.time_ns() // 1_000_000)
        self.answers = Answers()
        self.on_leader_change: list[Callable[[], None]] = []
        """Called when another member leads, or none; see :attr:`leader_id`."""
        self.on_membership_change: list[Callable[[], None]] = []
        """Called when a change of the membership was applied."""
        self.backend_file = asyncio.Lock()
        """Held by whoever copies, rebuilds or replaces the backend's file."""
        self._data_dir = data_dir
        self._known_members: tuple[ClusterMember, ...] = ()
        """Whom a member talks to that has not applied its own addition yet."""
        self._fetch = fetch_by(tls)
        self._gone = asyncio.Event()
        self._leaving: asyncio.TimerHandle | None = None
        self._campaigning: asyncio.Task[None] | None = None
        self._make_consensus(parts, tls)
        self._make_services()
        self.chores = Chores(self, parts.replica, settings.snap_path)

    def _make_consensus(self, parts: Booted, tls: PeerTls) -> None:
        """Make what the log goes through."""
        settings = self.settings
        election_seconds = settings.election_timeout_ms / 1000
        self.peers = Peers(
            self.id,
            self.cluster_id,
            Reception(self),
            snapshot_dir=settings.snap_path,
            election_timeout_seconds=election_seconds,
            tls_server=tls.server,
            tls_client=tls.client,
            allowed_names=tls.allowed_names,
            limits=PeerLimits.for_requests(settings.max_request_bytes),
        )
        self.consensus = Consensus(
            parts.replica,
            parts.wal,
            self.clock,
            tick_seconds=settings.heartbeat_interval_ms / 1000,
            post=_Post(self),
            listener=Aftermath(self),
            install=lambda ready: self.state_transfer.install(ready),
        )
        self.state_transfer = StateTransfer(
            parts.replica,
            self.backend,
            self.backend_file,
            self.wal,
            settings.snap_path,
            in_log_thread=self.consensus.in_log_thread,
            step=self.consensus.step,
            failed=partial(self.core.report_snapshot, ok=False),
        )
        self.timings = Timings(election_seconds, 0.0, self._is_connected_since)
        self.proposals = Proposals(
            self.core,
            self.applier,
            self.ids,
            self.clock,
            self.timings,
            timeout_seconds=settings.request_timeout_seconds,
            max_request_bytes=settings.max_request_bytes,
            wake=self.consensus.wake,
        )
        parts.replica.request_of = self.proposals.request_of

    def _make_services(self) -> None:
        """Make what answers others than by the log alone."""
        settings = self.settings
        election_seconds = settings.election_timeout_ms / 1000
        self.reads = Reads(
            self.core,
            self.applier,
            self.clock,
            random.getrandbits(64),
            timeout_seconds=settings.request_timeout_seconds,
            wake=self.consensus.wake,
        )
        tenure = Tenure(
            self.id,
            self.lessor,
            election_timeout_seconds=election_seconds,
            heartbeat_seconds=settings.heartbeat_interval_ms / 1000,
            now=self.clock(),
        )
        self.leadership = Leadership(
            tenure,
            self.core,
            self.applier,
            self.reads,
            self.clock,
            election_timeout_seconds=election_seconds,
        )
        self.lease_duties = LeaseDuties(
            self.lessor,
            self.leadership,
            self.core,
            self.applier,
            self.clock,
            ask=self.peers.ask,
            propose=self.proposals.propose_as_leader,
            timeout_seconds=settings.request_timeout_seconds,
        )
        self.lease_duties.answer_others(self.answers)
        self.reconfiguration = Reconfiguration(
            self.id,
            self.applier.membership,
            self.core,
            settings,
            self.clock,
            ask=self.peers.ask,
            propose_change=self.proposals.propose_change,
            connected_since=self.peers.connected_since,
            answers=self.answers,
        )
        self.learner_duties = LearnerDuties(
            self.id,
            self.core,
            self.applier.membership,
            self.reconfiguration,
            settings,
            self.clock,
        )

    # Life

    @classmethod
    async def start(cls, settings: Settings) -> Self:
        """Open the data directory, take part in the cluster, tell it who this is.

        Returns when requests can be served. That takes a quorum, however long it takes; to give up
        waiting for it, cancel the call. Raises ``DataDirError``, ``BackendError``, ``WalCorrupt``,
        ``WalFailed``, ``LogLost``, ``JoinRefused``, ``MemberRemoved``, ``CannotListen``,
        ``TlsError``; nothing stays open then.
        """
        tls = peer_tls(settings.peer_tls)
        compactor = Compactor(settings.compaction_sleep_interval_seconds)
        data_dir = DataDir.open(settings.data_dir, settings.wal_dir)
        try:
            first = None if data_dir.has_wal else await first_start(settings, fetch_by(tls))
            parts = boot(
                settings,
                data_dir,
                first,
                clock=time.monotonic,
                random=random.randrange,
                on_compaction=compactor.add,
            )
        except BaseException:
            data_dir.close()
            raise
        member = cls(settings, data_dir, parts, compactor, tls)
        try:
            await member._take_part(first)
            await member._unless_ended(member._enter())
        except BaseException:
            await member.stop()
            raise
        return member

    async def _take_part(self, first: FirstStart | None) -> None:
        """Let the member be one among others.

        Raises ``MemberRemoved`` if it is no more, ``JoinRefused`` if it lost what it was.
        """
        if self.id in self.applier.membership.removed:
            raise MemberRemoved
        self.backend.start()
        await self._listen()
        await self._learn_members(first)
        self.membership_changed()
        if self._data_dir.is_unconfirmed:
            cluster = self.applier.membership.cluster
            await confirm_founding(cluster, self.id, self._fetch)
            self._data_dir.confirm()
        self.consensus.start()
        self.chores.start()
        is_founding = first is not None and first.is_founding
        self._campaigning = asyncio.create_task(campaign_early(self, is_founding=is_founding))

    async def _listen(self) -> None:
        for url in self.settings.listen_peer_urls:
            try:
                await self.peers.listen([url.text])
            except (OSError, ValueError) as error:
                raise CannotListen(f"cannot listen on {url.host}:{url.port}: {error}") from error

    async def _learn_members(self, first: FirstStart | None) -> None:
        """Find out whom to talk to, as long as the log does not tell."""
        if first is not None:
            self._known_members = first.cluster.members
        elif not self.applier.membership.cluster.members:
            found = await find_cluster(self.settings, self.cluster_id, self._fetch)
            self._known_members = found.members

    async def stop(self) -> None:
        """Finish what was proposed, hand the lead over, make everything durable, close all files.

        Raises ``WalFailed`` or ``BackendError`` if that cannot be done, unless the member had
        failed before: then :meth:`failed` has the reason.
        """
        self.proposals.close()
        if not self.consensus.failure.done():
            alone = self.core.is_sole_voter
            patience = self.settings.request_timeout_seconds if alone else _FAREWELL_SECONDS
            await self.proposals.finish(patience)
            await hand_over_before_stop(self)
        if self._leaving is not None:
            self._leaving.cancel()
        if self._campaigning is not None:
            self._campaigning.cancel()
            await asyncio.wait([self._campaigning])
        await self.chores.stop()
        self.leadership.stop()
        self.reads.stop()
        self.proposals.give_up()
        await self.consensus.stop()
        await self.state_transfer.stop()
        await self.peers.close()
        with ExitStack() as closing:
            if self.consensus.failure.done():
                closing.enter_context(suppress(WalFailed, BackendError))
            closing.callback(self._data_dir.close)
            closing.callback(self.backend.close)
            closing.callback(self.wal.close)

    async def abandon(self) -> None:
        """End as a killed process ends: finish, hand over and commit nothing any more."""
        self.backend.abandon()
        if not self.consensus.failure.done():
            self.consensus.failure.set_result(None)
        await self.stop()

    @property
    def is_serving(self) -> bool:
        """Whether requests are taken: from the start to the stop, or to a failure."""
        return self.proposals.is_open

    async def failed(self) -> None:
        """Wait for ever, unless the member ends by itself.

        Raises what made it stop; returns when it was removed from the cluster.
        """
        gone: asyncio.Future[Any] = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({gone, self.consensus.failure}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if self.consensus.failure.done():
            self.consensus.failure.result()

    def leave(self) -> None:
        """End soon: this member is no part of the cluster any more."""
        if self._leaving is None:
            log.warning("removed from the cluster; stopping", extra={"member": f"{self.id:x}"})
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(LEAVING_SECONDS, self._gone.set)

    # The state of the cluster

    def propose(self, request: InternalRaftRequest) -> Awaitable[Message]:
        """Have a request carried out; see :meth:`.proposals.Proposals.propose`."""
        return self.proposals.propose(request)

    def read_barrier(self) -> Awaitable[None]:
        """Return when a local read sees everything that was acknowledged before the call.

        See :meth:`.reads.Reads.barrier`.
        """
        return self.reads.barrier()

    async def compact(self, request: CompactionRequest) -> CompactionResponse:
        """Compact; wait for the deletion of what was given up if the request says so."""
        reply = await self.propose(InternalRaftRequest(compaction=request))
        if request.physical:
            await self.compactor.finished()
        return cast("CompactionResponse", reply)

    async def refuse_for_space(self) -> NoReturn:
        """Tell the cluster that this member has no space left, then raise ``Refused(NO_SPACE)``."""
        await self.proposals.raise_no_space()
        raise Refused(NO_SPACE)

    async def renew_lease(self, lease_id: int) -> int:
        """Renew a lease; return its TTL in seconds. See :meth:`.lease_duties.LeaseDuties.renew`."""
        return await self.lease_duties.renew(lease_id)

    def nudge_watchers(self) -> None:
        """See soon to watchers that are behind; without it they wait for the next round."""
        self.chores.nudge_watchers()

    def while_led(self, replies: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        """Hand replies on; see :meth:`.leadership.Leadership.while_led`."""
        return self.leadership.while_led(replies)

    # Who this is, and who leads

    @property
    def leader_id(self) -> int:
        """Who leads, as far as this member knows; 0: nobody."""
        return self.core.leader

    @property
    def has_leader(self) -> bool:
        """Whether requests that need a leader can be served."""
        return self.core.leader != NOBODY

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as far as it knows."""
        return self.core.role is Role.LEADER

    @property
    def is_learner(self) -> bool:
        """Whether this member has no vote yet."""
        return self.core.is_learner

    def fill_header(self, header: ResponseHeader) -> None:
        """Say who answers, and at which revision if the header does not say it yet."""
        header.cluster_id = self.cluster_id
        header.member_id = self.id
        header.raft_term = self.core.term
        if not header.revision:
            header.revision = self.store.revision

    async def transfer_leadership(self, target: int) -> None:
        """Have another voter lead; see :func:`.handover.hand_over`. Waits as long as a request."""
        await hand_over(self, target, self.settings.request_timeout_seconds)

    # The other members

    def membership_changed(self) -> None:
        """Talk to the members that there are now."""
        members = {each.id: each.peer_urls for each in self._members_to_talk_to()}
        self.peers.set_members(members)
        for hook in self.on_membership_change:
            hook()

    def _members_to_talk_to(self) -> Iterable[ClusterMember]:
        """The members as applied; and until this one finds itself there, those it was told of."""
        cluster = self.applier.membership.cluster
        if cluster.member(self.id) is None:
            yield from self._known_members
        yield from cluster.members

    def other_voters(self) -> list[ClusterMember]:
        """The members that vote, without this one."""
        members = self.applier.membership.cluster.members
        return [each for each in members if not each.is_learner and each.id != self.id]

    def _is_connected_since(self, since: float) -> bool:
        """Whether the leader, or for a leader its quorum, was within reach all the time."""
        if self.leader_id == NOBODY:
            return True
        if not self.is_leader:
            return self._has_link_since(self.leader_id, since)
        others = self.other_voters()
        reached = sum(self._has_link_since(each.id, since) for each in others)
        return 2 * (reached + 1) > len(others) + 1

    def _has_link_since(self, member_id: int, since: float) -> bool:
        connected = self.peers.connected_since(member_id)
        return connected is not None and connected <= since

    async def _enter(self) -> None:
        """Tell the cluster who this is; the first leader tells its version, if it can at once."""
        await publish(self)
        await set_cluster_version(self)

    async def _unless_ended(self, work: Awaitable[None]) -> None:
        """Do `work`; raise what ends the member if that comes before."""
        working: asyncio.Future[None] = asyncio.ensure_future(work)
        ended: asyncio.Future[None] = asyncio.ensure_future(self.failed())
        try:
            await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
                raise MemberRemoved
            await working
        finally:
            for task in (working, ended):
                task.cancel()
            await asyncio.wait({working, ended})


def fetch_by(tls: PeerTls) -> Fetch:
    """Ask others for their cluster as a member without an id does."""

    async def fetch(urls: Sequence[str], timeout_seconds: float) -> ClusterInfo:
        return await fetch_cluster(urls, tls.client, timeout_seconds)

    return fetch


class _Post:
    """Where the core's messages go: to the transport, but for states, which take a while."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def send(self, messages: Iterable[RaftMessage]) -> None:
        self._member.peers.send(messages)

    def send_snapshot(self, message: RaftMessage) -> None:
        self._member.state_transfer.send(message, self._member.peers)
