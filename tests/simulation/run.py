"""One run: a cluster in trouble, then mended, then held against what it promised."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from .ending import finish
from .profile import Profile, draw
from .violation import Violation
from .world import World

_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went."""

    seed: int
    profile: Profile
    rule: str = ""
    """The rule that was broken; empty: none."""
    story: str = ""
    trace_hash: int = 0
    trace_tail: str = ""
    events: int = 0
    seconds: float = 0.0
    """Virtual ones."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        return bool(self.rule)

    def __str__(self) -> str:
        if not self.failed:
            return f"seed {self.seed}: {self.events} events, nothing wrong"
        return (
            f"seed {self.seed} breaks a rule: {self.rule}\n"
            f"  {self.story}\n"
            f"  profile: {self.profile}\n"
            f"  at event {self.events}, {self.seconds:.4f} s; the last of the trace:\n"
            f"{self.trace_tail}\n"
            f"  all of it: python -m tests.simulation --replay {self.seed}"
        )


def run(
    seed: int,
    *,
    profile: Callable[[Profile], None] = lambda _: None,
    show: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a seed; ``profile`` may change what the seed has drawn."""
    random = Random(seed)
    drawn = draw(random)
    profile(drawn)
    directory = Path(tempfile.mkdtemp(prefix="simulation-", dir=_memory()))
    world = World(random, drawn, directory, show)
    rule = story = ""
    try:
        world.begin()
        world.clock.run_until(drawn.trouble_seconds)
        finish(world)
    except Violation as violation:
        rule, story = violation.rule, str(violation)
    except Exception as error:  # the product, or the simulator, has a bug
        rule, story = f"raises {type(error).__name__}", _told(error)
    finally:
        for member in world.members.values():
            member.discard()
        shutil.rmtree(directory)
    return Outcome(
        seed,
        drawn,
        rule,
        story,
        world.trace.hash,
        world.trace.tail(),
        world.clock.events,
        world.clock.now,
        _counts(world),
    )


def _memory() -> Path | None:
    """A directory in memory, if there is one."""
    return _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None


def _told(error: Exception) -> str:
    """An error, and where it was raised."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} ({' > '.join(places[-6:])})"


def _counts(world: World) -> Counter[str]:
    counts = Counter(world.nemesis.done)
    counts.update({f"messages {name}": n for name, n in world.network.counts.items()})
    for client in world.clients:
        counts.update({f"calls {name}": n for name, n in client.counts.items()})
    counts["watch events"] = sum(each.events for each in world.watchers)
    counts["elections"] = len(world.rules.leaders)
    counts["entries"] = world.ledger.last_applied
    counts["restarts"] = sum(max(0, each.incarnation - 1) for each in world.members.values())
    counts["snapshots installed"] = world.rules.installs
    counts["membership changes"] = len(world.rules.configs)
    return counts
