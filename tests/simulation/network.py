"""The network between members: late, lossy, and cut where a run wants it cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.messages import Message

from .clock import Clock

Link = tuple[int, int]
"""From one member to another, this way only."""

LATENCY_SECONDS = 0.002


@dataclass(slots=True)
class Weather:
    """What may happen to a message on any link."""

    drop: float = 0.0
    """How likely it is lost; so for the others."""
    duplicate: float = 0.0
    delay: float = 0.0
    """How likely it takes up to ``slowest_seconds``."""
    slowest_seconds: float = 0.5
    reorder: bool = False
    """Whether a message may overtake another on its link."""


class Network:
    """Takes messages and delivers them through the clock."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self.weather = Weather()
        self.cuts: set[Link] = set()
        self.counts = dict.fromkeys(("sent", "cut", "dropped", "duplicated", "delayed"), 0)
        self._clock = clock
        self._random = random
        self._last_arrival: dict[Link, float] = {}

    def send(self, message: Message, deliver: Callable[[Message], None]) -> bool:
        """Send a message on its way; False when its link is cut, and the sender may notice."""
        counts, weather, random = self.counts, self.weather, self._random
        counts["sent"] += 1
        link = (message.sender, message.to)
        if link in self.cuts:
            counts["cut"] += 1
            return False
        if weather.drop and random.random() < weather.drop:
            counts["dropped"] += 1
            return True
        self._clock.after(self._delay(link), self._arrive, link, message, deliver)
        # A proposal is not repeated: streams do not, and Raft does not tell copies apart.
        repeats = message.type != raftpb.MsgProp
        if weather.duplicate and repeats and random.random() < weather.duplicate:
            counts["duplicated"] += 1
            self._clock.after(self._delay(link), self._arrive, link, replace(message), deliver)
        return True

    def _arrive(self, link: Link, message: Message, deliver: Callable[[Message], None]) -> None:
        if link not in self.cuts:
            deliver(message)

    def _delay(self, link: Link) -> float:
        random, weather = self._random, self.weather
        seconds = LATENCY_SECONDS * (0.5 + random.random())
        if weather.delay and random.random() < weather.delay:
            self.counts["delayed"] += 1
            seconds = random.random() * weather.slowest_seconds
        if weather.reorder:
            return seconds
        arrival = max(self._clock.now + seconds, self._last_arrival.get(link, 0.0))
        self._last_arrival[link] = arrival
        return arrival - self._clock.now

    # Cutting links

    def cut(self, sides: tuple[set[int], set[int]], *, one_way: bool = False) -> set[Link]:
        """Cut every link from the first side to the second, and back; return those links."""
        links = {(a, b) for a in sides[0] for b in sides[1] if a != b}
        if not one_way:
            links |= {(b, a) for a, b in links}
        self.cuts |= links
        return links

    def mend(self) -> None:
        """Restore every link."""
        self.cuts.clear()

    def isolates(self, member: int, others: set[int]) -> bool:
        """Whether no link leads from or to a member."""
        return all({(member, each), (each, member)} <= self.cuts for each in others - {member})
