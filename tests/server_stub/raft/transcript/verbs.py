"""The steps of transcripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.messages import Message

from .mail import name_of
from .member import Member, State
from .network import Network, Picks

CHANGE_TYPES = {
    "+": raftpb.ConfChangeAddNode,
    "~": raftpb.ConfChangeAddLearnerNode,
    "-": raftpb.ConfChangeRemoveNode,
    "!": raftpb.ConfChangeUpdateNode,
}
TRANSITIONS = {
    "auto": raftpb.ConfChangeTransitionAuto,
    "implicit": raftpb.ConfChangeTransitionJointImplicit,
    "explicit": raftpb.ConfChangeTransitionJointExplicit,
}
SETTINGS = {field.name for field in fields(Config)} - {"id"}


@dataclass(frozen=True, slots=True)
class Words:
    """The words behind a verb."""

    ids: list[int]
    options: dict[str, str]
    others: list[str]

    @classmethod
    def of(cls, words: list[str]) -> Words:
        options = dict(word.split("=", 1) for word in words if "=" in word)
        rest = [word for word in words if "=" not in word]
        return cls(
            [int(word) for word in rest if word.isdigit()],
            options,
            [word for word in rest if not word.isdigit()],
        )


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def terms(text: str) -> list[int]:
    """Read the terms of a log: ``1,2x3`` is 1, 2, 2, 2."""
    runs = (word.partition("x") for word in text.split(",") if word)
    return [int(term) for term, _, count in runs for _ in range(int(count or 1))]


def setting(text: str) -> int | bool:
    return {"on": True, "off": False}[text] if text in ("on", "off") else int(text)


def nodes(network: Network, words: Words) -> None:
    options = dict(words.options)
    voters = numbers(options.pop("voters", ",".join(map(str, words.ids))))
    conf_state = raftpb.ConfState(voters=voters, learners=numbers(options.pop("learners", "")))
    index, _, index_term = options.pop("compacted", "0.0").partition(".")
    log, term = terms(options.pop("log", "")), int(options.pop("term", "0"))
    unknown = set(options) - SETTINGS
    assert not unknown, f"there is no setting {unknown}"
    settings = {name: setting(value) for name, value in options.items()}
    for member_id in words.ids:
        state = State(int(index), int(index_term), conf_state, ())
        network.add(Member(Config(id=member_id, **settings), state, log, term))


def of_each(act: Callable[[Member], object]) -> Callable[[Network, Words], None]:
    """A verb that does one thing to each member named."""

    def verb(network: Network, words: Words) -> None:
        for member_id in words.ids:
            act(network.members[member_id])
            network.collect()

    return verb


def of_one(act: Callable[[Member, Words], object]) -> Callable[[Network, Words], None]:
    """A verb whose first word is a member."""

    def verb(network: Network, words: Words) -> None:
        act(network.members[words.ids[0]], words)

    return verb


def change(member: Member, words: Words) -> None:
    version, *rest = words.others
    transition = [TRANSITIONS[word] for word in rest if word in TRANSITIONS]
    steps = [re.fullmatch(r"([-+~!])(\d+)", word) for word in rest if word not in TRANSITIONS]
    singles = [
        raftpb.ConfChangeSingle(type=CHANGE_TYPES[step[1]], node_id=int(step[2]))
        for step in steps
        if step is not None
    ]
    assert len(singles) == len(steps), f"not a change: {rest}"
    if version == "v1":
        (single,) = singles
        v1 = raftpb.ConfChange(type=single.type, node_id=single.node_id)
        member.raft.propose_change(v1)
    else:
        v2 = raftpb.ConfChangeV2(changes=singles, transition=[*transition, TRANSITIONS["auto"]][0])
        member.raft.propose_change(v2)


def tick(network: Network, words: Words) -> None:
    """Let time pass, for all members named at the same pace."""
    count = next((int(word[1:]) for word in words.others if word[0] == "x"), 1)
    for _ in range(count):
        for member_id in words.ids:
            network.members[member_id].raft.tick()
            network.collect()


def heartbeat(member: Member) -> None:
    for _ in range(member.config.heartbeat_ticks):
        member.raft.tick()


def timeout(member: Member, words: Words) -> None:
    """Set what the core draws from its next draw on."""
    member.jitter = words.ids[1]


def picks_of(words: Words) -> Picks:
    senders = numbers(words.options.get("from", ""))
    kinds = [kind for kind in words.options.get("only", "").split(",") if kind]

    def picks(message: Message) -> bool:
        return (
            message.to in words.ids
            and (not senders or message.sender in senders)
            and (not kinds or name_of(message).rstrip("!") in kinds)
        )

    return picks


def first(count: int, picks: Picks) -> Picks:
    """Pick no more than `count` messages, and the same ones when asked about them again."""
    chosen: list[Message] = []

    def limited(message: Message) -> bool:
        if any(message is one for one in chosen):
            return True
        if len(chosen) < count and picks(message):
            chosen.append(message)
            return True
        return False

    return limited


def deliver(network: Network, words: Words) -> None:
    picks = picks_of(words)
    if "first" in words.options:
        picks = first(int(words.options["first"]), picks)
    count = network.deliver(
        picks, keep="keep" in words.others, newest_first="reversed" in words.others
    )
    assert count, "there is no such mail"


def drop(network: Network, words: Words) -> None:
    assert network.take(picks_of(words)), "there is no such mail"


def save(network: Network, words: Words) -> None:
    for member_id in words.ids:
        assert network.save(network.members[member_id]), f"{member_id} has nothing to save"


def begin_save(network: Network, words: Words) -> None:
    for member_id in words.ids:
        assert network.begin_save(network.members[member_id]), f"{member_id} has nothing to save"


def end_save(network: Network, words: Words) -> None:
    for member_id in words.ids:
        network.end_save(network.members[member_id])


def apply(network: Network, words: Words) -> None:
    limit = int(words.options.get("limit", "1000"))
    for member_id in words.ids:
        applied = network.apply(network.members[member_id], limit)
        assert applied, f"{member_id} has nothing to apply"


def idle(network: Network, words: Words) -> None:
    """Expect that there is nothing to apply."""
    for member_id in words.ids:
        assert not network.apply(network.members[member_id]), f"{member_id} applies something"


def run(network: Network, words: Words) -> None:
    for member_id in words.ids:
        member = network.members[member_id]
        while network.save(member) or network.apply(member):
            pass


def settle(network: Network, words: Words) -> None:
    network.settle(words.ids or sorted(network.members))


def cut(network: Network, words: Words) -> None:
    """Lose everything between the members named and all the others, from now on."""
    inside, outside = set(words.ids), set(network.members) - set(words.ids)
    network.cut |= {(a, b) for a in inside for b in outside}
    network.cut |= {(b, a) for a in inside for b in outside}
    network.take(lambda message: (message.sender, message.to) in network.cut)


def heal(network: Network, words: Words) -> None:
    network.cut.clear()


def snapshot(member: Member, words: Words) -> None:
    member.snapshots_available = "no" not in words.others
    member.offered = words.ids[1] if len(words.ids) > 1 else None


def restart(network: Network, words: Words) -> None:
    applied = words.options.get("applied")
    for member_id in words.ids:
        network.restart(network.members[member_id], None if applied is None else int(applied))


def propose(member: Member, words: Words) -> None:
    for data in words.others:
        member.raft.propose(data.encode())


def status(words: Iterable[str]) -> bool:
    return {"ok": True, "failed": False}[next(iter(words))]


VERBS: dict[str, Callable[[Network, Words], None]] = {
    "nodes": nodes,
    "campaign": of_each(lambda member: member.raft.campaign()),
    "forget": of_each(lambda member: member.raft.forget_leader()),
    "propose": of_one(propose),
    "change": of_one(change),
    "read": of_one(lambda member, words: member.raft.read_index(words.others[0].encode())),
    "transfer": of_one(lambda m, words: m.raft.transfer_leader(int(words.options["to"]))),
    "unreachable": of_one(lambda member, words: member.raft.report_unreachable(words.ids[1])),
    "snapshot-status": of_one(
        lambda m, words: m.raft.report_snapshot(words.ids[1], status(words.others))
    ),
    "compact": of_one(lambda member, words: member.compact(words.ids[1])),
    "snapshot": of_one(snapshot),
    "timeout": of_one(timeout),
    "tick": tick,
    "heartbeat": of_each(heartbeat),
    "save": save,
    "begin-save": begin_save,
    "end-save": end_save,
    "apply": apply,
    "idle": idle,
    "run": run,
    "settle": settle,
    "deliver": deliver,
    "drop": drop,
    "cut": cut,
    "heal": heal,
    "restart": restart,
}
