"""The language of the transcripts: one step or one expectation a line.

Steps name members by their ids; what is optional is ``name=value`` or a word::

    nodes 1 2 3 [voters=1,2,3] [learners=4] [log=1,2x3] [term=5] [compacted=10.2]
                [any setting of the core=value]
    campaign 1          propose 1 data      read 1 context      forget 1      transfer 1 to=2
    change 1 v1 +3      change 1 v2 implicit +3 ~4 -1           change 1 v2   (leave a joint one)
    tick 1 2 x10        heartbeat 1         timeout 1 3 (the draw added to the election timeout)
    save 1              begin-save 1        end-save 1          apply 1 [limit=1]   idle 1
                        (idle: there is nothing to apply)
    run 1 2             (save and apply, without mail)          settle [1 2]  (with mail)
    deliver 2 3 [from=1] [only=app,vote] [first=2] [keep] [reversed]
    drop 2 [from=1] [only=app]              cut 1 2 (from all others)       heal
    compact 1 7         snapshot 1 7|no|any unreachable 1 2     snapshot-status 1 2 ok|failed
    restart 1 [applied=4]

``+3`` makes 3 a voter, ``~3`` a learner, ``-3`` removes it, ``!3`` updates it. A step that is
expected to be refused ends in ``! reason`` (a part of it). Expectations have a colon::

    1 2: follower term=1 log=1x2        of members, see facts.facts_of
    1/3: replicate match=2              of 3 in the eyes of 1, see facts.progress_facts
    1>2: app(3+1) heartbeat             the mail from 1 to 2; - is none, see mail.shown
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from etcd_pinwheel.server_stub.raft.confchange import ChangeRefused
from etcd_pinwheel.server_stub.raft.core import ProposalDropped

from .facts import differences, facts_of, mail_differences, progress_facts
from .network import Network
from .verbs import VERBS, Words

EXPECTATION = re.compile(r"([\d ]+|\d+/\d+|\d+>\d+):\s+(.*)")


class TranscriptFailed(AssertionError):
    """A line of a transcript that did not hold, with its place."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that says something."""

    place: str
    text: str


def lines_of(text: str, name: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if said:
            yield Line(f"{name}:{number}", said)


def run_file(path: Path) -> Network:
    return run(path.read_text(), path.name)


def run(text: str, name: str = "transcript") -> Network:
    """Carry out a transcript; raises :class:`TranscriptFailed` at the first line that is wrong."""
    network = Network()
    for line in lines_of(text, name):
        try:
            wrong = check(network, line.text)
        except Exception as error:
            raise TranscriptFailed(f"{line.place}: {line.text}: {error!r}") from error
        if wrong:
            raise TranscriptFailed(f"{line.place}: {line.text}: {'; '.join(wrong)}")
    return network


def check(network: Network, text: str) -> list[str]:
    """Carry out one line; return what is not as expected."""
    expectation = EXPECTATION.fullmatch(text)
    if expectation is None:
        return step(network, text)
    who, expected = expectation[1], expectation[2].split()
    if ">" in who:
        sender, to = map(int, who.split(">"))
        return mail_differences(network, sender, to, expected)
    if "/" in who:
        leader, peer = map(int, who.split("/"))
        progress = network.members[leader].raft.progress.get(peer)
        return differences(progress_facts(progress), expected, bare="state")
    return [
        f"{member}: {wrong}"
        for member in map(int, who.split())
        for wrong in differences(facts_of(network.members[member]), expected, bare="role")
    ]


def step(network: Network, text: str) -> list[str]:
    """Carry out one step; return what it should have been refused for and was not."""
    said, _, refusal = text.partition(" ! ")
    verb, *words = said.split()
    perform: Callable[[Network, Words], None] = VERBS[verb]
    refused = None
    try:
        perform(network, Words.of(words))
    except (ProposalDropped, ChangeRefused) as error:
        refused = str(error)
    network.collect()
    if refused is None:
        return [f"not refused ({refusal.strip()})"] if refusal else []
    if not refusal or refusal.strip() not in refused:
        return [f"refused: {refused}"]
    return []
