"""What transcripts can assert: facts of a member, of a member's progress, of the mail."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from etcd_pinwheel.server_stub.raft.progress import Progress

from .mail import agrees, shown
from .member import Member
from .network import Network, configuration_of

NOTHING = "-"


def ids(members: Iterable[int]) -> str:
    return ",".join(map(str, sorted(members))) or NOTHING


def terms_of(member: Member) -> str:
    """Write the terms of the log, shortly: ``1,2x3`` is one entry of term 1 and three of term 2."""
    log = member.raft.log
    terms = [log.term(index) for index in range(log.first_index, log.last_index + 1)]
    runs = [(term, len(list(run))) for term, run in groupby(terms)]
    return ",".join(f"{term}x{n}" if n > 1 else f"{term}" for term, n in runs) or NOTHING


def facts_of(member: Member) -> dict[str, str]:
    """Return all that can be said of a member."""
    raft, configuration = member.raft, configuration_of(member)
    reads = (f"{context.decode()}@{index}" for index, context in member.reads)
    return {
        "role": raft.role.value,
        "term": str(raft.term),
        "vote": str(raft.vote),
        "lead": str(raft.leader),
        "commit": str(raft.commit_index),
        "applied": str(raft.applied_index),
        "first": str(raft.log.first_index),
        "last": str(raft.log.last_index),
        "saved": str(raft.log.saved),
        "on-disk": str(member.disk.last_index),
        "log": terms_of(member),
        "data": ",".join(data.decode() for data in member.state.data) or NOTHING,
        "voters": ids(configuration.voters.incoming.voters),
        "outgoing": ids(configuration.voters.outgoing.voters),
        "learners": ids(configuration.learners),
        "next": ids(configuration.learners_next),
        "auto-leave": "yes" if configuration.auto_leave else "no",
        "transferee": str(raft.transferee),
        "reads": ",".join(reads) or NOTHING,
    }


def progress_facts(progress: Progress | None) -> dict[str, str]:
    """Return all that can be said of a member in the eyes of its leader."""
    if progress is None:
        return {"state": "absent"}
    return {
        "state": progress.state.value,
        "match": str(progress.match),
        "next": str(progress.next),
        "learner": "yes" if progress.is_learner else "no",
        "active": "yes" if progress.recent_active else "no",
        "paused": "yes" if progress.is_paused else "no",
        "inflight": str(len(progress.inflights)),
        "snapshot": str(progress.pending_snapshot),
    }


def differences(facts: dict[str, str], expected: Iterable[str], bare: str) -> list[str]:
    """Compare facts with ``name=value`` words; a word alone is the value of the fact `bare`."""
    wrong = []
    for word in expected:
        name, _, value = word.rpartition("=")
        if (name := name or bare) not in facts:
            raise ValueError(f"there is no fact {name}, only {', '.join(facts)}")
        if facts[name] != value:
            wrong.append(f"{name} is {facts[name]}, not {value}")
    return wrong


def mail_differences(network: Network, sender: int, to: int, expected: list[str]) -> list[str]:
    """Compare the mail from one to another, in the order sent, with the messages expected."""
    mail = [m for m in network.mail if (m.sender, m.to) == (sender, to)]
    wanted = [word for word in expected if word != NOTHING]
    if len(mail) == len(wanted) and all(map(agrees, wanted, mail)):
        return []
    return [f"the mail is {' '.join(map(shown, mail)) or NOTHING}, not {' '.join(expected)}"]
