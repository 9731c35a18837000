"""The blocking client."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, Unpack

from . import blocking_snapshot, kv, lease, maintenance, members, txn, watch
from .assembly import assemble
from .blocking import BlockingWorld
from .blocking_claim import Lock
from .blocking_election import Election
from .blocking_lease import Lease, Leases
from .blocking_streams import BlockingStreams
from .blocking_watch import Watch
from .call import Call
from .config import Config, Settings, settle
from .connections import EndpointView
from .endpoints import Endpoint, EndpointLike, PathLike
from .errors import ClientClosed
from .flow import Flow, blocking, iterating
from .keys import KeyLike
from .results import TxnResult
from .retries import Retry
from .snapshot import Snapshot, SnapshotProgress
from .streams import streaming
from .txn import Txn

T = TypeVar("T")


class Run(Protocol):
    """The driver of a world of threads."""

    def __call__(self, flow: Flow[T]) -> T: ...


class Members:
    """Who is in the cluster: ``client.members``."""

    def __init__(self, call: Call, run: Run) -> None:
        self._call = call
        self._run = run

    list = blocking(members.list_)
    add = blocking(members.add)
    add_learner = blocking(members.add_learner)
    promote = blocking(members.promote)
    remove = blocking(members.remove)
    update = blocking(members.update)


class Maintenance:
    """Looking after the members: ``client.maintenance``."""

    def __init__(self, streams: BlockingStreams) -> None:
        self._streams = streams
        self._call = streams.call
        self._run = streams.run

    status = blocking(maintenance.status)
    hash = blocking(maintenance.hash_)
    hash_kv = blocking(maintenance.hash_kv)
    defragment = blocking(maintenance.defragment)
    alarms = blocking(maintenance.alarms)
    disarm = blocking(maintenance.disarm)
    move_leader = blocking(maintenance.move_leader)

    def snapshot(
        self,
        path: PathLike,
        *,
        endpoint: str | None = None,
        progress: SnapshotProgress | None = None,
        timeout: float | None = None,
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
        return blocking_snapshot.save(
            self._streams, path, endpoint=endpoint, progress=progress, timeout=timeout
        )

    def snapshot_chunks(
        self, *, endpoint: str | None = None, timeout: float | None = None
    ) -> Iterator[bytes]:
        """Iterate over a member's snapshot, e.g. to send it elsewhere; see :meth:`snapshot`.

        SnapshotCorrupt may come only after the last chunk.
        """
        return blocking_snapshot.verified_chunks(self._streams, endpoint, timeout)


@dataclass(frozen=True, slots=True)
class ClientTxn(Txn):
    """A transaction that can be committed; see :class:`Txn`."""

    _client: Client | None = field(default=None, repr=False, compare=False)

    def commit(self, *, retry: Retry | None = None, timeout: float | None = None) -> TxnResult:
        """Carry the transaction out; all of it or nothing.

        ``retry``: whether to repeat it when it may have been carried out already (None: as the
        client does); see :data:`.Retry`. Raises what its operations raise; OutcomeUnknown when it
        may have been carried out or not.
        """
        assert self._client is not None
        return self._client.commit(self, retry=retry, timeout=timeout)


class Client:
    """A client for threads: every method blocks until it is done, or its time is up.

    Any number of threads may share one. Connections are made in the background, from the first
    call on or on entering ``with``; :meth:`close` ends them. Settings are those of
    :class:`Config`, which says what they mean and where else they may come from.

    Fork: a client that was in use raises ClientForked in the child, which needs one of its own;
    one that was not used yet works in both. No thread may be in a call, and no stream open, while
    the process forks, for grpc cannot get ready for it then; with an AsyncClient in use, spawn
    instead. A fork with clients in use takes up to 0.2 seconds longer.
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
        self._world = BlockingWorld(self.config)
        self._call = assemble(self.config, self._world)
        self._run = self._world.run
        self.members = Members(self._call, self._run)
        self._streams = BlockingStreams(self._world, self._call)
        self.maintenance = Maintenance(self._streams)
        self.leases = Leases(self._streams)

    @classmethod
    def from_toml(cls, path: PathLike, **settings: Unpack[Settings]) -> Self:
        """Build one from a TOML file; arguments and environment variables go before the file."""
        return cls(config=Config.from_toml(path, **settings))

    get = blocking(kv.get)
    range = blocking(kv.range_)
    get_prefix = blocking(kv.get_prefix)
    count = blocking(kv.count)
    pages = iterating(kv.pages)
    put = blocking(kv.put)
    delete = blocking(kv.delete)
    delete_prefix = blocking(kv.delete_prefix)
    compact = blocking(kv.compact)
    commit = blocking(txn.commit)

    def txn(self) -> ClientTxn:
        """Begin to write a transaction: ``.when(...).then(...).otherwise(...).commit()``."""
        return ClientTxn(_client=self)

    watch = streaming(watch.watch, Watch)
    lease = streaming(lease.lease, Lease)

    def election(self, name: KeyLike) -> Election:
        """An election: ``.campaign(value, ttl=10)``, ``.leader()``, ``.observe()``.

        Its candidates are the keys under ``<name>/``, as clientv3's and etcdctl's are.
        """
        return Election(self._streams, name)

    def lock(
        self,
        name: KeyLike,
        *,
        ttl: int | None = None,
        lease: Lease | None = None,
        timeout: float | None = None,
    ) -> Lock:
        """A lock, fair and kept while it is held; see :class:`Lock`.

        ``ttl``: seconds that it outlives this process, on a lease of its own. ``lease``: one that
        is kept alive already, to live by that one. ``timeout``: seconds to wait for those ahead,
        0: only if there is nobody; None: for ever. Other calls have the client's timeout. Its
        claims are the keys under ``<name>/``, as clientv3's and etcdctl's are.
        """
        return Lock(self._streams, name, b"", ttl, lease, timeout)

    @property
    def endpoints(self) -> Mapping[str, EndpointView]:
        """How each endpoint stands, by its URL; empty before the client is first used."""
        return self._call.connections.view()

    def set_endpoints(self, endpoints: EndpointLike | Iterable[EndpointLike]) -> None:
        """Serve from these endpoints from now on, given as to the constructor.

        Calls under way on an endpoint that is left out end as they would have; streams on it move
        to another, and lose nothing. Returns at once: connections are made in the background.
        An endpoint whose TLS settings have changed is connected anew. Nothing changes when it
        raises: ConfigError, ClientClosed.
        """
        self._world.set_endpoints(endpoints)

    def sync_endpoints(self, *, timeout: float | None = None) -> tuple[Endpoint, ...]:
        """Ask the cluster who its members are, and serve from them; returns the endpoints.

        Learners and members that have not started are left out; endpoints that stay keep their TLS
        settings, new ones have the client's. With ``discovery_srv``, DNS is asked instead, which
        has ``connect_timeout`` seconds, not ``timeout``. Raises DiscoveryFailed, also when a
        client that is served would be led to where none of the members is, or what
        ``members.list`` raises; then nothing has changed.
        """
        return self._run(self._world.discovery.once(timeout))

    def close(self) -> None:
        """End streams and connections; calls under way, and later ones, raise ClientClosed.

        Takes up to 0.2 seconds. Closing twice does nothing; interrupted, it may be called again.
        """
        self._streams.close(ClientClosed("the client is closed"))
        links = self._call.connections.close()
        try:
            self._world.stop()  # after that, for until then the balancer may wish for an alarm
            self._streams.join()
        finally:
            self._world.close_all(links)

    def __enter__(self) -> Self:
        self._world.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        call = getattr(self, "_call", None)  # unset when __init__ raised
        if call is not None and call.connections.in_use and not sys.is_finalizing():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.balancer} over {self._world.roster}>"
