"""A cluster of local members."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from .any_member import READY_SECONDS, STATUS_SECONDS, AnyMember, Place
from .calls import MemberStatus, statuses_of
from .errors import LocalMemberError
from .in_process_member import InProcessMember
from .loop_thread import LoopThread
from .membership import Membership
from .ports import HOST, ReservedPorts
from .process_member import LocalMember

if TYPE_CHECKING:
    from .network import Link, Network

LEADER_SECONDS: Final = 20.0
CHANGE_SECONDS: Final = 60.0
REMOVED_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 0.5
"""For one look at members of which some may be paused."""
_POLL_SECONDS: Final = 0.02


class LocalCluster:
    """Several members on this machine; a context manager, which is entered when all serve.

    ``flags`` are etcd's, for every member. The members share this process and a thread of it,
    which starts fastest; with ``processes`` each is a process of its own, so that signals mean
    something; with ``binary`` each is a process of that program, a real etcd. ``partitions`` puts a
    proxy between every two members, so that ``partition``, ``isolate`` and ``cut`` work; clients
    reach the members directly all the same. Where members speak TLS (``peer_scheme``, and flags
    for it) the proxies can tell them apart only as processes on Linux. Not thread-safe.
    """

    def __init__(
        self,
        *flags: str,
        size: int = 3,
        processes: bool = False,
        binary: Path | str | None = None,
        partitions: bool = False,
        peer_scheme: str = "http",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.flags = flags
        self._binary = binary
        self._processes = processes or binary is not None
        self._peer_scheme = peer_scheme
        self._environment = environment
        self._names_given = 0
        self._ids: dict[int, str] = {}
        self._learners: set[str] = set()
        """Those that were learners when they last answered."""
        self._closing = ExitStack()
        self._loop: LoopThread | None = None
        if partitions or not self._processes:
            self._loop = LoopThread("local-cluster")
            self._closing.callback(self._loop.close)
        self._network: Network | None = self._make_network() if partitions else None
        self.members: list[AnyMember] = []
        """Those that were not removed, in the order in which they came."""
        try:
            self._found(size)
        except BaseException:
            self.close()
            raise

    # What it is.

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach the members, as host:port."""
        return [member.endpoint for member in self.members]

    def __iter__(self) -> Iterator[AnyMember]:
        return iter(self.members)

    def __getitem__(self, position: int) -> AnyMember:
        return self.members[position]

    def __len__(self) -> int:
        return len(self.members)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Self:
        """Start the members that do not run, and wait until all serve.

        Raises ``LocalMemberError``.
        """
        started = [member for member in self.members if not member.is_alive]
        for member in started:
            member.launch()
        self._wait_until_ready(started)
        if self._network is not None:
            self._learn_ids()
        return self

    def _wait_until_ready(self, members: Sequence[AnyMember]) -> None:
        """Wait for all, and name the one that fails rather than those that wait for it in vain."""
        deadline = time.monotonic() + READY_SECONDS
        for member in members:
            while not member.is_ready_in(_PATIENCE_SECONDS):
                ended = next((each for each in members if not each.is_alive), None)
                if ended is not None or time.monotonic() > deadline:
                    raise (ended or member).given_up(f"was not ready in {READY_SECONDS} s")

    def close(self) -> None:
        """Kill every member and remove what they leave."""
        with self._closing, ExitStack() as each:
            for member in self.members:
                each.callback(member.close)

    # Who leads.

    def statuses(self, timeout_seconds: float = STATUS_SECONDS) -> dict[str, MemberStatus]:
        """Ask all members for their status at once; by name, those that answer."""
        living = [member for member in self.members if member.is_alive]
        found = statuses_of([member.endpoint for member in living], timeout_seconds)
        answers = zip(living, found, strict=True)
        statuses = {member.name: status for member, status in answers if status is not None}
        self._learners -= set(statuses)
        self._learners |= {name for name, status in statuses.items() if status.is_learner}
        return statuses

    def leader(self, timeout_seconds: float = STATUS_SECONDS) -> AnyMember | None:
        """Return the member that a majority of the voters follows; None if there is none."""
        statuses = self.statuses(timeout_seconds)
        voters = {member.name for member in self.members} - self._learners
        quorum = len(voters) // 2 + 1
        for member in self.members:
            own = statuses.get(member.name)
            if own is None or not own.is_leader:
                continue
            followers = sum(
                name in voters and (each.leader_id, each.term) == (own.member_id, own.term)
                for name, each in statuses.items()
            )
            if followers >= quorum:
                return member
        return None

    def wait_for_leader(
        self, timeout_seconds: float = LEADER_SECONDS, *, other_than: AnyMember | None = None
    ) -> AnyMember:
        """Wait until a majority follows a leader; raises ``LocalMemberError``.

        One that was just cut off or paused still leads, until the others have found out: say
        ``other_than`` to wait for its successor.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            leader = self.leader(_PATIENCE_SECONDS)
            if leader is not None and leader is not other_than:
                return leader
            if time.monotonic() > deadline:
                said = "\n".join(f"{name}: {each}" for name, each in self.statuses().items())
                raise LocalMemberError(f"no leader in {timeout_seconds} s; who answers:\n{said}")
            time.sleep(_POLL_SECONDS)

    # Who is in it.

    def add_member(
        self, *flags: str, start: bool = True, timeout_seconds: float = CHANGE_SECONDS
    ) -> AnyMember:
        """Add a voter to the running cluster, and start it; it is the last of ``members``.

        Waits for what the cluster demands first: etcd wants all members connected for 5 s.
        Without ``start`` it is announced only: it counts for the quorum and is not there.
        Raises ``LocalMemberError``.
        """
        return self._add(flags, start, timeout_seconds, is_learner=False)

    def add_learner(
        self, *flags: str, start: bool = True, timeout_seconds: float = CHANGE_SECONDS
    ) -> AnyMember:
        """Add a member that does not vote, and start it. Raises ``LocalMemberError``."""
        return self._add(flags, start, timeout_seconds, is_learner=True)

    def promote(self, learner: AnyMember, timeout_seconds: float = CHANGE_SECONDS) -> None:
        """Make a learner a voter, once it has caught up. Raises ``LocalMemberError``."""
        self._membership.promote(learner.peer_url, timeout_seconds)

    def remove(self, member: AnyMember, timeout_seconds: float = CHANGE_SECONDS) -> None:
        """Take a member out of the cluster, and clean up after it.

        It ends by itself when it hears of that; one that does not is killed. Raises
        ``LocalMemberError``.
        """
        self._membership.remove(member.peer_url, timeout_seconds)
        with suppress(LocalMemberError):
            if member.is_alive:
                member.wait(REMOVED_SECONDS)
        self.members.remove(member)
        member.close()
        if self._network is not None:
            self._network.remove(member.name)

    # Who reaches whom. Needs ``partitions=True``.

    def partition(self, *groups: Collection[AnyMember], resets: bool = False) -> None:
        """Let nothing through between members of different groups, on top of what is cut already.

        Those that no group names are one more group. What is sent is held back, as where a network
        loses packets; with ``resets`` connections end with an error instead, old and new ones.
        """
        named = {member.name for group in groups for member in group}
        rest = {member.name for member in self.members} - named
        names = [*({member.name for member in group} for group in groups), rest]
        self._cut(
            [(a, b) for one, other in permutations(names, 2) for a in one for b in other], resets
        )

    def isolate(self, member: AnyMember, *, resets: bool = False) -> None:
        """Let nothing through between a member and all others."""
        self.partition([member], resets=resets)

    def cut(self, sender: AnyMember, receiver: AnyMember) -> None:
        """Let nothing through from one member to another; the way back stays open."""
        self._cut([(sender.name, receiver.name)], False)

    def heal(self) -> None:
        """Let everything through again. What was held back comes now."""
        self._links.heal()

    def bytes_sent(self, sender: AnyMember, receiver: AnyMember) -> int:
        """Count what one member has ever sent to another, snapshots too, in bytes."""
        return self._links.bytes_sent(sender.name, receiver.name)

    def _cut(self, links: Collection[Link], resets: bool) -> None:
        self._learn_ids()
        self._links.cut(links, resets=resets)

    @property
    def _links(self) -> Network:
        if self._network is None:
            raise LocalMemberError("the members are connected directly: say partitions=True")
        return self._network

    # How they are made.

    def _found(self, size: int) -> None:
        names = [self._new_name() for _ in range(size)]
        places = [self._new_place(name) for name in names]
        cluster = ",".join(f"{name}={url}" for name, (_, url) in zip(names, places, strict=True))
        for name, (ports, url) in zip(names, places, strict=True):
            self.members.append(self._make(name, self.flags, ports, url, cluster, "new"))

    def _add(
        self, flags: Sequence[str], start: bool, timeout_seconds: float, *, is_learner: bool
    ) -> AnyMember:
        name = self._new_name()
        ports, url = self._new_place(name)
        try:
            added = self._membership.add(
                url, is_learner=is_learner, timeout_seconds=timeout_seconds
            )
        except BaseException:
            self._give_up_place(name, ports)
            raise
        self._ids[added.ID] = name
        if is_learner:
            self._learners.add(name)
        cluster = ",".join(f"{each.name}={each.peer_url}" for each in self.members)
        member = self._make(
            name, (*self.flags, *flags), ports, url, f"{cluster},{name}={url}", "existing"
        )
        self.members.append(member)
        if start:
            member.start()
        return member

    def _make(
        self,
        name: str,
        flags: Sequence[str],
        ports: ReservedPorts,
        peer_url: str,
        cluster: str,
        cluster_state: str,
    ) -> AnyMember:
        place = Place(
            name=name,
            ports=ports,
            cluster=cluster,
            cluster_state=cluster_state,
            peer_scheme=self._peer_scheme,
            advertised_peer_url=peer_url,
        )
        if self._processes:
            return LocalMember(*flags, binary=self._binary, environment=self._environment, **place)
        assert self._loop is not None
        return InProcessMember(self._loop, *flags, environment=self._environment, **place)

    def _new_name(self) -> str:
        self._names_given += 1
        return f"m{self._names_given}"

    def _new_place(self, name: str) -> tuple[ReservedPorts, str]:
        """Find ports for a new member, and the URL that others are told."""
        ports = ReservedPorts(2)
        port = ports.numbers[1]
        if self._network is not None:
            port = self._network.add(name, port)
        return ports, f"{self._peer_scheme}://{HOST}:{port}"

    def _give_up_place(self, name: str, ports: ReservedPorts) -> None:
        ports.release()
        if self._network is not None:
            self._network.remove(name)

    def _make_network(self) -> Network:
        from .network import Network

        assert self._loop is not None
        network = Network(self._loop, lambda: self._ids, self._pids)
        self._closing.callback(network.close)
        return network

    @property
    def _membership(self) -> Membership:
        return Membership(lambda: self.wait_for_leader().endpoint)

    def _learn_ids(self) -> None:
        """Learn the ids of members from themselves, for connections say no names."""
        if len(self._ids) < len(self.members):
            statuses = self.statuses(_PATIENCE_SECONDS)
            self._ids |= {status.member_id: name for name, status in statuses.items()}

    def _pids(self) -> Mapping[int, str]:
        return {
            member.pid: member.name
            for member in self.members
            if isinstance(member, LocalMember) and member.is_alive
        }
