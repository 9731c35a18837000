"""A few cores joined by a network without delay, checked after every step; for unit tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

from etcd_pinwheel.protos import raftpb
from etcd_pinwheel.server_stub.raft.confchange import AnyChange, decode_change
from etcd_pinwheel.server_stub.raft.config import Config
from etcd_pinwheel.server_stub.raft.core import Raft, Role
from etcd_pinwheel.server_stub.raft.log import Log
from etcd_pinwheel.server_stub.raft.messages import Message

ELECTION_TICKS = 10


def entries_of(terms: Sequence[int], after: int = 0) -> list[raftpb.Entry]:
    """Entries of these terms, from behind index `after` on."""
    return [
        raftpb.Entry(Index=index, Term=term, Data=b"%d.%d" % (index, term))
        for index, term in enumerate(terms, after + 1)
    ]


def change(type_: int, member: int) -> raftpb.ConfChange:
    made = raftpb.ConfChange(node_id=member)
    made.type = type_  # type: ignore[assignment]
    return made


def add_voter(member: int) -> raftpb.ConfChange:
    return change(raftpb.ConfChangeAddNode, member)


def add_learner(member: int) -> raftpb.ConfChange:
    return change(raftpb.ConfChangeAddLearnerNode, member)


def remove(member: int) -> raftpb.ConfChange:
    return change(raftpb.ConfChangeRemoveNode, member)


def core(
    member: int = 1,
    voters: Iterable[int] = (1, 2, 3),
    learners: Iterable[int] = (),
    *,
    terms: Sequence[int] = (),
    term: int = 0,
    vote: int = 0,
    committed: int = 0,
    jitter: Callable[[int], int] = lambda n: 0,
    snapshot: Callable[[], raftpb.Snapshot | None] = lambda: None,
    **settings: int | bool,
) -> Raft:
    """Make one core with a log of entries of these terms, of which some are committed."""
    return Raft(
        Config(id=member, election_ticks=ELECTION_TICKS, **settings),
        Log(entries_of(terms)),
        raftpb.HardState(term=max([term, *terms]), vote=vote, commit=committed),
        raftpb.ConfState(voters=voters, learners=learners),
        jitter,
        snapshot,
    )


def save(raft: Raft) -> bool:
    """Save what is to be saved; whether there was anything."""
    ready = raft.ready()
    if ready is not None:
        raft.saved(ready)
        raft.check()
    return ready is not None


def apply(raft: Raft) -> list[bytes]:
    """Apply what is committed; return the data of ordinary entries."""
    data = []
    while entries := raft.committed(1000):
        for entry in entries:
            if entry.Type != raftpb.EntryNormal:
                raft.apply_change(decode_change(entry))
            elif entry.Data:
                data.append(entry.Data)
            raft.applied(entry.Index)
            raft.check()
    return data


def run(raft: Raft) -> list[Message]:
    """Save and apply until there is nothing left to do; return all that is sent meanwhile."""
    sent = raft.messages()
    while save(raft):
        sent += raft.messages()
        apply(raft)
        sent += raft.messages()
    apply(raft)
    return sent + raft.messages()


def only(messages: Iterable[Message], type_: int) -> list[Message]:
    return [message for message in messages if message.type == type_]


def elected(raft: Raft) -> Raft:
    """Have `raft` lead, by the vote of everybody else, and forget what it sent for that."""
    raft.campaign()
    run(raft)
    for response in (raftpb.MsgPreVoteResp, raftpb.MsgVoteResp):
        term = raft.term + (raft.role is Role.PRE_CANDIDATE)
        for voter in list(raft.configuration.voters):
            if voter != raft.id:
                raft.step(Message(response, raft.id, voter, term))
        run(raft)
    assert raft.role is Role.LEADER
    return raft


def snapshot_of(index: int, term: int = 1, voters: tuple[int, ...] = (1, 2, 3)) -> raftpb.Snapshot:
    state = raftpb.ConfState(voters=voters)
    return raftpb.Snapshot(
        metadata=raftpb.SnapshotMetadata(index=index, term=term, conf_state=state)
    )


def ack(raft: Raft, member: int, index: int) -> None:
    raft.step(Message(raftpb.MsgAppResp, raft.id, member, raft.term, index=index))
    raft.check()


def heartbeat_answer(raft: Raft, member: int) -> list[Message]:
    raft.step(Message(raftpb.MsgHeartbeatResp, raft.id, member, raft.term))
    raft.check()
    return run(raft)


def append(
    raft: Raft, index: int, log_term: int, terms: list[int], commit: int = 0, term: int = 5
) -> None:
    raft.step(
        Message(
            raftpb.MsgApp,
            raft.id,
            2,
            term,
            log_term=log_term,
            index=index,
            entries=entries_of(terms, index),
            commit=commit,
        )
    )
    raft.check()


def log_terms(raft: Raft) -> list[int]:
    return [entry.Term for entry in raft.log.slice(raft.log.first_index, raft.log.last_index + 1)]


class Group:
    """Cores that hear each other at once, unless a link is cut."""

    def __init__(self, *rafts: Raft) -> None:
        self.rafts: dict[int, Raft] = {raft.id: raft for raft in rafts}
        self.data: dict[int, list[bytes]] = {raft.id: [] for raft in rafts}
        self.cut: set[tuple[int, int]] = set()
        self.lose: Callable[[Message], bool] = lambda message: False
        self.sent: list[Message] = []
        """All that was ever sent."""

    @classmethod
    def of(
        cls,
        voters: Iterable[int] = (1, 2, 3),
        learners: Iterable[int] = (),
        *,
        terms: Mapping[int, Sequence[int]] | None = None,
        **settings: int | bool,
    ) -> Group:
        """Make a group of members with these logs (of one term per entry)."""
        voters, learners = list(voters), list(learners)
        return cls(
            *(
                core(
                    member,
                    voters,
                    learners,
                    terms=(terms or {}).get(member, ()),
                    jitter=random.Random(member).randrange,
                    **settings,
                )
                for member in (*voters, *learners)
            )
        )

    def __getitem__(self, member: int) -> Raft:
        return self.rafts[member]

    def isolate(self, *members: int) -> None:
        """Cut these from the others (and not from each other)."""
        for one in self.rafts:
            for other in self.rafts:
                if (one in members) != (other in members):
                    self.cut.add((one, other))

    def heal(self) -> None:
        self.cut.clear()

    def settle(self) -> None:
        """Deliver, save and apply until all is quiet."""
        for turn in count():
            assert turn < 1000, "this never ends"
            mail, busy = [], False
            for raft in self.rafts.values():
                mail += raft.messages()
                while save(raft):
                    busy = True
                    mail += raft.messages()
                self.data[raft.id] += apply(raft)
                mail += raft.messages()
            if not mail and not busy:
                return
            self.deliver(mail)

    def deliver(self, mail: Iterable[Message]) -> None:
        for message in mail:
            self.sent.append(message)
            if (message.sender, message.to) in self.cut or self.lose(message):
                continue
            if message.to in self.rafts:
                self.rafts[message.to].step(message)
                self.rafts[message.to].check()

    def elect(self, member: int) -> None:
        """Have `member` campaign; it must win."""
        self[member].campaign()
        self.settle()
        assert self[member].role is Role.LEADER

    def elect_by_timeout(self, member: int) -> None:
        """Let `member` and those that it hears notice that nobody leads, and have it win."""
        for raft in self.rafts.values():
            if (raft.id, member) not in self.cut:
                raft.forget_leader()
        self.elect(member)

    def tick(self, member: int, ticks: int = 1) -> None:
        for _ in range(ticks):
            self[member].tick()
            self[member].check()

    def tick_all(self, ticks: int = 1) -> None:
        """Let time pass for everybody, each tick with all that comes of it."""
        for _ in range(ticks):
            for raft in self.rafts.values():
                raft.tick()
            self.settle()

    def propose(self, member: int, data: bytes) -> None:
        self[member].propose(data)
        self.settle()

    def change(self, member: int, wanted: AnyChange) -> None:
        self[member].propose_change(wanted)
        self.settle()

    def roles(self) -> list[Role]:
        return [raft.role for raft in self.rafts.values()]
