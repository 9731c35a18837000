"""The asyncio client."""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, Unpack

from . import aio_snapshot, kv, lease, maintenance, members, txn, watch
from .aio import AsyncioWorld
from .aio_claim import AsyncLock
from .aio_election import AsyncElection
from .aio_lease import AsyncLease, AsyncLeases
from .aio_streams import AsyncStreams
from .aio_watch import AsyncWatch
from .assembly import assemble
from .call import Call
from .config import Config, Settings, settle
from .connections import EndpointView
from .endpoints import Endpoint, EndpointLike, PathLike
from .errors import ClientClosed
from .flow import Flow, async_iterating, awaiting
from .keys import KeyLike
from .results import TxnResult
from .retries import Retry
from .snapshot import Snapshot, SnapshotProgress
from .streams import streaming
from .txn import Txn

T = TypeVar("T")


class Run(Protocol):
    """The driver of asyncio's world."""

    def __call__(self, flow: Flow[T]) -> Coroutine[Any, Any, T]: ...


class AsyncMembers:
    """Who is in the cluster: ``client.members``."""

    def __init__(self, call: Call, run: Run) -> None:
        self._call = call
        self._run = run

    list = awaiting(members.list_)
    add = awaiting(members.add)
    add_learner = awaiting(members.add_learner)
    promote = awaiting(members.promote)
    remove = awaiting(members.remove)
    update = awaiting(members.update)


class AsyncMaintenance:
    """Looking after the members: ``client.maintenance``."""

    def __init__(self, streams: AsyncStreams) -> None:
        self._streams = streams
        self._call = streams.call
        self._run = streams.run

    status = awaiting(maintenance.status)
    hash = awaiting(maintenance.hash_)
    hash_kv = awaiting(maintenance.hash_kv)
    defragment = awaiting(maintenance.defragment)
    alarms = awaiting(maintenance.alarms)
    disarm = awaiting(maintenance.disarm)
    move_leader = awaiting(maintenance.move_leader)

    async def snapshot(
        self,
        path: PathLike,
        *,
        endpoint: str | None = None,
        progress: SnapshotProgress | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Snapshot:
        """Save a member's snapshot to a file; return what it is.

        The file appears under its name only when it is whole: until then it is ``<path>.part``,
        and its SHA-256, which ends it as ``etcdutl snapshot restore`` expects, is verified first.
        Other endpoints are tried until the first byte; a stream that breaks later raises, for a
        snapshot is of one member at one moment. ``endpoint``: ask that one only. ``progress`` is
        called with (bytes received, bytes to come). ``timeout``: seconds for all of it; None: as
        long as it takes, once it has begun within the client's timeout.

        Raises SnapshotCorrupt, ConnectionLost, OSError (disk full, ...); no file is left then.
        Raises FileExistsError while another snapshot is being written there.
        """
        return await aio_snapshot.save(
            self._streams, path, endpoint=endpoint, progress=progress, timeout=timeout
        )

    def snapshot_chunks(
        self, *, endpoint: str | None = None, timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over a member's snapshot, e.g. to send it elsewhere; see :meth:`snapshot`.

        SnapshotCorrupt may come only after the last chunk.
        """
        return aio_snapshot.verified_chunks(self._streams, endpoint, timeout)


@dataclass(frozen=True, slots=True)
class AsyncClientTxn(Txn):
    """A transaction that can be committed; see :class:`Txn`."""

    _client: AsyncClient | None = field(default=None, repr=False, compare=False)

    def commit(
        self, *, retry: Retry | None = None, timeout: float | None = None
    ) -> Coroutine[Any, Any, TxnResult]:
        """Carry the transaction out; all of it or nothing.

        ``retry``: whether to repeat it when it may have been carried out already (None: as the
        client does); see :data:`.Retry`. Raises what its operations raise; OutcomeUnknown when it
        may have been carried out or not.
        """
        assert self._client is not None
        return self._client.commit(self, retry=retry, timeout=timeout)


class AsyncClient:
    """A client for asyncio: every method is awaited.

    Bound to the event loop on which it is first used; on another one it raises WrongEventLoop.
    Connections are made in the background, from the first call on or on entering ``async with``;
    :meth:`close` ends them. Settings are those of :class:`Config`, which says what they mean and
    where else they may come from.
    """

    def __init__(
        self,
        endpoints: EndpointLike | Iterable[EndpointLike] | None = None,
        *,
        config: Config | Mapping[str, Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        arguments: dict[str, Any] = dict(settings)
        if endpoints is not None:
            arguments["endpoints"] = endpoints
        self.config = settle(config, arguments=arguments)
        self._world = AsyncioWorld(self.config)
        self._call = assemble(self.config, self._world)
        self._run = self._world.run
        self.members = AsyncMembers(self._call, self._run)
        self._streams = AsyncStreams(self._world, self._call)
        self.maintenance = AsyncMaintenance(self._streams)
        self.leases = AsyncLeases(self._streams)

    @classmethod
    def from_toml(cls, path: PathLike, **settings: Unpack[Settings]) -> Self:
        """Build one from a TOML file; arguments and environment variables go before the file."""
        return cls(config=Config.from_toml(path, **settings))

    get = awaiting(kv.get)
    range = awaiting(kv.range_)
    get_prefix = awaiting(kv.get_prefix)
    count = awaiting(kv.count)
    pages = async_iterating(kv.pages)
    put = awaiting(kv.put)
    delete = awaiting(kv.delete)
    delete_prefix = awaiting(kv.delete_prefix)
    compact = awaiting(kv.compact)
    commit = awaiting(txn.commit)

    def txn(self) -> AsyncClientTxn:
        """Begin to write a transaction: ``.when(...).then(...).otherwise(...).commit()``."""
        return AsyncClientTxn(_client=self)

    watch = streaming(watch.watch, AsyncWatch)
    lease = streaming(lease.lease, AsyncLease)

    def election(self, name: KeyLike) -> AsyncElection:
        """An election: ``.campaign(value, ttl=10)``, ``.leader()``, ``.observe()``.

        Its candidates are the keys under ``<name>/``, as clientv3's and etcdctl's are.
        """
        return AsyncElection(self._streams, name)

    def lock(
        self,
        name: KeyLike,
        *,
        ttl: int | None = None,
        lease: AsyncLease | None = None,
        timeout: float | None = None,
    ) -> AsyncLock:
        """A lock, fair and kept while it is held; see :class:`AsyncLock`.

        ``ttl``: seconds that it outlives this process, on a lease of its own. ``lease``: one that
        is kept alive already, to live by that one. ``timeout``: seconds to wait for those ahead,
        0: only if there is nobody; None: for ever. Other calls have the client's timeout. Its
        claims are the keys under ``<name>/``, as clientv3's and etcdctl's are.
        """
        return AsyncLock(self._streams, name, b"", ttl, lease, timeout)

    @property
    def endpoints(self) -> Mapping[str, EndpointView]:
        """How each endpoint stands, by its URL; empty before the client is first used."""
        return self._call.connections.view()

    def set_endpoints(self, endpoints: EndpointLike | Iterable[EndpointLike]) -> None:
        """Serve from these endpoints from now on, given as to the constructor.

        Calls under way on an endpoint that is left out end as they would have; streams on it move
        to another, and lose nothing. Returns at once: connections are made in the background.
        An endpoint whose TLS settings have changed is connected anew. Nothing changes when it
        raises: ConfigError, ClientClosed, or WrongEventLoop off the client's own loop.
        """
        self._world.set_endpoints(endpoints)

    async def sync_endpoints(self, *, timeout: float | None = None) -> tuple[Endpoint, ...]:  # noqa: ASYNC109
        """Ask the cluster who its members are, and serve from them; returns the endpoints.

        Learners and members that have not started are left out; endpoints that stay keep their TLS
        settings, new ones have the client's. With ``discovery_srv``, DNS is asked instead, which
        has ``connect_timeout`` seconds, not ``timeout``. Raises DiscoveryFailed, also when a
        client that is served would be led to where none of the members is, or what
        ``members.list`` raises; then nothing has changed.
        """
        return await self._run(self._world.discovery.once(timeout))

    async def close(self) -> None:
        """End streams and connections; calls under way, and later ones, raise ClientClosed.

        Closing twice does nothing; cancelled, it may be called again.
        """
        self._streams.close(ClientClosed("the client is closed"))
        links = self._call.connections.close()
        try:
            self._world.stop()
            await self._streams.join()
        finally:
            await self._world.close_all(links)

    async def __aenter__(self) -> Self:
        self._world.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        call = getattr(self, "_call", None)  # unset when __init__ raised
        if call is not None and call.connections.in_use and not sys.is_finalizing():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._world.abandon()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.balancer} over {self._world.roster}>"
