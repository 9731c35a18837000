"""The load: an open loop of puts and reads, a watch and a lease, in a process of its own.

Open: a call is started every so often whether or not earlier ones have been answered, as arriving
requests do in a service; a closed loop would politely wait out the very outage we are here to see.
Every put writes a key of its own once, so that its version tells afterwards whether it was lost,
applied, or applied twice. Every read asks for the newest key whose put was acknowledged.

``python -m benchmarks.failover.load JOB.json``; what it says and is told is in ``job.py``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.failover.job import AUDIT, BEGIN, DONE, READY, STOP, Job
from benchmarks.failover.observe import News, Sockets, Standings, collect_news
from benchmarks.failover.record import Call, LeaseStory, Recording, Stored, WatchEvent
from etcd_pinwheel import AsyncClient, EtcdError
from etcd_pinwheel.client.config import Config

VALUE = b"v" * 64
SETTLE_SECONDS = 1.0
"""Between the first call and the load, so that every connection is up."""
OPEN_SECONDS = 3.0
"""For the watch and the lease to be there; a run that cannot have them goes without."""
LOOK_SECONDS = 0.1
AUDIT_SECONDS = 20.0
"""For reading everything back at the end."""
CATCH_UP_SECONDS = 5.0
"""For the watch to bring what is in the store."""


class Load:
    """A run of the load and what came of it so far."""

    def __init__(self, etcd: AsyncClient, job: Job) -> None:
        self.calls: list[Call] = []
        self.watched: list[WatchEvent] = []
        self.watch_error = ""
        self.lease = LeaseStory()
        self.latest_start = 0.0
        self.began = time.monotonic()
        self._etcd = etcd
        self._job = job
        self._acknowledged = -1
        """The newest put known to have been carried out."""

    def now(self) -> float:
        return time.monotonic() - self.began

    def key_of(self, number: int) -> bytes:
        return b"%s%08d" % (self._job.prefix.encode(), number)

    async def run(self, stopped: asyncio.Event) -> None:
        """Start every call when it is due and wait for the last answer."""
        job = self._job
        every_seconds = job.every_ms / 1000
        async with asyncio.TaskGroup() as group:
            for number in range(round(job.seconds / every_seconds)):
                due = number * every_seconds
                await asyncio.sleep(self.began + due - time.monotonic())
                if stopped.is_set():
                    break
                group.create_task(self._call("put", number, due, self._put))
                if not job.reads:
                    continue
                due += every_seconds / 2
                await asyncio.sleep(self.began + due - time.monotonic())
                group.create_task(self._call("get", number, due, self._get))

    async def _call(
        self,
        operation: str,
        number: int,
        due: float,
        run: Callable[[int], Awaitable[tuple[str, bool]]],
    ) -> None:
        error, member, stale = "", "", False
        self.latest_start = max(self.latest_start, self.now() - due)
        try:
            member, stale = await run(number)
        except EtcdError as failure:
            error, member = type(failure).__name__, getattr(failure, "endpoint", None) or ""
        self.calls.append(Call(operation, number, due, self.now(), error, member, stale))

    async def _put(self, number: int) -> tuple[str, bool]:
        result = await self._etcd.put(self.key_of(number), VALUE)
        self._acknowledged = max(self._acknowledged, number)
        return f"{result.header.member_id:x}", False

    async def _get(self, number: int) -> tuple[str, bool]:
        newest = self._acknowledged
        result = await self._etcd.range(self.key_of(max(newest, 0)))
        return f"{result.header.member_id:x}", newest >= 0 and not result.kvs

    async def follow(self, opened: asyncio.Event) -> None:
        """Take in the events of a watch until this task is cancelled."""
        prefix = self._job.watch_prefix
        watch = self._etcd.watch(
            prefix,
            prefix=True,
            require_leader=self._job.require_leader,
            timeout=OPEN_SECONDS,
        )
        try:
            async with watch:
                opened.set()
                async for event in watch:
                    number = int(event.key.removeprefix(prefix.encode()))
                    self.watched.append(WatchEvent(self.now(), number, event.revision))
        except EtcdError as error:
            self.watch_error = str(error).splitlines()[0]
        finally:
            opened.set()

    async def keep(self, opened: asyncio.Event) -> None:
        """Keep a lease alive until it is lost, or this task is cancelled."""
        ttl = self._job.lease_ttl
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                grant = await self._etcd.leases.grant(ttl)
            async with self._etcd.leases.keep_alive(grant.id) as lease:
                self.lease = LeaseStory(lease.ttl)
                opened.set()
                await lease.lost.wait()
                self.lease = LeaseStory(lease.ttl, self.now(), str(lease.lost.reason))
        except (EtcdError, TimeoutError) as error:
            self.lease = LeaseStory(reason=f"not granted: {str(error).splitlines()[:1]}")
        finally:
            opened.set()

    async def catch_up(self, stored: dict[int, Stored]) -> None:
        """Give the watch time to bring everything that the store has."""
        until = time.monotonic() + CATCH_UP_SECONDS
        while time.monotonic() < until and not self.watch_error:
            if {event.number for event in self.watched} >= stored.keys():
                return
            await asyncio.sleep(0.05)


class Parent:
    """The other end of stdin and stdout."""

    def __init__(self) -> None:
        self.begins_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()
        self.may_audit = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, word: str) -> None:
        print(word, flush=True)

    def _listen(self) -> None:
        for line in sys.stdin:
            word, _, when = line.strip().partition(" ")
            self._loop.call_soon_threadsafe(self._told, word, when)

    def _told(self, word: str, when: str) -> None:
        if word == BEGIN:
            self.begins_at.set_result(float(when))
        elif word == STOP:
            self.stopped.set()
        elif word == AUDIT:
            self.may_audit.set()


async def pinned_client(job: Job) -> AsyncClient:
    """Make the client, and have it know one endpoint before all others, if so asked."""
    etcd = AsyncClient(config=Config.from_toml(job.config, endpoints=job.first or job.endpoints))
    await etcd.get(job.prefix, serializable=True)
    if job.first:
        etcd.set_endpoints(job.endpoints)
    await asyncio.sleep(SETTLE_SECONDS)
    return etcd


async def stored_under(job: Job, prefix: str) -> dict[int, Stored]:
    """Read back every key that was put, with a client that knows nothing of what happened."""
    async with AsyncClient(job.endpoints, timeout=AUDIT_SECONDS / 4) as etcd:
        until = time.monotonic() + AUDIT_SECONDS
        while True:
            try:
                found = await etcd.range(prefix, prefix=True, keys_only=True)
                break
            except EtcdError:
                if time.monotonic() > until:
                    raise
    start = len(prefix)
    return {int(kv.key[start:]): Stored(kv.version, kv.mod_revision) for kv in found}


async def main(job: Job) -> None:
    parent = Parent()
    news: list[News] = collect_news()
    etcd = await pinned_client(job)
    load = Load(etcd, job)
    opened = [asyncio.Event(), asyncio.Event()]
    streams = []
    if job.watch_prefix:
        streams.append(asyncio.create_task(load.follow(opened[0])))
        await opened[0].wait()
    if job.lease_ttl:
        streams.append(asyncio.create_task(load.keep(opened[1])))
        await opened[1].wait()
    parent.say(READY)
    load.began = await parent.begins_at
    sockets = Sockets(job.endpoints, load.now)
    standings = Standings(etcd, load.now)
    looking = asyncio.create_task(look_on(sockets, standings))
    await asyncio.sleep(load.began - time.monotonic())
    if job.every_ms:
        await load.run(parent.stopped)
    else:
        await asyncio.wait([asyncio.create_task(parent.stopped.wait())], timeout=job.seconds)
    parent.say(DONE)
    await parent.may_audit.wait()
    looking.cancel()
    own = await stored_under(job, job.prefix) if job.every_ms else {}
    watched = own
    if job.watch_prefix:
        if job.watch_prefix != job.prefix:
            watched = await stored_under(job, job.watch_prefix)
        await load.catch_up(watched)
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    Recording(
        calls=load.calls,
        began=load.began,
        stored=own or watched,
        watched=load.watched,
        watch_error=load.watch_error,
        lease=load.lease,
        sockets=sockets.samples,
        news=[each.record(load.began) for each in news],
        standings=standings.changes,
        latest_start=load.latest_start,
    ).save(Path(job.recording))
    await etcd.close()


async def look_on(sockets: Sockets, standings: Standings) -> None:
    while True:
        sockets.look()
        standings.look()
        await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(Job.load(Path(sys.argv[1]))))
