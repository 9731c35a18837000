"""Whatever goes wrong: each fault of the profile is a method here."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.cluster import adding, promoting, removing
from etcd_pinwheel.server_stub.raft.node import ProposalDropped

from .booting import member_of
from .disk import CrashingBackend
from .member import STEPS, Member
from .network import Weather
from .violation import demand

if TYPE_CHECKING:
    from .world import World

MOST_MEMBERS = 6


class Nemesis:
    """Does one of its faults every so often, while there are troubles."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: Counter[str] = Counter()
        self._joining: dict[int, bool] = {}

    def begin(self) -> None:
        """Go on doing things for as long as there are troubles."""
        profile = self.world.profile
        self._repeat(profile.faults, profile.fault_interval_seconds)
        if profile.churn_seconds:
            self._repeat(profile.changes, profile.churn_seconds)

    def _repeat(self, weights: dict[str, int], interval_seconds: float) -> None:
        """Do one of some things, and plan the next."""
        world = self.world
        self.start_joined()
        if not world.is_troubled:
            return
        kind = world.random.choices(list(weights), list(weights.values()))[0]
        if getattr(self, kind)() is not False:
            self.done[kind] += 1
        seconds = interval_seconds * 2 * world.random.random()
        world.clock.after(seconds, self._repeat, weights, interval_seconds)

    def _note(self, what: str) -> None:
        self.world.trace.note("--", what)

    def _up(self) -> list[Member]:
        return [each for each in self.world.members.values() if each.is_up]

    def _someone(self) -> Member | None:
        """The leader, as often as somebody else."""
        up, leader = self._up(), self.world.leader()
        if leader is not None and self.world.random.random() < 0.5:
            return leader
        return self.world.random.choice(up) if up else None

    # Processes

    def crash(self) -> object:
        member = self._someone()
        return member.crash("killed") if member else False

    def crash_at_step(self) -> object:
        member = self._someone()
        if member is None:
            return False
        member.armed = self.world.random.choice(STEPS)
        return self._note(f"{member.name} will crash {member.armed}")

    def power_cut_for_all(self) -> object:
        for member in self._up():
            member.crash("power cut for all")
        return None

    def pause(self) -> object:
        member = self._someone()
        if member is None or member.is_paused:
            return False
        self._note(f"{member.name} is paused")
        member.pause()
        incarnation = member.incarnation

        def resume() -> None:
            if member.is_up and member.is_paused and member.incarnation == incarnation:
                self._note(f"{member.name} goes on")
                member.resume()

        self.world.clock.after(0.1 + self.world.random.random() * 2, resume)
        return None

    def skew(self) -> object:
        member = self._someone()
        if member is None:
            return False
        rate = self.world.random.choice((0.5, 0.8, 1.25, 2.0))
        member.skew(rate)
        self.world.fastest_clock = max(self.world.fastest_clock, rate)
        return self._note(f"{member.name}'s clock runs at {rate}")

    # Disks

    def slow_disk(self) -> object:
        member = self._someone()
        if member is None:
            return False
        member.disk_seconds = 0.1 + self.world.random.random()
        self._note(f"{member.name}'s disk takes {member.disk_seconds:.2f} s")

        def recover() -> None:
            member.disk_seconds = self.world.profile.disk_seconds

        self.world.clock.after(1.0 + self.world.random.random() * 2, recover)
        return None

    def failing_disk(self) -> object:
        member = self._someone()
        if member is None:
            return False
        member.disk.fails = True
        return self._note(f"{member.name}'s disk fails")

    def wipe(self) -> object:
        """Lose a disk for good: the member must not come back under its id."""
        world, member = self.world, self._someone()
        voters = world.configuration().voters
        gone = world.wiped | {member.id} if member else set()
        if member is None or 2 * len(voters - gone) <= len(voters):
            return False
        if not self._is_known_to_have_begun(member):
            return False
        member.crash("its disk is lost")
        world.wiped.add(member.id)
        self._note(f"{member.name}'s disk is empty")
        shutil.rmtree(member.disk.path)
        member.disk.backend = CrashingBackend()
        member.start()
        demand(not member.is_up, "no amnesiacs", f"{member.name} starts with an empty disk")
        return None

    def _is_known_to_have_begun(self, member: Member) -> bool:
        """Whether somebody who can be asked would know a member as one that has run before."""
        for info in self.world.cluster_infos(member.id):
            known = next((each for each in info.members if each.id == member.id), None)
            if known is not None and known.client_urls:
                return True
        return False

    # The network

    def _sides(self) -> tuple[set[int], set[int]]:
        ids = list(self.world.members)
        one = set(self.world.random.sample(ids, self.world.random.randint(1, max(1, len(ids) - 1))))
        return one, set(ids) - one

    def _cut(self, sides: tuple[set[int], set[int]], *, one_way: bool = False) -> None:
        """Cut links, as a rule for a while only."""
        world = self.world
        links = world.network.cut(sides, one_way=one_way)

        def mend() -> None:
            world.network.cuts -= links

        if world.random.random() < 0.8:
            world.clock.after(0.1 + world.random.random() * 2, mend)

    def partition(self) -> object:
        sides = self._sides()
        self._cut(sides)
        return self._note(f"{sorted(sides[0])} and {sorted(sides[1])} are cut off")

    def one_way(self) -> object:
        sides = self._sides()
        self._cut(sides, one_way=True)
        return self._note(f"nothing gets from {sorted(sides[0])} to {sorted(sides[1])}")

    def partial(self) -> object:
        ids = list(self.world.members)
        if len(ids) < 2:
            return False
        one, other = self.world.random.sample(ids, 2)
        self._cut(({one}, {other}))
        return self._note(f"m{one} and m{other} are cut off from each other")

    def flap(self) -> object:
        sides, world = self._sides(), self.world
        self._note(f"{sorted(sides[0])} and {sorted(sides[1])} come and go")

        def cut(times: int) -> None:
            if world.is_troubled and times:
                links = world.network.cut(sides)
                world.clock.after(0.05 + world.random.random() * 0.2, mend, times, links)

        def mend(times: int, links: set[tuple[int, int]]) -> None:
            world.network.cuts -= links
            world.clock.after(0.05 + world.random.random() * 0.2, cut, times - 1)

        cut(5)
        return None

    def isolate_leader(self) -> object:
        leader = self.world.leader()
        if leader is None:
            return False
        self._cut(({leader.id}, set(self.world.members) - {leader.id}))
        return self._note(f"{leader.name}, the leader, is alone")

    def mend(self) -> object:
        self.world.network.mend()
        return self._note("every link is up")

    def storm(self) -> object:
        world = self.world
        world.network.weather = Weather(0.4, 0.3, 0.4, 1.0, reorder=True)
        self._note("a storm")

        def calm() -> None:
            if world.is_troubled:
                world.network.weather = world.profile.weather

        world.clock.after(0.3 + world.random.random(), calm)
        return None

    # Leaders

    def transfer(self) -> object:
        leader = self.world.leader()
        if leader is None or leader.is_paused:
            return False
        target = self.world.random.choice(sorted(leader.raft.progress))
        self._note(f"{leader.name} is to transfer to m{target}")
        leader.enter(leader.incarnation, self._transfer, (leader, target))
        return None

    def _transfer(self, leader: Member, target: int) -> None:
        leader.raft.transfer_leader(target)
        leader.pump()

    def campaign(self) -> object:
        up = self._up()
        if not up:
            return False
        member = self.world.random.choice(up)
        self._note(f"{member.name} is to campaign")
        member.enter(member.incarnation, self._campaign, (member,))
        return None

    def _campaign(self, member: Member) -> None:
        member.raft.campaign()
        member.pump()

    # The membership

    def start_joined(self) -> None:
        """Start members that the cluster has taken in."""
        configuration = self.world.configuration()
        for each in list(self._joining):
            if each in configuration.voters | configuration.learners:
                del self._joining[each]
                self.world.revive(self.world.members[each])

    def add_learner(self) -> object:
        return self._add(is_learner=True)

    def add_voter(self) -> object:
        return self._add(is_learner=False)

    def _add(self, *, is_learner: bool) -> object:
        world = self.world
        there = world.configuration()
        if len(there.voters) + len(there.learners) >= MOST_MEMBERS:
            return False
        new = max(world.members) + 1
        if not self.propose_change(adding(member_of(new, is_learner=is_learner))):
            return False
        world.add(new)
        self._joining[new] = is_learner
        return None

    def promote(self) -> object:
        leader = self.world.leader()
        if leader is None:
            return False
        last = leader.raft.log.last_index
        ready = [
            peer
            for peer, progress in sorted(leader.raft.progress.items())
            if progress.is_learner and progress.match >= 0.9 * last
        ]
        return bool(ready) and self.propose_change(promoting(ready[0]))

    def remove(self) -> object:
        leader = self.world.leader()
        if leader is None:
            return False
        voters = sorted(leader.raft.config_state().voters)
        learners = sorted(leader.raft.config_state().learners)
        # Of two voters the one that leads stays: the other might never learn that it is alone.
        candidates = [each for each in voters if each != leader.id or len(voters) > 2] + learners
        if not candidates:
            return False
        return self.propose_change(removing(self.world.random.choice(candidates)))

    def propose_change(self, change: raftpb.ConfChange) -> bool:
        """Have the leader propose a change, if it takes one now."""
        leader = self.world.leader()
        if leader is None or leader.is_paused:
            return False
        kind = raftpb.ConfChangeType.Name(change.type)[10:]
        self._note(f"{leader.name} is asked for {kind} m{change.node_id}")
        taken: list[bool] = []
        leader.enter(leader.incarnation, self._propose_at, (leader, change, taken))
        return bool(taken)

    def _propose_at(self, leader: Member, change: raftpb.ConfChange, taken: list[bool]) -> None:
        try:
            leader.raft.propose_change(change)
        except ProposalDropped:
            return
        taken.append(True)
        leader.pump()
