"""One simulated cluster: its members, its network, its clients, and the troubles it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from etcd_pinwheel.server_stub.cluster import ClusterMember
from etcd_pinwheel.server_stub.peers.receiver import ClusterInfo
from etcd_pinwheel.server_stub.peers.wire import Encoder, decode
from etcd_pinwheel.server_stub.raft.messages import Message

from .booting import CLUSTER_ID, founding_cluster
from .clock import Clock
from .configs import Configuration
from .disk import CrashingBackend, Disk
from .ledger import Ledger
from .member import Member
from .nemesis import Nemesis
from .network import Network, Weather
from .profile import Profile
from .rules import Rules
from .trace import Trace
from .watchers import Watcher
from .workload import Client

_SNAPSHOT_SECONDS = 0.05


class World:
    """Everything there is in a run; whatever is random in it comes from one ``random``."""

    def __init__(
        self,
        random: Random,
        profile: Profile,
        directory: Path,
        show: Callable[[str], None] | None = None,
    ) -> None:
        """Members keep their logs under ``directory``; ``show`` is given the trace."""
        self.random = random
        self.profile = profile
        self.clock = Clock()
        self.trace = Trace(self.clock, show)
        self.network = Network(self.clock, random)
        self.network.weather = profile.weather
        self.ledger = Ledger()
        self.rules = Rules(self.ledger)
        self.founders = tuple(range(1, profile.voters + 1))
        self.members: dict[int, Member] = {}
        self.wiped: set[int] = set()
        self.is_working = True
        """Whether clients go on asking."""
        self.is_troubled = True
        self.fastest_clock = 1.0
        self.clients = [Client(self, number) for number in range(profile.clients)]
        self.watchers = [Watcher(self, "w0", None), Watcher(self, "w1", b"k0")]
        self.nemesis = Nemesis(self)
        self._directory = directory
        self._encoder = Encoder()
        self._request_id = 0

    def begin(self) -> None:
        """Start the founders, the clients and the troubles."""
        random = self.random
        for each in self.founders:
            self.add(each)
            self.clock.after(random.random() * 0.1, self.members[each].start)
        for caller in (*self.clients, *self.watchers):
            self.clock.after(random.random(), caller.begin)
        self.clock.after(random.random(), self.nemesis.begin)

    # Members

    def add(self, member_id: int) -> Member:
        """Give a new member its disk."""
        self.rules.joined(member_id)
        member = Member(self, member_id, Disk(self._directory / f"m{member_id}"))
        self.members[member_id] = member
        return member

    def cluster_infos(self, asking: int) -> list[ClusterInfo]:
        """What the members that can be asked say of their cluster."""
        asked = [
            member
            for member in self.members.values()
            if member.id != asking and member.is_up and not member.is_paused
        ]
        return [ClusterInfo(CLUSTER_ID, self._listed_by(member)) for member in asked]

    def _listed_by(self, member: Member) -> tuple[ClusterMember, ...]:
        """The members as one of them knows them: the founders, until its log says more."""
        parts = member.parts
        if parts.applier.index < len(self.founders):
            return founding_cluster(self.founders).members
        return parts.membership.cluster.members

    def crashed(self, member: Member) -> None:
        """Have a member started again, some time later."""
        self.clock.after(0.05 + self.random.random() * 1.2, self.revive, member)

    def revive(self, member: Member) -> None:
        """Start a member that is down, unless it must not come back."""
        if member.is_up or member.id in self.wiped:
            return
        if self.is_troubled and member.knows_it_is_removed():
            return
        member.start()

    def leader(self) -> Member | None:
        """The member that leads, with the highest term if several believe it."""
        leaders = [each for each in self.members.values() if each.is_leader]
        return max(leaders, key=lambda each: each.raft.term, default=None)

    def configuration(self) -> Configuration:
        """Who the members are, by the newest change that anybody has applied."""
        return self.rules.configs.newest() or Configuration(
            frozenset(self.founders), frozenset(), frozenset()
        )

    def serving(self) -> list[int]:
        """Members that a client may turn to."""
        voters = sorted(self.configuration().voters - self.wiped)
        return voters or list(self.founders)

    def new_request_id(self) -> int:
        """A number that no other request or lease has."""
        self._request_id += 1
        return self._request_id

    def apply_delay(self) -> float:
        """How long a committed entry waits for its turn."""
        if not self.is_troubled or not self.profile.apply_seconds:
            return 0.0
        return self.profile.apply_seconds * self.random.random()

    # The network

    def send(self, message: Message) -> bool:
        """Carry a message; False when it cannot be delivered and its sender may notice."""
        if message.to not in self.members:
            return False
        if self.profile.through_wire:
            message = decode(b"".join(self._encoder.encode(message)))
        return self.network.send(message, self._deliver)

    def _deliver(self, message: Message) -> None:
        self.members[message.to].receive(message)

    def send_snapshot(self, sender: Member, message: Message, state: CrashingBackend) -> None:
        """Carry a whole state, which takes its time; the sender always hears how it ended."""
        receiver = self.members.get(message.to)
        link = (message.sender, message.to)
        lost = self.random.random() < self.network.weather.drop
        seconds = _SNAPSHOT_SECONDS * (0.2 + 2 * self.random.random())

        def arrive() -> None:
            ok = not lost and link not in self.network.cuts
            ok = ok and receiver is not None and receiver.is_up
            if ok and receiver is not None:
                receiver.snapshot_arrives(message, state)
            sender.enter(incarnation, sender.snapshot_sent, (message.to, ok))

        incarnation = sender.incarnation
        self.clock.after(seconds, arrive)

    # The end of the troubles

    def mend(self) -> None:
        """Let everything be well from now on."""
        self.is_troubled = False
        self.trace.note("--", "all is mended")
        self.network.mend()
        self.network.weather = Weather()
        for member in self.members.values():
            member.skew(1.0)
            member.disk.fails = False
            member.disk_seconds = 0.001
            member.armed = None
            if member.is_up and member.is_paused:
                member.resume()
            self.revive(member)
