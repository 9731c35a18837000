"""A cluster under a steady load of writes, while its membership changes and its network breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from etcd_pinwheel import AsyncClient, Client, EtcdError, Member
from etcd_pinwheel.server_stub.local import (
    AnyMember,
    LocalCluster,
    LocalMemberError,
    MemberStatus,
    ReservedPorts,
)

WRITE_EVERY_SECONDS: Final = 0.02
WRITE_TIMEOUT_SECONDS: Final = 1.0
LOOK_EVERY_SECONDS: Final = 0.05
CHANGE_TIMEOUT_SECONDS: Final = 4.0
"""How long a change of the membership may take before it counts as impossible."""


@dataclass(frozen=True, slots=True)
class Write:
    """One put: when it was due and answered, in seconds from the beginning."""

    due: float
    ended: float
    error: str = ""


@dataclass(slots=True)
class Record:
    """What was seen of one run."""

    began: float = field(default_factory=time.monotonic)
    writes: list[Write] = field(default_factory=list)
    looks: list[tuple[float, bool]] = field(default_factory=list)
    """When it was looked, and whether a majority followed a leader."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """What was done when."""
    elections: int = 0
    newcomer_bytes: int = 0
    refused: str = ""
    """What the cluster said when it did not take the newcomer."""
    undone: str = ""
    """Whether the newcomer could be removed again while the trouble lasted, and why not."""

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def look(self, statuses: Iterable[MemberStatus], voters: int) -> None:
        """Note whether a majority of the voters follows one leader."""
        following = Counter(
            (status.leader_id, status.term)
            for status in statuses
            if status.leader_id and not status.is_learner
        )
        most = max(following.values(), default=0)
        self.looks.append((self.now, most > voters // 2))

    def mark(self, what: str) -> None:
        self.marks.append((self.now, what))

    @property
    def seconds_without_leader(self) -> float:
        """For how long nobody led, counted from look to look."""
        return sum(after - before for (before, led), (after, _) in pairwise(self.looks) if not led)

    @property
    def seconds_without_write(self) -> float:
        """The longest time in which no write succeeded, up to the end."""
        ended = sorted(write.ended for write in self.writes if not write.error)
        last = max((write.due for write in self.writes), default=0.0)
        return max((after - before for before, after in pairwise([0.0, *ended, last])), default=0.0)

    @property
    def failed_writes(self) -> int:
        return sum(bool(write.error) for write in self.writes)

    @property
    def slowest_ms(self) -> float:
        """How long the slowest write took that succeeded."""
        return max((w.ended - w.due for w in self.writes if not w.error), default=0.0) * 1e3


class Stage:
    """What an experiment has in its hands."""

    def __init__(self, cluster: LocalCluster, record: Record, *, as_learner: bool) -> None:
        self.cluster = cluster
        self.record = record
        self.as_learner = as_learner
        self.voters = len(cluster)
        """As many as the cluster counts, started or not."""
        self.newcomer: Member | None = None
        self.newcomer_process: AnyMember | None = None
        self._nobody = ReservedPorts(1)

    @property
    def leader(self) -> AnyMember:
        return self.cluster.wait_for_leader()

    @property
    def followers(self) -> list[AnyMember]:
        leader = self.leader
        return [each for each in self.cluster if each not in (leader, self.newcomer_process)]

    def wait(self, seconds: float) -> None:
        """Let things take their course."""
        time.sleep(seconds)

    def announce(self, peer_url: str | None = None) -> bool:
        """Add the newcomer and do not start it; tell whether the cluster took it.

        Without a URL nobody is, or ever will be, where it is said to be.
        """
        url = peer_url or f"http://127.0.0.1:{self._nobody.numbers[0]}"
        with Client([self.leader.endpoint], timeout=CHANGE_TIMEOUT_SECONDS) as client:
            try:
                add = client.members.add_learner if self.as_learner else client.members.add
                self.newcomer = add(url)
            except EtcdError as error:
                self.record.refused = _reason(error)
                return False
        self._added()
        return True

    def _added(self) -> None:
        self.record.mark("added")
        self.voters += not self.as_learner

    def add_and_start(self, *, start: bool = True) -> bool:
        """Add the newcomer and start it; tell whether the cluster took it."""
        add = self.cluster.add_learner if self.as_learner else self.cluster.add_member
        try:
            self.newcomer_process = add(start=False, timeout_seconds=CHANGE_TIMEOUT_SECONDS)
        except LocalMemberError as error:
            self.record.refused = _reason(error)
            return False
        self._added()
        if start:
            self.start_newcomer()
        return True

    def start_newcomer(self) -> None:
        """Start what was added, and do not wait until it serves."""
        assert self.newcomer_process is not None
        self.newcomer_process.launch()
        self.record.mark("started")

    def try_to_undo(self) -> None:
        """Ask every member in turn to remove the newcomer again."""
        self.record.mark("undo")
        reasons = []
        for endpoint in self._voters():
            with Client([endpoint], timeout=CHANGE_TIMEOUT_SECONDS) as client:
                try:
                    client.members.remove(self._newcomer_id(client))
                except EtcdError as error:
                    reasons.append(_reason(error))
                else:
                    self.record.undone = "yes"
                    return
        self.record.undone = f"no: {reasons[0]}" if reasons else "no"

    def _voters(self) -> list[str]:
        return [
            each.endpoint
            for each in self.cluster
            if each is not self.newcomer_process and each.is_alive
        ]

    def _newcomer_id(self, client: Client) -> int:
        if self.newcomer is not None:
            return self.newcomer.id
        assert self.newcomer_process is not None
        url = self.newcomer_process.peer_url
        members = client.members.list(serializable=True)
        return next(each.id for each in members if url in each.peer_urls)


def _reason(error: Exception) -> str:
    text = getattr(error, "text", "") or str(error)
    return text.removeprefix("etcdserver: ").splitlines()[0]


@contextmanager
def stage(
    size: int, flags: Sequence[str], *, as_learner: bool, binary: Path | None
) -> Iterator[Stage]:
    """Run a cluster under load for as long as the block lasts; the record is complete after it."""
    kind = {"binary": binary} if binary is not None else {"processes": True}
    with LocalCluster(*flags, size=size, partitions=True, **kind) as cluster:  # type: ignore[arg-type]
        cluster.wait_for_leader()
        record = Record()
        first_term = _term(cluster)
        done = threading.Event()
        played = Stage(cluster, record, as_learner=as_learner)
        watched = [
            threading.Thread(target=_write, args=(cluster.endpoints, record, done)),
            threading.Thread(target=_look, args=(played, done)),
        ]
        for thread in watched:
            thread.start()
        try:
            yield played
        finally:
            done.set()
            for thread in watched:
                thread.join()
        record.elections = max(0, _term(cluster) - first_term)
        if played.newcomer_process is not None:
            record.newcomer_bytes = sum(
                cluster.bytes_sent(each, played.newcomer_process)
                for each in cluster
                if each is not played.newcomer_process
            )


def _term(cluster: LocalCluster) -> int:
    return max((status.term for status in cluster.statuses().values()), default=0)


def _look(played: Stage, done: threading.Event) -> None:
    while not done.wait(LOOK_EVERY_SECONDS):
        statuses = played.cluster.statuses(timeout_seconds=0.3)
        played.record.look(statuses.values(), played.voters)


def _write(endpoints: list[str], record: Record, done: threading.Event) -> None:
    asyncio.run(_write_steadily(endpoints, record, done))


async def _write_steadily(endpoints: list[str], record: Record, done: threading.Event) -> None:
    """Start a put every so often, answered or not: an open loop, as arriving requests are."""

    async def put(etcd: AsyncClient, number: int) -> None:
        due, error = record.now, ""
        try:
            await etcd.put(f"benchmark/membership/{number % 100}", b"v" * 64)
        except EtcdError as failure:
            error = type(failure).__name__
        record.writes.append(Write(due, record.now, error))

    async with (
        AsyncClient(endpoints, timeout=WRITE_TIMEOUT_SECONDS) as etcd,
        asyncio.TaskGroup() as group,
    ):
        number = 0
        while not done.is_set():
            group.create_task(put(etcd, number))
            number += 1
            await asyncio.sleep(WRITE_EVERY_SECONDS)
